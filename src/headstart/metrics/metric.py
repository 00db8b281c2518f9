"""A metric: one score of samples against real data, with its standard error, as :func:`headstart.metrics.evaluate`
computes it by its name.

The mathematics is in functions of two sets, beside which a metric stands in its module. What several metrics need of
the same samples is computed once, in a :class:`Comparison`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor

from headstart.errors import InputError
from headstart.metrics.features import features_of
from headstart.metrics.jackknife import groups_of
from headstart.progress import Progress
from headstart.registry import Registry

if TYPE_CHECKING:
    from headstart.metrics.scores import Reference

__all__ = ["METRICS", "Comparison", "Metric", "Value"]

T = TypeVar("T")


class Value(NamedTuple):
    """A score, its standard error, and whether the search for it converged; None where there is none."""

    value: float
    error: float | None = None
    converged: bool | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Samples beside the real data that they are scored against, and what several metrics share of them.

    Arguments:
        samples: shape (N, \\*S).
        reference: the real data.
        errors: whether standard errors are asked for, also of metrics that are always computed.
        whole: whether the features of all samples are held at once.
        progress: told of the batches.
    """

    samples: Tensor
    reference: Reference
    errors: bool = False
    whole: bool = True
    progress: Progress | None = None
    _made: dict[Callable[[Comparison], Any], Any] = field(default_factory=dict, repr=False)

    @cached_property
    def groups(self) -> list[Tensor]:
        """The groups of the delete-a-group jackknife."""
        return groups_of(len(self.samples), self.reference.seed)

    @cached_property
    def rows(self) -> Tensor:
        """The features of the samples, shape (N, F), on the CPU.

        Raises:
            InputError: if the reference has no features.
        """
        if self.reference.features is None:
            raise InputError("the reference has no features: make it with features")
        return features_of(self.samples, self.reference.features, self.progress)

    @property
    def real_rows(self) -> Tensor:
        """The features of the real data, shape (M, F).

        Raises:
            InputError: if the reference does not keep them.
        """
        if self.reference.rows is None:
            raise InputError("the reference keeps no features: make it with features and keep=True")
        return self.reference.rows

    def once(self, make: Callable[[Comparison], T]) -> T:
        """``make(comparison)``, computed on the first call."""
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made


class Metric(ABC):
    """A score of samples against real data. A subclass writes :meth:`score`; it has no state and no instances.

    Attributes:
        name: the name by which it is asked for, and of its value in :class:`headstart.metrics.Scores`.
        cites: what to cite for it: keys of ``references.bib``, or whole BibTeX entries.
        cost: how its time grows with N samples, M real ones, d dimensions, F features and R directions.
        always: whether it is computed unasked, of a reference that need not keep its samples.
        of_features: whether it is of features, or of the samples themselves.
        smaller: whether smaller is better.
        least: samples that it needs on either side.
    """

    name: ClassVar[str]
    cites: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str] = ""
    always: ClassVar[bool] = False
    of_features: ClassVar[bool] = False
    smaller: ClassVar[bool] = True
    least: ClassVar[int] = 2

    @classmethod
    @abstractmethod
    def score(cls, compared: Comparison) -> Value:
        """Its value, with a standard error if that is asked for or costs nothing."""


METRICS: Registry[type[Metric]] = Registry(
    "metric",
    "headstart.metrics",
    "headstart.metrics",
    first=("frechet", "swd", "max_swd", "max_sliced", "kid", "precision", "recall", "density", "coverage"),
)
"""The metrics by name."""
