r"""Algorithm 1 of the paper, iterated at the number of steps that is wanted: a grid whose own steps cost the same.

From a grid and the costs :math:`L_i` of its steps,

.. math::
    \Lambda_i = \sum_{j < i} L_j^{1/q}, \qquad
    \sigma_i^* = \Lambda^{-1}(i\, \Lambda_N / N), \qquad
    \ln \sigma_i \leftarrow \gamma \ln \sigma_i^* + (1 - \gamma) \ln \sigma_i,

with a monotone interpolant of the inverse map, until nothing moves. A fixed point has steps of equal cost, whatever
the exponent q; but the way there needs the q that the cost falls as. Where the cost of a step is of order p, one move
multiplies the logarithm of a step's deviation by about :math:`1 - \gamma p / q`: nothing is left of it with q = p, and
the paper's q = 2 for a predictor cost, which is of order 4, turns it around at full size, so that without damping
the grid swings for ever.

:func:`~headstart.schedule.equidistribute` on a dense grid, measured once, serves every number of steps, and is the
better choice unless steps are so long that their cost is not that of the sum of short ones.

References:
    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877, Algorithm 1. It interpolates
    and blends the time; we do so for ln sigma, which keeps levels positive and treats small and large ones alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import InputError
from headstart.schedule.base import Schedule
from headstart.schedule.optimal import Length, equidistribute

__all__ = ["FixedPoint", "fixed_point", "update"]

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class FixedPoint:
    """Where the iteration of :func:`fixed_point` ended.

    Attributes:
        schedule: the last grid.
        spreads: largest over smallest cost of a step, for every grid that was measured; the last is that before the
            last move.
        moves: the largest change of a level, relative to it, in every iteration.
        converged: whether the last move was below the tolerance.
    """

    schedule: Schedule
    spreads: tuple[float, ...]
    moves: tuple[float, ...]
    converged: bool

    def __repr__(self) -> str:
        end = "converged" if self.converged else "did not converge"
        return f"FixedPoint({end} in {len(self.moves)} iterations: largest over smallest cost {self.spreads[-1]:.4g})"


def update(schedule: Schedule, costs: ArrayLike, exponent: float, blending: float = 1.0) -> Schedule:
    """One iteration: the grid moved towards the one that cuts its own length into equal parts. Both ends stay.

    Arguments:
        schedule: the levels, at least two above 0; a step to 0 stays.
        costs: of each step above 0, not negative and not all 0. A relative floor keeps levels apart.
        exponent: the power q of the step that the cost falls as.
        blending: the share of the move that is taken, in (0, 1].

    Raises:
        InputError: if the shapes do not fit, or a number is not finite or out of its range.
    """
    if not 0 < blending <= 1:
        raise InputError(f"blending is {blending}: it must lie above 0 and be at most 1")
    levels = _above_zero(schedule)
    length = Length(levels, np.asarray(costs, dtype=np.float64), exponent)
    target = equidistribute(length, len(levels) - 1, schedule.horizon, schedule.sigma_min, final_zero=False)
    moved = levels * (np.array(target.sigmas) / levels) ** blending
    moved[0], moved[-1] = levels[0], levels[-1]
    return Schedule([*moved, 0.0] if schedule.sigmas[-1] == 0 else moved, schedule.name)


def fixed_point(
    costs: Callable[[Schedule], ArrayLike],
    schedule: Schedule,
    exponent: float,
    *,
    blending: float = 1.0,
    iterations: int = 20,
    tolerance: float = 1e-3,
) -> FixedPoint:
    """Repeat :func:`update` until no level moves by more than the tolerance.

    Arguments:
        costs: measures the steps of a grid above 0: a call an iteration.
        schedule: the first grid, with the number of steps and the ends that are wanted.
        exponent: the power q of the step that the cost falls as.
        blending: the share of each move that is taken, in (0, 1].
        iterations: how many at most.
        tolerance: of the full move, relative to the level.

    Returns:
        The last grid, and how it came about. It says whether the iteration converged; if not, that is no error.

    Raises:
        InputError: as :func:`update`, or if iterations is below 1.
    """
    if iterations < 1 or not tolerance > 0:
        raise InputError(f"there must be 1 iteration or more, and a tolerance above 0: got {iterations}, {tolerance}")
    spreads, moves = [], []
    for _ in range(iterations):
        measured = np.asarray(costs(schedule), dtype=np.float64)
        after = update(schedule, measured, exponent, blending)
        spreads.append(float(measured.max() / max(measured.min(), 1e-300)))
        step = np.log(_above_zero(after) / _above_zero(schedule)) / blending
        moves.append(float(np.abs(step).max()))
        schedule = after
        if moves[-1] < tolerance:
            break
    return FixedPoint(schedule, tuple(spreads), tuple(moves), moves[-1] < tolerance)


def _above_zero(schedule: Schedule) -> Curve:
    return np.array([s for s in schedule.sigmas if s > 0])
