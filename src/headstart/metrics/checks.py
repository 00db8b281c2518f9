"""What a distance between two sets of samples asks of them."""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.errors import DataError

__all__ = ["check_same_shape", "check_samples"]

#: Samples that are checked at a time: the check makes a copy of them.
ROWS = 4096


def check_samples(x: Tensor, what: str) -> Tensor:
    """``x`` if it is at least two finite floating-point samples, shape (N, \\*S); otherwise a DataError."""
    if x.ndim < 2 or len(x) < 2:
        raise DataError(f"the {what} have shape {tuple(x.shape)}: expected (N, ...) with N of at least 2")
    if not x.is_floating_point():
        raise DataError(f"the {what} hold {x.dtype} values: expected floating point")
    if bad := sum(int((~torch.isfinite(part)).sum()) for part in torch.split(x, ROWS)):
        raise DataError(f"the {what} hold {bad} NaN or infinite values")
    return x


def check_same_shape(a: tuple[int, ...], b: tuple[int, ...], what: str) -> None:
    """A DataError unless one sample has the same shape in both sets."""
    if tuple(a) != tuple(b):
        raise DataError(
            f"the {what} have shapes {tuple(a)} and {tuple(b)}: one sample must have the same shape in both"
        )
