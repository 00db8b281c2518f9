r"""EDM's solver: Heun's method on the probability-flow ODE, each step after an optional raise of the noise (churn).

With :math:`\gamma = \min(S / N, \sqrt 2 - 1)` where a lies in the window of churn, else 0, a step from a to b is

.. math::
    \hat a &= (1 + \gamma)\, a, & \hat x &= x_a + S_\text{noise} \sqrt{\hat a^2 - a^2}\; z, \quad z \sim N(0, I), \\
    d &= \frac{\hat x - D(\hat x, \hat a)}{\hat a}, & y &= \hat x + (b - \hat a)\, d, \\
    d' &= \frac{y - D(y, b)}{b}, & x_b &= \hat x + (b - \hat a)\, \frac{d + d'}2,

and a step to 0 is Euler's, which returns :math:`D(\hat x, \hat a)`.

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022, Algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from headstart.errors import InputError
from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver

__all__ = ["Heun"]


@SOLVERS.register
@dataclass(frozen=True, eq=False, repr=False)
class Heun(Solver):
    """Heun's method as in EDM: second order without churn; two evaluations a step, but one for a step to 0.

    Arguments:
        churn: S_churn of EDM, over all steps; 0 solves the ODE, and no noise is drawn.
        churn_min: lowest level that is churned.
        churn_max: highest level that is churned.
        churn_noise: S_noise of EDM, the standard deviation of the churn's noise.

    Raises:
        InputError: if an argument is negative or NaN, or the window is empty.

    >>> Heun(churn=40)
    Heun(churn=40)
    """

    name = "heun"
    cites = ("karras2022elucidating",)
    order = 2

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.churn < math.inf and 0 <= self.churn_noise < math.inf):
            raise InputError(
                f"churn and churn_noise must be finite and at least 0: got {self.churn} and {self.churn_noise}"
            )
        if not 0 <= self.churn_min <= self.churn_max:
            raise InputError(f"churn needs 0 <= churn_min <= churn_max: got {self.churn_min} and {self.churn_max}")

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        for a, b in schedule.pairs():
            gamma = min(self.churn / schedule.steps, math.sqrt(2) - 1) if self.churn_min <= a <= self.churn_max else 0.0
            if gamma > 0:
                raised = (1 + gamma) * a
                x = x + self.churn_noise * math.sqrt(raised**2 - a**2) * noise()
                a = raised
            denoised = D(x, a)
            if b == 0:
                x = denoised
            else:
                d = (x - denoised) / a
                y = x + (b - a) * d
                x = x + (b - a) * (d + (y - D(y, b)) / b) / 2
            yield x

    def nfe(self, schedule: Schedule) -> int:
        return 2 * schedule.steps - (schedule.sigmas[-1] == 0)

    def steps_for(self, nfe: int) -> int:
        return (nfe + 1) // 2
