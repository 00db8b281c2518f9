"""Noised data: the law that every start approximates, except that it hands back training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.errors import InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.memory import owned
from headstart.noise import Noise
from headstart.saved import Saved

__all__ = ["Empirical"]


@INITIALIZATIONS.register
class Empirical(Initialization):
    """A random training sample plus noise: an oracle, for comparison only.

    At a short horizon its samples are training data seen through little noise, and sampling can return them.

    Arguments:
        data: shape (N, \\*S).
        labels: classes, shape (N,), or None.
    """

    name = "empirical"
    cites: ClassVar[tuple[str, ...]] = ("fassina2026initialization",)
    oracle = True
    tractable = False  # held-out data lie far from every training sample, so that its density says nothing

    def __init__(self, data: Tensor, labels: Tensor | None = None) -> None:
        self.shape = tuple(data.shape[1:])
        self.data, self.labels = owned(data), None if labels is None else owned(labels)
        self.knows = () if labels is None else ("label",)

    @classmethod
    def fit(cls, data: Tensor, *, labels: Tensor | None = None) -> Empirical:
        """The data (N, \\*S) themselves.

        Raises:
            InputError: if there is not one label for each sample.
        """
        if labels is not None and labels.shape != (len(data),):
            raise InputError(f"there are labels of shape {tuple(labels.shape)} for {len(data)} samples")
        return cls(data, labels)

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        eps, label = noise.normal(self.shape), given.get("label")
        share = noise.uniform().cpu().double()
        if label is None or self.labels is None:
            index = (share * len(self.data)).long().clamp_max(len(self.data) - 1)
        else:
            index = torch.stack([self._of_class(int(c), float(u)) for c, u in zip(label, share, strict=True)])
        return self.data[index].to(eps) + sigma * eps

    def _of_class(self, label: int, share: float) -> Tensor:
        assert self.labels is not None
        own = (self.labels == label).nonzero()[:, 0]
        if not len(own):
            raise InputError(f"no training sample has the label {label}")
        return own[min(int(share * len(own)), len(own) - 1)]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {}, {"data": self.data} if self.labels is None else {"data": self.data, "labels": self.labels}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Empirical:
        saved = Saved(values, tensors)
        data = tensors.get("data", torch.empty(0))
        if data.ndim < 2 or not data.numel():
            raise InputError(f"data has shape {tuple(data.shape)}: expected at least one sample, (N, ...)")
        return cls(saved.tensor("data", *data.shape), saved.classes("labels", len(data)))

    def __repr__(self) -> str:
        return f"Empirical({len(self.data)} samples of shape {self.shape}, oracle)"
