r"""Euler and Maruyama's method on the reverse SDE, the score frozen over each step.

In the variance :math:`\sigma^2`, run down, the reverse SDE is :math:`dx = s(x, \sigma)\, |d\sigma^2| + dW` with the
score :math:`s = (D - x) / \sigma^2`. Frozen at a, and with :math:`r = b^2 / a^2`, it gives

.. math:: x_b = x_a + (a^2 - b^2)\, s(x_a, a) + \sqrt{a^2 - b^2}\; z = r\, x_a + (1 - r)\, D(x_a, a)
    + \sqrt{a^2 - b^2}\; z, \qquad z \sim N(0, I).

The mean is that of :class:`~headstart.solver.DDPM`, and the variance larger by :math:`1 / r`. A step to 0 returns D,
without noise.

References:
    Chen et al., *Sampling is as easy as learning the score*, ICLR 2023, arXiv 2209.11215.

    Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, ICLR 2021,
    arXiv 2011.13456, Equation 46 (reverse diffusion, variance exploding).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor

from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver

__all__ = ["EulerMaruyama", "reverse_diffusion"]


@SOLVERS.register
class EulerMaruyama(Solver):
    """Euler and Maruyama's method: first order in law, one evaluation and one draw of noise a step.

    >>> EulerMaruyama().order
    1
    """

    name = "euler-maruyama"
    cites = ("song2021score", "chen2023sampling")
    order = 1
    reverse_variance = "em"

    @property
    def stochastic(self) -> bool:
        return True

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        for a, b in schedule.pairs():
            x = reverse_diffusion(D, x, a, b, noise)
            yield x


def reverse_diffusion(
    D: Callable[[Tensor, float], Tensor], x: Tensor, a: float, b: float, noise: Callable[[], Tensor]
) -> Tensor:
    """The state at b, of x's shape: one step from a. See :meth:`headstart.solver.Solver.steps`."""
    r = (b / a) ** 2
    mean = r * x + (1 - r) * D(x, a)
    return mean + math.sqrt(a**2 - b**2) * noise() if b > 0 else mean
