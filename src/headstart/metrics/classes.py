r"""Scores of each class, and their mean over the K classes, which show what scores of the whole may hide.

.. math:: \bar s = \frac1K \sum_c s(a_c, b_c), \qquad \operatorname{se}^2 = \frac{1}{K^2} \sum_c \operatorname{se}_c^2,

with the samples :math:`a_c` and the real data :math:`b_c` of class c. Samples of different classes are independent, and
so the errors add up in squares. A sampler that draws the right images under the wrong labels has the scores of the
data's law on the whole, and poor ones by class.

References:
    Miyato and Koyama, *cGANs with Projection Discriminator*, ICLR 2018, arXiv 1802.05637 (the Fréchet distance within
    classes).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart.errors import DataError
from headstart.metrics.features import Features
from headstart.metrics.metric import METRICS
from headstart.metrics.scores import ENOUGH, Reference, Scores, evaluate, floor, written
from headstart.progress import Progress

__all__ = ["ClassScores", "by_class", "floor_by_class", "references_by_class"]


@dataclass(frozen=True)
class ClassScores:
    """The result of :func:`by_class`. Made by :meth:`of`.

    Attributes:
        each: the scores of each class.
        mean: the mean over the classes of each score that all of them have, by its name.
        errors: its standard error, of those that have one in all classes.
    """

    each: Mapping[int, Scores]
    mean: Mapping[str, float]
    errors: Mapping[str, float]

    @classmethod
    def of(cls, each: Mapping[int, Scores]) -> ClassScores:
        """The scores of each class, with their mean."""
        values = {name: [found.value(name) for found in each.values()] for name in METRICS}
        mean = {
            name: sum(value for value in own if value is not None) / len(each)
            for name, own in values.items()
            if None not in own
        }
        errors = {
            name: math.hypot(*(found.errors[name] for found in each.values())) / len(each)
            for name in mean
            if all(name in found.errors for found in each.values())
        }
        return cls(each, mean, errors)

    @property
    def converged(self) -> bool | None:
        """Whether all searches for max-sliced distances converged; None if there were none."""
        known = [found.converged for found in self.each.values() if found.converged is not None]
        return all(known) if known else None

    @property
    def n(self) -> int:
        """Number of samples, of all classes."""
        return sum(found.n for found in self.each.values())

    def items(self) -> Iterator[tuple[str, float, float | None]]:
        """The name, mean and its standard error (None if there is none) of every score that all classes have."""
        for name, value in self.mean.items():
            yield name, value, self.errors.get(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        each = {str(label): scores.to_dict() for label, scores in self.each.items()}
        return {"each": each, "mean": dict(self.mean), "errors": dict(self.errors)}

    def __repr__(self) -> str:
        return f"ClassScores(mean of {len(self.each)} classes: {written(self.items())}; n = {self.n})"


def references_by_class(
    real: Tensor,
    labels: Tensor,
    features: Features | None = None,
    seed: int = 0,
    directions: int = 512,
    progress: Progress | None = None,
    *,
    keep: bool = False,
) -> dict[int, Reference]:
    """A reference for each class of the real data: see :meth:`headstart.metrics.Reference.of`.

    Arguments:
        real: the real samples, shape (N, \\*S).
        labels: their classes, shape (N,), whole numbers.
        features: as of :meth:`headstart.metrics.Reference.of`, and so are all others.
        seed: of the directions of the sliced distances.
        directions: their number.
        progress: told of the batches.
        keep: whether to keep the samples and their features.

    Raises:
        DataError: if the labels do not fit, or a class has fewer than two samples, or as Reference.of.
        InputError: as Reference.of.
    """
    return {
        label: Reference.of(part, features, seed, directions, progress, keep=keep)
        for label, part in _split(real, labels, "real samples").items()
    }


def by_class(
    samples: Tensor,
    labels: Tensor,
    references: Mapping[int, Reference],
    progress: Progress | None = None,
    *,
    scores: Collection[str] = (),
    errors: bool = False,
) -> ClassScores:
    """The scores of the samples of each class against the real data of that class, and their mean.

    Arguments:
        samples: shape (N, \\*S).
        labels: their classes, shape (N,), whole numbers; each must have a reference, and all classes must occur.
        references: the real data of each class: :func:`references_by_class`.
        progress: told of the batches.
        scores: as of :func:`headstart.metrics.evaluate`.
        errors: as of :func:`headstart.metrics.evaluate`, for classes of 4 samples or more.

    Raises:
        DataError: if the labels do not fit, or the classes are not those of the references, or as evaluate.
        InputError: as evaluate.
    """
    parts = _split(samples, labels, "samples")
    if set(parts) != set(references):
        raise DataError(f"the samples are of classes {sorted(parts)}, the references of {sorted(references)}")
    return ClassScores.of(
        {
            label: evaluate(part, references[label], progress, scores=scores, errors=errors and len(part) >= ENOUGH)
            for label, part in parts.items()
        }
    )


def floor_by_class(
    references: Mapping[int, Reference],
    held_out: Tensor,
    labels: Tensor,
    counts: Mapping[int, int],
    seed: int = 0,
    progress: Progress | None = None,
    *,
    scores: Collection[str] = (),
    errors: bool = False,
) -> ClassScores:
    """The noise floor of each class, and its mean: see :func:`headstart.metrics.floor`.

    Arguments:
        references: the real data of each class.
        held_out: real samples that are in none of them, shape (M, \\*S).
        labels: their classes, shape (M,), whole numbers; each class that has a reference must occur, others may.
        counts: how many samples of each class are in question; where fewer are held out, the floor is of all of them.
        seed: as of :func:`headstart.metrics.floor`, and so are all others.
        progress: told of the batches.
        scores: names of scores.
        errors: whether to compute the standard errors, for classes of 4 samples or more.

    Raises:
        DataError: if the labels do not fit, or a class does not occur, or as floor.
        InputError: as floor.
    """
    parts = _split(held_out, labels, "held-out samples")
    if missing := sorted(set(references) - set(parts)):
        raise DataError(f"there are no held-out samples of classes {missing}")
    each = {}
    for label, reference in references.items():
        n = min(counts[label], len(parts[label]))
        known = errors and n >= ENOUGH
        each[label] = floor(reference, parts[label], n, seed, progress, scores=scores, errors=known)
    return ClassScores.of(each)


def _split(x: Tensor, labels: Tensor, what: str) -> dict[int, Tensor]:
    """The samples of each class, classes ascending."""
    if labels.shape != x.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"the {what} have shape {tuple(x.shape)} and labels {tuple(labels.shape)} of type {labels.dtype}: "
            "expected one whole number each"
        )
    labels = labels.to(x.device)
    return {int(label): x[labels == label] for label in torch.unique(labels)}
