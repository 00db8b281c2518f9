"""Tables in Parquet come back as they were written; what is no number is named by its row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from headstart.data import load_data, tables
from headstart.errors import DataError, MissingExtraError

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
LABELS = np.arange(50) % 4


def written(path: Path, columns: Any, **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def columns_of(x: np.ndarray) -> dict[str, Any]:
    return {name: x[:, i] for i, name in enumerate("zyx")}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"row_group_size": 7}, {"compression": "zstd"}], ids=str)
def test_columns_are_coordinates_in_their_order(dtype: Any, options: dict[str, Any], tmp_path: Path) -> None:
    x = X.astype(dtype)
    found = load_data(written(tmp_path / "a.parquet", columns_of(x), **options))
    assert torch.equal(found.samples, torch.from_numpy(x.astype(np.float32)))
    assert found.samples.dtype == torch.float32
    assert found.labels is None


@pytest.mark.parametrize("name", ["labels", "label"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.uint64])
def test_classes(name: str, dtype: Any, tmp_path: Path) -> None:
    """Beside an index of pandas and the seeds of samples, which are no coordinates."""
    more = {"__index_level_0__": LABELS, "seeds": LABELS, name: LABELS.astype(dtype)}
    found = load_data(written(tmp_path / "a.parquet", columns_of(X) | more))
    assert torch.equal(found.samples, torch.from_numpy(X))
    assert found.labels is not None
    assert found.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3), pa.large_list(pa.float16())], ids=str
)
@pytest.mark.parametrize("name", ["samples", "embedding"])
def test_lists_of_numbers(kind: Any, name: str, tmp_path: Path) -> None:
    x = X.astype(np.float16)
    columns = {name: pa.array(list(x), kind), "label": LABELS}
    if name == "samples":
        columns["caption"] = ["words"] * 50
    found = load_data(written(tmp_path / "a.PARQUET", columns, row_group_size=8))
    assert torch.equal(found.samples, torch.from_numpy(x.astype(np.float32)))
    assert found.labels is not None
    assert found.labels.tolist() == LABELS.tolist()


def test_a_folder_of_tables_is_read_by_name(tmp_path: Path) -> None:
    for i in (2, 0, 1):
        written(tmp_path / f"part-{i}.parquet", columns_of(X[10 * i : 10 * i + 10]))
    assert torch.equal(load_data(tmp_path).samples, torch.from_numpy(X[:30]))
    written(tmp_path / "part-3.parquet", dict(reversed(columns_of(X).items())))
    with pytest.raises(DataError, match=r"part-3.parquet has other columns than .*part-0.parquet"):
        load_data(tmp_path)


def bad(place: tuple[int, int], value: Any) -> dict[str, Any]:
    x = X.astype(object)
    x[place] = value
    return {name: pa.array(list(column), pa.float64()) for name, column in columns_of(x).items()}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": (bad((17, 1), np.nan), r"a.parquet, row 17, column 'y': NaN or infinite"),
    "Inf": (bad((49, 2), -np.inf), r"a.parquet, row 49, column 'x': NaN or infinite"),
    "too large": (bad((3, 0), 1e300), r"a.parquet, row 3, column 'z': NaN or infinite"),
    "missing": (bad((20, 2), None), r"a.parquet, row 20, column 'x': no value"),
    "text": (columns_of(X) | {"a": ["b"] * 50}, r"the column 'a' holds string: convert it"),
    "whole numbers": (columns_of(X) | {"a": LABELS}, r"the column 'a' holds int64: convert it"),
    "two lists": ({"a": [[1.0]] * 50, "b": [[1.0]] * 50}, r"the column 'a' holds list.*name them 'samples'"),
    "lists of text": ({"samples": [["a"]] * 50}, r"the column 'samples' holds list<.*string.*>: convert it"),
    "unlike lists": ({"samples": [[1.0]] * 49 + [[1.0, 2.0]]}, r"row 49: 2 numbers, where others have 1"),
    "holes in lists": ({"samples": [[1.0]] * 49 + [[None]]}, r"lists with missing values"),
    "missing list": ({"samples": [[1.0]] * 49 + [None]}, r"row 49, column 'samples': no value"),
    "fractions": (columns_of(X) | {"label": LABELS / 2}, r"the column 'label' holds double: expected whole numbers"),
    "large class": (columns_of(X) | {"label": np.full(50, 2**63, np.uint64)}, r"the class 9223372036854775808"),
    "no class": (columns_of(X) | {"label": pa.array([None] + [1] * 49)}, r"row 0, column 'label': no value"),
    "classes alone": ({"label": LABELS}, r"has no columns of samples"),
    "one row": ({name: x[:1] for name, x in columns_of(X).items()}, r"holds 1 rows: expected at least 2"),
}


@pytest.mark.parametrize(("columns", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_table_of_numbers_is_named(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", columns, row_group_size=16)
    with pytest.raises(DataError, match=message):
        load_data(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", columns_of(X))
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-1], whole[:100] + whole[200:], b"PAR1" + bytes(50) + whole[-100:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a.parquet"):
            load_data(path)


def test_some_rows_are_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than so many bytes or rows, however many there are in a group."""
    path = written(tmp_path / "a.parquet", columns_of(X) | {"label": LABELS})
    lists = written(tmp_path / "b.parquet", {"samples": pa.array(list(X), pa.list_(pa.float32(), 3))})
    monkeypatch.setattr(tables, "ROWS", 8)
    for each in (path, lists):
        sizes = [len(samples) for samples, _ in tables._blocks(each)]
        assert (max(sizes), sum(sizes)) == (8, 50)
    monkeypatch.setattr(tables, "CHUNK", 3 * 24)
    assert max(len(samples) for samples, _ in tables._blocks(path)) <= 3
    assert torch.equal(load_data(path).samples, torch.from_numpy(X))
    assert torch.equal(load_data(lists).samples, torch.from_numpy(X))


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.parquet", columns_of(X))
    for name in ("pyarrow", "pyarrow.parquet", "pyarrow.types"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingExtraError, match=r"needs pyarrow, .*headstart\[storage\]"):
        load_data(path)
