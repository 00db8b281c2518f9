"""The values and tensors of a saved start or profile, each checked as it is taken.

A file may claim anything. Every tensor that is taken has the shape that the rest says, holds finite real numbers
within a range, and no value makes more memory than the file itself holds, up to a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from headstart.arrays import LARGEST
from headstart.errors import InputError

__all__ = ["INTEGERS", "MOST", "SQUARE", "Saved"]

#: Most numbers that a sample may have: more than the largest video models' latents.
MOST = 2**25

#: The largest variance.
SQUARE = LARGEST**2

#: The whole numbers that can be classes.
INTEGERS = torch.iinfo(torch.int64)

#: Most dimensions of a sample.
DIMENSIONS = 16

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Saved:
    """The state of a start or a profile, as its ``state()`` gave it.

    All of its methods raise :class:`InputError` for what is missing or does not fit.

    Attributes:
        values: plain values.
        tensors: by their names.
    """

    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def value(self, name: str) -> Any:
        """A value, whatever it is."""
        if not isinstance(self.values, Mapping) or name not in self.values:
            raise InputError(f"{name!r} is missing")
        return self.values[name]

    def number(self, name: str, low: float = -math.inf, high: float = LARGEST) -> float:
        """A finite number within a range."""
        value = self.value(name)
        if type(value) not in (int, float) or not (low <= value <= high and math.isfinite(value)):
            raise InputError(f"{name} is {str(value)[:40]}: expected a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, name: str, high: int, low: int = 1) -> int:
        """A whole number within a range."""
        value = self.value(name)
        if type(value) is not int or not low <= value <= high:
            raise InputError(f"{name} is {str(value)[:40]}: expected a whole number from {low} to {high}")
        return value

    def wholes(self, name: str, count: int, high: int, low: int = 1) -> tuple[int, ...]:
        """At most ``count`` whole numbers within a range."""
        row = self.value(name)
        fits = isinstance(row, list | tuple) and len(row) <= count
        if not fits or any(type(each) is not int or not low <= each <= high for each in row):
            raise InputError(f"{name} is {str(row)[:40]}: expected at most {count} whole numbers from {low} to {high}")
        return tuple(row)

    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        shape = self.wholes("shape", DIMENSIONS, MOST)
        if not shape or math.prod(shape) > MOST:
            raise InputError(f"a sample of shape {shape}: expected one dimension or more, and {MOST:,} numbers at most")
        return shape

    def levels(self, name: str = "sigmas") -> tuple[float, float]:
        """The lowest and the highest level."""
        pair = self.value(name)
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InputError(f"{name} is {str(pair)[:40]}: expected two levels")
        low, high = (Saved({name: level}, {}).number(name) for level in pair)
        if not 0 < low <= high:
            raise InputError(f"{name} is {low:g}, {high:g}: expected levels above 0, and the lowest first")
        return low, high

    def tensor(self, name: str, *shape: int | None, low: float = -LARGEST, high: float = LARGEST) -> Tensor:
        """A tensor of finite real numbers within a range, in its own type; None stands for any length above 0."""
        if name not in self.tensors:
            raise InputError(f"the tensor {name!r} is missing")
        tensor = self.tensors[name]
        found = tuple(tensor.shape)
        fits = len(found) == len(shape)
        if not fits or any(a != b if b is not None else a < 1 for a, b in zip(found, shape, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(f"{name} has shape {found}: expected ({wanted})")
        _check_numbers(name, tensor, low, high)
        return tensor

    def classes(self, name: str, length: int | None) -> Tensor | None:
        """Classes, shape (length,), if there are any."""
        if name not in self.tensors:
            return None
        tensor = self.tensor(name, length, low=INTEGERS.min, high=INTEGERS.max)
        if tensor.is_floating_point() or tensor.dtype is torch.bool:
            raise InputError(f"{name} holds {tensor.dtype}: expected whole numbers")
        return tensor

    def group(self, name: str) -> Saved:
        """A part of it: the tensors whose names begin with the part's name and a dot, and all values."""
        prefix = f"{name}."
        return Saved(
            self.values, {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}
        )

    @property
    def numbers(self) -> int:
        """The numbers that all tensors hold together, at least 1."""
        return max(1, sum(tensor.numel() for tensor in self.tensors.values()))

    def filled(self, make: Callable[[], Network]) -> Network:
        """A network with the saved weights. It must be no larger than what :attr:`numbers` allows."""
        for name, tensor in self.tensors.items():
            if tensor.dtype is not torch.bool:  # masks
                _check_numbers(name, tensor, -LARGEST, LARGEST)
        try:
            network = make()
            network.load_state_dict(dict(self.tensors))
        except (RuntimeError, OverflowError) as error:
            raise InputError(f"the weights do not fit the network that they are saved with: {error}") from error
        return network.eval().requires_grad_(False)

    def check_size(self, make: Callable[[], nn.Module]) -> None:
        """Refuse a network whose weights have other shapes than the saved ones, before any memory is taken for it."""
        try:
            with torch.device("meta"):
                wanted = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
        except (RuntimeError, OverflowError) as error:
            raise InputError(f"there can be no such network: {error}") from error
        held = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        for name in sorted(wanted.keys() | held.keys()):
            if wanted.get(name) != held.get(name):
                raise InputError(f"the weights {name!r} have shape {held.get(name)}: expected {wanted.get(name)}")


def _check_numbers(name: str, tensor: Tensor, low: float, high: float) -> None:
    if tensor.is_complex() or tensor.dtype is torch.bool:
        raise InputError(f"{name} holds {tensor.dtype}: expected real numbers")
    if not tensor.numel():
        return
    narrow = tensor.is_floating_point() and tensor.element_size() < 4  # some of which have no minimum
    wide = tensor.float() if narrow else tensor
    try:
        least, largest = (float(each) for each in torch.aminmax(wide))
    except RuntimeError as error:  # types that PyTorch can only store
        raise InputError(f"{name} holds {tensor.dtype}: expected usual numbers") from error
    if not (math.isfinite(least) and math.isfinite(largest) and low <= least and largest <= high):
        raise InputError(f"{name} holds {least:g} to {largest:g}: expected finite numbers from {low:g} to {high:g}")
