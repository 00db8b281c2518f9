"""Features of samples, batch by batch. Several processes (:mod:`headstart.processes`) share the batches out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from headstart.errors import DataError
from headstart.processes import count, spread
from headstart.progress import Progress

__all__ = ["Features", "feature_rows", "features_of", "made_of_shares"]

R = TypeVar("R")

#: Maps samples (B, *S) to features (B, F).
Features = Callable[[Tensor], Tensor]

#: Samples a call.
BATCH = 500


def feature_rows(x: Tensor, features: Features, progress: Progress | None = None) -> Iterator[Tensor]:
    """The features of samples (N, \\*S) in batches (B, F), where the network leaves them, by this process alone.

    Raises:
        DataError: if they are not a row a sample.
    """
    return _rows(torch.split(x, BATCH), features, progress)


def features_of(x: Tensor, features: Features, progress: Progress | None = None) -> Tensor:
    """The features of samples (N, \\*S) in one tensor (N, F), on the CPU.

    Raises:
        DataError: if they are not a row a sample.
    """

    def track(batches: Sequence[Tensor]) -> Iterable[Tensor]:
        return (progress or Progress()).track(batches, "features", len(batches))

    return torch.cat(spread(torch.split(x, BATCH), lambda batch: _row(batch, features).cpu(), track))


def made_of_shares(
    x: Tensor, features: Features, make: Callable[[Iterable[Tensor]], R], progress: Progress | None = None
) -> list[R]:
    """The values that the processes make of their shares of the features of samples (N, \\*S), one a process.

    Arguments:
        x: the samples.
        features: maps samples to features.
        make: makes something of features in batches (B, F), which may be none. It can be pickled.
        progress: told of the batches.

    Raises:
        DataError: if the features are not a row a sample.
    """
    batches, processes = torch.split(x, BATCH), count()
    return spread(range(processes), lambda i: make(_rows(batches[i::processes], features, progress)))


def _rows(batches: Sequence[Tensor], features: Features, progress: Progress | None) -> Iterator[Tensor]:
    for batch in (progress or Progress()).track(batches, "features", len(batches)):
        yield _row(batch, features)


@torch.no_grad()
def _row(batch: Tensor, features: Features) -> Tensor:
    rows = features(batch)
    if rows.ndim != 2 or len(rows) != len(batch):
        raise DataError(f"the features of {len(batch)} samples have shape {tuple(rows.shape)}: expected (B, F)")
    return rows
