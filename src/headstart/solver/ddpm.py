r"""Ancestral sampling: the exact reverse transition of the noise, for a clean sample that is taken to be D.

Given :math:`x_0` and :math:`x_a`, the law of :math:`x_b` is Gaussian; with :math:`x_0` replaced by the estimate and
:math:`r = b^2 / a^2`,

.. math:: x_b = r\, x_a + (1 - r)\, D(x_a, a) + \frac ba \sqrt{a^2 - b^2}\; z, \qquad z \sim N(0, I).

A step to 0 returns D.

References:
    Ho et al., *Denoising Diffusion Probabilistic Models*, NeurIPS 2020, Algorithm 2, with the posterior's variance (in
    variance-preserving units).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor

from headstart.schedule import Schedule
from headstart.solver.base import Solver

__all__ = ["DDPM"]


class DDPM(Solver):
    """First order in law, one evaluation and one draw of noise a step."""

    name = "ddpm"
    order = 1

    @property
    def stochastic(self) -> bool:
        return True

    def walk(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        for a, b in schedule.pairs():
            r = (b / a) ** 2
            x = r * x + (1 - r) * D(x, a)
            if b > 0:
                x = x + (b / a) * math.sqrt(a**2 - b**2) * noise()
            yield x
