r"""Grids from measured costs: equal steps of a length that says how hard each stretch of noise levels is.

A cost L(a, b) of the step from level a to level b that grows as the q-th power of the step has the length element
:math:`L^{1/q}`; a grid that cuts the total length into equal parts makes all steps equally costly, which minimises
their sum. One pass over a dense grid gives the length between any two levels, and so the grid for every horizon and
number of steps.

The paper takes the square root of every cost. That is right for the corrector cost (q = 2), but the cost of a step of
Euler's method, with the network's own score, is of fourth order (q = 4), and its square root gives the wrong grid.

References:
    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877, Theorem 3.1 and Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError
from headstart.schedule.base import Schedule
from headstart.schedule.rule import RULES, Kind, Measured, Rule

if TYPE_CHECKING:
    from scipy.interpolate import PchipInterpolator

__all__ = ["Corrector", "Cut", "Defect", "Length", "Optimal", "equidistribute"]


@dataclass(frozen=True, eq=False)
class Length:
    """The length of every stretch of noise levels, from the costs of neighbouring levels on a dense grid.

    Arguments:
        sigmas: the dense grid, strictly decreasing and above 0, shape (G,).
        costs: the cost of the step between neighbours, not negative, shape (G - 1,).
        exponent: the power q of the step that the cost grows as.

    Raises:
        InputError: if the shapes do not fit, or a number is not finite or out of its range.
    """

    sigmas: NDArray[np.float64]
    costs: NDArray[np.float64]
    exponent: float

    def __post_init__(self) -> None:
        sigmas, costs = np.asarray(self.sigmas, dtype=np.float64), np.asarray(self.costs, dtype=np.float64)
        if sigmas.ndim != 1 or costs.shape != (len(sigmas) - 1,) or len(sigmas) < 2:
            raise InputError(f"{len(sigmas)} levels have {len(sigmas) - 1} steps: got costs of shape {costs.shape}")
        if not np.isfinite(sigmas).all() or (np.diff(sigmas) >= 0).any() or sigmas[-1] <= 0:
            raise InputError("the levels of a dense grid must be finite, strictly decreasing and above 0")
        if not np.isfinite(costs).all() or (costs < 0).any() or costs.max() == 0 or not self.exponent > 0:
            raise InputError("costs must be finite, not negative and not all 0, and their exponent above 0")
        object.__setattr__(self, "sigmas", sigmas)
        object.__setattr__(self, "costs", costs)

    @property
    def cumulative(self) -> NDArray[np.float64]:
        """The length from the first level to each level, shape (G,). A relative floor keeps it strictly increasing."""
        elements = np.maximum(self.costs, 1e-12 * self.costs.max()) ** (1 / self.exponent)
        return np.concatenate([[0.0], elements.cumsum()])

    def at(self, sigma: float | Sequence[float]) -> NDArray[np.float64]:
        """The length from the first level of the dense grid to ``sigma``.

        Raises:
            InputError: if sigma lies outside the dense grid.
        """
        level = np.asarray(sigma, dtype=np.float64)
        low, high = self.sigmas[-1], self.sigmas[0]
        if (level < low * (1 - 1e-9)).any() or (level > high * (1 + 1e-9)).any():
            raise InputError(
                f"levels were measured from {high:.6g} down to {low:.6g}: got {np.atleast_1d(level).tolist()}"
            )
        # By bisection of the map back, which decreases: with an interpolant of its own a grid could turn around.
        place, inverse = np.log(np.clip(level, low, high)), self.inverse
        left, right = np.zeros_like(place), np.full_like(place, self.cumulative[-1])
        for _ in range(60):
            middle = (left + right) / 2
            before = inverse(middle) > place
            left, right = np.where(before, middle, left), np.where(before, right, middle)
        return np.asarray((left + right) / 2)

    @property
    def inverse(self) -> PchipInterpolator:
        """The map from length to ln sigma: monotone (Fritsch-Carlson), and levels stay positive."""
        from scipy.interpolate import PchipInterpolator

        return PchipInterpolator(self.cumulative, np.log(self.sigmas))

    def step_costs(self, schedule: Schedule) -> NDArray[np.float64]:
        """The cost of each step of a schedule, a step to 0 left out."""
        levels = [s for s in schedule.sigmas if s > 0]
        return np.diff(self.at(levels)) ** self.exponent


def equidistribute(
    length: Length, steps: int, horizon: float, sigma_min: float, final_zero: bool = True, name: str = "optimal"
) -> Schedule:
    """The grid that cuts the length from ``horizon`` to ``sigma_min`` into equal parts.

    Arguments:
        length: measured on a dense grid that contains both levels.
        steps: number of steps; with ``final_zero`` the last one goes from ``sigma_min`` to 0.
        horizon: the first level.
        sigma_min: the last level above 0.
        final_zero: whether a last step goes to 0.
        name: the schedule's name.

    Raises:
        InputError: if steps is below 1, or the levels are out of order or outside the dense grid.
    """
    if steps < 1 or not (math.isfinite(horizon) and horizon > sigma_min > 0):
        raise InputError(
            f"a grid needs 1 step or more, and a horizon above sigma_min above 0: got {steps}, {horizon}, {sigma_min}"
        )
    start, stop = length.at([horizon, sigma_min])
    levels = np.exp(length.inverse(np.linspace(start, stop, steps + (not final_zero))))
    levels[-1], levels[0] = sigma_min, horizon  # in this order: a single level is the horizon
    return Schedule([*levels, 0.0] if final_zero else levels, name)


@RULES.register
class Optimal(Kind):
    """Equal parts of a length that is handed in."""

    name = "optimal"
    cites = ("williams2024score",)


@dataclass(frozen=True)
class Cut(Rule):
    """Equal parts of the length by one of the profile's costs, which is the rule's name.

    Arguments:
        exponent: the power of the step that the cost is taken to grow as, finite and above 0; its order by default.
    """

    cites = ("williams2024score",)
    usual = True

    exponent: float | None = None

    def __post_init__(self) -> None:
        if self.exponent is not None and not 0 < self.exponent < math.inf:
            raise InputError(f"an exponent is finite and above 0: got {self.exponent}")

    def levels(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any) -> Schedule:
        return equidistribute(profile.length(self.name, self.exponent), steps, horizon, sigma_min, name=self.name)


@RULES.register
class Defect(Cut):
    """Equal parts of the length by the cost of a step of Euler's method, of order 4."""

    name = "defect"


@RULES.register
class Corrector(Cut):
    """Equal parts of the length by the corrector cost of the paper on optimal schedules, of order 2."""

    name = "corrector"
