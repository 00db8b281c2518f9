r"""An estimate with its standard error, and the budget of a plan.

Roots of divergences add, since total variation does and a deterministic step preserves it:

.. math:: B_\text{ODE} = \Big( \sqrt{E_\text{init}} + \sum_i \sqrt{K_i} \Big)^2.

For an isotropic Gaussian this is exact to leading order. In general it is a guide, not a bound: it compares plans for
one network. A last step to 0, which all plans have, is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from headstart.errors import DenoiserError, InputError
from headstart.schedule import Schedule

__all__ = ["Budget", "Curve", "Estimate", "finite", "steps_above_zero"]

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error.

    >>> Estimate(1.234, 0.05)
    1.23 ± 0.05
    """

    value: float
    error: float

    @classmethod
    def of(cls, values: ArrayLike) -> Estimate:
        """The mean of independent values, shape (M,).

        Raises:
            InputError: if there are fewer than two, or NaN or Inf among them.

        >>> Estimate.of([1.0, 2.0, 3.0])
        2 ± 0.58
        """
        each = np.asarray(values, dtype=np.float64)
        if each.ndim != 1 or len(each) < 2 or not np.isfinite(each).all():
            raise InputError(
                f"a mean and its error need two finite values or more, in one row: got an array of shape {each.shape}"
            )
        return cls(float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each))))

    def __repr__(self) -> str:
        return f"{self.value:.3g} ± {self.error:.2g}"


@dataclass(frozen=True)
class Budget:
    """The error budget of one plan, in nats.

    Attributes:
        initialization: :math:`E_\\text{init}`, or None for an oracle, which has no density.
        discretization: :math:`K_i` of each step above 0.
    """

    initialization: Estimate | None
    discretization: tuple[float, ...]

    @property
    def total(self) -> float:
        """:math:`B_\\text{ODE}`; an initialization error below 0 counts as 0."""
        return self._total(self.initialization.value if self.initialization is not None else 0.0)

    @property
    def error(self) -> float:
        r"""The standard error of :attr:`total` that comes from that of :math:`E_\text{init}`, e, by the delta method:

        .. math:: \Big( 1 + \frac{\sum_i \sqrt{K_i}}{\sqrt{E_\text{init}}} \Big)\, e.

        The slope grows without bound as :math:`E_\text{init}` goes to 0, and there is none below. So an
        :math:`E_\text{init}` under its own error gives what the total would rise by with one such error more:
        an upward error, since downwards the total ends at that of a perfect start. The steps count as known, and so
        does the start of an oracle.
        """
        if self.initialization is None:
            return 0.0
        start, error = self.initialization.value, self.initialization.error
        if start > error:
            return (1 + self._roots() / math.sqrt(start)) * error
        return self._total(start + error) - self._total(start)

    def _total(self, start: float) -> float:
        return (math.sqrt(max(start, 0.0)) + self._roots()) ** 2

    def _roots(self) -> float:
        return sum(math.sqrt(step) for step in self.discretization)

    def __repr__(self) -> str:
        steps = ", ".join(f"{step:.2g}" for step in self.discretization)
        start = "unknown" if self.initialization is None else f"{self.initialization!r}"
        return f"Budget(initialization {start}; steps {steps or 'none'}; total {self.total:.3g} nats)"


def steps_above_zero(schedule: Schedule) -> list[tuple[float, float]]:
    """The steps of a schedule as pairs (from, to), a last one to 0 left out."""
    return [(a, b) for a, b in schedule.pairs() if b > 0]


def finite(values: Tensor, what: str) -> Tensor:
    """The values, if there is no NaN or Inf among them.

    Raises:
        DenoiserError: otherwise, with ``what`` as the subject of the message.
    """
    if not values.isfinite().all():
        raise DenoiserError(f"{what} is not finite")
    return values
