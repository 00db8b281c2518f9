"""A data set: samples with classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.arrays import as_classes, as_tensor, check_numbers
from headstart.errors import DataError
from headstart.large import taken

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples of the data, with optional class labels.

    Arguments:
        samples: shape (N, *S), floating point, finite, in a tensor or an array.
        labels: shape (N,), integers, or None.
        name: where the samples come from.

    Raises:
        DataError: if the samples are fewer than two, not floating point, not finite or above 1e15 in magnitude, if some
            are masked, or if the labels do not fit them.
    """

    samples: Tensor
    labels: Tensor | None = None
    name: str = "data"

    def __post_init__(self) -> None:
        x = as_tensor(self.samples, self.name)
        object.__setattr__(self, "samples", x)
        if x.ndim < 2 or len(x) < 2 or not x.numel():
            raise DataError(f"{self.name} has shape {tuple(x.shape)}: expected (N, ...) with N of at least 2")
        if not x.is_floating_point():
            raise DataError(f"{self.name} holds {x.dtype} values: expected floating point")
        check_numbers(x, self.name)
        if self.labels is not None:
            object.__setattr__(self, "labels", as_classes(self.labels, f"labels of {self.name}"))
            if self.labels.shape != x.shape[:1]:
                raise DataError(f"{self.name} has {len(x)} samples but labels of shape {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device | str) -> Dataset:
        """The same on a device."""
        return Dataset(self.samples.to(device), None if self.labels is None else self.labels.to(device), self.name)

    def rows(self, index: Tensor | slice) -> Dataset:
        """Some of the samples, with their labels. It raises the errors of Dataset, which has at least two samples."""
        return Dataset(taken(self.samples, index), None if self.labels is None else self.labels[index], self.name)

    def __repr__(self) -> str:
        labels = "" if self.labels is None else f", {len(set(self.labels.tolist()))} classes"
        return f"Dataset({self.name}: {len(self)} samples of shape {tuple(self.samples.shape[1:])}{labels})"
