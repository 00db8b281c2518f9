r"""Euler's method on the probability-flow ODE, which is DDIM.

In the noise level, a step from a to b with the denoiser frozen at a is

.. math:: x_b = x_a + (b - a) \frac{x_a - D(x_a, a)}{a} = \frac ba x_a + \Big(1 - \frac ba\Big) D(x_a, a),

exact where D does not depend on x; a step to 0 returns D.

References:
    Song et al., *Denoising Diffusion Implicit Models*, ICLR 2021, Equation 12 with eta = 0 (in
    variance-preserving units).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver

__all__ = ["Euler"]


@SOLVERS.register
class Euler(Solver):
    """Euler's method, which is DDIM: first order, one evaluation a step."""

    name = "euler"
    cites = ("song2021denoising",)
    order = 1

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        for a, b in schedule.pairs():
            x = (b / a) * x + (1 - b / a) * D(x, a)
            yield x
