"""Checks of the samples that a distance compares, and even subsamples of them."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from headstart.arrays import as_tensor, check_numbers
from headstart.errors import DataError

__all__ = ["check_same_shape", "check_samples", "digest", "evenly"]


def check_samples(x: Tensor, what: str, most: float = math.inf) -> Tensor:
    """At least two finite floating-point samples, shape (N, \\*S), from a tensor or an array; otherwise a DataError."""
    x = as_tensor(x, f"the {what}")
    if x.ndim < 2 or len(x) < 2:
        raise DataError(f"the {what} have shape {tuple(x.shape)}: expected (N, ...) with N of at least 2")
    if not x.is_floating_point():
        raise DataError(f"the {what} hold {x.dtype} values: expected floating point")
    check_numbers(x, f"the {what}", most)
    return x


def check_same_shape(a: tuple[int, ...], b: tuple[int, ...], what: str) -> None:
    """A DataError unless one sample has the same shape in both sets."""
    if tuple(a) != tuple(b):
        raise DataError(
            f"the {what} have shapes {tuple(a)} and {tuple(b)}: one sample must have the same shape in both"
        )


def evenly(x: Tensor, count: int) -> Tensor:
    """At most ``count`` of the samples, evenly spaced, since they may be sorted."""
    count = min(count, len(x))
    return x[torch.arange(count) * len(x) // count]


def digest(x: Tensor) -> str:
    """Tells samples of shape (N, \\*S) from others: the first 16 hexadecimal digits of SHA-256 over shape and bytes."""
    found = hashlib.sha256(f"{tuple(x.shape)} {x.dtype}".encode())
    found.update(x.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
