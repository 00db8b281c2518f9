"""Conditions of a network, and the samples that they go with.

Of the conditions of N samples, the tensors of length N go with the samples, one row each; the others are shared. The
two are told apart once, for all samples there are (:meth:`Part.of`): among some of them, a shared tensor may coincide
in length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.noise import generator_of

__all__ = ["Part", "Split", "hold_out", "labelled", "split_conditions", "take", "to_device"]


def to_device(conditions: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """The conditions with their tensors on a device."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in conditions.items()}


def take(conditions: Mapping[str, Any], rows: Tensor | slice, count: int) -> dict[str, Any]:
    """The conditions of some of ``count`` samples: tensors of that length are indexed, everything else is kept."""
    own, shared = split_conditions(conditions, count)
    return {k: own[k][rows] if k in own else shared[k] for k in conditions}


def split_conditions(conditions: Mapping[str, Any], count: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The conditions that go with ``count`` samples, which are tensors of that length, and those that they share.

    Call it once, for all samples: among some of them, a shared tensor may coincide in length.
    """
    own = {k: v for k, v in conditions.items() if isinstance(v, Tensor) and v.ndim and len(v) == count}
    return own, {k: v for k, v in conditions.items() if k not in own}


def labelled(conditions: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The conditions with a class for each of ``count`` samples under ``label``, if there is one: one stands for all.

    Raises:
        InputError: if the label is neither one class nor one for each sample.
    """
    if conditions.get("label") is None:
        return dict(conditions)
    try:
        label = torch.as_tensor(conditions["label"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"label is {conditions['label']!r}: expected a class, or one for each sample") from error
    if label.shape not in ((), (1,), (count,)):
        raise InputError(
            f"label has shape {tuple(label.shape)}: expected one class, or a tensor with one for each sample"
        )
    return {**conditions, "label": label.expand(count)}


@dataclass(frozen=True, eq=False)
class Part:
    """Samples, and the conditions that go with each of them.

    Attributes:
        samples: shape (N, \\*S).
        conditions: tensors of length N.

    Raises:
        InputError: if a condition is not a tensor with a row for each sample.
    """

    samples: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.conditions.items():
            if not isinstance(value, Tensor) or not value.ndim or len(value) != len(self):
                raise InputError(f"{name} does not go with {len(self)} samples: expected a tensor with a row for each")

    @classmethod
    def of(cls, samples: Tensor, conditions: Mapping[str, Any] | None = None) -> tuple[Part, dict[str, Any]]:
        """The samples with what goes with them, on the CPU, and the conditions that they share.

        Raises:
            InputError: if the label is neither one class nor one for each sample.
        """
        count = len(samples)
        own, shared = split_conditions(labelled(to_device(conditions or {}, "cpu"), count), count)
        return cls(samples.cpu(), own), shared

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def label(self) -> Tensor | None:
        """The class of each sample, shape (N,), or None."""
        return self.conditions.get("label")

    def take(self, rows: Tensor | slice) -> Part:
        """Some of the samples, with their conditions."""
        return Part(self.samples[rows], {name: value[rows] for name, value in self.conditions.items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Part:
        """The same on a device; with a type, the samples in that type."""
        return Part(self.samples.to(device, dtype), to_device(self.conditions, device))

    def __repr__(self) -> str:
        beside = f", {', '.join(self.conditions)}" if self.conditions else ""
        return f"Part({len(self)} samples of shape {tuple(self.samples.shape[1:])}{beside})"


@dataclass(frozen=True, eq=False)
class Split:
    """Data cut in two: what starts are fitted on, and what is held out to measure and to decide. Made by :meth:`of`.

    Attributes:
        whole: all samples.
        fitted_rows: indices of those that starts are fitted on.
        held_out_rows: indices of those that are held out.
        shared: the conditions that all samples share.
    """

    whole: Part
    fitted_rows: Tensor
    held_out_rows: Tensor
    shared: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Tensor, conditions: Mapping[str, Any] | None = None, *, seed: int = 0) -> Split:
        """The samples (N, \\*S) and their conditions, of which :func:`hold_out` says what is held out.

        Raises:
            DataError: if their labels leave fewer than two samples to hold out.
            InputError: if the label is neither one class nor one for each sample.
        """
        whole, shared = Part.of(samples, conditions)
        fitted, held = hold_out(whole.samples, seed, labels=whole.label)
        if len(held) < 2:
            raise DataError(
                f"{len(held)} of {len(whole)} samples could be held out, and at least 2 are needed: by these labels "
                "nearly every class has a single sample, which its start is fitted on; leave them out, or give more "
                "of a class"
            )
        return cls(whole, fitted, held, shared)

    @cached_property
    def fitted(self) -> Part:
        """The samples that starts are fitted on."""
        return self.whole.take(self.fitted_rows)

    @cached_property
    def held_out(self) -> Part:
        """The samples that are held out."""
        return self.whole.take(self.held_out_rows)

    def __repr__(self) -> str:
        return f"Split({len(self.fitted_rows)} samples to fit on, {len(self.held_out_rows)} held out)"


def hold_out(data: Tensor, seed: int = 0, most: int = 3000, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Indices of what a start is fitted on, and of a fifth of the data (at most ``most``) held out from it.

    With labels (N,), the only samples of a class are all fitted on: where most classes have one, few are held out.
    """
    order = torch.randperm(len(data), generator=generator_of(seed))
    count = min(most, max(2, len(data) // 5))
    fitted, held = order[count:], order[:count]
    if labels is None:
        return fitted, held
    known = torch.isin(labels[held], labels[fitted])
    return torch.cat([fitted, held[~known]]), held[known]
