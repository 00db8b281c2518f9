"""Scores of samples against real data, and the noise floor: what real samples themselves score.

What the scores need of the real data is computed once, in a :class:`Reference`:

    >>> real, held_out = torch.randn(400, 5), torch.randn(200, 5)
    >>> reference = Reference.of(real)
    >>> evaluate(held_out + 3, reference).swd > 10 * floor(reference, held_out).swd
    True

Three scores are always computed: the sliced and max-sliced distances, and the Fréchet distance if there are features.
The others cost more, and are asked for by name, of a reference that keeps its samples:

    >>> reference = Reference.of(real, lambda x: x, keep=True)
    >>> evaluate(held_out, reference, scores=("kid", "coverage"))  # doctest: +ELLIPSIS
    Scores(frechet ..., swd ..., max-swd ..., kid ... +- ..., coverage ... +- ...; n = 200 against 400)

=============  ====================================  ======================================================
score          what                                  its standard error
=============  ====================================  ======================================================
``frechet``    Fréchet distance of the features      jackknife over the samples, the reference held fixed
``swd``        sliced Wasserstein distance           the same
``max_swd``    the largest of its directions         the same
``max_sliced`` the largest that ascent finds         the same, along the direction that was found
``kid``        kernel distance of the features       spread of blocks of both the samples and the reference
``precision``  :mod:`headstart.metrics.manifold`     of the mean over the samples, the reference held fixed
``recall``     the same                              jackknife over the samples, the reference held fixed
``density``    the same                              of the mean over the samples, the reference held fixed
``coverage``   the same                              jackknife over the samples, the reference held fixed
=============  ====================================  ======================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from headstart.arrays import LARGEST
from headstart.errors import DataError, InputError
from headstart.metrics.checks import check_same_shape, check_samples, digest
from headstart.metrics.features import Features, features_of
from headstart.metrics.frechet import GaussianStatistics, feature_statistics
from headstart.metrics.metric import METRICS, Comparison
from headstart.metrics.wasserstein import directions_of, quantiles
from headstart.noise import generator_of
from headstart.progress import Progress

__all__ = ["Reference", "Scores", "always", "evaluate", "floor", "floor_note", "needed"]

#: Samples that errors need.
ENOUGH = 4


@dataclass(frozen=True)
class Scores:
    """Scores of samples against real data. Of distances smaller is better; the noise floor is as small as is
    meaningful. What was not asked for is None.

    Attributes:
        frechet: Fréchet distance of the features, or None without features.
        swd: sliced Wasserstein distance, in the data's units.
        max_swd: max-sliced Wasserstein distance, in the data's units, over the same random directions.
        n: number of samples; the distances are biased upwards, the more so the smaller n is.
        n_reference: number of real samples.
        seed: of the random directions, blocks and groups.
        max_sliced: max-sliced Wasserstein distance, in the data's units, over all directions.
        kid: kernel distance of the features, unbiased.
        precision: share of the samples that are like data; larger is better.
        recall: share of the data that are like samples; larger is better.
        density: how many balls of the data a sample is in; larger is better, and 1 for the data's own law.
        coverage: share of the data's balls with a sample in them; larger is better.
        errors: standard errors by the scores' names, of those that have one.
        converged: whether the search for the max-sliced distance converged.
        more: the scores of other distributions' metrics, by their names.
    """

    frechet: float | None
    swd: float
    max_swd: float
    n: int
    n_reference: int
    seed: int
    max_sliced: float | None = None
    kid: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    converged: bool | None = None
    more: Mapping[str, float] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """The score of that name, or None if there is none."""
        found: float | None = self.more.get(name) if name not in OWN else getattr(self, name)
        return found

    def items(self) -> Iterator[tuple[str, float, float | None]]:
        """The name, value and standard error (None if there is none) of every score there is."""
        for name in METRICS:
            value = self.value(name)
            if value is not None:
                yield name, value, self.errors.get(name)

    @property
    def cited(self) -> tuple[str, ...]:
        """The references of the scores, each once: keys of ``references.bib``, or whole BibTeX entries."""
        return tuple(dict.fromkeys(key for name, _, _ in self.items() for key in METRICS[name].cites))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, all scores side by side."""
        plain = asdict(self)
        return {name: value for name, value in plain.items() if name != "more"} | dict(self.more)

    def __repr__(self) -> str:
        return f"Scores({written(self.items())}; n = {self.n} against {self.n_reference})"


#: The names that are fields; all others are in ``more``.
OWN = frozenset(member.name for member in fields(Scores))


def always() -> tuple[str, ...]:
    """The names of the metrics that are computed unasked."""
    return tuple(name for name, metric in METRICS.items() if metric.always)


def written(items: Iterable[tuple[str, float, float | None]]) -> str:
    """Scores in words: the name, value and standard error of each."""
    each = (
        f"{name.replace('_', '-')} {value:.3g}" + ("" if error is None else f" +- {error:.2g}")
        for name, value, error in items
    )
    return ", ".join(each)


@dataclass(frozen=True, eq=False, repr=False)
class Reference:
    """Real data, as the scores need them. Made by :meth:`of`.

    Attributes:
        shape: the shape S of one sample.
        count: how many real samples there are, N.
        directions: unit vectors, shape (dimension, directions).
        projections: the sorted projections of the real data, shape (directions, N); of more than 262,144 samples, as
            many quantiles of them.
        features: what the Fréchet distance is measured in, or None.
        statistics: of the real data's features, or None.
        seed: of the directions.
        rows: the features of the real data, shape (N, F), if they are kept.
        samples: the real data, if they are kept.
        digest: tells the reference from those of other real data, features or directions.
    """

    shape: tuple[int, ...]
    count: int
    directions: Tensor
    projections: Tensor
    features: Features | None
    statistics: GaussianStatistics | None
    seed: int
    rows: Tensor | None = None
    samples: Tensor | None = None
    digest: str = ""

    @classmethod
    def of(
        cls,
        real: Tensor,
        features: Features | None = None,
        seed: int = 0,
        directions: int = 512,
        progress: Progress | None = None,
        *,
        keep: bool = False,
        statistics: GaussianStatistics | None = None,
    ) -> Reference:
        """The reference that real samples of shape (N, \\*S) give.

        Arguments:
            real: the real samples.
            features: maps samples (B, \\*S) to features (B, F); it is called on batches.
            seed: of the directions of the sliced distances.
            directions: their number.
            progress: told of the batches.
            keep: whether to keep the samples and their features, for the scores that cannot do without: all but
                ``frechet``, ``swd`` and ``max_swd``.
            statistics: what the Fréchet distance is measured to instead of the real samples' own features, such as
                published ones: :meth:`headstart.metrics.GaussianStatistics.load`.

        Raises:
            DataError: if there are fewer than two samples, or samples or features hold NaN or Inf.
            InputError: if the number of directions or the seed is out of range, or there are statistics of features
                but no features.
        """
        real = check_samples(real, "real samples", LARGEST)
        u = directions_of(real[0].numel(), directions, seed)
        if features is None and statistics is not None:
            raise InputError("statistics are of features: say which")
        rows = None if features is None or not keep else features_of(real, features, progress)
        if statistics is None and features is not None:
            statistics = feature_statistics(real, features, progress) if rows is None else GaussianStatistics.of(rows)
        kept = real if keep else None
        projections = quantiles(real, u)
        identity = _identity(real, seed, directions, statistics)
        return cls(tuple(real.shape[1:]), len(real), u, projections, features, statistics, seed, rows, kept, identity)

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        features = "no features" if self.statistics is None else f"{len(self.statistics.mean)} features"
        directions = self.directions.shape[1]
        return f"Reference({len(self)} samples of shape {self.shape}, {features}, {directions} directions)"


def evaluate(
    samples: Tensor,
    reference: Reference,
    progress: Progress | None = None,
    *,
    scores: Collection[str] = (),
    errors: bool = False,
) -> Scores:
    """The scores of samples of shape (N, \\*S) against the reference.

    Arguments:
        samples: what is scored.
        reference: the real data.
        progress: told of the batches.
        scores: names of those that are asked for beside ``frechet``, ``swd`` and ``max_swd``: see the module.
        errors: whether to compute the standard errors of these three too, at ten times their cost.

    Raises:
        DataError: if there are fewer than two samples, or NaN or Inf, or one is not of the reference's shape; or fewer
            than a score or an error can be made of.
        InputError: if a score is unknown, or asks for features, or for a reference that keeps its samples.
    """
    samples = check_samples(samples, "samples", LARGEST)
    check_same_shape(samples.shape[1:], reference.shape, "samples and the reference")
    _check_scores(scores, reference)
    if errors and len(samples) < ENOUGH:
        raise DataError(f"there are {len(samples)} samples: expected at least {ENOUGH}, for errors")
    if min(len(samples), len(reference)) < (least := needed(scores)):
        raise DataError(
            f"there are {len(samples)} samples and {len(reference)} in the reference: {', '.join(scores)} needs "
            f"{least} of either"
        )
    names = {*always(), *scores}
    asked = {name: metric for name, metric in METRICS.items() if name in names}
    if reference.features is None:
        asked = {name: metric for name, metric in asked.items() if not metric.of_features}
    whole = errors or any(metric.of_features and not metric.always for metric in asked.values())
    compared = Comparison(samples, reference, errors, whole, progress)
    found = {name: metric.score(compared) for name, metric in asked.items()}
    searches = [value.converged for value in found.values() if value.converged is not None]
    values = {name: value.value for name, value in found.items()}
    return Scores(
        values.pop("frechet", None),
        n=len(samples),
        n_reference=len(reference),
        seed=reference.seed,
        errors={name: value.error for name, value in found.items() if value.error is not None},
        converged=all(searches) if searches else None,
        more={name: value for name, value in values.items() if name not in OWN},
        **{name: value for name, value in values.items() if name in OWN},
    )


def floor(
    reference: Reference,
    held_out: Tensor,
    n: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    scores: Collection[str] = (),
    errors: bool = False,
) -> Scores:
    """The noise floor: the scores of ``n`` real samples that are not in the reference.

    Arguments:
        reference: what the samples in question are scored against.
        held_out: real samples that are not in it, shape (M, \\*S).
        n: how many samples are in question; they are drawn without replacement. By default all M.
        seed: of that draw.
        progress: told of the batches.
        scores: as of :func:`evaluate`.
        errors: as of :func:`evaluate`.

    Raises:
        InputError: if n is not from 2 to M, or as :func:`evaluate`.
        DataError: as :func:`evaluate`.
    """
    n = len(held_out) if n is None else n
    if not 2 <= n <= len(held_out):
        raise InputError(f"the noise floor of {n} samples cannot be measured on {len(held_out)} held-out ones")
    order = torch.randperm(len(held_out), generator=generator_of(seed))
    drawn = held_out[order[:n].to(held_out.device)]
    return evaluate(drawn, reference, progress, scores=scores, errors=errors)


def floor_note(n_floor: int, n: int) -> str:
    """A note on a noise floor of ``n_floor`` real samples beside n samples; empty if it has at least as many."""
    if n_floor >= n:
        return ""
    return f"The floor is of {n_floor} samples, all that are held out: it is higher than that of {n}"


def needed(scores: Collection[str]) -> int:
    """How many samples the scores need on either side."""
    return max((METRICS[name].least for name in scores), default=2)


def _check_scores(scores: Collection[str], reference: Reference) -> None:
    if isinstance(scores, str) or (unknown := sorted(set(scores) - set(METRICS))):
        names = scores if isinstance(scores, str) else ", ".join(unknown)
        raise InputError(f"unknown scores {names!r}: expected a collection of {', '.join(METRICS)}")
    wanted = sorted(set(scores)) if set(scores) != set(always()) else []
    if reference.features is None and (without := [name for name in wanted if METRICS[name].of_features]):
        raise InputError(f"{', '.join(without)} are scores of features: make the reference with features")
    if reference.samples is None and (without := [name for name in wanted if not METRICS[name].always]):
        raise InputError(
            f"{', '.join(without)} ask for a reference that keeps its samples: Reference.of(..., keep=True)"
        )


def _identity(real: Tensor, seed: int, directions: int, statistics: GaussianStatistics | None) -> str:
    """Tells a reference from others: by its samples, directions and features.

    Features count to three digits, since the others are those of the machine and of its number of threads.
    """
    of = None
    if statistics is not None:
        of = len(statistics.mean), f"{statistics.mean.norm():.3g}", f"{statistics.covariance.trace():.3g}"
    return hashlib.sha256(f"{digest(real)} {seed} {directions} {of}".encode()).hexdigest()[:16]
