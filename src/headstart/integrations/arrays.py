"""Networks of JAX, NumPy and whatever else takes and returns arrays.

>>> import numpy as np
>>> from headstart import adapt
>>> shrink = numpy_network(lambda z, sigma: z / (1 + sigma.reshape(-1, 1) ** 2), batch=4)
>>> adapt(shrink, "x0")(torch.ones(6, 2), 1.0)[0].tolist()
[0.5, 0.5]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from headstart.errors import DenoiserError, InputError

__all__ = ["ArrayNetwork", "numpy_network"]


@dataclass(frozen=True)
class ArrayNetwork:
    """A function of arrays, called with tensors. Made by :func:`numpy_network`.

    Attributes:
        function: called as ``function(z, time, **conditions)`` with arrays.
        batch: how many samples it takes at a time, or None for any number.
        layout: where it has its channels.
        dtype: of the numbers that it is handed.
    """

    function: Callable[..., Any]
    batch: int | None = None
    layout: Literal["first", "last"] = "first"
    dtype: Any = np.float32

    def __call__(self, z: Tensor, time: Any, /, **conditions: Any) -> Tensor:
        count = len(z)
        inputs = {"z": _array(z, self.dtype), "time": np.broadcast_to(_array(time, self.dtype), (count,))}
        if self.layout == "last" and z.ndim > 2:
            inputs["z"] = np.ascontiguousarray(np.moveaxis(inputs["z"], 1, -1))
        given = {name: _array(value) for name, value in conditions.items()}
        own = [name for name, value in given.items() if isinstance(value, np.ndarray) and value.shape[:1] == (count,)]
        inputs.update({name: given.pop(name) for name in own})
        size = self.batch or count
        parts = []
        for first in range(0, count, size):
            rows = {name: _padded(value[first : first + size], size) for name, value in inputs.items()}
            out = np.asarray(self.function(rows.pop("z"), rows.pop("time"), **rows, **given))
            if out.shape[:1] != (size,):
                raise DenoiserError(
                    f"the function returned shape {out.shape} for {size} samples: expected a row for each"
                )
            parts.append(out[: min(size, count - first)])
        found = np.concatenate(parts)
        if self.layout == "last" and found.ndim > 2:
            found = np.moveaxis(found, -1, 1)
        if not np.issubdtype(found.dtype, np.floating):
            raise DenoiserError(f"the function returned an array of {found.dtype}: expected floating-point numbers")
        # A copy: arrays of JAX are read-only.
        return torch.from_numpy(np.array(found)).to(z)


def numpy_network(
    function: Callable[..., Any],
    batch: int | None = None,
    *,
    layout: Literal["first", "last"] = "first",
    dtype: Any = np.float32,
) -> ArrayNetwork:
    """A network of tensors from a function of arrays, for :func:`headstart.adapt`, or as a denoiser itself.

    Arguments:
        function: called as ``function(z, time, **conditions)`` with NumPy arrays of shapes (B, \\*S) and (B,); returns
            an array of z's shape, of NumPy, JAX or anything that NumPy takes for an array.
        batch: the number of samples that it is compiled for: it then always gets as many, the last ones padded by
            copies of the last sample, and larger batches are cut. Calls then count by those of this network.
        layout: "last" for images as (B, H, W, C), which JAX's networks expect.
        dtype: of z and the time.

    Raises:
        InputError: if the batch is less than one sample, or the layout is unknown.
    """
    if batch is not None and batch < 1:
        raise InputError(f"a batch has 1 sample or more: got {batch}")
    if layout not in ("first", "last"):
        raise InputError(f"channels are first or last: got {layout!r}")
    return ArrayNetwork(function, batch, layout, dtype)


def _array(value: Any, dtype: Any = None) -> Any:
    """A tensor as an array; anything else as it is, unless a type is asked for."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype in (torch.float16, torch.bfloat16) else value).numpy()
    return value if dtype is None else np.asarray(value, dtype=dtype)


def _padded(rows: Any, size: int) -> Any:
    missing = size - len(rows)
    return rows if not missing else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
