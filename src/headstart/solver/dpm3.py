r"""DPM-Solver++(3M): the exact solution of the linear part, and a parabola through the last three denoised estimates.

In the half log signal-to-noise ratio :math:`\lambda = -\ln \sigma`, a step from a to b takes

.. math:: x_b = \frac ba x_a + b \int_{-\ln a}^{-\ln b} e^\lambda\, P(\lambda)\, d\lambda

with the polynomial P through the estimates at the last three levels; through as many as there are in the first two
steps. A step to 0 returns the denoised estimate.

The paper writes the method out for two estimates. k-diffusion and diffusers give the curvature of three half of this
weight, and converge with order 2. With the whole of it, here, the method is of order 3, but for
its first step. That step is of first order and adds an error of second order to the whole, which is small only from a
level far above the data's scale.

References:
    Lu et al., *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models*, 2022,
    arXiv 2211.01095, Section 4.2 and Appendix B.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver
from headstart.solver.polynomial import combine, data_weights

__all__ = ["DPMSolverPP3M"]


@SOLVERS.register
class DPMSolverPP3M(Solver):
    """DPM-Solver++(3M): third order, one evaluation a step.

    >>> DPMSolverPP3M()
    DPMSolverPP3M()
    """

    name = "dpm++3m"
    cites = ("lu2022dpmpp",)
    order = 3

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        levels: tuple[float, ...] = ()  # of the last estimates, the newest first
        denoised: list[Tensor] = []
        for a, b in schedule.pairs():
            levels, denoised = (a, *levels[:2]), [D(x, a), *denoised[:2]]
            x = denoised[0] if b == 0 else (b / a) * x + combine(data_weights(levels, a, b), denoised)
            yield x
