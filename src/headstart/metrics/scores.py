"""Scores of samples against real data, and the noise floor: what real samples themselves score.

What the scores need of the real data is computed once, in a :class:`Reference`:

    >>> real, held_out = torch.randn(400, 5), torch.randn(200, 5)
    >>> reference = Reference.of(real)
    >>> evaluate(held_out + 3, reference).swd > 10 * floor(reference, held_out).swd
    True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics.checks import check_same_shape, check_samples
from headstart.metrics.frechet import GaussianStatistics
from headstart.metrics.wasserstein import compare, directions_of, project
from headstart.progress import Progress

__all__ = ["Features", "Reference", "Scores", "evaluate", "floor"]

#: Maps samples (B, *S) to features (B, F).
Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """Distances of samples from real data; smaller is better, and the noise floor is as small as is meaningful.

    Attributes:
        frechet: Fréchet distance of the features, or None without features.
        swd: sliced Wasserstein distance, in the data's units.
        max_swd: max-sliced Wasserstein distance, in the data's units.
        n: number of samples; the distances are biased upwards, the more so the smaller n is.
        n_reference: number of real samples.
        seed: of the random directions.
    """

    frechet: float | None
    swd: float
    max_swd: float
    n: int
    n_reference: int
    seed: int

    def __repr__(self) -> str:
        frechet = "" if self.frechet is None else f"frechet {self.frechet:.3g}, "
        return (
            f"Scores({frechet}swd {self.swd:.3g}, max-swd {self.max_swd:.3g}; n = {self.n} against {self.n_reference})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Reference:
    """Real data, as the scores need them. Made by :meth:`of`.

    Attributes:
        shape: the shape S of one sample.
        directions: unit vectors, shape (dimension, directions).
        projections: the sorted projections of the real data, shape (directions, N).
        features: what the Fréchet distance is measured in, or None.
        statistics: of the real data's features, or None.
        seed: of the directions.
    """

    shape: tuple[int, ...]
    directions: Tensor
    projections: Tensor
    features: Features | None
    statistics: GaussianStatistics | None
    seed: int

    @classmethod
    def of(
        cls,
        real: Tensor,
        features: Features | None = None,
        seed: int = 0,
        directions: int = 512,
        progress: Progress | None = None,
    ) -> Reference:
        """The reference that real samples of shape (N, \\*S) give.

        Arguments:
            real: the real samples.
            features: maps samples (B, \\*S) to features (B, F); it is called on batches.
            seed: of the directions of the sliced distances.
            directions: their number.
            progress: told of the batches.

        Raises:
            DataError: if there are fewer than two samples, or samples or features hold NaN or Inf.
            InputError: if the number of directions or the seed is out of range.
        """
        u = directions_of(check_samples(real, "real samples")[0].numel(), directions, seed)
        statistics = None if features is None else _statistics(real, features, progress)
        return cls(tuple(real.shape[1:]), u, project(real, u), features, statistics, seed)

    def __len__(self) -> int:
        return self.projections.shape[1]

    def __repr__(self) -> str:
        features = "no features" if self.statistics is None else f"{len(self.statistics.mean)} features"
        directions = self.directions.shape[1]
        return f"Reference({len(self)} samples of shape {self.shape}, {features}, {directions} directions)"


def evaluate(samples: Tensor, reference: Reference, progress: Progress | None = None) -> Scores:
    """The scores of samples of shape (N, \\*S) against the reference.

    Raises:
        DataError: if there are fewer than two samples, or NaN or Inf, or one is not of the reference's shape.
    """
    check_same_shape(check_samples(samples, "samples").shape[1:], reference.shape, "samples and the reference")
    frechet = None
    if reference.features is not None and reference.statistics is not None:
        frechet = _statistics(samples, reference.features, progress).distance(reference.statistics)
    distances = compare(project(samples, reference.directions), reference.projections)
    return Scores(frechet, distances.mean, distances.max, len(samples), len(reference), reference.seed)


def floor(
    reference: Reference, held_out: Tensor, n: int | None = None, seed: int = 0, progress: Progress | None = None
) -> Scores:
    """The noise floor: the scores of ``n`` real samples that are not in the reference.

    Arguments:
        reference: what the samples in question are scored against.
        held_out: real samples that are not in it, shape (M, \\*S).
        n: how many samples are in question; they are drawn without replacement. By default all M.
        seed: of that draw.
        progress: told of the batches.

    Raises:
        InputError: if n is not from 2 to M.
        DataError: as :func:`evaluate`.
    """
    n = len(held_out) if n is None else n
    if not 2 <= n <= len(held_out):
        raise InputError(f"the noise floor of {n} samples cannot be measured on {len(held_out)} held-out ones")
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(seed))
    return evaluate(held_out[order[:n].to(held_out.device)], reference, progress)


@torch.no_grad()
def _statistics(x: Tensor, features: Features, progress: Progress | None, batch: int = 500) -> GaussianStatistics:
    batches = torch.split(x, batch)
    rows = []
    for part in (progress or Progress()).track(batches, "features", len(batches)):
        row = features(part)
        if row.ndim != 2 or len(row) != len(part):
            raise DataError(f"the features of {len(part)} samples have shape {tuple(row.shape)}: expected (B, F)")
        rows.append(row.cpu())
    return GaussianStatistics.of(torch.cat(rows))
