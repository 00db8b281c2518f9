"""Zip files of images and tar files of samples come back as they were packed; what leads out of them is refused."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import weakref
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.data import archives, images, load_data
from headstart.data.archives import read_array
from headstart.errors import DataError

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 8, 5, 3), dtype=np.uint8)
NUMBERS = np.random.default_rng(2).normal(size=(6, 2, 3)).astype(np.float32)


def image(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def npy(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


# Zip files.


def test_a_zip_is_the_folder_that_was_zipped(tmp_path: Path) -> None:
    """By name, with the classes of the folders, whether or not one folder holds them all."""
    names = ["cat/b.png", "dog/a.png", "cat/a.png", "dog/0.png", ".hidden/x.png", "cat/notes.txt"]
    for name, pixels in zip(names, PIXELS, strict=True):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(image(pixels) if name.endswith("png") else b"text")
    expected = load_data(tmp_path / "data")
    files = {name: (tmp_path / "data" / name).read_bytes() for name in names}
    for number, above in enumerate(["", "data/", "some/data/"]):
        own = {above + name: content for name, content in files.items()} | {"__MACOSX/._a.png": b"of a Mac"}
        found = load_data(zipped(tmp_path / f"{number}.zip", own))
        assert torch.equal(found.samples, expected.samples)
        assert found.labels is not None
        assert expected.labels is not None
        assert found.labels.tolist() == expected.labels.tolist() == [0, 0, 1, 1]


def test_grey_and_coloured_images_in_a_zip(tmp_path: Path) -> None:
    files = {"0.png": image(PIXELS[0, ..., 0]), "1.bmp": image(PIXELS[1], "BMP"), "2.png": image(PIXELS[2, ..., 0])}
    found = load_data(zipped(tmp_path / "a.ZIP", files))
    grey = np.repeat(PIXELS[:, ..., :1], 3, -1)
    assert torch.equal(found.samples, load_data(np.stack([grey[0], PIXELS[1], grey[2]])).samples)
    assert found.labels is None


@pytest.mark.parametrize("place", ["folder", "zip"])
def test_a_list_of_classes_goes_before_the_folders(place: str, tmp_path: Path) -> None:
    """As EDM's tool writes it: the folders hold so many images each, and are no classes."""

    def written(labels: Any) -> Path:
        files = {f"0000{i // 2}/img{i}.png": image(PIXELS[i]) for i in range(4)}
        files["dataset.json"] = json.dumps(labels).encode()
        if place == "zip":
            return zipped(tmp_path / "a.zip", files)
        for name, content in files.items():
            (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / name).write_bytes(content)
        return tmp_path / "a"

    listed = [[f"0000{i // 2}/img{i}.png", 7 - i] for i in range(4)]
    labels = load_data(written({"labels": listed[::-1]})).labels
    assert labels is not None
    assert labels.tolist() == [7, 6, 5, 4]
    assert load_data(written({"labels": None})).labels is None
    for wrong in (listed[1:], [[name, "cat"] for name, _ in listed], [[name, [0.5]] for name, _ in listed]):
        with pytest.raises(DataError, match=r"dataset.json has the class .* for 00000/img0.png: expected a whole"):
            load_data(written({"labels": wrong}))
    for wrong in ([], {"classes": listed}, {"labels": 3}):
        with pytest.raises(DataError, match=r"dataset.json lists no classes"):
            load_data(written(wrong))


@pytest.mark.parametrize("name", ["../0.png", "/0.png", "a/../../0.png", "a\\..\\0.png", "C:/0.png", "C:0.png"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_entry_that_leads_out_is_refused(pack: Any, name: str, tmp_path: Path) -> None:
    path = pack(tmp_path / f"a.{pack.__name__[:3]}", {"1.png": image(PIXELS[0]), name: image(PIXELS[1])})
    with pytest.raises(DataError, match="which leads out of it"):
        load_data(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_zip_files_that_are_none_or_hold_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"a.zip cannot be read"):
        load_data(tmp_path / "a.zip")
    with pytest.raises(DataError, match="holds 1 images"):
        load_data(zipped(tmp_path / "a.zip", {"0.png": image(PIXELS[0]), "1.txt": b"text"}))
    with pytest.raises(DataError, match=r"a.zip/1.gif is an image of a kind that is not read"):
        load_data(zipped(tmp_path / "a.zip", {"0.png": image(PIXELS[0]), "1.gif": b"GIF"}))
    with pytest.raises(DataError, match=r"a.zip/1.png cannot be read as an image"):
        load_data(zipped(tmp_path / "a.zip", {"0.png": image(PIXELS[0]), "1.png": b"no"}))
    with pytest.raises(DataError, match=r"1.png is 5 x 4 pixels and .*a.zip/0.png is 5 x 8 pixels"):
        load_data(zipped(tmp_path / "a.zip", {"0.png": image(PIXELS[0]), "1.png": image(PIXELS[0, :4])}))
    with pytest.raises(DataError, match="both in itself and in sub-folders"):
        load_data(zipped(tmp_path / "a.zip", {"0.png": image(PIXELS[0]), "a/1.png": image(PIXELS[0])}))


def test_an_entry_that_would_take_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 10_000)
    monkeypatch.setattr(archives._check_size, "__defaults__", (10_000,))
    monkeypatch.setattr(archives._content, "__defaults__", (10_000,))
    large = {"0.png": image(PIXELS[0]), "1.png": bytes(10_001)}
    for path in (zipped(tmp_path / "a.zip", large), tarred(tmp_path / "a.tar", large)):
        with pytest.raises(DataError, match=r"1.png takes 10,001 bytes: expected at most 10,000"):
            load_data(path)


def test_a_file_that_is_no_image_calls_no_program(tmp_path: Path) -> None:
    """Pillow draws PostScript by another program."""
    (tmp_path / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 8\nshowpage\n%%EOF\n")
    with pytest.raises(DataError, match="cannot be read as an image"):
        images.decoded(tmp_path / "0.png", "0.png")


# Tar files.


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 90})])
def test_images_with_classes(form: str, options: dict[str, Any], tmp_path: Path) -> None:
    """In the order of the file, which need not be that of the names."""
    ending = {"PNG": "png", "WEBP": "webp", "JPEG": "JPG"}[form]
    files: dict[str, bytes] = {}
    for i in (3, 0, 5):
        files[f"./train/{i}.{ending}"] = image(PIXELS[i], form, **options)
        files[f"./train/{i}.cls"] = f"{i}\n".encode()
        files[f"./train/{i}.txt"] = b"a caption"
    found = load_data(tarred(tmp_path / "a.tar", files))
    own = [np.asarray(Image.open(io.BytesIO(files[f"./train/{i}.{ending}"]))) for i in (3, 0, 5)]
    assert torch.equal(found.samples, load_data(np.stack(own)).samples)
    if form != "JPEG":
        assert torch.equal(found.samples, load_data(PIXELS[[3, 0, 5]]).samples)
    assert found.labels is not None
    assert found.labels.tolist() == [3, 0, 5]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4", np.uint8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_with_classes(dtype: Any, order: Any, tmp_path: Path) -> None:
    arrays = [np.asarray(x, dtype=dtype, order=order) for x in (100 * np.abs(NUMBERS))]
    plain = tarred(tmp_path / "a.tar", {f"{i}.npy": npy(x) for i, x in enumerate(arrays)})
    expected = load_data(np.stack(arrays)).samples
    assert torch.equal(load_data(plain).samples, expected)
    both = {f"{i}.npz": npz(samples=x, label=np.int16(i)) for i, x in enumerate(arrays)}
    found = load_data(tarred(tmp_path / "a.tar", both))
    assert torch.equal(found.samples, expected)
    assert found.labels is not None
    assert found.labels.tolist() == list(range(6))


@pytest.mark.parametrize("text", ['{"label": 4, "width": NaN}', "4", '{"labels": 4}', '{"cls": 4}'])
def test_classes_in_json(text: str, tmp_path: Path) -> None:
    files = {"0.png": image(PIXELS[0]), "0.json": text.encode(), "1.png": image(PIXELS[1]), "1.json": b'{"label": -1}'}
    labels = load_data(tarred(tmp_path / "a.tar", files)).labels
    assert labels is not None
    assert labels.tolist() == [4, -1]
    files["1.json"], files["0.json"] = b'{"width": 3}', b"[1, 2]"
    assert load_data(tarred(tmp_path / "a.tar", files)).labels is None


def test_a_folder_of_tar_files_is_read_by_name(tmp_path: Path) -> None:
    for i in (2, 0, 1):
        tarred(tmp_path / f"{i:06d}.tar", {f"{2 * i + j}.npy": npy(NUMBERS[2 * i + j]) for j in (0, 1)})
    (tmp_path / "README.txt").write_text("words")
    assert torch.equal(load_data(tmp_path).samples, torch.from_numpy(NUMBERS))
    (tmp_path / "0.png").write_bytes(image(PIXELS[0]))
    with pytest.raises(DataError, match=r"data of several kinds \(.png, .tar\)"):
        load_data(tmp_path)


WRONG: dict[str, tuple[dict[str, bytes], str]] = {
    "no sample": ({"1.cls": b"1"}, r"a.tar/1 holds .cls: expected one image or array"),
    "two samples": ({"1.png": image(PIXELS[0]), "1.npy": npy(NUMBERS[0])}, r"holds .png, .npy: expected one"),
    "apart": ({"1.npy": npy(NUMBERS[0]), "2.npy": npy(NUMBERS[0]), "1.cls": b"1"}, r"1 holds .cls: .*one after"),
    "another kind": ({"1.gif": b"GIF"}, r"1.gif is an image of a kind that is not read"),
    "another shape": ({"1.npy": npy(NUMBERS[0, :1])}, r"1.npy is numbers of shape \(1, 3\) and .*0.npy is .* \(2, 3\)"),
    "another type": ({"1.png": image(PIXELS[0])}, r"1.png is 5 x 8 pixels and .*0.npy is numbers of shape \(2, 3\)"),
    "NaN": ({"1.npy": npy(np.array([[0, np.nan, 1]] * 2))}, r"a.tar/1.npy holds 2 NaN or infinite values"),
    "too large": ({"1.npy": npy(np.full((2, 3), 1e300))}, r"a.tar/1.npy holds 6 NaN or infinite values"),
    "whole numbers": ({"1.npy": npy(np.ones((2, 3), int))}, r"1.npy holds int64 values: convert them"),
    "a number": ({"1.npy": npy(np.float32(1))}, r"1.npy has shape \(\)"),
    "objects": ({"1.npy": npy(np.array([[None] * 3] * 2))}, r"1.npy holds Python objects, which are never unpickled"),
    "objects in npz": ({"1.npz": npz(samples=np.array([None]))}, r"1.npz/samples holds Python objects"),
    "text": ({"1.npy": npy(np.array(["a", "b"]))}, r"1.npy holds <U1 values: expected an array of real"),
    "fields": (
        {"1.npy": npy(np.zeros(2, dtype=[("ä", "f4")]))},
        r"1.npy holds \[.*\] values: expected an array of real",
    ),
    "no array": ({"1.npy": b"\x93NUMPY no"}, r"1.npy cannot be read"),
    "cut off": ({"1.npy": npy(NUMBERS[0])[:-4]}, r"claims numbers of shape \(2, 3\) in float32, and holds 20 bytes"),
    "some classes": ({"1.npy": npy(NUMBERS[0]), "1.cls": b"1"}, r"a.tar/0.npy has no class, and 1 of 2 samples"),
    "words": ({"1.npy": npy(NUMBERS[0]), "1.cls": b"cat"}, r"1.npy has the class 'cat': expected a whole number"),
    "word in JSON": ({"1.npy": npy(NUMBERS[0]), "1.json": b'{"label": true}'}, r"1.npy has the class 'True'"),
    "no JSON": ({"1.npy": npy(NUMBERS[0]), "1.json": b"[" * 100_000}, r"1.json is not JSON"),
    "large class": (
        {"1.npy": npy(NUMBERS[0]), "1.json": b'{"label": 9223372036854775808}'},
        r"expected a whole number",
    ),
    "long class": ({"1.npy": npy(NUMBERS[0]), "1.cls": bytes(2**20 + 1)}, r"1.cls takes 1,048,577 bytes"),
}


@pytest.mark.parametrize(("files", "message"), WRONG.values(), ids=WRONG)
def test_samples_that_are_none_are_named(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", {"0.npy": npy(NUMBERS[0], allow_pickle=True), **files})
    with pytest.raises(DataError, match=message):
        load_data(path)


def test_a_tar_file_that_is_cut_off_loses_nothing_silently(tmp_path: Path) -> None:
    """At every length, also at the end of an entry, where Python's reader just ends."""
    path = tarred(tmp_path / "a.tar", {f"{i}.npy": npy(x) for i, x in enumerate(NUMBERS[:3])})
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    for length in range(0, end + 1, 256):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_data(path)
    path.write_bytes(whole[: end + 512])
    assert len(load_data(path)) == 3
    path.write_bytes(whole[:1024] + b"x" * 512 + whole[1536:])
    with pytest.raises(DataError, match=r"cut off or damaged|cannot be read"):
        load_data(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("0.npy")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(DataError, match=r"holds '0.npy', which is no file"):
        load_data(tmp_path / "a.tar")


def test_what_is_sparse_or_claims_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    """A sparse file of 1 TB in an archive of 10 KB, and an entry that says that it has as much."""
    entry = tarfile.TarInfo("0.npy")
    entry.size = 2**40
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match=r"is cut off: it lacks bytes of '0.npy'"):
        load_data(tmp_path / "a.tar")
    block = bytearray(tarfile.TarInfo("0.npy").tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "a.tar").write_bytes(bytes(block) + bytes(2048))
    with pytest.raises(DataError, match="which is no file"):
        load_data(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_one_sample_is_held_at_a_time(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: the arrays that are alive when another one is read, and the entries that are kept."""
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def watched(content: Any, name: str) -> np.ndarray:
        nonlocal most
        gc.collect(1)
        most = max(most, sum(each() is not None for each in alive))
        found = (read_array if kind == "tar" else images.decoded)(content, name).copy()
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(archives, "read_array" if kind == "tar" else "decoded", watched)
    if kind == "tar":
        path = tarred(tmp_path / "a.tar", {f"{i:03d}.npy": npy(NUMBERS[i % 6]) for i in range(100)})
    else:
        path = zipped(tmp_path / "a.zip", {f"{i:03d}.png": image(PIXELS[i % 6]) for i in range(100)})
    assert len(load_data(path)) == len(alive) == 100
    assert most <= 1
    if kind == "zip":
        return
    with monkeypatch.context() as patched:
        kept: list[int] = []
        after = tarfile.TarFile.next
        patched.setattr(tarfile.TarFile, "next", lambda self: kept.append(len(self.members)) or after(self))
        load_data(path)
    assert len(kept) > 100
    assert max(kept) <= 1
