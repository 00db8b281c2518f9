r"""UniPC: a polynomial through past denoised estimates predicts; with the estimate at its end, one order more corrects.

In :math:`\lambda = -\ln \sigma`, a step from a to b predicts :math:`\tilde x_b` and, once :math:`D(\tilde x_b, b)` is
known, which the next step needs anyway, corrects it to :math:`x_b`:

.. math::
    \tilde x_b = \frac ba x_a + b \int_{-\ln a}^{-\ln b} e^\lambda\, P(\lambda)\, d\lambda, \qquad
    x_b = \frac ba x_a + b \int_{-\ln a}^{-\ln b} e^\lambda\, Q(\lambda)\, d\lambda,

with the polynomial P through the last p estimates, and Q through the new one, :math:`D(\tilde x_b, b)`, besides. The
paper's linear systems have these integrals as their solution, whatever its function B(h) is, but where there is a
single coefficient, for which it takes 1/2: with :math:`h = \ln(a / b)` and the level :math:`a'` before a,

.. math::
    \text{predictor, } p = 2: \; \frac ba x_a + \Big(1 - \frac ba\Big) D_a
        + \frac{B(h)}2 \frac{h}{\ln (a' / a)} (D_a - D_{a'}), \qquad
    \text{corrector, } p = 1: \; \frac ba x_a + \Big(1 - \frac ba\Big) D_a + \frac{B(h)}2 (D_b - D_a),

where :math:`B_1(h) = h` and :math:`B_2(h) = 1 - b / a`. The first steps use as many estimates as there are. The state
at the last level is a prediction, since nothing would use an evaluation there, and a step to 0 returns the denoised
estimate.

References:
    Zhao et al., *UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models*, NeurIPS 2023,
    arXiv 2302.04867, Algorithms 5 and 6 (multistep, data prediction).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from headstart.errors import InputError
from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver
from headstart.solver.polynomial import checked_points, combine, data_weights

__all__ = ["UniPC"]


@SOLVERS.register
@dataclass(frozen=True, eq=False, repr=False)
class UniPC(Solver):
    """UniPC-p: one evaluation a step, and of order p + 1.

    With p = 3 that holds where the error of the first step, which is of second order, is negligible.

    Arguments:
        points: p, the past estimates that the predictor uses, from 1 to 3.
        bh: 1 for the paper's B_1(h) = h, 2 for its B_2(h) = 1 - exp(-h).

    Raises:
        InputError: if points is not a whole number from 1 to 3, or bh is neither 1 nor 2.

    >>> UniPC(points=3, bh=1)
    UniPC(points=3, bh=1)
    """

    name = "unipc"
    cites = ("zhao2023unipc",)

    points: int = 2
    bh: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", checked_points(self.points, 3))
        if self.bh not in (1, 2):
            raise InputError(f"bh must be 1 or 2: got {self.bh}")
        object.__setattr__(self, "bh", int(self.bh))

    @property
    def order(self) -> int:
        return self.points + 1

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        levels: tuple[float, ...] = ()  # of the last estimates, the newest first
        denoised: list[Tensor] = []
        before, past = x, self.points - 1  # the state at levels[0]
        for a, b in schedule.pairs():
            new = D(x, a)
            if levels:
                x = (a / levels[0]) * before + combine(self.corrector(levels, a), [new, *denoised])
                yield x
            levels, denoised, before = (a, *levels[:past]), [new, *denoised[:past]], x
            x = new if b == 0 else (b / a) * x + combine(self.predictor(levels, b), denoised)
        yield x

    def predictor(self, levels: tuple[float, ...], b: float) -> Sequence[float]:
        """The weights of the estimates at ``levels``, the newest first, in a step from the newest to b."""
        a = levels[0]
        if len(levels) != 2:
            return data_weights(levels, a, b)
        slope = self.function(a, b) / 2 * math.log(a / b) / math.log(levels[1] / a)
        return [1 - b / a + slope, -slope]

    def corrector(self, levels: tuple[float, ...], b: float) -> Sequence[float]:
        """The weights of the estimate at b, and of those at ``levels``, in the step from the newest of these to b."""
        a = levels[0]
        if len(levels) > 1:
            return data_weights((b, *levels), a, b)
        slope = self.function(a, b) / 2
        return [slope, 1 - b / a - slope]

    def function(self, a: float, b: float) -> float:
        """B(h) of the step from a to b."""
        return math.log(a / b) if self.bh == 1 else 1 - b / a
