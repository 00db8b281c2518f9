"""One array of many samples that come one after the other, each from a file of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.errors import DataError
from headstart.large import converted, empty

__all__ = ["stacked"]

COLOURS = 3


def stacked(samples: Iterable[tuple[str, NDArray[Any]]], count: int) -> Tensor:
    """Samples in one array, (N, \\*S), which lies on a temporary file where it is large.

    No more than one sample is held beside it. Grey images become three channels where one is in colour.

    Arguments:
        samples: the name and the content of each: bytes, of which (H, W) is a grey image and (H, W, 3) one in colour,
            or floating-point numbers, which come in float32.
        count: how many there are.

    Raises:
        DataError: if one is of another shape or type than the first, or holds NaN or Inf; the message names both.
    """
    found, first, done = torch.empty(0), "", 0
    for name, sample in samples:
        own = _checked(sample, name)
        if not first:
            found, first = empty((count, *own.shape), torch.uint8 if own.dtype == np.uint8 else torch.float32), name
        if own.dtype == found.numpy().dtype == np.uint8 and own.shape[:2] == tuple(found.shape[1:3]):
            if own.shape[2:] == (COLOURS,) and found.ndim == 3:  # the first one in colour
                found = _coloured(found)
            elif own.ndim == 2 and found.shape[3:] == (COLOURS,):
                own = np.broadcast_to(own[..., None], found.shape[1:])
        if (own.dtype, own.shape) != (found.numpy().dtype, tuple(found.shape[1:])):
            there = _said(tuple(found.shape[1:]), found.numpy().dtype)
            raise DataError(f"{name} is {_said(own.shape, own.dtype)} and {first} is {there}: bring them to one size")
        found.numpy()[done] = own
        done += 1
    if done != count:
        raise DataError(f"{done} samples came where {count} were counted")
    return found


def _checked(sample: NDArray[Any], name: str) -> NDArray[Any]:
    """Bytes as they are, and finite numbers in float32."""
    if sample.dtype.kind != "f" and sample.dtype != np.uint8:
        raise DataError(
            f"{name} holds {sample.dtype} values: convert them to floating point, or images to bytes (uint8)"
        )
    if not sample.ndim or not sample.size:
        raise DataError(f"{name} has shape {sample.shape}: expected a sample of one axis or more")
    if sample.dtype == np.uint8:
        return sample
    with np.errstate(over="ignore"):  # what overflows becomes Inf
        own = sample.astype(np.float32)
    if wrong := int((~np.isfinite(own)).sum()):
        raise DataError(f"{name} holds {wrong} NaN or infinite values: remove or fill them first")
    return own


def _coloured(grey: Tensor) -> Tensor:
    """Grey images (N, H, W) with three channels that are the same, (N, H, W, 3)."""
    shape = (*grey.shape[1:], COLOURS)
    return converted(grey, lambda part: part[..., None].expand(-1, *shape), shape, torch.uint8).contiguous()


def _said(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    if dtype == np.uint8 and (len(shape) == 2 or shape[2:] == (COLOURS,)):
        return f"{shape[1]} x {shape[0]} pixels"
    return f"{'bytes' if dtype == np.uint8 else 'numbers'} of shape {shape}"
