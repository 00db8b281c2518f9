r"""Predictor and corrector: a step of the reverse SDE, then steps of Langevin's dynamics at the level that it reached.

A step from a to b is Euler and Maruyama's (:class:`~headstart.solver.EulerMaruyama`), followed by M corrections

.. math:: x \leftarrow x + \epsilon\, s(x, b) + \sqrt{2 \epsilon}\; z, \qquad
    \epsilon = 2\, (\text{snr} \cdot b)^2, \qquad s(x, b) = \frac{D(x, b) - x}{b^2}, \qquad z \sim N(0, I),

which leave the law of the noised data as it is, up to an error of the order of :math:`\epsilon`. A step to 0 returns D
and is not corrected.

The paper takes :math:`\epsilon = 2\, (\text{snr}\, \|z\| / \|s\|)^2` with norms averaged over the batch, so that a
sample would depend on its neighbours. Here they are replaced by the values :math:`\sqrt d` and :math:`\sqrt d / b` that
they have where noise dominates, as at most levels of images; in few dimensions, where a score may be near 0, the ratio
of norms has no finite mean.

References:
    Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, ICLR 2021,
    arXiv 2011.13456, Algorithms 2 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from headstart.errors import InputError
from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver
from headstart.solver.euler_maruyama import reverse_diffusion

__all__ = ["PredictorCorrector"]


@SOLVERS.register
@dataclass(frozen=True, eq=False, repr=False)
class PredictorCorrector(Solver):
    """Predictor and corrector: 1 + M evaluations a step, but one for a step to 0.

    It is of first order in law, down to the bias of Langevin's steps.

    On Gaussian data of variance v, that bias is a share :math:`\text{snr}^2 b^2 / (v + b^2)` of the variance at b, and
    vanishes with the level.

    Arguments:
        corrections: M, the Langevin steps at each level.
        snr: r of the paper, its step in units of the noise's norm.

    Raises:
        InputError: if corrections is not a whole number of at least 1, or snr is not above 0 and below 1.

    >>> PredictorCorrector(corrections=2).steps_for(10)
    4
    """

    name = "predictor-corrector"
    cites = ("song2021score",)
    order = 1

    corrections: int = 1
    snr: float = 0.16

    def __post_init__(self) -> None:
        if not 1 <= self.corrections < math.inf or self.corrections != int(self.corrections):
            raise InputError(f"corrections must be a whole number of at least 1: got {self.corrections}")
        if not 0 < self.snr < 1:
            raise InputError(f"snr must be above 0 and below 1: got {self.snr}")
        object.__setattr__(self, "corrections", int(self.corrections))

    @property
    def stochastic(self) -> bool:
        return True

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        share = 2 * self.snr**2  # epsilon / b^2
        for a, b in schedule.pairs():
            x = reverse_diffusion(D, x, a, b, noise)
            for _ in range(self.corrections if b > 0 else 0):
                x = x + share * (D(x, b) - x) + math.sqrt(2 * share) * b * noise()
            yield x

    def nfe(self, schedule: Schedule) -> int:
        return schedule.steps * (1 + self.corrections) - self.corrections * (schedule.sigmas[-1] == 0)

    def steps_for(self, nfe: int) -> int:
        return (nfe + self.corrections) // (1 + self.corrections)
