"""Features of samples, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from headstart.errors import DataError
from headstart.progress import Progress

__all__ = ["Features", "feature_rows"]

#: Maps samples (B, *S) to features (B, F).
Features = Callable[[Tensor], Tensor]

#: Samples a call.
BATCH = 500


@torch.no_grad()
def feature_rows(x: Tensor, features: Features, progress: Progress | None = None) -> Iterator[Tensor]:
    """The features of samples (N, \\*S) in batches (B, F), where the network leaves them.

    Raises:
        DataError: if they are not a row a sample.
    """
    batches = torch.split(x, BATCH)
    for batch in (progress or Progress()).track(batches, "features", len(batches)):
        rows = features(batch)
        if rows.ndim != 2 or len(rows) != len(batch):
            raise DataError(f"the features of {len(batch)} samples have shape {tuple(rows.shape)}: expected (B, F)")
        yield rows
