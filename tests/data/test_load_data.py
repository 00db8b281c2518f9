"""Data sets come back as they were saved, whatever holds them; what cannot be data is refused with its name."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from headstart.data import Dataset, fashion_mnist, load_data
from headstart.data.fashion_mnist import DEBIAN
from headstart.errors import DataError

SAMPLES = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
LABELS = np.arange(6) % 3
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 8, 5, 3), dtype=np.uint8)


def write_npy(path: Path) -> Path:
    np.save(path / "data.npy", SAMPLES)
    return path / "data.npy"


def write_npz(path: Path) -> Path:
    np.savez(path / "data.npz", images=SAMPLES.astype(np.float64), y=LABELS.astype(np.int32), other=LABELS)
    return path / "data.npz"


def write_pt(path: Path) -> Path:
    torch.save({"data": torch.from_numpy(SAMPLES), "label": torch.from_numpy(LABELS)}, path / "data.pt")
    return path / "data.pt"


def write_safetensors(path: Path) -> Path:
    tensors = {"samples": torch.from_numpy(SAMPLES), "labels": torch.from_numpy(LABELS)}
    save_file(tensors, path / "data.safetensors")
    return path / "data.safetensors"


@pytest.mark.parametrize("write", [write_npy, write_npz, write_pt, write_safetensors])
def test_files_come_back_as_they_were_saved(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    for spec in (path, str(path)):
        data = load_data(spec)
        assert data.samples.dtype == torch.float32
        assert torch.equal(data.samples, torch.from_numpy(SAMPLES))
        assert data.name == str(path)
        if write is write_npy:
            assert data.labels is None
        else:
            assert data.labels is not None
            assert data.labels.dtype == torch.int64
            assert data.labels.tolist() == LABELS.tolist()


def test_a_single_array_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", anything=SAMPLES, labels=LABELS)
    torch.save(torch.from_numpy(SAMPLES), tmp_path / "a.pt")
    assert load_data(tmp_path / "a.npz").labels is not None
    for name in ("a.npz", "a.pt"):
        assert torch.equal(load_data(tmp_path / name).samples, torch.from_numpy(SAMPLES))


def test_what_is_in_memory() -> None:
    tensor = torch.from_numpy(SAMPLES).double()
    data = load_data(tensor)
    assert data.samples is tensor
    assert load_data(data) is data
    assert torch.equal(load_data(SAMPLES.astype(np.float64)).samples, torch.from_numpy(SAMPLES))


def test_bytes_are_images() -> None:
    exact = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 127.5 - 1
    last = load_data(PIXELS).samples
    torch.testing.assert_close(last, exact)
    assert last.is_contiguous()
    assert torch.equal(load_data(PIXELS.transpose(0, 3, 1, 2)).samples, last)
    assert torch.equal(load_data(torch.from_numpy(PIXELS)).samples, last)
    assert torch.equal(load_data(PIXELS[..., 0]).samples, last[:, :1])
    ends = load_data(np.array([[[0, 255]], [[0, 255]]], dtype=np.uint8)).samples
    assert ends.flatten().tolist() == [-1, 1, -1, 1]


@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_folder_of_images_is_read_by_name(ending: str, tmp_path: Path) -> None:
    for i in reversed(range(6)):
        Image.fromarray(PIXELS[i]).save(tmp_path / f"{i}.{ending}")
    (tmp_path / "notes.txt").write_text("not an image")
    data = load_data(tmp_path)
    assert torch.equal(data.samples, load_data(PIXELS).samples)
    assert data.labels is None


def test_sub_folders_are_classes_and_grey_stays_grey(tmp_path: Path) -> None:
    for i, name in enumerate(["cats", "cats", "dogs", "eels"]):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(PIXELS[i, ..., 0]).save(tmp_path / name / f"{i}.png")
    data = load_data(tmp_path)
    assert data.samples.shape == (4, 1, 8, 5)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1, 2]
    Image.fromarray(PIXELS[0]).save(tmp_path / "eels" / "5.png")
    assert load_data(tmp_path).samples.shape == (5, 3, 8, 5)
    Image.fromarray(PIXELS[0]).save(tmp_path / "6.png")
    with pytest.raises(DataError, match="both in itself and in sub-folders"):
        load_data(tmp_path)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    for name in ("0.png", "1.png", ".2.png", ".ipynb_checkpoints/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(PIXELS[0]).save(tmp_path / name)
    data = load_data(tmp_path)
    assert len(data) == 2
    assert data.labels is None


def test_a_gradient_is_left_behind(tmp_path: Path) -> None:
    torch.save(torch.zeros(3, 2, requires_grad=True), tmp_path / "made.pt")
    assert not load_data(tmp_path / "made.pt").samples.requires_grad
    assert not load_data(torch.zeros(3, 2, requires_grad=True)).samples.requires_grad


def test_images_of_two_sizes_or_damaged_ones_are_refused(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0]).save(tmp_path / "0.png")
    with pytest.raises(DataError, match="holds 1 images"):
        load_data(tmp_path)
    Image.fromarray(PIXELS[1, :4]).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1.png is 5 x 4 pixels and .*0.png is 5 x 8"):
        load_data(tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"1.png cannot be read as an image"):
        load_data(tmp_path)
    Image.fromarray(PIXELS[1, ..., 0].astype(np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match="mode 'I;16'"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("builtin:mnist", "unknown bundled data set 'mnist': expected one of fashion-mnist"),
        ("no/such/file.npy", "no file or folder"),
        (SAMPLES.astype(np.int64), "convert them to floating point"),
        (SAMPLES > 0, "convert them to floating point"),
        (torch.ones(5, 2, dtype=torch.int32), "convert them to floating point"),
        (np.array([[None, 1.0]] * 3), "object values"),
        (SAMPLES.astype(np.complex64), "complex64 values"),
        (np.full((3, 2), math.nan), "6 NaN"),
        (np.full((3, 2), 1e300), "6 NaN or infinite"),
        (np.full((3, 2), 1e30), "too large"),
        (torch.full((3, 2), -1e37), "too large"),
        (np.zeros((3, 0)), r"expected \(N, ...\)"),
        (np.ma.masked_array(SAMPLES, SAMPLES > 1), "masked values"),
        (SAMPLES.astype("U"), "values: expected an array of real numbers"),
        (torch.zeros(3, 2).to_sparse(), "sparse"),
        ("~nosuchuser/x", "cannot be read"),
        ("x" * 300, "cannot be read"),
        (torch.full((3, 2), math.inf), "6 NaN or infinite"),
        (SAMPLES[:1], "at least 2"),
        (SAMPLES[:, 0, 0], r"expected \(N, ...\)"),
        (np.zeros((4, 8, 8, 5), dtype=np.uint8), r"expected images \(N, H, W\)"),
    ],
)
def test_what_cannot_be_data_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(spec)


@pytest.mark.parametrize("ending", ["npy", "npz", "pt", "safetensors"])
def test_damaged_files_and_pickles_are_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{ending}"
    path.write_bytes(b"\x93NUMPY no, not at all")
    with pytest.raises(DataError, match=f"data.{ending} cannot be read"):
        load_data(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"data.{ending} cannot be read"):
        load_data(path)


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("ending", ["npy", "npz", "pt"])
def test_nothing_is_unpickled(ending: str, tmp_path: Path) -> None:
    path, witness = tmp_path / f"data.{ending}", tmp_path / "executed"
    array = np.array([Harmful(witness), Harmful(witness)])
    if ending == "pt":
        torch.save({"samples": Harmful(witness)}, path)
    elif ending == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, samples=array)
    with pytest.raises(DataError, match="holds Python objects, which are never unpickled"):
        load_data(path)
    assert not witness.exists()


def test_files_without_usable_names_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", u=SAMPLES, v=SAMPLES)
    with pytest.raises(DataError, match="holds u, v: name the samples 'samples'"):
        load_data(tmp_path / "two.npz")
    torch.save({"samples": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(DataError, match="holds a list"):
        load_data(tmp_path / "list.pt")
    torch.save([1, 2], tmp_path / "bare.pt")
    with pytest.raises(DataError, match="holds a list: expected a tensor or a dictionary"):
        load_data(tmp_path / "bare.pt")
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"ends in '.csv': expected .npy"):
        load_data(tmp_path / "data.csv")


@pytest.mark.parametrize(
    ("labels", "message"), [(LABELS / 2, "expected integers"), (LABELS[:4], r"labels of shape \(4,\)")]
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", samples=SAMPLES, labels=labels)
    with pytest.raises(DataError, match=message):
        load_data(tmp_path / "data.npz")


@pytest.fixture(scope="module")
def bundled() -> dict[str, Dataset]:
    return {"train": fashion_mnist("train", bundled=True), "test": fashion_mnist("test", bundled=True)}


def test_the_bundled_subset_is_standardised_and_balanced(bundled: dict[str, Dataset]) -> None:
    for split, count in (("train", 14_000), ("test", 6_000)):
        data = bundled[split]
        assert data.samples.shape == (count, 1, 28, 28)
        assert data.samples.mean().item() == pytest.approx(0, abs=0.01)
        assert data.samples.std().item() == pytest.approx(0.5, abs=0.01)
        assert data.labels is not None
        shares = data.labels.bincount(minlength=10) / count
        assert shares.shape == (10,)
        assert (shares - 0.1).abs().max() < 0.01


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the original files are not installed")
def test_the_bundled_subset_is_the_start_of_the_original(bundled: dict[str, Dataset]) -> None:
    whole, part = load_data("builtin:fashion-mnist/test", split="train"), bundled["test"]
    assert len(whole) == 10_000
    assert whole.name == "fashion-mnist/test"
    assert torch.equal(whole.samples[: len(part)], part.samples)
    assert whole.labels is not None
    assert part.labels is not None
    assert torch.equal(whole.labels[: len(part)], part.labels)


def test_unknown_splits_and_folders_without_the_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'valid'"):
        load_data("builtin:fashion-mnist", split="valid")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="four original"):
        fashion_mnist("train", tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz cannot be read"):
        fashion_mnist("test", tmp_path)


@pytest.mark.parametrize("ending", ["npy", "npz", "pt", "safetensors"])
def test_an_ending_in_capitals_is_the_same_ending(ending: str, tmp_path: Path) -> None:
    written = {"npy": write_npy, "npz": write_npz, "pt": write_pt, "safetensors": write_safetensors}[ending](tmp_path)
    loud = written.rename(tmp_path / f"data.{ending.upper()}")
    assert torch.equal(load_data(loud).samples, torch.from_numpy(SAMPLES))


@pytest.mark.parametrize(
    "array",
    [SAMPLES.astype(">f4"), SAMPLES[::-1].copy()[::-1], np.asfortranarray(SAMPLES), SAMPLES.astype(np.longdouble)],
)
def test_memory_and_files_give_the_same_numbers(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    for spec in (array, tmp_path / "a.npy", array.tolist()):
        assert torch.equal(load_data(spec).samples, torch.from_numpy(SAMPLES))


def test_labels_are_whole_numbers_of_any_type() -> None:
    for labels in (LABELS.astype(">i2"), LABELS.tolist(), torch.from_numpy(LABELS).to(torch.uint8), LABELS > 0):
        found = Dataset(torch.from_numpy(SAMPLES), labels).labels  # type: ignore[arg-type]
        assert found is not None
        assert found.dtype == torch.int64
        assert found.tolist() == [int(label) for label in labels]


def test_arrays_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    """Beside the samples lies an array whose header is one of Python objects: reading it would fail."""
    np.savez(tmp_path / "a.npz", samples=SAMPLES, labels=LABELS, other=np.array([None, 1]))
    assert len(load_data(tmp_path / "a.npz")) == 6


def test_a_tensor_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    """A file of 1 KB whose tensor has 10^8 rows, all of them the same number."""
    torch.save(torch.zeros(1).expand(10**8, 2), tmp_path / "a.pt")
    with pytest.raises(DataError, match="holds 4 bytes"):
        load_data(tmp_path / "a.pt")
    for bad in (torch.eye(4).to_sparse(), torch.zeros(4, 2, device="meta")):
        torch.save({"samples": bad}, tmp_path / "a.pt")
        with pytest.raises(DataError, match=r"a.pt.*(sparse|meta)"):
            load_data(tmp_path / "a.pt")
