r"""DPM-Solver++(2M): the exact solution of the linear part, and a line through the last two denoised estimates.

With the half log signal-to-noise ratio :math:`\lambda = -\ln \sigma`, the probability-flow ODE from a to b is solved by

.. math:: x_b = \frac ba x_a + b \int_{-\ln a}^{-\ln b} e^{\lambda} D_\lambda \, d\lambda.

For a step i of length :math:`h_i = \ln(a / b)`, and with :math:`D_i = D(x_a, a)`, the method takes

.. math::
    x_b = \frac ba x_a + \Big(1 - \frac ba\Big) \tilde D_i, \qquad
    \tilde D_i = D_i + \frac{h_i}{2 h_{i-1}} (D_i - D_{i-1}).

The first step, which has no past, and a step to 0, where :math:`h_i` is infinite, take :math:`\tilde D_i = D_i`: they
are first order, and a step to 0 returns the denoised estimate.

With :math:`\eta > 0` it solves the reverse SDE whose noise is :math:`\eta` times that of the forward process (SDE-
DPM-Solver++(2M) for :math:`\eta = 1`), of the same laws:

.. math::
    x_b = \Big(\frac ba\Big)^{1 + \eta} x_a + \Big(1 - \Big(\frac ba\Big)^{1 + \eta}\Big) \tilde D_i
    + b\, \sqrt{1 - (b / a)^{2 \eta}}\; z, \qquad z \sim N(0, I).

The line takes the change that noise makes to D from the step before, where it has the same law: on Gaussian data the
law converges with second order too.

References:
    Lu et al., *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models*, 2022,
    arXiv 2211.01095, Algorithm 2 and Appendix E.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from headstart.errors import InputError
from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver

__all__ = ["DPMSolverPP2M"]


@SOLVERS.register
@dataclass(frozen=True, eq=False, repr=False)
class DPMSolverPP2M(Solver):
    """DPM-Solver++(2M): second order, and one evaluation a step; with noise, the order is that of the law.

    Arguments:
        eta: the share of the noise; 0 solves the ODE, and no noise is drawn, and 1 the usual reverse SDE.

    Raises:
        InputError: if eta is negative or not finite.

    >>> DPMSolverPP2M(eta=1)
    DPMSolverPP2M(eta=1)
    """

    name = "dpm++2m"
    cites = ("lu2022dpmpp",)
    order = 2

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise InputError(f"eta must be finite and at least 0: got {self.eta}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        before: tuple[float, Tensor] | None = None  # the level and the denoised estimate of the step before
        for a, b in schedule.pairs():
            denoised = target = D(x, a)
            if before is not None and b > 0:
                level, past = before
                target = denoised + math.log(a / b) / (2 * math.log(level / a)) * (denoised - past)
            keep = (b / a) ** (1 + self.eta)
            x = keep * x + (1 - keep) * target
            if self.stochastic and b > 0:
                x = x + b * math.sqrt(1 - (b / a) ** (2 * self.eta)) * noise()
            before = a, denoised
            yield x
