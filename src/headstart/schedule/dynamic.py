r"""The best grids of a stochastic sampler, by dynamic programming: all horizons and all numbers of steps at once.

A sampler that goes from level a to b < a by :math:`N(r x + (1 - r) D(x, a),\, \tau^2 I)`, :math:`r = b^2 / a^2`, adds
a term T(a, b) to the divergence of its path that depends on the network through its denoising loss l(a) alone. With
:math:`\Delta u = b^{-2} - a^{-2}` and dimension d,

=======  =====================================  ===================================================
variance :math:`\tau^2`                         :math:`T(a, b)`
=======  =====================================  ===================================================
``ddpm`` :math:`b^2 (1 - r)`                    :math:`\tfrac12 \Delta u\, l`
``em``   :math:`a^2 - b^2`                      :math:`\tfrac12 [r\, \Delta u\, l - d (1 - r) - d \ln r]`
``opt``  :math:`b^2 (1 - r)(1 + \Delta u l/d)`  :math:`\tfrac d2 \ln(1 + \Delta u\, l / d)`
=======  =====================================  ===================================================

so that the cheapest way in n steps from every level of a dense grid to the last one follows from

.. math:: V_0(\sigma_G) = 0, \qquad V_n(\sigma_i) = \min_{k > i} \big[ T(\sigma_i, \sigma_k) + V_{n-1}(\sigma_k) \big].

The grids are optimal for the divergence of the path, which for ``ddpm`` is the discrete evidence lower bound; with an
exact denoiser they minimise the bound of Align Your Steps too. They are not those of a deterministic sampler, for
which see :func:`~headstart.schedule.equidistribute`.

References:
    Watson et al., *Learning to Efficiently Sample from Diffusion Probabilistic Models*, 2021, arXiv 2106.03802 (the
    dynamic programme, with the terms of a variance-preserving ``ddpm``).

    Sabour et al., *Align Your Steps*, ICML 2024, arXiv 2404.14507.

    Bao et al., *Analytic-DPM*, ICLR 2022, arXiv 2201.06503 (``opt``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import InputError
from headstart.schedule.base import Schedule
from headstart.schedule.rule import RULES, Kind

if TYPE_CHECKING:
    from scipy.interpolate import PchipInterpolator

__all__ = ["ReverseVariance", "ShortestPaths", "cheapest_ways", "path_terms"]

Curve = NDArray[np.float64]
ReverseVariance = Literal["ddpm", "em", "opt"]


def path_terms(
    a: ArrayLike, b: ArrayLike, loss: ArrayLike, dimension: int, variance: ReverseVariance = "ddpm"
) -> Curve:
    """T(a, b) in nats, for arrays that broadcast.

    Arguments:
        a: the levels that steps start from.
        b: the levels that they end at, below a and above 0.
        loss: the denoising loss at a, summed over coordinates.
        dimension: d, the number of coordinates.
        variance: of the reverse steps.

    Raises:
        InputError: if the variance is unknown.
    """
    if variance not in get_args(ReverseVariance):
        raise InputError(f"unknown variance {variance!r}: expected ddpm, em or opt")
    a, b, loss = (np.asarray(v, dtype=np.float64) for v in (a, b, loss))
    r, du = (b / a) ** 2, b**-2 - a**-2
    if variance == "ddpm":
        return np.asarray(0.5 * du * loss)
    if variance == "em":
        return np.asarray(0.5 * (r * du * loss - dimension * (1 - r) - dimension * np.log(r)))
    return np.asarray(0.5 * dimension * np.log1p(du * loss / dimension))


@RULES.register
@dataclass(frozen=True, eq=False)
class ShortestPaths(Kind):
    """The cheapest ways from every level of a dense grid to its last one. Made by :meth:`of`.

    Attributes:
        sigmas: the dense grid, decreasing, shape (G,).
        loss: the denoising loss at each, shape (G,).
        dimension: the number of coordinates.
        variance: of the reverse steps.
        values: :math:`V_n(\\sigma_i)` in nats, shape (N + 1, G); infinite where n steps do not fit.
        choices: the place of the next level on that way, shape (N, G).
    """

    name = "dynamic"
    cites = ("watson2021learning", "sabour2024align")

    sigmas: Curve
    loss: Curve
    dimension: int
    variance: ReverseVariance
    values: Curve
    choices: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        sigmas: ArrayLike,
        loss: ArrayLike,
        dimension: int,
        steps: int,
        variance: ReverseVariance = "ddpm",
        sigma_min: float | None = None,
        nodes: int = 400,
    ) -> ShortestPaths:
        """Run the programme: memory of order nodes squared, time of order steps times that.

        The loss is made monotone first, as that of an exact denoiser is, by isotonic regression: the programme would
        make the most of every dip that is only noise.

        Arguments:
            sigmas: the levels that the loss was measured at, decreasing and above 0, as those of a profile.
            loss: the loss at each, summed over coordinates and averaged over samples, above 0.
            dimension: the number of coordinates.
            steps: the largest number of steps above 0.
            variance: of the reverse steps.
            sigma_min: the level that all ways end at; the last of ``sigmas`` by default.
            nodes: levels of the dense grid, log-spaced. The optimum is flat: with 400 the terms are within a
                thousandth of it.

        Raises:
            InputError: if the shapes do not fit, or a number is not finite or out of its range.
        """
        from scipy.optimize import isotonic_regression

        s, measured = np.asarray(sigmas, dtype=np.float64), np.asarray(loss, dtype=np.float64)
        if s.ndim != 1 or len(s) < 2 or measured.shape != s.shape:
            raise InputError(f"each level has one loss: got shapes {s.shape} and {measured.shape}")
        if not np.isfinite(s).all() or (np.diff(s) >= 0).any() or s[-1] <= 0:
            raise InputError("the levels must be finite, strictly decreasing and above 0")
        if not np.isfinite(measured).all() or (measured <= 0).any():
            raise InputError("the denoising loss must be finite and above 0 at every level")
        last = float(s[-1]) if sigma_min is None else sigma_min
        if not s[-1] * (1 - 1e-9) <= last < s[0]:
            raise InputError(f"sigma_min is {sigma_min}: it must lie within the levels, {s[0]:.6g} to {s[-1]:.6g}")
        if dimension < 1 or steps < 1 or nodes <= steps:
            raise InputError(
                f"dimension and steps are 1 or more, and nodes more than steps: got {dimension}, {steps} and {nodes}"
            )
        rising = isotonic_regression(measured, increasing=False).x
        dense = np.geomspace(s[0], last, nodes)
        dense[0], dense[-1] = s[0], last
        at = _curve(s, rising)(np.log(np.clip(dense, s[-1], s[0])))
        values, choices = cheapest_ways(_terms(dense, np.exp(at), dimension, variance), steps)
        return cls(dense, np.exp(at), dimension, variance, values, choices)

    @property
    def steps(self) -> int:
        """The largest number of steps above 0."""
        return len(self.choices)

    def schedule(self, steps: int, horizon: float, final_zero: bool = True) -> Schedule:
        """The best grid from a horizon, which need not be a level of the dense grid.

        Arguments:
            steps: number of steps; with ``final_zero`` the last one goes to 0.
            horizon: the first level.
            final_zero: whether a last step goes to 0.

        Raises:
            InputError: if there are no such steps, or the horizon lies outside the dense grid.
        """
        zero = [0.0] if final_zero else []
        above = steps - len(zero)
        self._check_horizon(horizon)
        if final_zero and above == 0:
            return Schedule([horizon, *zero], self._name)
        _, place = self._first(above, horizon)
        way = [horizon, self.sigmas[place]]
        for left in range(above - 1, 0, -1):
            place = int(self.choices[left - 1, place])
            way.append(self.sigmas[place])
        return Schedule([*way, *zero], self._name)

    def cost(self, steps: int, horizon: float) -> float:
        """The sum of T in nats along the best grid of so many steps above 0. Arguments and errors as there."""
        return self._first(steps, horizon)[0]

    def _first(self, steps: int, horizon: float) -> tuple[float, int]:
        """The cost of the best way from the horizon, and where its first step leads."""
        if not 1 <= steps <= self.steps:
            raise InputError(f"the programme was run for 1 to {self.steps} steps above 0: got {steps}")
        self._check_horizon(horizon)
        low, high = self.sigmas[-1], self.sigmas[0]
        loss = math.exp(float(_curve(self.sigmas, self.loss)(math.log(min(horizon, high)))))
        below = np.flatnonzero(self.sigmas < horizon * (1 - 1e-9))
        terms = path_terms(horizon, self.sigmas[below], loss, self.dimension, self.variance)
        total = terms + self.values[steps - 1, below]
        best = int(total.argmin())
        if not math.isfinite(total[best]):
            raise InputError(f"{steps} steps do not fit between {horizon:.6g} and {low:.6g} on the dense grid")
        return float(total[best]), int(below[best])

    def _check_horizon(self, horizon: float) -> None:
        low, high = self.sigmas[-1], self.sigmas[0]
        if not low < horizon * (1 - 1e-9) <= high:
            raise InputError(f"the horizon must lie above {low:.6g} and at most at {high:.6g}: got {horizon:.6g}")

    @classmethod
    def cited(cls, *parameters: str) -> tuple[str, ...]:
        return (*cls.cites, "bao2022analytic") if parameters == ("opt",) else cls.cites

    @property
    def _name(self) -> str:
        return f"dynamic {self.variance}"

    def __repr__(self) -> str:
        return (
            f"ShortestPaths({self.variance}: up to {self.steps} steps, {len(self.sigmas)} levels from "
            f"{self.sigmas[0]:.4g} to {self.sigmas[-1]:.4g})"
        )


def _curve(sigmas: Curve, loss: Curve) -> PchipInterpolator:
    """The map from ln sigma to the logarithm of the loss: monotone."""
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(np.log(sigmas[::-1]), np.log(loss[::-1]))


def _terms(sigmas: Curve, loss: Curve, dimension: int, variance: ReverseVariance) -> Curve:
    """T from every level to every lower one, and infinite to the others, shape (G, G)."""
    above = sigmas[:, None]
    terms = path_terms(above, np.minimum(sigmas, above), loss[:, None], dimension, variance)
    terms[np.tri(len(sigmas), dtype=bool)] = np.inf
    return terms


def cheapest_ways(costs: Curve, steps: int, gamma: float = 1.0) -> tuple[Curve, NDArray[np.int64]]:
    r"""The recursion at the top of this module.

    Arguments:
        costs: of a step from level i to level j, shape (G, G); infinite where j is not below i.
        steps: the largest number of steps.
        gamma: the weight of what a step's successors cost, next to its own.

    Returns:
        :math:`V_n(\sigma_i)`, shape (steps + 1, G), infinite where n steps do not fit; and the place of the next level
        on that way, shape (steps, G).
    """
    count = len(costs)
    values, choices = np.full((steps + 1, count), np.inf), np.zeros((steps, count), dtype=np.int64)
    values[0, -1] = 0.0
    for n in range(1, steps + 1):
        total = costs + gamma * values[n - 1]
        choices[n - 1] = total.argmin(axis=1)
        values[n] = total.min(axis=1)
    return values, choices
