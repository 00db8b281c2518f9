r"""GITS: the levels of a fine grid that Euler's method needs to stay on known trajectories, by dynamic programming.

A teacher leaves the states :math:`x_i` at its levels :math:`s_0 > \dots > s_G > 0`. One step of Euler's method from
there to any lower level, and what it costs:

.. math::
    F_{ij} = x_i + (s_j - s_i)\, \frac{x_i - D(x_i, s_i)}{s_i}, \qquad
    c_{ij} = E\big[ \|P F_{ij}\| - \|P x_j\| \big],

where P measures from the chord of a trajectory: it takes :math:`x - x_0` and leaves out what is parallel to
:math:`x_G - x_0`. The deviation from the chord is what trajectories of many networks have in common: small, and of one
shape. The cheapest way in n steps from every level to the last one follows from

.. math:: V_0(s_G) = 0, \qquad V_n(s_i) = \min_{j > i} \big[ c_{ij} + \gamma\, V_{n-1}(s_j) \big],

where :math:`\gamma > 1` makes up for errors that add up and that the costs, each measured from a state of the teacher,
do not see.

A step that ends too close to the chord has a cost below 0, and an error along the chord has none. On an isotropic
Gaussian, whose trajectories are straight lines although D moves, every cost is 0, and every grid as good as any other.
The alternatives are the distances :math:`E\, \|F_{ij} - x_j\|` in the norms ``l1`` and ``l2``, and in few dimensions,
where a chord takes up much of the space, they are the ones to use: on 25 modes in the plane, five steps of Euler's
method from 80 end 0.9 from the teacher on the grid of the deviation, 0.75 on the rho grid, and 0.44 on that of either
distance.

References:
    Chen et al., *On the Trajectory Regularity of ODE-based Diffusion Sampling*, ICML 2024, arXiv 2405.11326, and the
    code released with it, from which the form of the costs and :math:`\gamma = 1.15` are taken. Its teacher is iPNDM on
    256 trajectories, with 61 levels of the rho grid from 80 to 0.002. Its optional analytic first step is left out:
    a start at a lower horizon takes its place here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.denoiser import Denoiser, denoise, in_evaluation_mode
from headstart.errors import InputError
from headstart.schedule.base import Schedule
from headstart.schedule.dynamic import cheapest_ways
from headstart.schedule.rule import RULES, Kind

__all__ = ["GITS", "GITSMetric", "rows", "teacher_states"]

Curve = NDArray[np.float64]
GITSMetric = Literal["deviation", "l1", "l2"]


@RULES.register
@dataclass(frozen=True, eq=False)
class GITS(Kind):
    """The cheapest ways from every level of a teacher's grid to its last one above 0. Made by :meth:`of`.

    Attributes:
        sigmas: the teacher's levels above 0, decreasing, shape (G,).
        costs: :math:`c_{ij}` in the units of the states, shape (G, G); infinite where j is not below i.
        metric: what the costs measure.
        gamma: the weight of what a step's successors cost, next to its own.
        values: :math:`V_n(s_i)`, shape (G, G), for n from 0 to G - 1; infinite where n steps do not fit.
        choices: the place of the next level on that way, shape (G - 1, G).
    """

    name = "gits"
    cites = ("chen2024trajectory",)

    sigmas: Curve
    costs: Curve
    metric: GITSMetric
    gamma: float
    values: Curve
    choices: NDArray[np.int64]

    @classmethod
    @in_evaluation_mode
    def of(
        cls,
        denoiser: Denoiser,
        states: Sequence[Tensor],
        teacher: Schedule,
        *,
        metric: GITSMetric = "deviation",
        gamma: float = 1.15,
        conditions: Mapping[str, Any] | None = None,
    ) -> GITS:
        """Measure the costs, at one evaluation a sample and level, and run the programme for every number of steps.

        Arguments:
            denoiser: the network.
            states: those of the teacher at its levels, each of shape (B, \\*S): ``[x, *solver.trajectory(denoiser, x,
                teacher)]``. The solver should be a good one: its errors count as truth. A state at 0 is not used.
            teacher: its levels, at least two above 0.
            metric: what the costs measure.
            gamma: above 0; the release has 1.15 for images, and 1.2 for Stable Diffusion.
            conditions: handed to the denoiser, of B samples.

        Raises:
            DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
            InputError: if the states do not fit the levels or are not finite, if a trajectory ends where it begins and
                so has no chord, or if the metric is unknown or gamma out of its range.
        """
        if metric not in get_args(GITSMetric):
            raise InputError(f"unknown metric {metric!r}: expected deviation, l1 or l2")
        if not (math.isfinite(gamma) and gamma > 0):
            raise InputError(f"gamma is {gamma}: it must be finite and above 0")
        sigmas, above = teacher_states(states, teacher)
        costs = _costs(denoiser, above, sigmas, metric, conditions or {})
        values, choices = cheapest_ways(costs, len(costs) - 1, gamma)
        return cls(sigmas, costs, metric, float(gamma), values, choices)

    @property
    def steps(self) -> int:
        """The largest number of steps above 0: all levels of the teacher."""
        return len(self.choices)

    def schedule(self, steps: int, horizon: float | None = None, final_zero: bool = True) -> Schedule:
        """The best grid among the teacher's levels.

        Arguments:
            steps: number of steps; with ``final_zero`` the last one goes from the last level above 0 to 0.
            horizon: the first level, one of the teacher's; by default its first. The costs stay those of trajectories
                from the teacher's first level.
            final_zero: whether a last step goes to 0.

        Raises:
            InputError: if there are no such steps, or the horizon is no level of the teacher.
        """
        zero = [0.0] if final_zero else []
        above, place = steps - len(zero), self._place(horizon)
        way = [self.sigmas[place]]
        if not (final_zero and above == 0):
            self._value(above, place)  # refuses what does not fit
        for left in range(above, 0, -1):
            place = int(self.choices[left - 1, place])
            way.append(self.sigmas[place])
        return Schedule([*way, *zero], f"GITS {self.metric}")

    def cost(self, steps: int, horizon: float | None = None) -> float:
        """:math:`V_n` of the best grid of so many steps above 0. Arguments and errors as there."""
        return self._value(steps, self._place(horizon))

    def _place(self, horizon: float | None) -> int:
        """Which level of the teacher a horizon is."""
        if horizon is None:
            return 0
        found = np.flatnonzero(np.isclose(self.sigmas[:-1], horizon, rtol=1e-9, atol=0.0))
        if len(found) == 0:
            near = float(self.sigmas[int(np.abs(self.sigmas[:-1] - horizon).argmin())])
            raise InputError(
                f"the horizon must be a level of the teacher above its last, {self.sigmas[-1]:.6g}: got {horizon}, and "
                f"the nearest is {near!r}"
            )
        return int(found[0])

    def _value(self, steps: int, place: int) -> float:
        most = self.steps - place
        if not 1 <= steps <= most:
            raise InputError(
                f"between {self.sigmas[place]:.6g} and {self.sigmas[-1]:.6g} the teacher has levels for 1 to {most} "
                f"steps above 0: got {steps}"
            )
        return float(self.values[steps, place])

    def __repr__(self) -> str:
        return (
            f"GITS({self.metric}, gamma {self.gamma:g}: {len(self.sigmas)} levels from {self.sigmas[0]:.4g} to "
            f"{self.sigmas[-1]:.4g})"
        )


def teacher_states(states: Sequence[Tensor], teacher: Schedule) -> tuple[Curve, list[Tensor]]:
    """A teacher's levels above 0, shape (G,), and its states there, checked.

    Raises:
        InputError: if there are fewer than two levels above 0, or not one state a level, or if the states differ in
            shape, hold no samples, or are not finite floating-point numbers.
    """
    sigmas = np.array([s for s in teacher.sigmas if s > 0])
    if len(sigmas) < 2:
        raise InputError(f"a teacher needs at least two levels above 0: got {teacher!r}")
    if len(states) != len(teacher.sigmas):
        raise InputError(
            f"the teacher has {len(teacher.sigmas)} levels, the first and the last included, and as many states: got "
            f"{len(states)}"
        )
    shape = states[0].shape
    if len(shape) < 2 or 0 in shape or any(x.shape != shape for x in states):
        shapes = sorted({tuple(x.shape) for x in states})
        raise InputError(f"the states at all levels have one shape (B, ...) with B at least 1: got {shapes}")
    for sigma, x in zip(teacher.sigmas, states, strict=True):
        if not (x.is_floating_point() and torch.isfinite(x).all()):
            raise InputError(f"the states must be finite floating-point numbers: those at sigma = {sigma:.6g} are not")
    return sigmas, list(states[: len(sigmas)])


def rows(x: Tensor) -> Tensor:
    """States (B, \\*S) as rows (B, d), float64, CPU."""
    return x.detach().flatten(1).cpu().double()


@torch.no_grad()
def _costs(
    denoiser: Denoiser, states: Sequence[Tensor], sigmas: Curve, metric: GITSMetric, conditions: Mapping[str, Any]
) -> Curve:
    """The matrix :math:`c_{ij}` at the top of this module."""
    start = rows(states[0])
    project = _off_chord(start, rows(states[-1])) if metric == "deviation" else _whole
    places = [project(rows(x) - start) for x in states]
    costs = np.full((len(sigmas), len(sigmas)), np.inf)
    for i, a in enumerate(sigmas[:-1]):
        slope = project(rows(states[i] - denoise(denoiser, states[i], float(a), **conditions)) / a)
        for j in range(i + 1, len(sigmas)):
            costs[i, j] = _error(places[i] + (sigmas[j] - a) * slope, places[j], metric)
    return costs


def _off_chord(start: Tensor, end: Tensor) -> Callable[[Tensor], Tensor]:
    """The projection that leaves out what is parallel to the chord of each trajectory."""
    chord = end - start
    length = torch.linalg.vector_norm(chord, dim=1, keepdim=True)
    if (length == 0).any():
        raise InputError("a trajectory ends where it begins: it has no chord to measure the deviation from")
    unit = chord / length
    return lambda v: v - (v * unit).sum(1, keepdim=True) * unit


def _whole(v: Tensor) -> Tensor:
    return v


def _error(euler: Tensor, teacher: Tensor, metric: GITSMetric) -> float:
    """The mean error over samples of states that were projected for the metric."""
    norm = torch.linalg.vector_norm
    if metric == "deviation":
        return float((norm(euler, dim=1) - norm(teacher, dim=1)).mean())
    return float(norm(euler - teacher, ord=1 if metric == "l1" else 2, dim=1).mean())
