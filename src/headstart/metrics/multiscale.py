r"""How near samples are to data in several views, without a feature network: the whole, and patches at several scales.

A sliced Wasserstein distance of whole images hardly sees sharpness: fine detail has little variance, and few random
directions point to it. So images are also looked at through the bands of their Laplacian pyramid,

.. math:: x^{(0)} = x, \qquad x^{(k+1)} = \downarrow x^{(k)}, \qquad b^{(k)} = x^{(k)} - \uparrow x^{(k+1)},

with means of 2 x 2 pixels on the way down and nearest neighbours on the way up, in small patches at fixed random
places p. Every kind of view v, the whole or a band, is in units of its own spread in the data, and the distance is the
geometric mean of the kinds', each the root mean square over its places,

.. math:: d(a, b) = \Big( \prod_v \Big(\frac1P \sum_p SW_2^2(v_p(a), v_p(b))\Big)^{1/2} \Big)^{1/V},

so that what matters is by what ratio each is nearer, down to a thousandth of the spread. Patches in which the data are
constant, as the borders of digits, are not looked at. What is no image has one view, the whole.

References:
    Burt and Adelson, *The Laplacian Pyramid as a Compact Image Code*, IEEE Transactions on Communications, 1983.

    Karras et al., *Progressive Growing of GANs*, ICLR 2018, Section 5 (sliced Wasserstein distances of its patches; at
    places of their own, and averaged).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from headstart.errors import DataError
from headstart.metrics.checks import check_same_shape, check_samples, evenly
from headstart.metrics.wasserstein import compare, directions_of, project
from headstart.noise import generator_of

__all__ = ["Multiscale", "MultiscaleReference"]

#: Side of a patch, and how many are cut from a band.
PATCH, PLACES = 7, 4

#: Bands at most, and the smallest side of an image that is one.
BANDS, SMALLEST = 3, 8

#: Directions of a view.
DIRECTIONS = 64

#: Samples that the spread of a view is taken from.
SPREAD = 2048

#: A distance below this, in units of the spread in the data, is as good as this: no view decides by an exact 0.
FLOOR = 1e-3

Place = tuple[int, int, int]


class Multiscale:
    """The views of samples of one shape, in units of their spread in the data.

    Arguments:
        data: clean samples, shape (N, \\*S); an image if S has three numbers, channels first, and sides of 8 or more.

    Raises:
        DataError: if there are fewer than two samples, NaN or Inf among them, or they are all equal.
    """

    def __init__(self, data: Tensor) -> None:
        data = check_samples(data, "data")
        some = evenly(data, SPREAD).float()
        self.shape = tuple(data.shape[1:])
        bands = self._bands(some)
        self.scales = [float(x.flatten(1).var(dim=0).mean().sqrt()) for x in (some, *bands)]
        self.varied = [_varied(band) for band in bands]
        if self.scales[0] == 0:
            raise DataError("all samples are equal: there is nothing to compare")

    def places(self, generator: torch.Generator, count: int = PLACES) -> list[Place]:
        """Where patches are cut out: band, row and column, ``count`` a band; none of what is no image.

        Places in which the data are constant are drawn again; a band that is constant everywhere has none.
        """
        found = []
        for band, varied in enumerate(self.varied):
            drawn = torch.stack([torch.randint(room, (count,), generator=generator) for room in varied.shape], dim=1)
            left = varied.nonzero()
            if not len(left) or self.scales[band + 1] == 0:
                continue
            again = ~varied[drawn[:, 0], drawn[:, 1]]
            drawn[again] = left[torch.randint(len(left), (int(again.sum()),), generator=generator)]
            found += [(band, i, j) for i, j in drawn.tolist()]
        return found

    def __call__(self, x: Tensor, places: Sequence[Place] | None) -> list[tuple[str, Tensor]]:
        """The views of samples (B, \\*S) by their names, each of shape (B, d); differentiable, and linear in them.

        Without places, each band is one view as a whole, but for those that are constant in the data.
        """
        bands = self._bands(x)
        found = [("whole", x.flatten(1) / self.scales[0])]
        if places is None:
            seen = [(i, band) for i, band in enumerate(bands, 1) if self.scales[i] > 0]
            return found + [(f"band {i}", band.flatten(1) / self.scales[i]) for i, band in seen]
        for band, i, j in places:
            patch = bands[band][..., i : i + PATCH, j : j + PATCH]
            found.append((f"band {band + 1}", patch.flatten(1) / self.scales[band + 1]))
        return found

    def _bands(self, x: Tensor) -> list[Tensor]:
        """The Laplacian pyramid, the finest band first; empty for what is no image."""
        if x.ndim != 4 or min(x.shape[-2:]) < SMALLEST:
            return []
        bands: list[Tensor] = []
        while len(bands) + 1 < BANDS and min(x.shape[-2:]) >= SMALLEST:
            coarse = functional.avg_pool2d(x, 2)
            bands.append(x - functional.interpolate(coarse, size=x.shape[-2:]))
            x = coarse
        return [*bands, x]


def _varied(band: Tensor) -> Tensor:
    """Whether the patch at each place of a band (N, C, H, W) is not the same in all samples, by row and column."""
    pixels = (band.amax(dim=0) > band.amin(dim=0)).any(dim=0)
    size = [min(PATCH, side) for side in pixels.shape]
    return functional.max_pool2d(pixels[None].float(), size, stride=1)[0].cpu() > 0


@dataclass(frozen=True, eq=False)
class MultiscaleReference:
    """Real data in views, for the distances of many sets of samples. Made by :meth:`of`.

    Attributes:
        views: of the data.
        places: where patches are cut out.
        directions: of each view, unit vectors of shape (d, directions).
        projections: the sorted projections of the real data, shape (directions, N) for each view.
    """

    views: Multiscale
    places: tuple[Place, ...]
    directions: tuple[Tensor, ...]
    projections: tuple[Tensor, ...]

    @classmethod
    def of(cls, real: Tensor, seed: int = 0, views: Multiscale | None = None) -> MultiscaleReference:
        """The reference that real samples of shape (N, \\*S) give.

        Arguments:
            real: the real samples.
            seed: of the places and the directions.
            views: those of the data that the samples are compared in; those of ``real`` by default.

        Raises:
            DataError: as :class:`Multiscale`.
        """
        real = check_samples(real, "real samples")
        views = Multiscale(real) if views is None else views
        places = views.places(generator_of(seed))
        seen = [view for _, view in views(real.float(), places)]
        directions = [directions_of(view.shape[1], DIRECTIONS, seed + i) for i, view in enumerate(seen)]
        projections = [project(view, u) for view, u in zip(seen, directions, strict=True)]
        return cls(views, tuple(places), tuple(directions), tuple(projections))

    def distances(self, samples: Tensor) -> dict[str, float]:
        """The sliced Wasserstein distance of each kind of view, the root mean square over its places; 0.001 at least.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf, or they are of another shape.
        """
        samples = check_samples(samples, "samples")
        check_same_shape(samples.shape[1:], self.views.shape, "samples and the reference")
        squares: dict[str, list[float]] = {}
        seen = self.views(samples.float(), self.places)
        for (name, view), u, real in zip(seen, self.directions, self.projections, strict=True):
            squares.setdefault(name, []).append(compare(project(view, u), real).mean ** 2)
        return {name: max(FLOOR, math.sqrt(sum(found) / len(found))) for name, found in squares.items()}

    def distance(self, samples: Tensor) -> float:
        """The geometric mean of :meth:`distances`."""
        each = self.distances(samples).values()
        return math.exp(sum(map(math.log, each)) / len(each))
