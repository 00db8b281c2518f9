"""Folders of images: what a viewer shows of each file, and a class for each sub-folder.

An image is turned as its EXIF tag says, and what is transparent lies on white. Files of grey levels, also with
transparency or in a palette, are one channel where all are; files of RGB are three, whatever their pixels.

Sub-folders are the classes, in the order of their names; where all names are numbers, they are the classes themselves.
Symbolic links are followed. But for hidden files, nothing that may be an image is left out silently.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.errors import DataError
from headstart.large import converted, empty

__all__ = ["IMAGES", "read_folder"]

#: The endings of the images that are read.
IMAGES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff")

#: The endings of images that are not: they are refused, since to leave them out would be to lose data.
OTHERS = (".gif", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".pbm", ".pgm", ".ppm", ".tga", ".exr", ".svg")

#: Names of folders that hold parts of a data set, and not classes.
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}

#: A folder without images down to this depth is no folder of images: the rest of it is not walked.
DEPTH = 2

#: Pillow's modes of 8 bits and less.
GREY, PALETTE, COLOUR = ("1", "L", "LA"), ("P", "PA"), ("RGB", "RGBA")


def read_folder(folder: Path) -> tuple[Tensor, Tensor | None]:
    """The pixels of all images, (N, H, W) or (N, H, W, 3) in uint8, and their classes (N,) if there are sub-folders.

    Raises:
        DataError: if there are fewer than two images, they differ in size or cannot be read, or folders cannot be read,
            lead back into themselves or do not say what the classes are.
    """
    paths = sorted(_images(folder), key=lambda path: path.relative_to(folder).parts)
    if len(paths) < 2:
        raise DataError(
            f"{folder} holds {len(paths)} images ({', '.join(IMAGES)}) in itself and in folders of classes: "
            "expected at least 2"
        )
    classes = _classes(folder, paths)
    return _pixels(paths), classes


def _images(folder: Path) -> Iterator[Path]:
    """The images in a folder and below, level by level, as far as there are any in the first levels."""
    level: list[tuple[Path, tuple[Path, ...]]] = [(folder, (folder.resolve(),))]
    found = False
    for depth in itertools.count():
        if not level:
            return
        below: list[tuple[Path, tuple[Path, ...]]] = []
        for place, above in level:
            for path in _listed(place):
                if path.is_dir():
                    if (real := path.resolve()) in above:
                        raise DataError(f"{path} leads back to {real}: remove the link")
                    below.append((path, (*above, real)))
                elif path.suffix.lower() in IMAGES:
                    found = True
                    yield path
                elif path.suffix.lower() in OTHERS:
                    raise DataError(f"{path} is an image of a kind that is not read: convert it to PNG, or remove it")
                elif path.is_symlink() and not path.exists():
                    raise DataError(f"{path} is a link to nothing: mend or remove it")
        if not found and depth == DEPTH:
            return
        level = below


def _listed(folder: Path) -> list[Path]:
    """The contents of a folder by name, without what is hidden."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from error


def _classes(folder: Path, paths: list[Path]) -> Tensor | None:
    """The class of each image, by the folder that it is in."""
    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    if not any(parents):
        return None
    if not all(parents):
        raise DataError(
            f"{folder} holds images both in itself and in sub-folders: the sub-folders would be the classes"
        )
    names = sorted({parent[0] for parent in parents})
    if {name.lower() for name in names} <= SPLITS:
        raise DataError(
            f"{folder} holds parts of a data set and not classes: name one of them, as in {folder / names[0]}"
        )
    if all(name.isascii() and name.isdigit() and len(name) < 19 for name in names):
        number = {name: int(name) for name in names}
        if len(set(number.values())) < len(names):
            raise DataError(f"{folder} has two folders for one number, as 1 and 01 are: give each class one folder")
    else:
        number = {name: place for place, name in enumerate(names)}
    return torch.tensor([number[parent[0]] for parent in parents])


def _pixels(paths: list[Path]) -> Tensor:
    """All images in one array: grey where all of them are, in colour otherwise."""
    pixels: Tensor | None = None
    for i, path in enumerate(paths):
        image = _image(path)
        if pixels is None:
            pixels = empty((len(paths), *image.shape), torch.uint8)
        if image.shape[:2] != pixels.shape[1:3]:
            (h, w), (first_h, first_w) = image.shape[:2], pixels.shape[1:3]
            raise DataError(
                f"{path} is {w} x {h} pixels and {paths[0]} is {first_w} x {first_h}: resize them to one size"
            )
        if image.ndim == pixels.ndim:  # the first one in colour
            grey = pixels[..., None]
            pixels = converted(
                grey, lambda part: part.expand(*part.shape[:-1], 3), image.shape, torch.uint8
            ).contiguous()
        pixels.numpy()[i] = image if image.ndim == pixels.ndim - 1 else image[..., None]
    assert pixels is not None
    return pixels


def _image(path: Path) -> NDArray[Any]:
    """The pixels that a viewer shows, (H, W) of grey or (H, W, 3) of colour, in uint8."""
    import PIL.Image
    import PIL.ImageOps

    if not path.is_file():
        raise DataError(f"{path} is no file of an image" if path.exists() else f"{path} is a link to nothing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a photograph and its previews
                upright = PIL.ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    if frames > 1:
        raise DataError(f"{path} holds {frames} images: expected one")
    if upright.mode not in (*GREY, *PALETTE, *COLOUR):
        raise DataError(f"{path} has Pillow's mode {upright.mode!r}: expected 8-bit grey or RGB")
    mode = upright.mode
    if mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        ground = PIL.Image.new("RGBA", upright.size, "white")
        upright = PIL.Image.alpha_composite(ground, upright.convert("RGBA"))
    pixels = np.asarray(upright.convert("RGB"))
    grey = mode in GREY or (mode in PALETTE and bool((pixels == pixels[..., :1]).all()))
    return pixels[..., 0] if grey else pixels
