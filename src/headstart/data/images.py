"""Folders of images: what a viewer shows of each file, and a class for each sub-folder.

An image is turned as its EXIF tag says, and what is transparent lies on white. Files of grey levels, also with
transparency or in a palette, are one channel where all are; files of RGB are three, whatever their pixels.

Sub-folders are the classes, in the order of their names; where all names are numbers, they are the classes themselves.
The data sets of EDM have a file ``dataset.json`` beside their sub-folders, which lists the class of each image or says
that there are none; their sub-folders are then no classes.
Symbolic links are followed. But for hidden files, nothing that may be an image is left out silently.
"""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.data.stack import stacked
from headstart.errors import DataError

__all__ = ["IMAGES", "LISTED", "OTHERS", "classes_of", "decoded", "listed_classes", "read_folder"]

#: The endings of the images that are read.
IMAGES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff")

#: The endings of images that are not: they are refused, since to leave them out would be to lose data.
OTHERS = (".gif", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".pbm", ".pgm", ".ppm", ".tga", ".exr", ".svg")

#: Pillow's names of the formats that a file may have. Its other ones are left alone: one of them calls another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")

#: Names of folders that hold parts of a data set, and not classes.
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}

#: The file that lists the classes of all images.
LISTED = "dataset.json"

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
    names = [path.relative_to(folder) for path in paths]
    if (folder / LISTED).is_file():
        classes = listed_classes((folder / LISTED).read_bytes(), [name.as_posix() for name in names], folder / LISTED)
    else:
        classes = classes_of([name.parts[:-1] for name in names], folder)
    return stacked(((str(path), _image(path)) for path in paths), len(paths)), classes


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


def classes_of(parents: Sequence[tuple[str, ...]], source: Path) -> Tensor | None:
    """The class of each image (N,), by the folders that it is in; None where all lie in none.

    Arguments:
        parents: the names of the folders above each image, the highest first.
        source: what holds them all, for messages.

    Raises:
        DataError: if the folders do not say what the classes are.
    """
    if not any(parents):
        return None
    if not all(parents):
        raise DataError(
            f"{source} holds images both in itself and in sub-folders: the sub-folders would be the classes"
        )
    names = sorted({parent[0] for parent in parents})
    if {name.lower() for name in names} <= SPLITS:
        raise DataError(
            f"{source} holds parts of a data set and not classes: name one of them, as in {source / names[0]}"
        )
    if all(name.isascii() and name.isdigit() and len(name) < 19 for name in names):
        number = {name: int(name) for name in names}
        if len(set(number.values())) < len(names):
            raise DataError(f"{source} has two folders for one number, as 1 and 01 are: give each class one folder")
    else:
        number = {name: place for place, name in enumerate(names)}
    return torch.tensor([number[parent[0]] for parent in parents])


def listed_classes(content: bytes, names: Sequence[str], source: str | Path) -> Tensor | None:
    """The class of each image (N,), by a list of them; None where it says that there are none.

    Arguments:
        content: JSON, ``{"labels": [["00000/img00000000.png", 6], ...]}``, or with ``null`` in the place of the list.
        names: of the images.
        source: what the content is of, for messages.

    Raises:
        DataError: if it is none, or lacks an image.
    """
    try:
        labels = json.loads(content)["labels"]
        found = None if labels is None else {str(name): label for name, label in labels}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f'{source} lists no classes: expected {{"labels": [["NAME.png", 3], ...]}}') from error
    if found is None:
        return None
    for name in names:
        if type(found.get(name)) is not int or abs(found[name]) >= 2**63:
            raise DataError(f"{source} has the class {str(found.get(name))[:80]} for {name}: expected a whole number")
    return torch.tensor([found[name] for name in names])


def _image(path: Path) -> NDArray[Any]:
    """The pixels of a file."""
    if not path.is_file():
        raise DataError(f"{path} is no file of an image" if path.exists() else f"{path} is a link to nothing")
    return decoded(path, str(path))


def decoded(source: Path | BinaryIO, name: str) -> NDArray[Any]:
    """The pixels that a viewer shows, (H, W) of grey or (H, W, 3) of colour, in uint8.

    Arguments:
        source: a file of an image, or its bytes.
        name: what it is called in messages.

    Raises:
        DataError: if it cannot be read, is no image of grey levels or RGB in 8 bits, or holds several.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(source, formats=FORMATS) as image:
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a photograph and its previews
                upright = PIL.ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{name} cannot be read as an image: {error}") from error
    if frames > 1:
        raise DataError(f"{name} holds {frames} images: expected one")
    if upright.mode not in (*GREY, *PALETTE, *COLOUR):
        raise DataError(f"{name} has Pillow's mode {upright.mode!r}: expected 8-bit grey or RGB")
    mode = upright.mode
    if mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        ground = PIL.Image.new("RGBA", upright.size, "white")
        upright = PIL.Image.alpha_composite(ground, upright.convert("RGBA"))
    pixels = np.asarray(upright.convert("RGB"))
    grey = mode in GREY or (mode in PALETTE and bool((pixels == pixels[..., :1]).all()))
    return pixels[..., 0] if grey else pixels
