r"""DEIS: a polynomial through the last estimates of the noise, integrated exactly (tAB).

In the noise level, the probability-flow ODE is :math:`dx / d\sigma = \varepsilon` with the estimate of the noise
:math:`\varepsilon(x, \sigma) = (x - D(x, \sigma)) / \sigma`, and a step takes

.. math:: x_b = x_a + \int_a^b P(t(\sigma))\, d\sigma, \qquad t(\sigma) = \sigma^p \;\text{ or }\; \ln \sigma
    \text{ for } p = 0,

with the polynomial P through the last noises at their times t; through as many as there are in the first steps. With
p = 1 it is the method of Adams and Bashforth in :math:`\sigma` (the paper's rhoAB, and tAB for the time of EDM, which
is :math:`\sigma`); p = 0 is its log-rho form; :math:`p = 1 / \rho` has the time in which a rho grid is uniform. A step
to 0 returns the denoised estimate, where the paper's would subtract noise from a state.

References:
    Zhang and Chen, *Fast Sampling of Diffusion Models with Exponential Integrator*, ICLR 2023, arXiv 2204.13902,
    Equations 14 and 15 and Appendix B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from headstart.errors import InputError
from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver
from headstart.solver.polynomial import checked_points, combine, noise_weights

__all__ = ["DEIS"]


@SOLVERS.register
@dataclass(frozen=True, eq=False, repr=False)
class DEIS(Solver):
    """DEIS: one evaluation a step, and of the order of its number of points.

    The first step is of first order, which limits the order to 2 unless it is taken where it errs little, far above the
    data's scale.

    Arguments:
        points: estimates that the polynomial goes through, from 1, which is Euler's method, to 4; one more than the
            number in the paper's tAB0 to tAB3. From a short horizon, where the first step limits the order to 2, 2 is
            best.
        power: p, of the time in which it is a polynomial; 0 for the logarithm.

    Raises:
        InputError: if points is not a whole number from 1 to 4, or the power is negative or not finite.

    >>> DEIS(points=3, power=1)
    DEIS(points=3, power=1)
    """

    name = "deis"
    cites = ("zhang2023fast",)

    points: int = 2
    power: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", checked_points(self.points, 4))
        if not 0 <= self.power < math.inf:
            raise InputError(f"power must be finite and at least 0: got {self.power}")

    @property
    def order(self) -> int:
        return self.points

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        levels: tuple[float, ...] = ()  # of the last estimates, the newest first
        noises: list[Tensor] = []
        past = self.points - 1
        for a, b in schedule.pairs():
            denoised = D(x, a)
            levels, noises = (a, *levels[:past]), [(x - denoised) / a, *noises[:past]]
            x = denoised if b == 0 else x + combine(noise_weights(levels, a, b, self.power), noises)
            yield x
