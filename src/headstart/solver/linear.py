r"""A solver of the probability-flow ODE on one grid, as a matrix.

If such a solver evaluates the network once a step, every state :math:`x_i` that the network is called with is linear in
the first state and in the estimates :math:`D_j = D(x_j, s_j)` so far. Where the estimates are 0 it is exact:

.. math:: x_{i+1} = \frac{s_{i+1}}{s_i}\, x_i + \sum_{j \le i} w_{ij}\, D_j .

The last state is the result. The weights depend on the solver and on the levels alone. They are found by running the
solver once with the j-th unit vector in the place of the j-th estimate.

References:
    Tong et al., *Learning to Discretize Denoising Diffusion ODEs* (LD3), ICLR 2025, arXiv 2405.15506, and Frankel et
    al., *S4S: Solving for a Diffusion Model Solver*, ICML 2025, arXiv 2502.17423, learn such weights.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.errors import InputError
from headstart.schedule import Schedule
from headstart.solver.base import Solver

__all__ = ["is_linear", "linear_weights"]


def is_linear(solver: Solver) -> bool:
    """Whether it solves the ODE with one evaluation a step, so that it has :func:`linear_weights`."""
    return not solver.stochastic and solver.steps_for(2) == 2


def linear_weights(solver: Solver, schedule: Schedule) -> NDArray[np.float64]:
    """The weights :math:`w_{ij}` of the formula above, lower triangular, shape (N, N).

    Arguments:
        solver: of the ODE, with one evaluation a step.
        schedule: the levels; a step to 0 is a step like any other.

    Raises:
        InputError: if the solver draws noise, or evaluates the network more than once a step.

    >>> from headstart.solver import Euler
    >>> linear_weights(Euler(), Schedule((4.0, 1.0, 0.0))).tolist()
    [[0.75, 0.0], [0.0, 1.0]]
    """
    if not is_linear(solver):
        raise InputError(f"{solver!r} is no solver of the ODE with one evaluation a step: it has no such weights")
    first, *units = torch.eye(schedule.steps + 1, dtype=torch.float64).unbind()
    left, states = iter(units), list[Tensor]()

    def estimate(x: Tensor, sigma: float) -> Tensor:
        states.append(x)
        return next(left)

    def no_noise() -> Tensor:
        raise AssertionError("a solver of the ODE draws no noise")

    states.append(deque(solver.steps(estimate, first, schedule, no_noise), maxlen=1).pop())
    moves = [y - (b / a) * x for x, y, (a, b) in zip(states[:-1], states[1:], schedule.pairs(), strict=True)]
    return np.asarray(torch.stack(moves)[:, 1:].numpy())
