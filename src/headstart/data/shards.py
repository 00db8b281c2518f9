"""Samples in shards: a folder with a manifest, and files that each hold the samples of some of its seeds.

``manifest.json`` says what the job is: the digest of the plan, the network, the seeds, the kind of the shards and how
many samples one holds. The samples at the places ``i * shard_size`` and on are ``shard-0000i`` with the suffix of the
kind, and beside each stands its receipt, ``shard-0000i.json``: its seeds and the SHA-256 of its content. A shard
without a receipt does not count. The manifest does not change while shards come, and no file is named in it, so that
none outside the folder can be meant.

========  ==============================================================================================
kind      a shard
========  ==============================================================================================
npz       arrays ``samples``, ``seeds`` and, with classes, ``labels``, in float32
folder    a folder of images, ``SEED.png``
zip       an archive of them
tar       WebDataset: ``SEED.png`` for images and ``SEED.npy`` for others; with classes, ``SEED.cls``
zarr      a group of arrays in Zarr, named as in npz, in chunks of at most 64 MiB
parquet   a table in Parquet of samples of one axis: columns ``x0``, ``x1``, ..., ``seeds`` and ``labels``
========  ==============================================================================================

Images in PNG are bytes: [-1, 1] becomes 0 to 255, and what lies beyond is cut off. The others are float32.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from headstart.artefact import checked, read_json
from headstart.data.archives import read_array, tar_entries
from headstart.data.tables import read_table, write_table
from headstart.data.zarr_arrays import read_group, write_group
from headstart.errors import ArtefactError, DataError, InputError, MissingExtraError, unknown
from headstart.extras import require
from headstart.files import check_regular, read_regular
from headstart.large import empty

__all__ = ["KINDS", "MANIFEST", "Block", "Kind", "gathered", "has_manifest", "ranges", "read_shards"]

MANIFEST = "manifest.json"

#: The version of the layout that this code writes, and the newest that it reads.
VERSION = 1

#: Pixels of an image at most, so that a forged header takes no memory.
MOST_PIXELS = 1 << 28

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Manifest(BaseModel):
    """The description of a job, which its shards have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["headstart-shards"] = "headstart-shards"
    version: Annotated[int, Field(ge=1)] = VERSION
    plan: Digest
    model: str
    nfe: Annotated[int, Field(ge=1)]
    kind: Literal["npz", "folder", "zip", "tar", "zarr", "parquet"]
    shape: tuple[Count, ...]
    count: Count
    shard_size: Count
    batch_size: Count
    seeds: str
    labels: str | None = None
    conditions: dict[str, Digest] = {}

    @property
    def shards(self) -> int:
        """How many shards the job has."""
        return -(-self.count // self.shard_size)

    def rows(self, index: int) -> slice:
        """The places of a shard's samples among the seeds."""
        return slice(index * self.shard_size, min((index + 1) * self.shard_size, self.count))

    def shard(self, index: int) -> str:
        """The name of a shard."""
        return f"shard-{index:05d}{KINDS[self.kind].suffix}"

    def receipt(self, index: int) -> str:
        """The name of its receipt."""
        return f"shard-{index:05d}.json"


class Receipt(BaseModel):
    """The content of a shard, so that it can be checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: str
    count: Count
    bytes: Annotated[int, Field(ge=0)]
    sha256: Digest


@dataclass(frozen=True, eq=False)
class Block:
    """The samples of one shard.

    Attributes:
        samples: shape (N, \\*S), in float32.
        seeds: shape (N,), in uint64.
        labels: shape (N,), integers, or None.
    """

    samples: NDArray[Any]
    seeds: NDArray[np.uint64]
    labels: NDArray[Any] | None = None


@dataclass(frozen=True)
class Kind:
    """How shards of one kind are kept.

    Attributes:
        suffix: of a shard's name.
        write: a block to a place that does not exist yet.
        read: the block that ``write`` wrote, given the shape of one sample.
        images_only: whether it holds nothing but images.
        tables_only: whether it holds nothing but samples of one axis.
        library: that it needs, of the extra ``storage``.
    """

    suffix: str
    write: Callable[[Block, Path], None]
    read: Callable[[Path, tuple[int, ...]], Block]
    images_only: bool = False
    tables_only: bool = False
    library: str | None = None


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as ranges, both ends included.

    >>> ranges([0, 1, 2, 7, 9, 10])
    '0-2,7,9-10'
    """
    every = np.asarray(numbers, dtype=np.uint64)
    cuts = np.flatnonzero(every[1:] != every[:-1] + np.uint64(1)) + 1
    parts = [(int(part[0]), int(part[-1])) for part in np.split(every, cuts)]
    return ",".join(f"{first}-{last}" if first != last else str(first) for first, last in parts)


def digest(place: Path) -> tuple[str, int]:
    """SHA-256 and size of a file, or of the files in a folder and below, in the order of their names.

    Raises:
        OSError: if one cannot be read, or is no regular file.
    """
    found, size = hashlib.sha256(), 0
    below = [Path(above, name) for above, _, names in os.walk(place) for name in (*names, *_links(above))]
    for file in sorted(below) if place.is_dir() else [place]:
        check_regular(file)
        found.update(f"{file.relative_to(place).as_posix() if place.is_dir() else ''}\n".encode())
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                found.update(part)
                size += len(part)
    return found.hexdigest(), size


def _links(folder: str) -> list[str]:
    """The names of links to folders, which are not followed."""
    return [entry.name for entry in os.scandir(folder) if entry.is_symlink() and entry.is_dir()]


def has_manifest(folder: Path) -> bool:
    """Whether a folder holds samples in shards."""
    try:
        return bool(json.loads(read_regular(folder / MANIFEST).decode())["format"] == "headstart-shards")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        ArtefactError: if it is missing, damaged, or newer than this version of headstart.
    """
    values = _json(folder / MANIFEST)
    if isinstance(version := values.get("version"), int) and version > VERSION:
        raise ArtefactError(f"{folder / MANIFEST} has version {version}, and this headstart reads up to {VERSION}")
    return checked(Manifest, values, folder / MANIFEST)


def read_receipt(folder: Path, manifest: Manifest, index: int) -> Receipt | None:
    """The receipt of a shard whose content is there; None where there is none.

    Raises:
        ArtefactError: if it is damaged, or is none of this shard.
    """
    place = folder / manifest.receipt(index)
    if not place.exists() or not (folder / manifest.shard(index)).exists():
        return None
    found = checked(Receipt, _json(place), place)
    rows = manifest.rows(index)
    if found.count != rows.stop - rows.start:
        raise ArtefactError(f"{place} is damaged: it counts {found.count} samples, of {rows.stop - rows.start}")
    return found


def _json(place: Path) -> dict[str, Any]:
    values = read_json(place)
    if not isinstance(values, dict):
        raise ArtefactError(f"{place} is damaged: it holds no object")
    return values


def read_shards(folder: Path) -> Iterator[Block]:
    """The blocks of a job, one after the other; each is held against its receipt.

    Raises:
        ArtefactError: if the manifest, a receipt or a shard is damaged.
        DataError: if shards are missing.
    """
    manifest = read_manifest(folder)
    receipts = [read_receipt(folder, manifest, i) for i in range(manifest.shards)]
    if missing := receipts.count(None):
        raise DataError(
            f"{folder} lacks {missing} of {manifest.shards} shards: go on with the command that began it, "
            "headstart sample"
        )
    for i, receipt in enumerate(receipts):
        assert receipt is not None
        place = folder / manifest.shard(i)
        try:
            if digest(place) != (receipt.sha256, receipt.bytes):
                raise ArtefactError(f"{place} is damaged: its checksum does not fit")
            block = KINDS[manifest.kind].read(place, manifest.shape)
        except (ArtefactError, MissingExtraError):
            raise
        except Exception as error:  # readers raise errors of many kinds on damaged or forged files
            raise ArtefactError(f"{place} cannot be read: {str(error).partition(chr(10))[0]}") from error
        if block.samples.shape != (receipt.count, *manifest.shape) or ranges(block.seeds.tolist()) != receipt.seeds:
            raise ArtefactError(f"{place} is damaged: it does not hold the samples of its receipt")
        yield block


# Kinds.


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape are images, (1 or 3, H, W)."""
    return len(shape) == 3 and shape[0] in (1, 3)


def _png(sample: NDArray[Any]) -> bytes:
    from PIL import Image

    pixels = np.rint((np.clip(sample, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _from_png(content: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.size != shape[:0:-1] or math.prod(image.size) > MOST_PIXELS:
            raise DataError(f"an image of {image.size[0]} x {image.size[1]} pixels is not of the shape {shape}")
        pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), dtype=np.float32)
    return pixels.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1) / 127.5 - 1


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _write_npz(block: Block, place: Path) -> None:
    arrays = {"samples": block.samples, "seeds": block.seeds, "labels": block.labels}
    with zipfile.ZipFile(place, "w") as archive:
        for name, array in arrays.items():
            if array is not None:
                with archive.open(_entry(f"{name}.npy"), "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)  # type: ignore[no-untyped-call]


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry of an archive without a time, so that the same samples are the same bytes."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def _read_npz(place: Path, shape: tuple[int, ...]) -> Block:
    with np.load(place, allow_pickle=False) as archive:
        labels = archive["labels"] if "labels" in archive.files else None
        return Block(archive["samples"], archive["seeds"].astype(np.uint64), labels)


def _images(block: Block) -> Iterator[tuple[str, bytes]]:
    for seed, sample in zip(block.seeds.tolist(), block.samples, strict=True):
        yield f"{seed:020d}.png", _png(sample)


def _of_files(files: Iterable[tuple[str, bytes]], shape: tuple[int, ...]) -> Block:
    """The block of files that are named by their seeds."""
    samples: dict[int, NDArray[Any]] = {}
    labels: dict[int, int] = {}
    for name, content in files:
        stem, _, ending = name.partition(".")
        if not (stem.isascii() and stem.isdigit() and len(stem) == 20) or ending not in ("png", "npy", "cls"):
            raise DataError(f"it holds {name[:80]!r}, which is no sample")
        if ending == "cls":
            labels[int(stem)] = int(content)
        elif ending == "png":
            samples[int(stem)] = _from_png(content, shape)
        else:
            samples[int(stem)] = read_array(content, name)
    if labels and labels.keys() != samples.keys():
        raise DataError("some of its samples have no class")
    classes = np.array([labels[seed] for seed in samples]) if labels else None
    return Block(np.stack(list(samples.values())), np.array(list(samples), dtype=np.uint64), classes)


def _write_folder(block: Block, place: Path) -> None:
    place.mkdir()
    for name, content in _images(block):
        (place / name).write_bytes(content)


def _read_folder(place: Path, shape: tuple[int, ...]) -> Block:
    return _of_files(((name, read_regular(place / name)) for name in sorted(os.listdir(place))), shape)


def _write_zip(block: Block, place: Path) -> None:
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in _images(block):
            archive.writestr(_entry(name), content)


def _read_zip(place: Path, shape: tuple[int, ...]) -> Block:
    with zipfile.ZipFile(place) as archive:
        entries = archive.infolist()
        if any(entry.file_size != entry.compress_size for entry in entries):
            raise DataError("its entries are compressed, which ours are not")
        return _of_files(((entry.filename, archive.read(entry)) for entry in entries), shape)


def _write_tar(block: Block, place: Path) -> None:
    image = is_image(block.samples.shape[1:])
    with tarfile.open(place, "w") as archive:
        for i, seed in enumerate(block.seeds.tolist()):
            sample = np.ascontiguousarray(block.samples[i])
            files = {"png" if image else "npy": _png(sample) if image else _npy(sample)}
            if block.labels is not None:
                files["cls"] = str(int(block.labels[i])).encode()
            for ending, content in files.items():
                entry = tarfile.TarInfo(f"{seed:020d}.{ending}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def _read_tar(place: Path, shape: tuple[int, ...]) -> Block:
    return _of_files(((name, content()) for name, _, content in tar_entries(place)), shape)


def _write_zarr(block: Block, place: Path) -> None:
    arrays = {"samples": block.samples, "seeds": block.seeds, "labels": block.labels}
    write_group({name: array for name, array in arrays.items() if array is not None}, place)


def _read_zarr(place: Path, shape: tuple[int, ...]) -> Block:
    arrays = read_group(place)
    return Block(arrays["samples"], arrays["seeds"], arrays.get("labels"))


def _write_parquet(block: Block, place: Path) -> None:
    write_table(block.samples, block.seeds, block.labels, place)


def _read_parquet(place: Path, shape: tuple[int, ...]) -> Block:
    return Block(*read_table(place))


KINDS: dict[str, Kind] = {
    "npz": Kind(".npz", _write_npz, _read_npz),
    "folder": Kind("", _write_folder, _read_folder, images_only=True),
    "zip": Kind(".zip", _write_zip, _read_zip, images_only=True),
    "tar": Kind(".tar", _write_tar, _read_tar),
    "zarr": Kind(".zarr", _write_zarr, _read_zarr, library="zarr"),
    "parquet": Kind(".parquet", _write_parquet, _read_parquet, tables_only=True, library="pyarrow"),
}
"""The kinds of shards by name."""


def check_kind(kind: str, shape: tuple[int, ...], labels: bool) -> None:
    """Find out before the work whether shards of a kind hold samples of this shape, with classes if there are any.

    Raises:
        InputError: if they do not.
        MissingExtraError: if the library that writes them is not installed.
    """
    if kind not in KINDS:
        raise InputError(unknown("kind of shards", kind, KINDS))
    if KINDS[kind].tables_only and len(shape) != 1:
        raise InputError(f"shards of the kind {kind} hold tables, and samples have the shape {shape}: take npz or zarr")
    if (library := KINDS[kind].library) is not None:
        require(library, "storage", f"a shard of the kind {kind}")
    if KINDS[kind].images_only and not is_image(shape):
        raise InputError(f"shards of the kind {kind} hold images, and samples have the shape {shape}: take npz or tar")
    if KINDS[kind].images_only and labels:
        raise InputError(f"shards of the kind {kind} hold no classes: take npz or tar")


def gathered(folder: Path) -> tuple[Tensor, Tensor | None]:
    """All samples of a job, and their classes if there are any.

    Raises:
        ArtefactError, DataError: as :func:`read_shards`.
    """
    samples, labels, done = torch.empty(0), list[Tensor](), 0
    for block in read_shards(folder):
        if not done:
            samples = empty((read_manifest(folder).count, *block.samples.shape[1:]))
        samples[done : done + len(block.samples)] = torch.from_numpy(block.samples)
        done += len(block.samples)
        if block.labels is not None:
            labels.append(torch.from_numpy(block.labels))
    classes = torch.cat(labels) if labels else None
    return samples, classes if classes is not None and len(classes) == len(samples) else None
