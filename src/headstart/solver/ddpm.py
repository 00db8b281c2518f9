r"""Ancestral sampling: the exact reverse transition of the noise, for a clean sample that is taken to be D.

Given :math:`x_0` and :math:`x_a`, the law of :math:`x_b` is Gaussian; with :math:`x_0` replaced by the estimate and
:math:`r = b^2 / a^2`,

.. math:: x_b = r\, x_a + (1 - r)\, D(x_a, a) + \frac ba \sqrt{a^2 - b^2}\; z, \qquad z \sim N(0, I).

The variance of z's term, :math:`\beta^2 = b^2 (1 - r)`, leaves out that :math:`x_0` is not known. Another one,
:math:`\tau^2`, may be given for each step: the best is :math:`\beta^2 (1 + (b^{-2} - a^{-2})\, l(a) / d)` with the
denoising loss l, which :func:`headstart.budget.reverse_variances` measures; :math:`a^2 - b^2` is that of
:class:`~headstart.solver.EulerMaruyama`. A step to 0 returns D.

References:
    Ho et al., *Denoising Diffusion Probabilistic Models*, NeurIPS 2020, Algorithm 2, with the posterior's variance (in
    variance-preserving units).

    Bao et al., *Analytic-DPM*, ICLR 2022, arXiv 2201.06503 (the best variance).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from headstart.errors import InputError
from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver

__all__ = ["DDPM"]


@SOLVERS.register
@dataclass(frozen=True, eq=False, repr=False, init=False)
class DDPM(Solver):
    """Ancestral sampling: first order in law, one evaluation and one draw of noise a step.

    Arguments:
        variances: tau^2 of each step above 0 of the one schedule that it is then for; none for the posterior's.
        **numbered: the same as ``variance_0``, ``variance_1`` and so on, which is how :meth:`parameters` gives them.

    Raises:
        InputError: if a variance is negative or not finite, or one is missing; when it samples, if there are not as
            many as the schedule has steps above 0.

    >>> DDPM(variances=(2.0, 0.25)).parameters()
    {'variance_0': 2.0, 'variance_1': 0.25}
    """

    name = "ddpm"
    cites = ("ho2020denoising", "bao2022analytic")
    order = 1
    reverse_variance = "ddpm"

    variances: tuple[float, ...] = ()

    def __init__(self, variances: Sequence[float] = (), **numbered: float) -> None:
        values = variances or tuple(numbered.get(f"variance_{i}", math.nan) for i in range(len(numbered)))
        if (variances and numbered) or not all(0 <= value < math.inf for value in values):
            given = [*variances, *(f"{key}={value}" for key, value in numbered.items())]
            raise InputError(f"variances must be finite, at least 0 and numbered from variance_0: got {given}")
        object.__setattr__(self, "variances", tuple(map(float, values)))

    @property
    def stochastic(self) -> bool:
        return True

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        above = [(a, b) for a, b in schedule.pairs() if b > 0]
        variances = self.variances or [b**2 * (1 - (b / a) ** 2) for a, b in above]
        if len(variances) != len(above):
            raise InputError(f"{schedule!r} has {len(above)} steps above 0, and there are {len(variances)} variances")
        for (a, b), variance in zip(schedule.pairs(), [*variances, 0.0], strict=False):
            r = (b / a) ** 2
            x = r * x + (1 - r) * D(x, a)
            if b > 0:
                x = x + math.sqrt(variance) * noise()
            yield x

    def parameters(self) -> dict[str, float]:
        return {f"variance_{i}": variance for i, variance in enumerate(self.variances)}

    def __repr__(self) -> str:
        return f"DDPM(variances={self.variances})" if self.variances else "DDPM()"
