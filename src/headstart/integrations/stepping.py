r"""A sampler's solver one evaluation at a time, for frameworks that call the network themselves.

A solver calls the denoiser; a framework's sampling loop calls the network and hands its answer to a scheduler. Between
the two stands :class:`Stepping`: it runs the solver until it asks for an estimate that is not there yet, and says where
it is wanted; once the estimate is there, it runs the solver again from the start with all estimates so far. Running a
solver costs a few sums of tensors and no network, so that N evaluations cost N (N + 1) / 2 of these sums, and any
solver works as it is, stochastic ones too: what they drew is remembered beside the estimates.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.denoiser import is_finite
from headstart.errors import DenoiserError, InputError
from headstart.noise import Noise
from headstart.sampler import Sampler
from headstart.schedule import Schedule
from headstart.solver import Solver

__all__ = ["Stepping", "evaluation_levels"]


class _AskedError(Exception):
    """The solver wants an estimate that nobody made yet."""

    def __init__(self, x: Tensor, sigma: float) -> None:
        self.x, self.sigma = x, sigma


@dataclass
class Stepping:
    """The evaluations that a solver asks for, one after the other.

    Arguments:
        solver: how to move.
        schedule: the levels.
        x: the states at the first level, shape (B, \\*S).
        noise: the random streams of a stochastic solver, one a sample.

    Attributes:
        x: the states that are to be denoised next, or those at the last level once it is done.
        sigma: their level, or None once it is done.

    >>> from headstart.solver import Euler
    >>> walk = Stepping(Euler(), Schedule((2.0, 1.0, 0.0)), torch.ones(1, 1))
    >>> while walk.sigma is not None:
    ...     walk.tell(walk.x / (1 + walk.sigma**2))  # the exact denoiser of standard normal data
    >>> round(walk.x.item(), 4)
    0.3
    """

    solver: Solver
    schedule: Schedule
    x: Tensor
    noise: Noise | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        self._start = self.x
        self._estimates: list[Tensor] = []
        self._draws: list[Tensor] = []
        self._run()

    def tell(self, denoised: Tensor) -> None:
        """Go on with the estimate D(x, sigma), of x's shape.

        Raises:
            DenoiserError: if it is not finite or of another shape.
            InputError: if no estimate is wanted any more.
        """
        if self.sigma is None:
            raise InputError(f"all {len(self._estimates)} evaluations of {self.solver.name} were made: none is wanted")
        if denoised.shape != self.x.shape:
            raise DenoiserError(f"the estimate has shape {tuple(denoised.shape)}: expected {tuple(self.x.shape)}")
        if not is_finite(denoised):
            raise DenoiserError(f"the network returned NaN or Inf at sigma = {self.sigma:.6g}")
        self._estimates.append(denoised.to(self._start))
        self._run()

    def _run(self) -> None:
        """Run the solver from the start until it asks for what is not there, or ends."""
        told, drawn = iter(self._estimates), iter(self._draws)

        def estimate(x: Tensor, sigma: float) -> Tensor:
            for known in told:
                return known
            raise _AskedError(x, sigma)

        def draw() -> Tensor:
            for known in drawn:
                return known
            if self.noise is None or len(self.noise) != len(self._start):
                raise InputError(
                    f"the solver {self.solver.name} draws noise: give it one random stream for each sample"
                )
            self._draws.append(self.noise.normal(tuple(self._start.shape[1:])).to(self._start))
            return self._draws[-1]

        try:
            self.x = deque(self.solver.steps(estimate, self._start, self.schedule, draw), maxlen=1).pop()
            self.sigma = None
        except _AskedError as asked:
            self.x, self.sigma = asked.x, asked.sigma


def evaluation_levels(sampler: Sampler) -> list[float]:
    """The level of each evaluation that a sampler makes, in order: N of them, some of which may be equal."""
    walk = Stepping(sampler.solver, sampler.schedule, torch.full((1, 2), sampler.horizon), Noise([0]))
    levels = []
    while walk.sigma is not None:
        levels.append(walk.sigma)
        walk.tell(0.5 * walk.x)
    return levels
