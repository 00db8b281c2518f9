"""Images as arrays of bytes: grids of samples, and PNG files."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.errors import InputError
from headstart.files import atomic_write

__all__ = ["addresses", "data_uri", "image_grid", "is_images", "neighbours_grid", "png", "save_png"]


def is_images(x: Tensor) -> bool:
    """Whether samples have the shape of images, (N, 1 or 3, H, W)."""
    return x.ndim == 4 and x.shape[1] in (1, 3)


def image_grid(
    images: NDArray[Any] | Tensor, columns: int, value_range: tuple[float, float] | None = None, padding: int = 2
) -> NDArray[Any]:
    """Images side by side, row after row, on black.

    Arguments:
        images: shape (N, C, H, W) with C of 1 or 3, finite.
        columns: images in a row.
        value_range: the values that become black and white; by default the least and the greatest value, or 0 and 255
            for bytes.
        padding: black pixels around every image.

    Returns:
        Bytes, of shape (rows (H + padding) + padding, columns (W + padding) + padding), and a last axis of 3 if C is 3.

    Raises:
        InputError: if the images have another shape or are not finite, or an argument is out of its range.

    >>> image_grid(np.zeros((5, 1, 28, 28)), columns=3, padding=2).shape
    (62, 92)
    """
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise InputError(f"a grid needs images of shape (N, 1 or 3, H, W), got {array.shape}")
    if columns < 1 or padding < 0:
        raise InputError(f"a grid needs columns of at least 1 and padding of at least 0, got {columns} and {padding}")
    if not np.isfinite(array).all():
        raise InputError(
            f"a grid needs finite images, got {int((~np.isfinite(array)).sum())} values that are NaN or Inf"
        )
    default = (0.0, 255.0) if array.dtype == np.uint8 else (float(array.min()), float(array.max()))
    low, high = default if value_range is None else value_range
    if not (np.isfinite([low, high]).all() and low <= high):
        raise InputError(f"the value range of a grid goes from low to high, got {low} to {high}")
    grey = (np.clip(array.astype(np.float64), low, high) - low) * (255 / (high - low) if high > low else 0)

    count, channels, height, width = array.shape
    rows = -(-count // columns)
    grid = np.zeros((rows * (height + padding) + padding, columns * (width + padding) + padding, channels), np.uint8)
    for index, image in enumerate(np.rint(grey).astype(np.uint8)):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return grid[:, :, 0] if channels == 1 else grid


def neighbours_grid(
    samples: Tensor, neighbours: Tensor, value_range: tuple[float, float] | None = None
) -> NDArray[Any]:
    """Samples (N, C, H, W) side by side, each above its neighbour; see :func:`image_grid`."""
    return image_grid(torch.cat([samples, neighbours.to(samples)]), len(samples), value_range)


def png(array: NDArray[Any]) -> bytes:
    """A PNG file's bytes, from bytes of shape (H, W) or (H, W, 3)."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise InputError(f"a PNG is made from uint8 of shape (H, W) or (H, W, 3), got {array.dtype} of {array.shape}")
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(file: bytes, kind: str = "png") -> str:
    """An image file as the address of itself, for a page that needs nothing beside it."""
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def addresses(images: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Captions, and PNG files as addresses of themselves."""
    return [(name, data_uri(file)) for name, file in images.items()]


def save_png(array: NDArray[Any], path: str | Path) -> None:
    """Write bytes of shape (H, W) or (H, W, 3), as :func:`image_grid` returns them, as a PNG file, whole or not at all.

    Raises:
        ArtefactError: if the file cannot be written.
        InputError: if the array is none that a PNG can be made from.
    """
    atomic_write(png(array), path)
