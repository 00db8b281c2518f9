"""Arrays that may be larger than memory: on a temporary file where they are large.

The system keeps the pages of such a file in memory or writes them out, as there is room. The file has no name, and is
gone with the last tensor on it. It lies in the folder of temporary files, which ``TMPDIR`` names; where that folder is
itself in memory (tmpfs), nothing is saved.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from headstart.errors import DataError

__all__ = ["LARGE", "converted", "empty", "is_large", "taken"]

#: Bytes of an array that are more than is held in memory.
LARGE = 1 << 28

#: Bytes that are worked on at a time.
CHUNK = 1 << 26


def is_large(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> bool:
    """Whether numbers of this shape and type take more than :data:`LARGE` bytes."""
    return math.prod(shape) * dtype.itemsize > LARGE


def empty(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor to be filled: in memory, or on a temporary file where it is large.

    Raises:
        DataError: if there is no room for the file.
    """
    if not is_large(shape, dtype):
        return torch.empty(shape, dtype=dtype)
    size = math.prod(shape) * dtype.itemsize
    try:
        with tempfile.TemporaryFile(prefix="headstart-") as file:
            file.truncate(size)
            held = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"{size / 2**30:.3g} GiB of numbers need a temporary file in {tempfile.gettempdir()}, which cannot be made "
            f"({getattr(error, 'strerror', None) or error}): name another folder by TMPDIR"
        ) from error
    return torch.from_numpy(held).view(dtype).view(shape)


def taken(x: Tensor, rows: Tensor | slice) -> Tensor:
    """Some rows of a tensor (N, ...), as ``x[rows]``; a copy that is large lies on a temporary file.

    Arguments:
        x: the tensor.
        rows: indices (M,), a mask (N,), or a slice, which is a view and no copy.

    Raises:
        DataError: if there is no room for the file.
    """
    if isinstance(rows, slice) or x.device.type != "cpu" or not is_large((len(rows), *x.shape[1:]), x.dtype):
        return x[rows]
    index = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
    return converted(index, lambda part: x[part], x.shape[1:], x.dtype)


def converted(x: Tensor, change: Callable[[Tensor], Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The results of a function for the rows of a tensor (N, ...), some rows at a time.

    Arguments:
        x: the tensor.
        change: from some rows (B, ...) to as many of the result.
        shape: of a row of the result.
        dtype: of the result.

    Raises:
        DataError: if there is no room for the file that it needs.
    """
    if not is_large((len(x), *shape), dtype):
        return change(x)
    found = empty((len(x), *shape), dtype)
    size = max(1, CHUNK // (math.prod(shape) * dtype.itemsize))
    for first in range(0, len(x), size):
        found[first : first + size] = change(x[first : first + size])
    return found
