"""Samples to look at: grids of the first ones, and some above the training samples nearest to them, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from headstart.metrics import nearest
from headstart.report.images import image_grid, is_images, neighbours_grid, save_png
from headstart.report.text import number

__all__ = ["Gallery", "at_distances"]

#: Samples shown, in rows of so many, and how many of them beside their nearest neighbours.
SHOWN, COLUMNS, BESIDE = 36, 6, 8


@dataclass(frozen=True, eq=False)
class Gallery:
    """The pictures of one run. Data that are no images, of shape (N, 1 or 3, H, W), have none.

    Attributes:
        data: training samples, shape (N, \\*S).
        folder: that gets the files, made if it is missing.
    """

    data: Tensor
    folder: Path

    def show(self, name: str, samples: Tensor) -> None:
        """Write the first samples side by side.

        Raises:
            ArtefactError: if the file cannot be written.
        """
        if is_images(self.data):
            self._write(name, image_grid(samples[:SHOWN], COLUMNS, self._scale))

    def show_nearest(self, name: str, samples: Tensor) -> list[float] | None:
        """Write the first samples above the training samples nearest to them, and return how far these are.

        Raises:
            ArtefactError: as :meth:`show`.
        """
        if not is_images(self.data):
            return None
        first = samples[:BESIDE]
        distances, places = nearest(first, self.data)
        self._write(f"{name}-nearest", neighbours_grid(first, self.data[places], self._scale))
        return [float(distance) for distance in distances]

    def find(self, name: str) -> bytes | None:
        """The PNG file of what was shown under a name, in this run or one before it, if there is one."""
        path = self._path(name)
        return path.read_bytes() if path.exists() else None

    def find_nearest(self, name: str) -> bytes | None:
        """Likewise, of the nearest neighbours."""
        return self.find(f"{name}-nearest")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def _write(self, name: str, grid: NDArray[Any]) -> None:
        save_png(grid, self._path(name))

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """The values shown as black and white: the range of the real images."""
        return float(self.data.min()), float(self.data.max())


def at_distances(name: str, distances: Sequence[float]) -> str:
    """The caption of samples that stand above their nearest neighbours."""
    return f"{name}: at {', '.join(number(distance) for distance in distances)}"
