"""Conditions of a network, and the samples that they go with.

A condition is anything that a network takes by name: a class, a vector, an image, text, or a nesting of these in
mappings, lists and tuples. What it is made of either goes with the samples, one row each, or is shared by all. Of N
samples, tensors, arrays and lists of length N go with them and everything else is shared, unless it is marked:

>>> image, text = torch.zeros(5, 3, 8, 8), torch.zeros(5, 16)
>>> given = Conditions.of({"image": image, "context": {"text": text, "scale": shared(torch.ones(5))}}, 5)
>>> some = given.take(slice(0, 2))
>>> some["image"].shape, some["context"]["text"].shape, some["context"]["scale"].shape
(torch.Size([2, 3, 8, 8]), torch.Size([2, 16]), torch.Size([5]))

Which of the two a part is, is decided once, on the full set of samples: a batch may coincide with a shared part in
length. Where the full set does, and is cut into batches, the network is asked (:meth:`Conditions.told_apart`). Arrays
reach a network as tensors, on its device; those of floating-point numbers in PyTorch's default type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.arrays import as_tensor
from headstart.errors import DataError, InputError
from headstart.large import taken
from headstart.noise import generator_of

__all__ = [
    "Conditions",
    "Own",
    "Part",
    "Shared",
    "Split",
    "check_label",
    "hold_out",
    "labelled",
    "leaves",
    "named_leaves",
    "own",
    "shared",
    "split_conditions",
    "take",
    "to_device",
]

#: Two answers of a network that differ by less than this share of them are the same.
ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Shared:
    """A condition, or a part of one, that all samples share. Made by :func:`shared`."""

    value: Any


@dataclass(frozen=True, eq=False)
class Own:
    """A condition, or a part of one, with a row for each sample. Made by :func:`own`.

    Attributes:
        value: the rows.
        sure: whether someone said so, or its length alone does.
    """

    value: Any
    sure: bool = True


def shared(value: Any) -> Shared:
    """Mark a condition, or a part of one, as shared by all samples, also where it is as long as they are many."""
    return Shared(value)


def own(value: Any) -> Own:
    """Mark a condition, or a part of one, as going with the samples: all that it is made of has a row for each."""
    return Own(value)


@dataclass(frozen=True, eq=False, repr=False)
class Conditions(Mapping[str, Any]):
    """The conditions of a number of samples, by name, as the network takes them. Made by :meth:`of`.

    Attributes:
        tree: the values by name; in them, an :class:`Own` for each part that goes with the samples.
        count: how many samples there are.
    """

    tree: Mapping[str, Any]
    count: int

    @classmethod
    def of(cls, given: Mapping[str, Any] | None, count: int) -> Conditions:
        """The conditions of ``count`` samples, told apart by marks and by length. One ``label`` stands for all samples.

        Raises:
            DataError: if an array holds masked values.
            InputError: if what is marked as going with the samples has not a row for each, or the label is neither one
                class nor one for each; or if they are the conditions of another number of samples.
        """
        if isinstance(given, Conditions):
            if given.count != count:
                raise InputError(f"these are the conditions of {given.count} samples: expected those of {count}")
            return given
        if given is not None and not isinstance(given, Mapping):
            raise InputError(f"conditions are a {type(given).__name__}: expected a mapping of names to values")
        values = dict(given or {})
        if values.get("label") is not None:
            values["label"] = Own(_label(values["label"], count))
        return cls({name: _marked(value, count, name) for name, value in values.items()}, count)

    def __getitem__(self, name: str) -> Any:
        return _mapped(self.tree[name], lambda leaf: leaf.value if isinstance(leaf, Own) else leaf)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tree)

    def __len__(self) -> int:
        return len(self.tree)

    def __repr__(self) -> str:
        parts = [f"{name} ({'one a sample' if self.goes_with_samples(name) else 'shared'})" for name in self]
        return f"Conditions({', '.join([f'{self.count} samples', *parts])})"

    def goes_with_samples(self, name: str) -> bool:
        """Whether any part of a condition does."""
        return any(isinstance(leaf, Own) for leaf in leaves(self.tree[name]))

    def take(self, rows: Tensor | slice) -> Conditions:
        """The conditions of some of the samples."""
        left = len(torch.arange(self.count)[rows])
        some = self._mapped(
            lambda leaf: replace(leaf, value=_rows(leaf.value, rows)) if isinstance(leaf, Own) else leaf
        )
        return Conditions(some.tree, left)

    def to(self, device: torch.device | str) -> Conditions:
        """The same with their tensors on a device."""
        return Conditions(to_device(self.tree, device), self.count)

    def with_label(self, label: Tensor) -> Conditions:
        """The same with these classes (N,) of the samples."""
        return Conditions.of({**self.tree, "label": label}, self.count)

    def apart(self) -> tuple[Conditions, dict[str, Any]]:
        """Those of which some part goes with the samples, taken for granted; and those that are shared."""
        goes = {name: value for name, value in self.settled().tree.items() if self.goes_with_samples(name)}
        return Conditions(goes, self.count), {name: self[name] for name in self if name not in goes}

    def told_apart(self, answer: Callable[[Conditions], Tensor | None]) -> Conditions:
        """The same, with the network's word for what length alone says to go with the samples.

        It is asked about the first sample or two: what it takes whole, and answers otherwise than with the rows of
        these samples alone, is shared. Nothing is asked where nothing is in doubt.

        Arguments:
            answer: the network's answer for the first samples, given their conditions; None where it fails.
        """
        few = slice(0, min(2, self.count - 1))
        found = self
        while True:
            doubts = [leaf for leaf in leaves(found.tree) if isinstance(leaf, Own) and not leaf.sure]
            for doubt in doubts:
                whole = found._mapped(partial(_unmarked, doubt))
                kept = answer(whole.take(few))
                if kept is None:
                    continue
                cut = answer(found.take(few))
                if cut is None or bool((kept - cut).norm() > ROUNDING * cut.norm()):
                    found = whole
                    break
            else:
                return found.settled()

    def settled(self) -> Conditions:
        """The same, with the word of length alone taken for granted."""
        return self._mapped(lambda leaf: replace(leaf, sure=True) if isinstance(leaf, Own) else leaf)

    def _mapped(self, change: Callable[[Any], Any]) -> Conditions:
        return Conditions({name: _mapped(value, change) for name, value in self.tree.items()}, self.count)


def _unmarked(doubt: Own, leaf: Any) -> Any:
    return doubt.value if leaf is doubt else leaf


def leaves(tree: Any) -> Iterator[Any]:
    """The parts of a nesting that are no mapping, list or tuple of others."""
    for _, leaf in named_leaves(tree):
        yield leaf


def named_leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The :func:`leaves` of a nesting, each with the names and places that lead to it.

    >>> list(named_leaves({"text": {"ids": 1.0, "mask": (own([2]), 3.0)}}))[0]
    (('text', 'ids'), 1.0)
    """
    if not _is_nesting(tree):
        yield path, tree
        return
    for name, part in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        yield from named_leaves(part, (*path, name))


def _is_nesting(value: Any) -> bool:
    """Whether a value is a mapping, or a list or tuple that is no plain list of numbers or words."""
    parts = (Tensor, np.ndarray, Mapping, Own, Shared)
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(part, parts) or _is_nesting(part) for part in value)
    )


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A nesting with each of its leaves changed."""
    if isinstance(value, Mapping):
        return {name: _mapped(part, change) for name, part in value.items()}
    if not _is_nesting(value):
        return change(value)
    parts = [_mapped(part, change) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _marked(value: Any, count: int, name: str, mark: type[Own] | type[Shared] | None = None) -> Any:
    """A nesting with an :class:`Own` for each part that goes with the samples."""
    if isinstance(value, Own | Shared):
        return _marked(value.value, count, name, mark or type(value))
    if isinstance(value, Mapping):
        return {key: _marked(part, count, f"{name}[{key!r}]", mark) for key, part in value.items()}
    if _is_nesting(value):
        parts = [_marked(part, count, f"{name}[{i}]", mark) for i, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = as_tensor(value, f"the condition {name}")
        value = value.to(torch.get_default_dtype()) if value.is_floating_point() else value
    sized = isinstance(value, list | tuple) or (isinstance(value, Tensor | np.ndarray) and value.ndim > 0)
    if mark is Own and (not sized or len(value) != count):
        raise InputError(f"{name} does not go with {count} samples: expected a row for each")
    if mark is Shared or not sized or len(value) != count:
        return value
    return Own(value, sure=mark is Own)


def _rows(value: Any, rows: Tensor | slice) -> Any:
    """Some rows of a tensor, an array, a list or a tuple."""
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, np.ndarray):
        return value[rows if isinstance(rows, slice) else rows.cpu().numpy()]
    kind = list if isinstance(value, list) else tuple  # some rows are no longer the fields of a named tuple
    return kind(value[rows] if isinstance(rows, slice) else (value[i] for i in torch.arange(len(value))[rows]))


def _label(value: Any, count: int) -> Tensor:
    """A class for each sample: one stands for all."""
    value = value.value if isinstance(value, Own | Shared) else value
    try:
        label = as_tensor(value, "label")
    except DataError as error:
        raise InputError(f"label is {value!r}: expected a class, or one for each sample") from error
    if label.shape not in ((), (1,), (count,)):
        raise InputError(
            f"label has shape {tuple(label.shape)}: expected one class, or a tensor with one for each sample"
        )
    return label.expand(count)


def to_device(conditions: Any, device: torch.device | str) -> Any:
    """A nesting of conditions, marked or not, with its tensors on a device."""
    if isinstance(conditions, Conditions):
        return conditions.to(device)

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, Own | Shared):
            return replace(leaf, value=to_device(leaf.value, device))
        return leaf.to(device) if isinstance(leaf, Tensor) else leaf

    return _mapped(conditions, moved)


def check_label(conditions: Mapping[str, Any] | None, label: Any, how: str) -> None:
    """Refuse a label that stands among the conditions and was given by itself too.

    Arguments:
        conditions: by name.
        label: the other one, or None.
        how: the other one was given, in words.

    Raises:
        InputError: if there are both.
    """
    if label is not None and "label" in (conditions or {}):
        raise InputError(f"the label is given twice: among the conditions and {how}")


def labelled(conditions: Mapping[str, Any], count: int) -> Conditions:
    """:meth:`Conditions.of`, by an earlier name."""
    return Conditions.of(conditions, count)


def take(conditions: Mapping[str, Any], rows: Tensor | slice, count: int) -> Conditions:
    """The conditions of some of ``count`` samples: :meth:`Conditions.take`, by an earlier name."""
    return Conditions.of(conditions, count).take(rows)


def split_conditions(conditions: Mapping[str, Any], count: int) -> tuple[Conditions, dict[str, Any]]:
    """:meth:`Conditions.apart`, by an earlier name."""
    return Conditions.of(conditions, count).apart()


@dataclass(frozen=True, eq=False)
class Part:
    """Samples, and the conditions that go with each of them.

    Attributes:
        samples: shape (N, \\*S).
        conditions: those of which some part goes with the samples.

    Raises:
        InputError: if no part of a condition has a row for each sample.
    """

    samples: Tensor
    conditions: Conditions = field(default_factory=dict)  # type: ignore[assignment]  # made one below

    def __post_init__(self) -> None:
        given, alone = Conditions.of(self.conditions, len(self)).apart()
        if alone:
            raise InputError(f"{', '.join(alone)} does not go with {len(self)} samples: expected a row for each")
        object.__setattr__(self, "conditions", given)

    @classmethod
    def of(cls, samples: Tensor, conditions: Mapping[str, Any] | None = None) -> tuple[Part, dict[str, Any]]:
        """The samples with what goes with them, on the CPU, and the conditions that they share.

        Raises:
            InputError: if the label is neither one class nor one for each sample.
        """
        given, alone = Conditions.of(conditions, len(samples)).to("cpu").apart()
        return cls(samples.cpu(), given), alone

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def label(self) -> Tensor | None:
        """The class of each sample, shape (N,), or None."""
        return self.conditions.get("label")

    def take(self, rows: Tensor | slice) -> Part:
        """Some of the samples, with their conditions."""
        return Part(taken(self.samples, rows), self.conditions.take(rows))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Part:
        """The same on a device; with a type, the samples in that type."""
        return Part(self.samples.to(device, dtype), self.conditions.to(device))

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
        whole, alone = Part.of(samples, conditions)
        fitted, held = hold_out(whole.samples, seed, labels=whole.label)
        if len(held) < 2:
            raise DataError(
                f"{len(held)} of {len(whole)} samples could be held out, and at least 2 are needed: by these labels "
                "nearly every class has a single sample, which its start is fitted on; leave them out, or give more "
                "of a class"
            )
        return cls(whole, fitted, held, alone)

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
