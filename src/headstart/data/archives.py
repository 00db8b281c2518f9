"""Archives of samples: zip files of images, and tar files in the form of WebDataset.

A zip file is read as a folder of images is (:mod:`headstart.data.images`): by name, its folders being the classes. One
folder that holds all others is passed over.

In a tar file, the files of one sample stand one after the other and have the name up to the first dot in common, as
``000017.jpg`` and ``000017.cls`` do. One of them is the sample: an image, or an array in ``.npy`` or ``.npz``. A class
is a whole number in ``.cls``, ``label`` in ``.json``, or beside the samples in ``.npz``. Other files are passed over.
Several tar files are read in the order of their names.

Nothing is unpacked: an entry is read into memory, one sample at a time, and one whose name leads out of the archive is
refused. An array is held against its bytes before it is made, and never unpickled.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.data.images import IMAGES, LISTED, OTHERS, classes_of, decoded, listed_classes
from headstart.data.sources import LABELS, readable, wanted_names
from headstart.data.stack import stacked
from headstart.errors import DataError

__all__ = ["read_array", "read_tars", "read_zip", "tar_entries"]

#: Bytes of a file in an archive at most, and of one that holds a class.
MOST_BYTES, MOST_LABEL = 1 << 30, 1 << 20

#: Endings of arrays.
ARRAYS = (".npy", ".npz")

#: A class in a file of its own.
WHOLE = re.compile(rb"\s*[+-]?[0-9]{1,18}\s*")

#: The readers of an array's header, by the version of its form; a third one is for fields with names alone.
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

#: An entry of an archive: its name, its bytes and how to get them.
Entry = tuple[str, int, Callable[[], bytes]]


# Zip files of images.


def read_zip(path: Path) -> tuple[Tensor, Tensor | None]:
    """The images of a zip file, (N, H, W) or (N, H, W, 3) in uint8, and their classes (N,) if there are any.

    Raises:
        DataError: as :func:`headstart.data.images.read_folder`, or if the file cannot be read, or an entry leads out of
            it or takes more than 1 GiB.
    """
    with readable(path), zipfile.ZipFile(path) as archive:
        entries = sorted(_pictures(archive, path), key=lambda item: item[0].parts)
        if len(entries) < 2:
            raise DataError(f"{path} holds {len(entries)} images ({', '.join(IMAGES)}): expected at least 2")
        names = [name for name, _ in entries]
        classes = _listed(archive, names, path) if LISTED in archive.namelist() else classes_of(_parents(names), path)
        images = (
            (f"{path}/{name}", decoded(io.BytesIO(archive.read(entry)), f"{path}/{name}")) for name, entry in entries
        )
        return stacked(images, len(entries)), classes


def _pictures(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """The entries that are images, but for hidden ones."""
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        name = _inside(entry.filename, path)
        if _hidden(name):
            continue
        if name.suffix.lower() in OTHERS:
            raise DataError(f"{path}/{name} is an image of a kind that is not read: convert it to PNG, or remove it")
        if name.suffix.lower() in IMAGES:
            _check_size(entry.file_size, f"{path}/{name}")
            yield name, entry


def _parents(names: Sequence[PurePosixPath]) -> list[tuple[str, ...]]:
    """The folders above each name, without those that hold all others."""
    parents = [name.parts[:-1] for name in names]
    while all(parents) and len({parent[0] for parent in parents}) == 1:
        parents = [parent[1:] for parent in parents]
    return parents


def _listed(archive: zipfile.ZipFile, names: Sequence[PurePosixPath], path: Path) -> Tensor | None:
    _check_size(archive.getinfo(LISTED).file_size, f"{path}/{LISTED}")
    return listed_classes(archive.read(LISTED), [str(name) for name in names], f"{path}/{LISTED}")


# Tar files of anything.


def read_tars(paths: Sequence[Path], source: Path) -> tuple[Tensor, Tensor | None]:
    """The samples of tar files, (N, \\*S), and their classes (N,) if there are any.

    Arguments:
        paths: of the files.
        source: the file, or the folder that holds them, for messages.

    Returns:
        Images are (N, H, W) or (N, H, W, 3) in uint8, and arrays in uint8 or float32.

    Raises:
        DataError: if a file cannot be read or is cut off, an entry leads out of it or takes more than 1 GiB, a sample
            is none or unlike the first, or some have a class and others have none.
    """
    count = sum(sum(1 for _ in _grouped(path)) for path in paths)
    if count < 2:
        raise DataError(f"{source} holds {count} samples: expected at least 2")
    labels: list[int] = []
    without: list[str] = []

    def samples() -> Iterator[tuple[str, NDArray[Any]]]:
        for path in paths:
            with readable(path):
                for key, files in _grouped(path):
                    name, sample, label = _sample(f"{path}/{key}", files)
                    labels.append(label) if label is not None else without.append(name)
                    yield name, sample

    found = stacked(samples(), count)
    if labels and without:
        raise DataError(
            f"{without[0]} has no class, and {len(labels)} of {count} samples have one: give all of them one"
        )
    return found, torch.tensor(labels) if labels else None


def tar_entries(path: Path) -> Iterator[Entry]:
    """The files of a tar file that is not compressed, one after the other; no more than one of them is kept.

    Raises:
        DataError: if an entry is a link, a device or sparse, or the file is cut off.
        tarfile.TarError, OSError: if it cannot be read.
    """
    size = path.stat().st_size
    with tarfile.open(path, "r:") as archive:
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or it would keep all of them
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse():
                raise DataError(f"{path} holds {entry.name[:80]!r}, which is no file")
            if entry.offset_data + entry.size > size:
                raise DataError(f"{path} is cut off: it lacks bytes of {entry.name[:80]!r}")

            yield entry.name, entry.size, partial(_bytes, path, entry.offset_data, entry.size)
        with path.open("rb") as file:  # the reader ends at whatever is no entry
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise DataError(f"{path} is cut off or damaged after {archive.offset} bytes: it has no end")


def _bytes(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _grouped(path: Path) -> Iterator[tuple[str, dict[str, Entry]]]:
    """The key of each sample, and its files by their endings."""
    with readable(path):
        named = ((_inside(entry[0], path), entry) for entry in tar_entries(path))
        shown = ((*_key(name), entry) for name, entry in named if not _hidden(name))
        for key, group in groupby(shown, lambda item: item[0]):
            files: dict[str, Entry] = {}
            for _, ending, entry in group:
                if ending in files:
                    raise DataError(f"{path} holds {entry[0][:80]!r} twice")
                files[ending] = entry
            yield key, files


def _key(name: PurePosixPath) -> tuple[str, str]:
    """The part of a name that the files of a sample have in common, and the ending of this one.

    >>> _key(PurePosixPath("train/000017.left.PNG"))
    ('train/000017', '.left.png')
    """
    stem, dot, ending = name.name.partition(".")
    return str(name.parent / stem), dot + ending.lower()


def _sample(key: str, files: Mapping[str, Entry]) -> tuple[str, NDArray[Any], int | None]:
    """The name, the content and the class of a sample."""
    own = [ending for ending in files if PurePosixPath("x" + ending).suffix in (*IMAGES, *OTHERS, *ARRAYS)]
    if len(own) != 1:
        raise DataError(
            f"{key} holds {', '.join(files)}: expected one image or array ({', '.join((*IMAGES, *ARRAYS))}), and all "
            "files of a sample one after the other"
        )
    name = key + own[0]
    label: Any = None
    if name.endswith(OTHERS):
        raise DataError(f"{name} is an image of a kind that is not read: convert it to PNG, or remove it")
    content = _content(files[own[0]], name)
    if name.endswith(".npz"):
        sample, label = _from_npz(content, name)
    else:
        sample = read_array(content, name) if name.endswith(".npy") else decoded(io.BytesIO(content), name)
    if ".cls" in files:
        label = _content(files[".cls"], key + ".cls", MOST_LABEL)
        label = int(label) if WHOLE.fullmatch(label) else label.decode(errors="replace")
    elif ".json" in files:
        label = _in_json(_content(files[".json"], key + ".json", MOST_LABEL), key + ".json")
    if label is not None and (not isinstance(label, int) or isinstance(label, bool) or abs(label) >= 2**63):
        raise DataError(f"{name} has the class {str(label)[:80]!r}: expected a whole number")
    return name, sample, label


def _in_json(content: bytes, name: str) -> Any:
    """The class in a JSON file; None where it has none."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}") from error
    if isinstance(values, dict):
        return next((values[key] for key in (*LABELS, "cls") if key in values), None)
    return values if isinstance(values, int) else None


def _from_npz(content: bytes, name: str) -> tuple[NDArray[Any], Any]:
    """The sample in an archive of arrays, and its class if that is there."""
    with readable(name), zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        key, *label = wanted_names(arrays, name)
        for each in (key, *label):
            _check_size(arrays[each].file_size, f"{name}/{each}")
        sample = read_array(archive.read(arrays[key]), f"{name}/{key}")
        return sample, read_array(archive.read(arrays[label[0]]), f"{name}/{label[0]}").tolist() if label else None


def read_array(content: bytes, name: str) -> NDArray[Any]:
    """The array of real numbers that the bytes of a ``.npy`` file hold, which it shares.

    Raises:
        DataError: if it is none, or claims other numbers than there are bytes of.
    """
    file = io.BytesIO(content)
    with readable(name):
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        if version not in HEADERS:
            raise DataError(f"{name} cannot be read: its form {version} is not one of {', '.join(map(str, HEADERS))}")
        shape, columns, dtype = HEADERS[version](file)  # type: ignore[no-untyped-call]
        if dtype.hasobject:
            raise DataError(f"{name} holds Python objects, which are never unpickled; save plain arrays")
        if dtype.kind not in "fiub":
            raise DataError(f"{name} holds {dtype} values: expected an array of real numbers")
        if (held := len(content) - file.tell()) != math.prod(shape) * dtype.itemsize:
            raise DataError(f"{name} claims numbers of shape {shape} in {dtype}, and holds {held} bytes of them")
        return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if columns else "C")


# Entries.


def _inside(name: str, path: Path) -> PurePosixPath:
    """The name of an entry, which is one below the archive."""
    place = PurePosixPath(name)
    if not place.parts or place.is_absolute() or ".." in place.parts or "\\" in name or name[1:2] == ":":
        raise DataError(f"{path} holds {name[:80]!r}, which leads out of it")
    return place


def _hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)


def _check_size(size: int, name: str, most: int = MOST_BYTES) -> None:
    if size > most:
        raise DataError(f"{name} takes {size:,} bytes: expected at most {most:,}")


def _content(entry: Entry, name: str, most: int = MOST_BYTES) -> bytes:
    _check_size(entry[1], name, most)
    return entry[2]()
