"""Arrays larger than memory: the numbers of those in memory, on a file without a name, in a bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart import large
from headstart.conditions import Split
from headstart.data import Dataset, load_data
from headstart.errors import DataError
from headstart.noise import Noise

X = Noise(range(50)).normal((3, 4))


@pytest.fixture(params=[False, True], ids=["in memory", "on a file"])
def is_large(request: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways, of which the second takes what is more than 100 bytes for large, and 40 bytes at a time."""
    if request.param:
        monkeypatch.setattr(large, "LARGE", 100)
        monkeypatch.setattr(large, "CHUNK", 40)
        monkeypatch.setattr("headstart.data.load.LARGE", 100)
    return bool(request.param)


def test_a_tensor_to_be_filled(is_large: bool) -> None:
    x = large.empty((4, 5, 6), torch.uint8)
    x.fill_(7)
    assert (x.shape, x.dtype, int(x.sum())) == ((4, 5, 6), torch.uint8, 840)
    assert large.is_large((4, 5, 6), torch.uint8) == is_large
    assert not large.is_large((4, 5, 5), torch.uint8), "100 bytes are no more than 100"


@pytest.mark.parametrize(
    "rows", [torch.tensor([7, 0, 7, 49]), torch.arange(50) % 3 == 0, slice(3, 40, 2)], ids=["indices", "mask", "slice"]
)
def test_rows_are_those_of_pytorch(is_large: bool, rows: Any) -> None:
    assert torch.equal(large.taken(X, rows), X[rows])


def test_what_is_made_of_each_row(is_large: bool) -> None:
    found = large.converted(X, lambda part: part.double().sum(2), (3,), torch.float64)
    assert torch.equal(found, X.double().sum(2))


def test_a_split_of_data_is_the_same(is_large: bool) -> None:
    split = Split.of(X, {"label": torch.arange(50) % 2})
    assert torch.equal(split.fitted.samples, X[split.fitted_rows])
    assert torch.equal(Dataset(X).rows(split.fitted_rows).samples, X[split.fitted_rows])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4", np.uint8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_files_of_every_type_and_order(is_large: bool, dtype: Any, order: Any, tmp_path: Path) -> None:
    x = np.asarray(np.random.default_rng(0).integers(0, 200, (9, 4, 5, 3)), dtype=dtype, order=order)
    np.save(tmp_path / "x.npy", x)
    found = load_data(tmp_path / "x.npy").samples
    expected = torch.from_numpy(x.astype(np.float32))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected.permute(0, 3, 1, 2) / 127.5 - 1 if dtype == np.uint8 else expected)


def test_a_file_that_is_mapped_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.data.load.LARGE", 100)
    np.save(tmp_path / "x.npy", X.numpy())
    load_data(tmp_path / "x.npy").samples.fill_(3)
    assert np.array_equal(np.load(tmp_path / "x.npy"), X.numpy())


def test_a_file_that_is_shorter_than_it_says_is_refused(is_large: bool, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-4])
    with pytest.raises(DataError, match="cannot be read"):
        load_data(tmp_path / "x.npy")


def test_folders_of_grey_and_coloured_images(is_large: bool, tmp_path: Path) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (8, 6), dtype=np.uint8)
    colour = np.random.default_rng(2).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    for i, pixels in enumerate([grey, grey.T[:6].T, colour, grey]):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    expected = np.stack([np.repeat(grey[..., None], 3, -1)] * 2 + [colour, np.repeat(grey[..., None], 3, -1)])
    found = load_data(tmp_path).samples
    assert torch.equal(found, torch.from_numpy(expected).permute(0, 3, 1, 2) / 127.5 - 1)


def test_no_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"need a temporary file in .*: name another folder by TMPDIR"):
        large.empty((2**40, 2**20))
