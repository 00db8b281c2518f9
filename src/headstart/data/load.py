"""A data set from whatever holds it: a bundled one by name, a file of arrays, a folder of images, or arrays in memory.

=================  =================================================================================================
what               how it is read
=================  =================================================================================================
``builtin:NAME``   ``builtin:fashion-mnist``; a split may be named: ``builtin:fashion-mnist/test``
``.npy``           one array
``.npz``           the array named ``samples``, ``images``, ``data`` or ``arr_0``, or the only one that is not labels
``.pt``            a tensor, or a dictionary of tensors named as in ``.npz``
``.safetensors``   tensors named as in ``.npz``
``.zip``           images, as in a folder of them (:mod:`headstart.data.archives`)
``.tar``           samples in the form of WebDataset; also a folder of such files
``.parquet``       a table whose columns are coordinates (:mod:`headstart.data.tables`); also a folder of such files
folder             an array in Zarr, or a group of them named as in ``.npz`` (:mod:`headstart.data.zarr_arrays`)
folder             images of one size, by name; sub-folders, if any, are the classes (:mod:`headstart.data.images`)
folder             the four original files of Fashion-MNIST
folder             samples in shards, as ``headstart sample --shards`` writes them (:mod:`headstart.data.shards`)
=================  =================================================================================================

Labels are the array named ``labels``, ``label`` or ``y``, if there is one. Floating-point arrays are taken as they are;
bytes are images, (N, H, W), (N, H, W, C) or (N, C, H, W), and are mapped from 0..255 to [-1, 1] with channels first.
What is in memory goes the same way as what is in a file (:mod:`headstart.arrays`). Nothing is ever unpickled: a file
that holds Python objects is refused.

What takes more than 256 MiB is not held in memory: a ``.npy`` file is mapped as it is, and images, archives, tables,
arrays in Zarr, shards and whatever else needs to be converted lie on a temporary file (:mod:`headstart.large`). The
other files are read whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import safe_open
from torch import Tensor

from headstart.arrays import as_tensor
from headstart.data.archives import read_tars, read_zip
from headstart.data.base import Dataset
from headstart.data.fashion_mnist import Split, fashion_mnist, has_originals
from headstart.data.images import IMAGES, read_folder
from headstart.data.sources import readable, wanted_names
from headstart.data.tables import read_tables
from headstart.data.zarr_arrays import is_zarr, read_zarr
from headstart.errors import DataError, unknown
from headstart.large import LARGE, converted

__all__ = ["load_arrays", "load_data", "read_arrays"]

#: Names of a folder that are looked at for one that a missing name may stand for.
MOST_NAMES = 10_000


def load_data(spec: str | Path | Tensor | ArrayLike | Dataset, split: Split = "train") -> Dataset:
    """The data set that ``spec`` names or holds.

    Arguments:
        spec: one of the table at the top of this module, a tensor, an array, or a data set, which is returned as it is.
        split: "train" or "test", for a bundled data set whose name does not say; files and arrays have no splits.

    Returns:
        Samples of shape (N, \\*S), in float32 (a floating-point tensor in memory keeps its dtype).

    Raises:
        DataError: if there is nothing at ``spec``, or it cannot be read, or it holds no samples, NaN or Inf.
        ArtefactError: if it holds samples in shards, and one is damaged.

    >>> load_data(np.zeros((5, 8, 8, 3), dtype=np.uint8))
    Dataset(array: 5 samples of shape (3, 8, 8))
    """
    if isinstance(spec, Dataset):
        return spec
    if not isinstance(spec, str | Path):
        name = "tensor" if isinstance(spec, Tensor) else "array"
        samples = _samples(as_tensor(spec, name), name)
        return Dataset(samples if isinstance(spec, Tensor) else _single(samples), name=name)
    if str(spec).startswith("builtin:"):
        return _builtin(str(spec).removeprefix("builtin:"), split)
    path = _place(spec)
    if path.is_dir():
        return fashion_mnist(split, path) if has_originals(path) else Dataset(*_from_folder(path), str(path))
    return Dataset(*_from_file(path), str(path))


def _from_folder(path: Path) -> tuple[Tensor, Tensor | None]:
    """The samples in a folder, and their classes if there are any."""
    from headstart.data.shards import gathered, has_manifest

    if has_manifest(path):
        return gathered(path)
    if is_zarr(path):
        samples, labels = read_zarr(path)
        return _samples(samples, str(path)), labels
    try:
        shown = [each for each in path.iterdir() if each.name[0] != "."]
        parts = sorted(each for each in shown if each.suffix.lower() in PARTS and each.is_file())
        images = [each for each in shown if parts and each.suffix.lower() in IMAGES and each.is_file()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    endings = sorted({each.suffix.lower() for each in (*parts, *images)})
    if len(endings) > 1:
        raise DataError(f"{path} holds data of several kinds ({', '.join(endings)}): put each into its own folder")
    samples, labels = PARTS[endings[0]](parts, path) if parts else read_folder(path)
    return _samples(samples, str(path)), labels


def _from_file(path: Path) -> tuple[Tensor, Tensor | None]:
    """The samples of a file, and their classes if there are any."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{path} ends in {path.suffix!r}: expected {', '.join(ENDINGS)} or a folder of images")
    if ending == ".zip":
        samples, labels = read_zip(path)
    elif ending in PARTS:
        samples, labels = PARTS[ending]([path], path)
    else:
        samples, *rest = read_arrays(path, partial(wanted_names, source=path)).values()
        labels = rest[0] if rest else None
    return _single(_samples(samples, str(path))), labels


def load_arrays(spec: str | Path) -> Tensor | dict[str, Tensor]:
    """The array of a file, or all of them by name where it holds several; floating-point ones in float32.

    Raises:
        DataError: if there is no file at ``spec``, or it cannot be read, or holds what is no array of numbers.
    """
    path = _place(spec)
    arrays = {key: x.float() if x.is_floating_point() else x for key, x in read_arrays(path).items()}
    if not arrays:
        raise DataError(f"{path} holds no arrays")
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _place(spec: str | Path) -> Path:
    """The file or folder of that name."""
    try:
        path = Path(spec).expanduser()
        if not path.exists():
            raise DataError(f"there is no file or folder {path}{_perhaps(path)}")
        if not path.is_dir() and not path.is_file():
            raise DataError(f"{path} is neither a file nor a folder")
    except (OSError, RuntimeError) as error:  # a folder closed to us; a user without a home
        raise DataError(f"{spec} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return path


def _perhaps(path: Path) -> str:
    """The name in the same folder that a missing one is likely to stand for."""
    try:
        names = [each.name for each in islice(path.parent.iterdir(), MOST_NAMES)]
    except OSError:
        return ""
    near = get_close_matches(path.name, names, n=1, cutoff=0.8)
    return f" (did you mean {path.with_name(near[0])}?)" if near else ""


def _builtin(name: str, split: Split) -> Dataset:
    known: dict[str, Split] = {"fashion-mnist": split, "fashion-mnist/train": "train", "fashion-mnist/test": "test"}
    if name not in known:
        raise DataError(unknown("bundled data set", name, known))
    return fashion_mnist(known[name])


def read_arrays(path: Path, wanted: Callable[[list[str]], Iterable[str]] = iter) -> dict[str, Tensor]:
    """The arrays of a file, by name; those that are not wanted are not read. A single array is named ``samples``.

    Arguments:
        path: a file with one of the endings at the top of this module.
        wanted: given the names of all arrays, returns those to read.

    Raises:
        DataError: if the file cannot be read, has another ending, or holds what is no array of numbers.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} ends in {path.suffix!r}: expected {', '.join(READERS)}")
    with readable(path):
        values = reader(path, wanted)
    found = {key: as_tensor(value, f"{path}, {key!r},") for key, value in values.items()}
    for key, x in found.items():
        if x.numel() * x.element_size() > (held := x.untyped_storage().nbytes()):
            raise DataError(
                f"{path}, {key!r}, claims numbers of shape {tuple(x.shape)}, and holds {held} bytes of them"
            )
    return found


def _npy(path: Path, wanted: Callable[[list[str]], Iterable[str]]) -> dict[str, Any]:
    """A large array stays in its file, and its pages are read as they are needed."""
    if path.stat().st_size > LARGE:
        mapped = np.load(path, mmap_mode="c", allow_pickle=False)
        if mapped.dtype.isnative and mapped.dtype.kind in "fiu" and mapped.flags.c_contiguous:
            return {key: torch.from_numpy(mapped) for key in wanted(["samples"])}
    return {key: np.load(path, allow_pickle=False) for key in wanted(["samples"])}


def _npz(path: Path, wanted: Callable[[list[str]], Iterable[str]]) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in wanted(archive.files)}


def _safetensors(path: Path, wanted: Callable[[list[str]], Iterable[str]]) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in wanted(list(file.keys()))}


def _pt(path: Path, wanted: Callable[[list[str]], Iterable[str]]) -> dict[str, Any]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, Tensor):
        loaded = {"samples": loaded}
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds a {type(loaded).__name__}: expected a tensor or a dictionary of tensors")
    named = {str(key): value for key, value in loaded.items()}
    chosen = {key: named[key] for key in wanted(list(named))}
    for key, value in chosen.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{path}, {key!r}, holds a {type(value).__name__}: expected a tensor")
    return chosen


#: The readers of files of arrays, by ending.
READERS = {".npy": _npy, ".npz": _npz, ".pt": _pt, ".safetensors": _safetensors}

#: The readers of files that may be the parts of one data set, by ending.
PARTS = {".tar": read_tars, ".parquet": read_tables}

#: The endings of files of data.
ENDINGS = (*READERS, ".zip", *PARTS)


def _samples(x: Tensor, name: str) -> Tensor:
    """Floating-point samples as they are, without a gradient; bytes as images in [-1, 1] with channels first."""
    if x.is_floating_point():
        x = x.float() if x.element_size() == 1 else x  # types that have no arithmetic
        return x.detach() if x.requires_grad else x
    if x.dtype != torch.uint8:
        raise DataError(f"{name} holds {x.dtype} samples: convert them to floating point, or images to bytes (uint8)")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3, 4):
        x = x.movedim(-1, 1)
    elif x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        raise DataError(f"{name} holds bytes of shape {tuple(x.shape)}: expected images (N, H, W) or (N, H, W, C)")
    return converted(x, lambda part: (part.float() / 127.5 - 1).contiguous(), tuple(x.shape[1:]), torch.float32)


def _single(x: Tensor) -> Tensor:
    """Samples in float32."""
    return x if x.dtype == torch.float32 else converted(x, lambda part: part.float(), tuple(x.shape[1:]), torch.float32)
