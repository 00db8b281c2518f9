"""Arrays from outside as tensors: one rule for data, labels and conditions, in memory or from a file.

The numbers are kept, and so is their type where PyTorch has it; byte order and strides do not matter. What cannot be
taken without loss is refused: entries under a mask, objects, text, numbers whose squares would overflow.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.errors import DataError

__all__ = ["LARGEST", "as_classes", "as_tensor", "check_numbers"]

#: The largest magnitude of a sample: squares of it, added up over a sample, must not overflow float32.
LARGEST = 1e15

#: Rows that are checked at a time: the check makes a copy of them.
ROWS = 4096


def as_tensor(value: Any, name: str) -> Tensor:
    """The numbers of an array, of a (nested) list or of a tensor, which is returned as it is.

    Arguments:
        value: real numbers.
        name: what they are called in messages.

    Raises:
        DataError: if they are no real numbers, if some are masked, or if a tensor is sparse, quantised or without data.
    """
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            kind = "quantised" if value.is_quantized else "without data (meta)" if value.is_meta else "sparse"
            raise DataError(f"{name} holds a tensor that is {kind}: expected a dense one")
        return value
    parts = value if isinstance(value, list | tuple) else [value]
    masks = [np.asarray(part.mask) & np.ones(part.shape, bool) for part in parts if isinstance(part, np.ma.MaskedArray)]
    if hidden := sum(int(mask.sum()) for mask in masks):
        raise DataError(f"{name} holds {hidden} masked values: remove or fill them first")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{name} cannot be made an array: {error}") from error
    if array.dtype.kind not in "fiub":
        kind = f"{array.dtype} values" if isinstance(value, np.ndarray) or array.ndim else f"a {type(value).__name__}"
        raise DataError(f"{name} holds {kind}: expected an array of real numbers")
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    elif dtype.kind == "u" and dtype.itemsize > 1:  # of which PyTorch knows little
        if array.size and array.max() > np.iinfo(np.int64).max:
            raise DataError(f"{name} holds {array.max()}: expected whole numbers below 2^63")
        dtype = np.dtype(np.int64)
    with np.errstate(over="ignore"):  # what overflows becomes Inf, which is refused where the numbers are checked
        return torch.from_numpy(np.array(array, dtype=dtype, order="C"))


def as_classes(value: Any, name: str) -> Tensor:
    """Classes, as int64, in the shape that they come in.

    Raises:
        DataError: if they are no whole numbers.
    """
    classes = as_tensor(value, name)
    if classes.is_floating_point() or classes.is_complex():
        raise DataError(f"{name} has type {classes.dtype}: expected integers")
    return classes.long()


def check_numbers(x: Tensor, what: str, most: float = LARGEST) -> None:
    """A DataError if floating-point numbers (N, ...) are NaN, infinite or above ``most`` in magnitude."""
    x = x.detach()
    extremes = [torch.aminmax(part) for part in torch.split(x, ROWS) if part.numel()]
    largest = max((max(-float(low), float(high)) for low, high in extremes), default=0.0)
    finite = all(math.isfinite(float(low)) and math.isfinite(float(high)) for low, high in extremes)
    if not finite:
        bad = sum(int((~torch.isfinite(part)).sum()) for part in torch.split(x, ROWS))
        raise DataError(f"{what}: {bad} NaN or infinite values, remove or fill them first")
    if largest > most:
        raise DataError(f"{what}: values up to {largest:.3g} are too large, use another unit (the limit is {most:g})")
