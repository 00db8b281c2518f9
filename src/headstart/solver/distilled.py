r"""A solver whose weights are given, for one number of steps: what learning a schedule ends with.

Every solver of the probability-flow ODE that evaluates the network once a step is, on a fixed grid, linear in the
denoised estimates :math:`D_j = D(x_j, s_j)` (see :mod:`headstart.solver.linear`),

.. math:: x_{i+1} = \frac{s_{i+1}}{s_i}\, x_i + \sum_{j \le i} w_{ij}\, D_j .

Here the lower triangular weights w are numbers of their own, which :func:`headstart.distill.distill` learns together
with the levels.

References:
    Frankel et al., *S4S: Solving for a Diffusion Model Solver*, ICML 2025, arXiv 2502.17423.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from headstart.errors import InputError
from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver
from headstart.solver.linear import linear_weights

__all__ = ["Distilled"]


@SOLVERS.register
@dataclass(frozen=True, eq=False, repr=False)
class Distilled(Solver):
    """One evaluation a step, with weights for the one grid that they were learned on.

    Its order says nothing: there is no other grid to converge on. It is that of the steps of Euler's method.

    Arguments:
        weights: N rows for N steps, of which row i has the i + 1 weights :math:`w_{i0}, \\dots, w_{ii}`.

    Raises:
        InputError: if there are no weights, they are not lower triangular, or one is not finite; when it samples, if
            the schedule has another number of steps.

    >>> Distilled(((0.75,), (-0.2, 1.2)))
    Distilled(weights=((0.75,), (-0.2, 1.2)))
    """

    name = "distilled"
    cites = ("frankel2025s4s",)
    order = 1
    given = True

    weights: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.weights:
            raise InputError("a distilled solver is its weights, which are learned: see headstart.distill.distill")
        try:
            rows = tuple(tuple(map(float, row)) for row in self.weights)
        except (TypeError, ValueError) as error:
            raise InputError(f"the weights of a distilled solver must be rows of numbers: {error}") from error
        if [len(row) for row in rows] != list(range(1, len(rows) + 1)):
            raise InputError(
                f"the weights of {len(rows)} steps must be rows of 1 to {len(rows)} numbers: "
                f"got rows of {', '.join(str(len(row)) for row in rows)}"
            )
        if not all(math.isfinite(weight) for row in rows for weight in row):
            raise InputError(f"the weights of a distilled solver must be finite: got {rows}")
        object.__setattr__(self, "weights", rows)

    @classmethod
    def of(cls, solver: Solver, schedule: Schedule) -> Distilled:
        """A solver's steps on a schedule as weights: the same samples, up to rounding.

        Raises:
            InputError: if the solver draws noise, or evaluates the network more than once a step.

        >>> from headstart.solver import Euler
        >>> Distilled.of(Euler(), Schedule((4.0, 1.0, 0.0)))
        Distilled(weights=((0.75,), (0, 1)))
        """
        return cls.from_matrix(linear_weights(solver, schedule).tolist())

    @classmethod
    def from_matrix(cls, matrix: Sequence[Sequence[float]]) -> Distilled:
        """From a square matrix of weights, of which only the lower triangle counts."""
        return cls(tuple(tuple(row[: i + 1]) for i, row in enumerate(matrix)))

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        if schedule.steps != len(self.weights):
            raise InputError(
                f"{schedule!r} has {schedule.steps} steps, and the distilled solver was learned for {len(self.weights)}"
            )
        estimates: list[Tensor] = []
        for row, (a, b) in zip(self.weights, schedule.pairs(), strict=True):
            estimates.append(D(x, a))
            x = (b / a) * x
            for weight, estimate in zip(row, estimates, strict=True):
                x = x + weight * estimate
            yield x
