"""Fashion-MNIST: a bundled subset, and the whole of it where its four original files are found.

The images are standardised to mean 0 and standard deviation 0.5 (over all pixels of the training set), which is the
scale that EDM networks are trained at.

References:
    Xiao, Rasul and Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms*,
    arXiv 1708.07747 (MIT licence).
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.data.base import Dataset
from headstart.errors import DataError

__all__ = ["CLASSES", "MEAN", "STD", "fashion_mnist"]

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

#: Mean and standard deviation of the training set's pixels, on the scale 0 to 255.
MEAN, STD = 72.9403522, 90.0211823

#: Where Debian's package ``dataset-fashion-mnist`` puts the original files.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

Split = Literal["train", "test"]


def fashion_mnist(split: Split = "train", folder: str | Path | None = None, *, bundled: bool = False) -> Dataset:
    """The images and labels of one split.

    The original files are read from ``folder`` if given, else from Debian's package if installed (60,000 and 10,000
    images); otherwise the bundled subset is read (14,000 and 6,000 images, the first of each split).

    Arguments:
        split: "train" or "test".
        folder: a folder with the four original ``*-ubyte.gz`` files.
        bundled: read the bundled subset even where the original files are at hand.

    Returns:
        Images of shape (N, 1, 28, 28), float32, standardised; labels of shape (N,), int64.

    Raises:
        DataError: if the split is unknown, or if the folder lacks one of the files or holds a damaged one.
    """
    if split not in ("train", "test"):
        raise DataError(f"unknown split {split!r}: Fashion-MNIST has 'train' and 'test'")
    if folder is not None:
        pixels, labels = read_original(Path(folder), split)
    elif not bundled and has_originals(DEBIAN):
        pixels, labels = read_original(DEBIAN, split)
    else:
        pixels, labels = _bundled(split)
    return Dataset(standardise(pixels), torch.from_numpy(labels.astype(np.int64)), name=f"fashion-mnist/{split}")


def has_originals(folder: Path) -> bool:
    """Whether a folder holds the four original files."""
    return all((folder / name).is_file() for name, _ in (*_files("train"), *_files("test")))


def standardise(pixels: NDArray[np.uint8]) -> Tensor:
    """Grey levels (N, 28, 28), uint8, to images (N, 1, 28, 28) of mean 0 and standard deviation 0.5."""
    return torch.from_numpy((pixels.astype(np.float32) - MEAN) * (0.5 / STD))[:, None]


def _bundled(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with resources.files("headstart.data").joinpath(f"fashion_mnist_{split}.xz").open("rb") as file:
        raw = np.frombuffer(lzma.decompress(file.read()), dtype=np.uint8)
    count = len(raw) // (28 * 28 + 1)
    return raw[count:].reshape(count, 28, 28), raw[:count]


def _files(split: Split) -> list[tuple[str, int]]:
    """The names of a split's two files, and how many bytes come before the numbers."""
    prefix = "t10k" if split == "test" else "train"
    return [(f"{prefix}-images-idx3-ubyte.gz", 16), (f"{prefix}-labels-idx1-ubyte.gz", 8)]


def read_original(folder: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels (N, 28, 28) and labels (N,), uint8, of the original files; DataError if one is missing or damaged."""
    arrays = []
    for name, header in _files(split):
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing: {folder} should hold the four original Fashion-MNIST files")
        try:
            arrays.append(np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
    if arrays[0].size != 28 * 28 * arrays[1].size:
        raise DataError(
            f"{folder}: the {split} images hold {arrays[0].size} pixels, not 784 for each of {arrays[1].size}"
        )
    return arrays[0].reshape(-1, 28, 28), arrays[1]
