"""Folders of images: each is what a viewer shows of it, none is left out, and a folder's number is its class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.data import load_data
from headstart.errors import DataError

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 8, 5, 3), dtype=np.uint8)


def write(folder: Path, *names: str) -> None:
    """Different images of these names; folders are made."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(folder / name)


@pytest.mark.parametrize("tag", range(1, 9))
def test_an_image_is_turned_as_its_tag_says(tag: int, tmp_path: Path) -> None:
    """For each tag, what turns the upright image into what is stored."""
    T = Image.Transpose
    stored_from = [
        None,
        T.FLIP_LEFT_RIGHT,
        T.ROTATE_180,
        T.FLIP_TOP_BOTTOM,
        T.TRANSPOSE,
        T.ROTATE_90,
        T.TRANSVERSE,
        T.ROTATE_270,
    ][tag - 1]
    upright = Image.fromarray(PIXELS[0])
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = tag
    (upright if stored_from is None else upright.transpose(stored_from)).save(tmp_path / "b.png", exif=exif)
    a, b = load_data(tmp_path).samples
    assert torch.equal(a, b)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white_whatever_it_hides(mode: str, tmp_path: Path) -> None:
    for i, name in enumerate("ab"):
        pixels = np.concatenate([PIXELS[i], np.zeros((8, 5, 1), np.uint8)], -1)
        pixels[2:6, 1:4] = (60, 60, 60, 255)
        image = Image.fromarray(pixels)
        if mode == "P":  # a colour of the palette that is none
            image = Image.fromarray(np.where(pixels[..., 3] > 0, 1, 0).astype(np.uint8), "P")
            image.putpalette([*PIXELS[i, 0, 0].tolist(), 60, 60, 60])
            image.save(tmp_path / f"{name}.png", transparency=0)
        else:
            image.convert(mode).save(tmp_path / f"{name}.png")
    a, b = load_data(tmp_path).samples
    assert torch.equal(a, b)
    visible = torch.full((8, 5), 1.0)
    visible[2:6, 1:4] = 60 / 127.5 - 1
    assert torch.equal(a, visible.expand(3 if mode == "RGBA" else 1, 8, 5))


def test_half_transparent_grey_is_half_way_to_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 2), np.uint8)
    pixels[..., 1] = 51  # a fifth of it is black
    for name in "ab":
        Image.fromarray(pixels, "LA").save(tmp_path / f"{name}.png")
    assert load_data(tmp_path).samples.unique().tolist() == [pytest.approx(204 / 127.5 - 1)]


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 1), ("RGB", 3), ("RGBA", 3)])
def test_grey_files_are_one_channel_and_files_of_rgb_three(mode: str, channels: int, tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(PIXELS[i, ..., 0]).convert(mode).save(tmp_path / f"{i}.png")
    assert load_data(tmp_path).samples.shape == (2, channels, 8, 5)


def test_a_palette_of_colours_is_three_channels(tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(PIXELS[i]).quantize(16).save(tmp_path / f"{i}.png")
    assert load_data(tmp_path).samples.shape == (2, 3, 8, 5)


@pytest.mark.parametrize(
    "numbers",
    [
        {str(k): k for k in range(12)},
        {"7": 7, "010": 10, "3": 3},
        {"10": 0, "9": 1, "nine": 2},
        {"-1": 0, "0": 1},
        {"1": 0, "9" * 19: 1},
    ],
    ids=lambda numbers: "-".join(numbers),
)
def test_folders_named_by_numbers_are_the_classes_of_these_numbers(numbers: dict[str, int], tmp_path: Path) -> None:
    """Where all names are numbers that a class may have; otherwise the classes are the places of the names."""
    for name, number in numbers.items():
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / name / "a.png")
    data = load_data(tmp_path)
    assert data.labels is not None
    assert torch.equal(((data.samples[:, 0, 0, 0] + 1) * 127.5).round().long(), data.labels)


def test_two_folders_for_one_number_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "1/a.png", "01/a.png")
    with pytest.raises(DataError, match="two folders for one number"):
        load_data(tmp_path)


def test_links_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "x/0.png", "x/1.png", "y.png")
    write(tmp_path / "data", "dog/0.png")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "x", target_is_directory=True)
    (tmp_path / "data" / "dog" / "1.png").symlink_to(tmp_path / "elsewhere" / "y.png")
    data = load_data(tmp_path / "data")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1, 1]
    same = load_data(PIXELS[[0, 1, 0, 2]]).samples
    assert torch.equal(data.samples, same)


@pytest.mark.parametrize(
    ("link", "target", "said"),
    [
        ("dog/back", "..", "leads back"),
        ("dog/self", ".", "leads back"),
        ("cat", "nowhere", "link to nothing"),
        ("dog/1.png", "nowhere", "link to nothing"),
    ],
)
def test_links_that_lead_back_or_nowhere_are_refused(link: str, target: str, said: str, tmp_path: Path) -> None:
    write(tmp_path, "dog/0.png", "eel/0.png")
    (tmp_path / link).symlink_to(target)
    with pytest.raises(DataError, match=said):
        load_data(tmp_path)


def test_a_folder_further_down_belongs_to_its_class(tmp_path: Path) -> None:
    write(tmp_path, "a/images/0.png", "a/images/deeper/1.png", "b/images/2.png")
    labels = load_data(tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [0, 0, 1]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a/0.png", "b/0.png", "c/0.png")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(DataError, match="b cannot be read"):
            load_data(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_folder_without_images_near_its_top_is_not_walked(tmp_path: Path) -> None:
    write(tmp_path, "a/b/c/0.png", "a/b/c/1.png")
    with pytest.raises(DataError, match="holds 0 images"):
        load_data(tmp_path)


@pytest.mark.parametrize("names", [("train", "val"), ("test",), ("Train", "Validation")])
def test_parts_of_a_data_set_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/{kind}/0.png" for name in names for kind in ("cat", "dog")))
    with pytest.raises(DataError, match=f"name one of them, as in .*{min(names)}"):
        load_data(tmp_path)
    labels = load_data(tmp_path / names[0]).labels
    assert labels is not None
    assert labels.tolist() == [0, 1]


def test_no_image_is_passed_over_in_silence(tmp_path: Path) -> None:
    write(tmp_path, "0.png", "1.TIFF", "2.tif", "3.JPG", "4.jfif")
    assert len(load_data(tmp_path)) == 5
    (tmp_path / "5.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"5.gif is an image of a kind that is not read"):
        load_data(tmp_path)


@pytest.mark.parametrize("ending", ["tif", "png", "webp"])
def test_a_file_of_several_images_is_refused(ending: str, tmp_path: Path) -> None:
    write(tmp_path, "0.png")
    first, second = (Image.fromarray(pixels) for pixels in PIXELS[:2])
    first.save(tmp_path / f"1.{ending}", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=rf"1.{ending} holds 2 images"):
        load_data(tmp_path)


def test_an_image_that_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A file of 21 KB claims 169 million pixels."""
    write(tmp_path, "1.png")
    Image.new("1", (13_000, 13_000)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0.png cannot be read as an image: .*169000000 pixels"):
        load_data(tmp_path)


def test_a_pipe_is_no_image_and_no_file_of_arrays(tmp_path: Path) -> None:
    write(tmp_path, "0.png")
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1.png is no file of an image"):
        load_data(tmp_path)
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        load_data(tmp_path / "x.npy")


def test_a_folder_that_is_named_like_an_image_is_a_class(tmp_path: Path) -> None:
    write(tmp_path, "a.png/0.png", "b/0.png")
    assert len(load_data(tmp_path)) == 2
