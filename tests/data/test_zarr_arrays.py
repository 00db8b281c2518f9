"""Arrays in Zarr come back as they were written; claims that the folder does not back are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from zarr.codecs import BloscCodec

from headstart.data import load_data, zarr_arrays
from headstart.errors import DataError, MissingExtraError

X = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (20, 8, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


def written(path: Path, x: np.ndarray = X, **options: Any) -> Path:
    zarr.create_array(path, data=x, **{"chunks": (6, *x.shape[1:]), "overwrite": True, **options})
    return path


def group(path: Path, form: int = 3, **arrays: np.ndarray) -> Path:
    made = zarr.create_group(path, zarr_format=form, overwrite=True)
    for name, array in arrays.items():
        made.create_array(name, data=array, chunks=array.shape)
    return path


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.uint8])
def test_arrays_of_every_type(form: int, dtype: Any, tmp_path: Path) -> None:
    x = (PIXELS if dtype == np.uint8 else X).astype(dtype)
    found = load_data(written(tmp_path / "a.zarr", x, zarr_format=form))
    assert torch.equal(found.samples, load_data(x).samples)
    assert found.labels is None


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (1, 2, 3)},
        {"chunks": (7, 1, 2)},
        {"chunks": (20, 1, 1)},
        {"chunks": (2, 2, 3), "shards": (10, 2, 3)},
        {"compressors": BloscCodec()},
        {"compressors": None},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    ],
    ids=["rows", "parts of rows", "columns", "shards", "blosc", "plain", "names of form 2"],
)
def test_chunks_of_every_form(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a", **options)
    assert torch.equal(load_data(path).samples, torch.from_numpy(X))
    monkeypatch.setattr(zarr_arrays, "CHUNK", 50)
    assert torch.equal(load_data(path).samples, torch.from_numpy(X))


@pytest.mark.parametrize("form", [2, 3])
def test_a_group_has_names_and_classes(form: int, tmp_path: Path) -> None:
    """Classes may lack a chunk, which Zarr does not write where all of them are zero."""
    for labels in (LABELS, np.zeros(20, np.int32)):
        found = load_data(group(tmp_path / "a", form, samples=X, labels=labels, other=X[:3]))
        assert torch.equal(found.samples, torch.from_numpy(X))
        assert found.labels is not None
        assert found.labels.tolist() == labels.tolist()
    with pytest.raises(DataError, match="holds a, b: name the samples 'samples'"):
        load_data(group(tmp_path / "a", form, a=X, b=X))
    with pytest.raises(DataError, match=r"labels holds classes of shape \(3,\), of 20 samples"):
        load_data(group(tmp_path / "a", form, samples=X, labels=LABELS[:3]))
    with pytest.raises(DataError, match=r"expected integers"):
        load_data(group(tmp_path / "a", form, samples=X, labels=LABELS / 2))


def test_what_cannot_be_data_is_named(tmp_path: Path) -> None:
    x = X.copy()
    x[13, 1, 2] = np.nan
    path = tmp_path / "a"
    for wrong, message in (
        (x, r"a, sample 13, holds NaN or infinite"),
        (np.full((20, 2), 1e300), r"a, sample 0, holds NaN or infinite"),
        (X.astype(np.int32), r"a holds int32 samples: convert them to floating point"),
        (X.astype(np.complex64), r"a holds complex64: expected numbers"),
        (X[:, 0, 0], r"has shape \(20,\): expected \(N, ...\)"),
    ):
        with pytest.raises(DataError, match=message):
            load_data(written(path, wrong))
    with pytest.raises(DataError, match="holds no array"):
        load_data(group(path))


def claim(path: Path, **changed: Any) -> None:
    place = path / "zarr.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changed))


def test_claims_that_the_folder_does_not_back_take_no_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    claim(path, shape=[2**40, 2, 3])
    with pytest.raises(DataError, match=r"lacks .* of .* chunks"):
        load_data(path)
    big = {"name": "regular", "configuration": {"chunk_shape": [2**40, 2, 3]}}
    claim(path, chunk_grid=big)
    with pytest.raises(DataError, match=r"chunks of .* GiB: expected at most 1 GiB"):
        load_data(path)
    written(path)
    next(each for each in (path / "c").rglob("*") if each.is_file()).unlink()
    with pytest.raises(DataError, match="lacks 1 of 4 chunks"):
        load_data(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": [-1, 2, 3]},
        {"shape": [20.0, 2, 3]},
        {"shape": [True, 2, 3]},
        {"shape": "20"},
        {"shape": [20, 6]},
        {"shape": None},
        {"codecs": None},
        {"codecs": [{"name": "pickle"}]},
        {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "vlen-bytes"}]}}]},
        {"codecs": [{"id": "bytes"}]},
        {"data_type": "object"},
        {"data_type": {"name": "struct"}},
        {"chunk_grid": {"name": "rectangular"}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 2, 3]}}},
        {"node_type": "other"},
        {"fill_value": "words"},
    ],
    ids=str,
)
def test_forged_descriptions_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    claim(path, **changed)
    with pytest.raises(DataError, match=r"/a"):
        load_data(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"node_type": "array"}'])
def test_what_is_no_description_is_refused(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    (path / "zarr.json").write_bytes(content)
    with pytest.raises(DataError, match=r"/a"):
        load_data(path)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("key", ["compressor", "filters"])
def test_objects_are_never_unpickled(key: str, tmp_path: Path) -> None:
    """The second form has a codec that pickles."""
    import pickle

    path = written(tmp_path / "a", zarr_format=2, compressors=None)
    about = json.loads((path / ".zarray").read_text())
    codec = {"id": "pickle", "protocol": 5}
    about |= {"dtype": "|O", key: codec if key == "compressor" else [codec]}
    (path / ".zarray").write_text(json.dumps(about))
    for chunk in path.glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Harmful(tmp_path / "executed")))
    for dtype in ("|O", "<f4"):
        (path / ".zarray").write_text(json.dumps(about | {"dtype": dtype}))
        with pytest.raises(DataError, match="has the codec 'pickle': expected one of blosc"):
            load_data(path)
    (path / ".zarray").write_text(json.dumps(about | {"compressor": None, "filters": None}))
    with pytest.raises(DataError, match=r"holds \|O: expected numbers"):
        load_data(path)
    assert not (tmp_path / "executed").exists()


def test_damaged_chunks_are_refused(tmp_path: Path) -> None:
    for options in ({}, {"compressors": None}):
        path = written(tmp_path / "a", **options)
        chunk = next(each for each in (path / "c").rglob("*") if each.is_file())
        chunk.write_bytes(chunk.read_bytes()[:-5])
        with pytest.raises(DataError, match=r"cannot be read"):
            load_data(path)
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(DataError, match="it is a FIFO and no regular file"):
        load_data(path)


@pytest.mark.parametrize("form", [2, 3])
def test_no_file_is_waited_for(form: int, tmp_path: Path) -> None:
    """Of classes, which may lack chunks, and of what Zarr reads beside a description, a FIFO is refused as well."""
    path = group(tmp_path / "a", form, x=X, y=LABELS)
    chunk = next(each for each in (path / "y").rglob("*") if each.is_file() and each.name[0] not in ".z")
    os.remove(chunk)
    os.mkfifo(chunk)
    with pytest.raises(DataError, match="it is a FIFO and no regular file"):
        load_data(path)
    os.remove(chunk)
    for name in (".zattrs", ".zmetadata"):
        beside = path / "y" / name
        beside.unlink(missing_ok=True)
        os.mkfifo(beside)
        with pytest.raises(DataError, match="it is a FIFO and no regular file"):
            load_data(path)
        os.remove(beside)
    path = group(tmp_path / "b", x=X, y=LABELS)
    os.rename(path / "y" / "c", tmp_path / "c")
    os.symlink(tmp_path / "c", path / "y" / "c")
    with pytest.raises(DataError, match="is a link: expected the folder itself"):
        load_data(path)


def test_some_chunks_are_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many samples as fit, in whole chunks; part of a chunk where one holds too many."""
    path = written(tmp_path / "a", chunks=(2, 2, 3))
    whole = zarr_arrays._claims(path)[""]

    def sizes() -> list[int]:
        return [len(block) for _, block in zarr_arrays._blocks(path, whole)]

    monkeypatch.setattr(zarr_arrays, "CHUNK", 5 * 24)
    assert sizes() == [4] * 5
    monkeypatch.setattr(zarr_arrays, "CHUNK", 1)
    assert sizes() == [2] * 10
    monkeypatch.setattr(zarr_arrays, "LARGE", 24)
    assert sizes() == [1] * 20


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a")
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"needs zarr, .*headstart\[storage\]"):
        load_data(path)
