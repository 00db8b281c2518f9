r"""DPM-Solver++(2M): the exact solution of the linear part, and a line through the last two denoised estimates.

With the half log signal-to-noise ratio :math:`\lambda = -\ln \sigma`, the probability-flow ODE from a to b is solved by

.. math:: x_b = \frac ba x_a + b \int_{-\ln a}^{-\ln b} e^{\lambda} D_\lambda \, d\lambda.

For a step i of length :math:`h_i = \ln(a / b)`, and with :math:`D_i = D(x_a, a)`, the method takes

.. math::
    x_b = \frac ba x_a + \Big(1 - \frac ba\Big) \tilde D_i, \qquad
    \tilde D_i = D_i + \frac{h_i}{2 h_{i-1}} (D_i - D_{i-1}).

The first step, which has no past, and a step to 0, where :math:`h_i` is infinite, take :math:`\tilde D_i = D_i`: they
are first order, and a step to 0 returns the denoised estimate.

References:
    Lu et al., *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models*, 2022,
    arXiv 2211.01095, Algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor

from headstart.schedule import Schedule
from headstart.solver.base import Solver

__all__ = ["DPMSolverPP2M"]


class DPMSolverPP2M(Solver):
    """Second order, one evaluation a step."""

    name = "dpm++2m"
    order = 2

    def walk(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        before: tuple[float, Tensor] | None = None  # the level and the denoised estimate of the step before
        for a, b in schedule.pairs():
            denoised = target = D(x, a)
            if before is not None and b > 0:
                level, past = before
                target = denoised + math.log(a / b) / (2 * math.log(level / a)) * (denoised - past)
            x = (b / a) * x + (1 - b / a) * target
            before = a, denoised
            yield x
