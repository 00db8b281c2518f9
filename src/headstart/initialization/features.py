r"""Features of conditions: what a network is given beside x, as a few standardised numbers :math:`\psi(c)`.

Every part of the conditions that goes with the samples becomes a block of columns:

* classes, words and truth values of at most 256 kinds, two samples of each on average: one column a kind, 1 or 0, less
  its share;
* numbers, of vectors, images or fields: flat, each coordinate less its mean and over its standard deviation; beyond
  1,024 of them, their leading principal components instead, or the lowest frequencies of a discrete cosine transform.

All of it is fitted on the samples that starts are fitted on. What can be described in neither way (texts that differ
from sample to sample, objects, masks of infinities) is left to the network, and :attr:`Features.ignored` names it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from headstart.arrays import LARGEST, as_tensor
from headstart.conditions import Conditions, Own, named_leaves
from headstart.errors import DataError, InputError
from headstart.initialization.memory import owned
from headstart.initialization.subspace import Subspace
from headstart.saved import MOST, Saved

__all__ = ["Features", "Path", "name_of"]

#: The most kinds that classes or words can be of: what has more is no class.
KINDS = 256

#: Coordinates beyond which a field is compressed, and how many of its components are kept.
DIMENSIONS, COMPONENTS = 1024, 256

#: A coordinate that varies by less than this share of its block's largest is constant.
CONSTANT = 1e-9

#: The names and places that lead to a part of the conditions.
Path = tuple[str | int, ...]


def name_of(path: Path) -> str:
    """The place of a part in words: ``context['text'][0]``."""
    return str(path[0]) + "".join(f"[{step!r}]" for step in path[1:])


@dataclass(frozen=True, eq=False)
class Classes:
    """One of a few kinds, as a column for each: 1 or 0, less its share.

    Attributes:
        path: where it stands among the conditions.
        kinds: whole numbers or words.
        shares: of the kinds in the data, shape (C,).
    """

    kind: ClassVar[str] = "classes"
    path: Path
    kinds: tuple[int | str, ...]
    shares: Tensor

    @classmethod
    def fit(cls, path: Path, value: Any) -> Classes | None:
        """On a row for each sample; None if they are of too many kinds, or no classes."""
        rows = _kinds(value)
        if rows is None or not 1 < len(kinds := tuple(sorted(set(rows), key=_order))) <= min(KINDS, len(rows) // 2):
            return None
        counts = Counter(rows)
        shares = torch.tensor([counts[kind] / len(rows) for kind in kinds], dtype=torch.float64)
        return cls(path, kinds, shares)

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.kinds)

    def __call__(self, value: Any, count: int) -> Tensor:
        rows = _kinds(value if isinstance(value, Tensor | np.ndarray | list | tuple) else [value])
        if rows is None or len(rows) not in (1, count):
            raise InputError(f"{name_of(self.path)} is no class for each of {count} samples")
        if unknown := set(rows) - set(self.kinds):
            raise InputError(
                f"{name_of(self.path)} is {min(unknown, key=_order)!r}: expected one of {list(self.kinds)}"
            )
        place = torch.tensor([self.kinds.index(row) for row in rows])
        return (torch.eye(self.width, dtype=torch.float64)[place] - self.shares).expand(count, -1)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"kinds": list(self.kinds)}, {"shares": self.shares}

    @classmethod
    def from_state(cls, path: Path, saved: Saved) -> Classes:
        kinds = saved.value("kinds")
        if not isinstance(kinds, list) or not 1 < len(kinds) <= KINDS or {type(k) for k in kinds} not in ({int}, {str}):
            raise InputError(f"the kinds are {str(kinds)[:40]}: expected 2 to {KINDS} whole numbers or words")
        return cls(path, tuple(kinds), saved.tensor("shares", len(kinds), low=0.0, high=1.001).double())

    def __repr__(self) -> str:
        return f"{name_of(self.path)} ({len(self.kinds)} kinds)"


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers, standardised, and compressed where they are many.

    Attributes:
        path: where they stand among the conditions.
        shape: the shape S of those of one sample.
        mean: shape (p,).
        scale: what each coordinate is divided by, shape (p,).
        basis: directions of the standardised coordinates in columns (p, k), or None.
        widths: the standard deviations along them, shape (k,).
    """

    kind: ClassVar[str] = "numbers"
    path: Path
    shape: tuple[int, ...]
    mean: Tensor
    scale: Tensor
    basis: Tensor | None = None
    widths: Tensor | None = None

    @classmethod
    def fit(cls, path: Path, value: Any, fields: Literal["pca", "dct", "given"]) -> Numbers | None:
        """On a row for each sample; None if they are no finite numbers, or the same for all."""
        rows = _numbers(value)
        if rows is None or not rows.numel():
            return None
        flat = rows.double().reshape(len(rows), -1)
        if not torch.isfinite(flat).all() or float(flat.abs().max()) > LARGEST:
            return None
        mean, spread = flat.mean(0), flat.std(0, correction=0)
        if not float(spread.max()) > 0:
            return None
        scale = torch.where(spread > CONSTANT * spread.max(), spread, torch.inf)
        shape = tuple(rows.shape[1:])
        if fields == "given" or flat.shape[1] <= DIMENSIONS:
            return cls(path, shape, owned(mean), owned(scale))
        white = (flat - mean) / scale
        basis = Subspace.fit(white, COMPONENTS).basis if fields == "pca" else _waves(shape, COMPONENTS)
        widths = (white @ basis).std(0, correction=0)
        kept = widths > 1e-6 * widths.max()
        return cls(path, shape, owned(mean), owned(scale), owned(basis[:, kept]), owned(widths[kept]))

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.mean) if self.basis is None else self.basis.shape[1]

    def __call__(self, value: Any, count: int) -> Tensor:
        rows = _numbers(value)
        if rows is None or rows.shape not in ((count, *self.shape), self.shape, (1, *self.shape)):
            found = "no numbers" if rows is None else f"of shape {tuple(rows.shape)}"
            raise InputError(
                f"{name_of(self.path)} is {found}: this start expects {(count, *self.shape)}, or {self.shape} for all"
            )
        flat = rows.double().reshape(-1, len(self.mean))
        if not torch.isfinite(flat).all():
            raise InputError(f"{name_of(self.path)} holds NaN or infinite values")
        white = (flat - self.mean) / self.scale
        if self.basis is not None and self.widths is not None:
            white = white @ self.basis / self.widths
        return white.expand(count, -1)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        # A coordinate that is constant has no scale; a file holds finite numbers.
        tensors = {"mean": self.mean, "scale": torch.where(self.scale.isinf(), 0.0, self.scale)}
        if self.basis is not None and self.widths is not None:
            tensors |= {"basis": self.basis, "widths": self.widths}
        return {"shape": list(self.shape)}, tensors

    @classmethod
    def from_state(cls, path: Path, saved: Saved) -> Numbers:
        shape = saved.wholes("shape", 16, MOST)
        p = math.prod(shape)
        scale = saved.tensor("scale", p, low=0.0).double()
        mean, scale = saved.tensor("mean", p).double(), torch.where(scale > 0, scale, torch.inf)
        if "basis" not in saved.tensors:
            return cls(path, shape, owned(mean), owned(scale))
        basis = saved.tensor("basis", p, None, low=-1.001, high=1.001).double()
        widths = saved.tensor("widths", basis.shape[1], low=0.0).double()
        if not float(widths.min()) > 0:
            raise InputError("the widths of the components must be above 0")
        return cls(path, shape, owned(mean), owned(scale), owned(basis), owned(widths))

    def __repr__(self) -> str:
        kept = "" if self.basis is None else f", {self.width} components"
        return f"{name_of(self.path)} ({' x '.join(map(str, self.shape)) or 'a number'}{kept})"


@dataclass(frozen=True, eq=False)
class Features:
    """The columns that conditions are described by. Made by :meth:`fit`.

    Attributes:
        blocks: the parts that are described.
        ignored: the names of those that go with the samples and are not.

    >>> given = Conditions.of({"label": torch.tensor([0, 1, 1, 0]), "at": {"x": torch.randn(4, 3)}}, 4)
    >>> features = Features.fit(given)
    >>> features, features(given).shape
    (Features(label (2 kinds), at['x'] (3)), torch.Size([4, 5]))
    """

    blocks: tuple[Classes | Numbers, ...]
    ignored: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, conditions: Mapping[str, Any], count: int | None = None, *, fields: Literal["pca", "dct", "given"] = "pca"
    ) -> Features:
        """On the conditions of the samples that starts are fitted on.

        Arguments:
            conditions: as :class:`headstart.conditions.Conditions`, or what these are made of.
            count: how many samples there are, where they are none yet.
            fields: how more than 1,024 numbers are compressed: "pca", "dct" (the lowest frequencies of the last two
                axes) or "given", not at all.

        Raises:
            InputError: if the count is missing, or there is no such way.
        """
        if fields not in ("pca", "dct", "given"):
            raise InputError(f"fields are compressed by 'pca', 'dct' or as 'given': got {fields!r}")
        if count is None and not isinstance(conditions, Conditions):
            raise InputError("say how many samples these are the conditions of")
        given = conditions if isinstance(conditions, Conditions) else Conditions.of(conditions, int(count or 0))
        blocks: list[Classes | Numbers] = []
        ignored = []
        for path, leaf in named_leaves(given.tree):
            if not isinstance(leaf, Own):
                continue
            block = Classes.fit(path, leaf.value) or Numbers.fit(path, leaf.value, fields)
            if block is None:
                ignored.append(name_of(path))
            else:
                blocks.append(block)
        return cls(tuple(blocks), tuple(ignored))

    @property
    def width(self) -> int:
        """How many columns there are, p."""
        return sum(block.width for block in self.blocks)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts that are described."""
        return tuple(name_of(block.path) for block in self.blocks)

    def __call__(self, given: Conditions) -> Tensor:
        """The features of conditions, (B, p) in float64 on the CPU. What all samples share stands for each of them.

        Raises:
            InputError: if a part is missing or does not fit.
        """
        columns = [block(_found(given, block.path), given.count) for block in self.blocks]
        return torch.cat(columns, dim=1) if columns else torch.zeros(given.count, 0, dtype=torch.float64)

    def state(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """The state to save: a list of plain values, and tensors."""
        values: list[dict[str, Any]] = []
        tensors: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            own, named = block.state()
            values.append({"kind": block.kind, "path": list(block.path), **own})
            tensors |= {f"{i}.{name}": tensor for name, tensor in named.items()}
        return values, tensors

    @classmethod
    def from_state(cls, values: Any, tensors: Mapping[str, Tensor]) -> Features:
        """The features that :meth:`state` describes.

        Raises:
            InputError: if something is missing or does not fit.
        """
        if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
            raise InputError(f"the features are {str(values)[:40]}: expected a list of blocks")
        blocks: list[Classes | Numbers] = []
        for i, own in enumerate(values):
            path, kind = own.get("path"), own.get("kind")
            steps = path if isinstance(path, list) else []
            if kind not in ("classes", "numbers") or not steps or not all(type(step) in (str, int) for step in steps):
                raise InputError(f"a block of features is {str(own)[:60]}: expected a known kind, and where it stands")
            saved, family = (
                Saved(own, Saved({}, tensors).group(str(i)).tensors),
                Classes if kind == "classes" else Numbers,
            )
            blocks.append(family.from_state(tuple(steps), saved))
        return cls(tuple(blocks))

    def __repr__(self) -> str:
        return f"Features({', '.join(map(repr, self.blocks)) or 'none'})"


def _found(given: Mapping[str, Any], path: Path) -> Any:
    """The part of the conditions at a path."""
    value: Any = given
    for depth, step in enumerate(path):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"this start needs the condition {name_of(path[: depth + 1])}, which is missing"
            ) from error
    if value is None:
        raise InputError(f"this start needs the condition {name_of(path)}, which is None")
    return value


def _order(kind: int | str) -> tuple[int, str]:
    """Whole numbers by size, words by the alphabet."""
    return (kind, "") if isinstance(kind, int) else (0, kind)


def _kinds(value: Any) -> list[int | str] | None:
    """A whole number or a word for each sample, or None."""
    if isinstance(value, list | tuple | np.ndarray) and all(isinstance(row, str) for row in value):
        return [str(row) for row in value]
    rows = _numbers(value)
    if rows is None or rows.is_floating_point() or rows.numel() != (len(rows) if rows.ndim else 1):
        return None
    return [int(row) for row in rows.flatten().tolist()]


def _numbers(value: Any) -> Tensor | None:
    """Real numbers as a tensor on the CPU, or None."""
    try:
        rows = as_tensor(value, "a condition")
    except DataError:
        return None
    return None if rows.is_complex() else rows.detach().cpu()


def _waves(shape: Sequence[int], count: int) -> Tensor:
    """The lowest frequencies of the discrete cosine transform over the last two axes, in columns (p, k)."""
    height, width = (1, *shape)[-2:]
    channels = math.prod(shape) // (height * width)
    rows, columns = _cosines(height), _cosines(width)
    frequencies = (torch.arange(height)[:, None] / height).square() + (torch.arange(width) / width).square()
    order = frequencies.flatten().argsort(stable=True)[: max(1, count // channels)]
    planes = torch.einsum("hi,wj->hwij", rows, columns).reshape(height * width, -1)[:, order]
    return torch.kron(torch.eye(channels, dtype=torch.float64), planes)


def _cosines(n: int) -> Tensor:
    """The orthonormal cosines of n points, in columns by rising frequency (DCT-II)."""
    at = torch.arange(n, dtype=torch.float64)
    waves = torch.cos(math.pi * (at[:, None] + 0.5) * at / n) * math.sqrt(2 / n)
    waves[:, 0] /= math.sqrt(2)
    return waves
