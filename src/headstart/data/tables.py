"""Tables in Parquet: a row is a sample and a column a coordinate, in the order of the columns.

The columns are floating-point numbers; or one of them, which is named as the samples of a file of arrays are or is the
only one, holds lists of as many numbers each. A column ``labels`` or ``label`` of whole numbers holds the classes. The
column ``seeds``, which ``headstart sample`` writes, and the index that pandas writes are no coordinates. Several files
are read in the order of their names.

A file is mapped and read some rows at a time (the extra ``storage``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.data.sources import LABELS, SAMPLES, readable
from headstart.errors import DataError
from headstart.extras import require
from headstart.files import check_regular
from headstart.large import CHUNK, empty

__all__ = ["read_table", "read_tables", "write_table"]

#: Rows that are read at a time, at most.
ROWS = 1 << 16

#: Columns that hold classes. A column ``y`` is a coordinate.
CLASSES = LABELS[:2]

#: The column that holds the seeds of samples.
SEEDS = "seeds"


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        samples: those that are coordinates, or the one that holds lists of them.
        label: that of the classes, or None.
        lists: whether there are lists.
    """

    samples: tuple[str, ...]
    label: str | None
    lists: bool


# Shards.


def write_table(samples: NDArray[Any], seeds: NDArray[Any], labels: NDArray[Any] | None, place: Path) -> None:
    """Write samples (N, D) in columns ``x0``, ``x1``, ..., with their seeds (N,) and classes (N,), not compressed."""
    arrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    columns = {f"x{i}": np.ascontiguousarray(samples[:, i]) for i in range(samples.shape[1])} | {SEEDS: seeds}
    if labels is not None:
        columns[CLASSES[0]] = labels
    parquet.write_table(arrow.table(columns), place, compression="NONE", use_dictionary=False)


def read_table(place: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """The samples, seeds and classes that were written.

    Raises:
        DataError: if a file is another one, or claims more rows than it has bytes for.
    """
    with _opened(place) as file:
        columns = _columns(file, place)
        rows, size = file.metadata.num_rows, place.stat().st_size
        if columns.lists or SEEDS not in file.schema_arrow.names or 4 * rows * len(columns.samples) > size:
            raise DataError(f"{place} is none of our tables: it claims {rows} rows of {size} bytes, or lacks a column")
        table = file.read(use_threads=False)
        samples = np.stack([table[name].to_numpy() for name in columns.samples], axis=1)
        labels = table[columns.label].to_numpy().copy() if columns.label else None
        return samples, table[SEEDS].to_numpy(), labels


# Data.


def read_tables(paths: Sequence[Path], source: Path) -> tuple[Tensor, Tensor | None]:
    """The samples of tables, (N, D) in float32, and their classes (N,) if there are any.

    Arguments:
        paths: of the files.
        source: the file, or the folder that holds them, for messages.

    Raises:
        DataError: if a file cannot be read or has other columns than the first, or a value is missing, no number, NaN
            or Inf; the message names its row and column.
        MissingExtraError: if pyarrow is not installed.
    """
    count, first = 0, None
    for path in paths:
        with _opened(path) as file:
            columns = _columns(file, path)
            count += file.metadata.num_rows
        first = first or columns
        if columns != first:
            raise DataError(f"{path} has other columns than {paths[0]}: expected the same ones in the same order")
    if count < 2:
        raise DataError(f"{source} holds {count} rows: expected at least 2")
    found, labels, done = torch.empty(0), list[Tensor](), 0
    for path in paths:
        for samples, classes in _blocks(path):
            if not done:
                found = empty((count, samples.shape[1]))
            if samples.shape[1] != found.shape[1]:
                raise DataError(f"{path} holds {samples.shape[1]} numbers in a row, and {paths[0]} {found.shape[1]}")
            if done + len(samples) > count:
                break
            found[done : done + len(samples)] = torch.from_numpy(samples)
            labels += [] if classes is None else [torch.from_numpy(classes)]
            done += len(samples)
    if done != count:
        raise DataError(f"{source} claims {count} rows, and holds {done}")
    return found, torch.cat(labels) if labels else None


def _blocks(path: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
    """The samples (B, D) of some rows of a file after the other, and their classes (B,)."""
    with _opened(path) as file:
        columns, about, done = _columns(file, path), file.metadata, 0
        held = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)) // max(1, about.num_rows)
        rows = min(ROWS, max(1, CHUNK // max(8 * len(columns.samples), held)))
        names = [*columns.samples, *([columns.label] if columns.label else [])]
        for batch in file.iter_batches(batch_size=rows, columns=names, use_threads=False):
            for name in names:
                if batch.column(name).null_count:
                    row = done + batch.column(name).is_null().to_pylist().index(True)
                    raise DataError(f"{path}, row {row}, column {name!r}: no value, fill or remove it first")
            samples = _lists(batch.column(names[0]), path, done) if columns.lists else _stacked(batch, columns)
            if (wrong := ~np.isfinite(samples)).any():
                row, place = np.argwhere(wrong)[0]
                name = columns.samples[0 if columns.lists else place]
                raise DataError(f"{path}, row {done + row}, column {name!r}: NaN or infinite, remove or fill it first")
            yield samples, _classes(batch.column(columns.label), path, done) if columns.label else None
            done += len(samples)


def _stacked(batch: Any, columns: Columns) -> NDArray[Any]:
    found = np.empty((len(batch), len(columns.samples)), np.float32)
    with np.errstate(over="ignore"):  # what overflows becomes Inf
        for i, name in enumerate(columns.samples):
            found[:, i] = batch.column(name).to_numpy(zero_copy_only=False)
    return found


def _lists(column: Any, path: Path, done: int) -> NDArray[Any]:
    """Lists of as many numbers each, as an array."""
    values = column.flatten()
    if values.null_count:
        raise DataError(f"{path}, rows from {done}: lists with missing values, fill or remove them first")
    lengths = np.asarray(column.value_lengths()) if hasattr(column, "value_lengths") else None
    width = len(values) // max(1, len(column))
    if lengths is not None and (wrong := np.flatnonzero(lengths != width)).size:
        row = int(wrong[0])
        raise DataError(f"{path}, row {done + row}: {lengths[row]} numbers, where others have {lengths[row - 1]}")
    with np.errstate(over="ignore"):
        return np.array(values.to_numpy(zero_copy_only=False), np.float32).reshape(len(column), width)


def _classes(column: Any, path: Path, done: int) -> NDArray[Any]:
    found: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if found.dtype == np.uint64 and found.size and found.max() >= 2**63:
        raise DataError(f"{path}, rows from {done}: the class {found.max()}: expected whole numbers below 2^63")
    return found.astype(np.int64)


def _columns(file: Any, path: Path) -> Columns:
    """The columns that are samples and classes, by their names and types."""
    types = _library("pyarrow.types")
    schema = file.schema_arrow
    kinds = dict(zip(schema.names, schema.types, strict=True))
    if len(kinds) < len(schema.names):
        raise DataError(f"{path} has two columns of one name: give each its own")
    label = next((name for name in CLASSES if name in kinds), None)
    if label is not None and not types.is_integer(kinds[label]):
        raise DataError(f"{path}: the column {label!r} holds {kinds[label]}: expected whole numbers")
    own = [name for name in kinds if name not in (*CLASSES, SEEDS) and not name.startswith("__index_level_")]
    lists = [name for name in own if hasattr(kinds[name], "value_field")]
    if lists:
        own = [name for name in SAMPLES if name in lists][:1] or own
    if not own:
        raise DataError(f"{path} has no columns of samples")
    for name in own:
        kind = kinds[name].value_type if lists and len(own) == 1 else kinds[name]
        if not types.is_floating(kind):
            raise DataError(
                f"{path}: the column {name!r} holds {kinds[name]}: convert it to floating point or remove it; "
                "if lists are the samples, name them 'samples'"
            )
    return Columns(tuple(own), label, bool(lists))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file, whose pages are read as they are needed."""
    parquet = _library("pyarrow.parquet")
    with readable(path):
        check_regular(path)
        with parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            yield file


def _library(module: str) -> Any:
    return require(module, "storage", "a table in Parquet")
