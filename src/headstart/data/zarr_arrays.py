"""Arrays in Zarr, of the forms 2 and 3: a folder that is an array, or a group of arrays that are named as in ``.npz``.

What an array claims is held against its folder before anything is made: its type is one of numbers, its codecs are of
Zarr's own that compress or order bytes (others make Python objects), a chunk takes at most 1 GiB, and all chunks of the
samples are there. Zarr leaves out chunks that are zero throughout; classes may lack such chunks, and samples may not.

An array is read some chunks at a time (the extra ``storage``).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.arrays import as_classes
from headstart.data.sources import readable, wanted_names
from headstart.errors import DataError
from headstart.extras import require
from headstart.files import check_regular, read_regular
from headstart.large import CHUNK, LARGE, empty

__all__ = ["is_zarr", "read_group", "read_zarr", "write_group"]

#: The files that describe an array or a group, in the third and the second form.
NEW, OLD, OLD_GROUP = "zarr.json", ".zarray", ".zgroup"

#: Codecs that turn bytes into numbers and nothing else.
CODECS = {"bytes", "transpose", "sharding_indexed", "crc32c", "blosc", "gzip", "zstd"}
OLD_CODECS = {"blosc", "bz2", "gzip", "lz4", "lzma", "shuffle", "zlib", "zstd"}

#: Types of numbers, as the third form names them.
TYPES = {"float16", "float32", "float64", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"}


#: Bytes of a chunk at most.
MOST_CHUNK = 1 << 30


@dataclass(frozen=True)
class Claim:
    """The description of an array, as far as it has been checked.

    Attributes:
        shape: of the array.
        chunks: the shape of a chunk, which is a file.
        dtype: of its numbers.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def files(self) -> int:
        """How many chunks there are."""
        return math.prod(-(-n // size) for n, size in zip(self.shape, self.chunks, strict=True))


def is_zarr(folder: Path) -> bool:
    """Whether a folder is an array or a group of them."""
    return any((folder / name).is_file() for name in (NEW, OLD, OLD_GROUP))


# Shards.


def write_group(arrays: Mapping[str, NDArray[Any]], place: Path) -> None:
    """Write arrays as a group, in chunks of at most 64 MiB without compression."""
    zarr = _library()
    group = zarr.create_group(store=zarr.storage.LocalStore(place), zarr_format=3)
    for name, array in arrays.items():
        rows = max(1, CHUNK // max(1, math.prod(array.shape[1:]) * array.itemsize))
        group.create_array(
            name,
            data=np.ascontiguousarray(array),
            chunks=(min(rows, len(array)), *array.shape[1:]),
            compressors=None,
            config={"write_empty_chunks": True},
        )


def read_group(place: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a group that was written.

    Raises:
        DataError: if one claims more than there are bytes of, or cannot be read.
    """
    found = {}
    for name, claim in _claims(place).items():
        held = sum(os.stat(file).st_size for file in _chunks(place / name))
        if math.prod(claim.shape) * claim.dtype.itemsize > held:
            raise DataError(f"{place / name} claims numbers of shape {claim.shape}, and holds {held} bytes of them")
        found[name] = np.asarray(_array(place / name)[...])
    return found


# Data.


def read_zarr(folder: Path) -> tuple[Tensor, Tensor | None]:
    """The samples (N, \\*S) in float32 or, of bytes, uint8, and their classes (N,) if there are any.

    Raises:
        DataError: if an array cannot be read, claims what its folder does not hold, has another type, or holds NaN or
            Inf.
        MissingExtraError: if zarr is not installed.
    """
    claims = _claims(folder)
    key, *label = wanted_names(claims, folder)
    claim, place = claims[key], folder / key if key else folder
    if claim.dtype.kind != "f" and claim.dtype != np.uint8:
        raise DataError(
            f"{place} holds {claim.dtype} samples: convert them to floating point, or images to bytes (uint8)"
        )
    if len(claim.shape) < 2 or not math.prod(claim.shape):
        raise DataError(f"{place} has shape {claim.shape}: expected (N, ...) with N of at least 2")
    if (lacking := claim.files - sum(1 for _ in _chunks(place))) > 0:
        raise DataError(
            f"{place} lacks {lacking} of {claim.files} chunks: write all of them, also those that are zero throughout"
        )
    found = empty(claim.shape, torch.uint8 if claim.dtype == np.uint8 else torch.float32)
    for first, block in _blocks(place, claim):
        if block.dtype.kind == "f" and (wrong := ~np.isfinite(block)).any():
            row = first + int(np.argwhere(wrong)[0][0])
            raise DataError(f"{place}, sample {row}, holds NaN or infinite values: remove or fill them first")
        found[first : first + len(block)] = torch.from_numpy(block)
    return found, _classes(folder / label[0], claims[label[0]], len(found)) if label else None


def _classes(place: Path, claim: Claim, count: int) -> Tensor:
    if claim.shape != (count,):
        raise DataError(f"{place} holds classes of shape {claim.shape}, of {count} samples: expected ({count},)")
    with readable(place):
        return as_classes(np.asarray(_array(place)[...]), str(place))


def _blocks(place: Path, claim: Claim) -> Iterator[tuple[int, NDArray[Any]]]:
    """The place of the first of some samples, and these, one block after the other."""
    row = math.prod(claim.shape[1:]) * claim.dtype.itemsize
    size = claim.chunks[0] * max(1, CHUNK // max(1, claim.chunks[0] * row))
    size = min(size, max(1, LARGE // max(1, row)))
    with readable(place), np.errstate(over="ignore"):  # what overflows becomes Inf
        array = _array(place)
        for first in range(0, claim.shape[0], size):
            block = np.asarray(array[first : first + size])
            yield first, block if claim.dtype == np.uint8 else block.astype(np.float32)


def _array(place: Path) -> Any:
    """An array that has been checked, open for reading.

    Raises:
        DataError: if one of its files is no regular one, which could be waited for without end.
    """
    for _ in _chunks(place):
        pass
    zarr = _library()
    return zarr.open_array(store=zarr.storage.LocalStore(place, read_only=True), mode="r")


def _library() -> Any:
    zarr = require("zarr", "storage", "an array in Zarr")
    require("zarr.storage", "storage", "an array in Zarr")
    return zarr


# Claims.


def _claims(folder: Path) -> dict[str, Claim]:
    """The descriptions of a folder's arrays by name; a folder that is an array itself has one without a name."""
    if (own := _claim(folder)) is not None:
        return {"": own}
    with readable(folder):
        places = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    found = {place.name: claim for place in places if (claim := _claim(place)) is not None}
    if not found:
        raise DataError(f"{folder} holds no array: name the array or the group that it is in")
    return found


def _claim(place: Path) -> Claim | None:
    """The description of an array, checked; None where there is none."""
    with readable(place):
        if (place / NEW).exists():
            about = json.loads(read_regular(place / NEW))
            if about.get("node_type") != "array":
                return None
            _check_codecs(place, about["codecs"], "name", CODECS)
            if str(about["data_type"]) not in TYPES or about["chunk_grid"]["name"] != "regular":
                raise DataError(f"{place} holds {str(about['data_type'])[:80]}: expected numbers, in regular chunks")
            dtype, chunks = np.dtype(about["data_type"]), about["chunk_grid"]["configuration"]["chunk_shape"]
        elif (place / OLD).exists():
            about = json.loads(read_regular(place / OLD))
            _check_codecs(place, [about.get("compressor"), *(about.get("filters") or [])], "id", OLD_CODECS)
            if not isinstance(about["dtype"], str) or np.dtype(about["dtype"]).kind not in "fiu":
                raise DataError(f"{place} holds {str(about['dtype'])[:80]}: expected numbers")
            dtype, chunks = np.dtype(about["dtype"]), about["chunks"]
        else:
            return None
        claim = Claim(_numbers(about["shape"], 0), _numbers(chunks, 1), dtype)
        if len(claim.shape) != len(claim.chunks):
            raise DataError(f"{place} has the shape {claim.shape} and chunks of another one, {claim.chunks}")
        if (size := math.prod(claim.chunks) * dtype.itemsize) > MOST_CHUNK:
            raise DataError(f"{place} has chunks of {size / 2**30:.3g} GiB: expected at most 1 GiB, write smaller ones")
        return claim


def _numbers(values: Any, least: int) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(n) is int and least <= n < 2**63 for n in values):
        raise ValueError(f"{str(values)[:80]} is no shape")
    return tuple(values)


def _check_codecs(place: Path, codecs: Any, key: str, known: set[str]) -> None:
    """Refuse codecs that are not known, also within those of shards."""
    for codec in codecs:
        if codec is None:
            continue
        if codec[key] not in known:
            raise DataError(
                f"{place} has the codec {str(codec[key])[:80]!r}: expected one of {', '.join(sorted(known))}"
            )
        within = codec.get("configuration", {}) if key == "name" else {}
        _check_codecs(place, [*within.get("codecs", []), *within.get("index_codecs", [])], key, known)


def _chunks(place: Path) -> Iterator[Path]:
    """The files of an array's chunks.

    Raises:
        DataError: if a file of the array, one that describes it too, is no regular file, or a folder of it a link.
    """
    for folder, within, names in os.walk(place):
        if linked := [name for name in within if os.path.islink(Path(folder, name))]:
            raise DataError(f"{Path(folder, linked[0])} is a link: expected the folder itself")
        for name in names:
            with readable(place):
                check_regular(Path(folder, name))
            if name[0] != "." and name != NEW:
                yield Path(folder, name)
