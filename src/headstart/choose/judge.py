r"""The judge of a pilot: the distance of samples to held-out data, with and without their conditions.

The score is the energy distance in several views, the sum of

.. math:: D_v = 2\, E|X - Y| - E|X - X'| - E|Y - Y'|

for samples X, data Y and each view v of them: the whole, and of images the bands of their Laplacian pyramid, which see
the sharpness that whole images hide (:class:`headstart.metrics.Multiscale`); each in units of its own spread, per root
of its dimension, and along at most 256 random directions. D is 0 for the same law only. The means are over pairs of
unlike samples, so that a score of a hundred samples is **without bias**, and can be below 0. That matters more than its
noise: distances with a bias, such as Wasserstein's, prefer laws that are too narrow when samples are few.

A distance of laws would not notice good samples that belong to other conditions than their own. So where samples have
conditions c, their differences from the mean given c are compared too, in the same views:

.. math:: x - m(c), \qquad m(c) = E[x \mid c] \approx D(\sigma_\max z, \sigma_\max, c).

At the network's highest level its answer depends on the condition alone. A sample of the wrong class is as far from its
own mean as the classes are apart. The samples of a pilot are asked for what held-out data were, so that the mean of
each is known at one evaluation for each of the data.

References:
    Székely and Rizzo, *Energy Statistics: A Class of Statistics Based on Distances*, Journal of Statistical Planning
    and Inference, 2013.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from headstart.compute import Compute
from headstart.conditions import Part
from headstart.denoiser import Denoiser, denoise
from headstart.metrics import Multiscale
from headstart.metrics.wasserstein import directions_of
from headstart.noise import Stream

__all__ = ["Energy", "Judge", "expected"]

#: Directions of a view, at most.
DIRECTIONS = 256

#: Distances that are computed at a time, which bounds the memory.
CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class Energy:
    """The parts of an energy distance, summed over views.

    Attributes:
        cross: the mean distance of each sample to the data, shape (n,), in float64.
        within: the distances between samples, shape (n, n).
        real: the mean distance between two of the data.
    """

    cross: Tensor
    within: Tensor
    real: float

    @property
    def value(self) -> float:
        """The energy distance of all samples."""
        n = len(self.cross)
        within = self.within.sum(dtype=torch.float64) / (n * (n - 1))
        return float(2 * self.cross.mean() - within) - self.real

    def of(self, kept: Tensor) -> float:
        """The energy distance of those of the samples that are kept, a mask of shape (n,)."""
        return Energy(self.cross[kept], self.within[kept][:, kept], self.real).value


@dataclass(frozen=True, eq=False)
class _Reference:
    """Real data in views: how a view is projected, shape (d, k) or as it is, and the data in it, shape (N, k)."""

    views: Multiscale
    directions: tuple[Tensor | None, ...]
    points: tuple[Tensor, ...]

    @classmethod
    def of(cls, real: Tensor, seed: int) -> _Reference:
        views = Multiscale(real)
        seen = [view for _, view in views(real, None)]
        directions = [
            directions_of(view.shape[1], DIRECTIONS, seed + i) if view.shape[1] > DIRECTIONS else None
            for i, view in enumerate(seen)
        ]
        return cls(views, tuple(directions), tuple(map(_projected, seen, directions)))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(_projected, (view for _, view in self.views(x, None)), self.directions))


def _projected(view: Tensor, directions: Tensor | None) -> Tensor:
    """A view along directions, per root of their number."""
    along = view if directions is None else view @ directions.to(view)
    return along / math.sqrt(along.shape[1])


@dataclass(frozen=True, eq=False)
class Judge:
    """Held-out data in views, and what is left of them given their conditions. Made by :meth:`of`.

    Attributes:
        means: m(c) of each of the held-out data, or None if they have no conditions.
        plain: the data in views.
        given: the data less their means in views, or None.
    """

    means: Tensor | None
    plain: _Reference
    given: _Reference | None

    @classmethod
    def of(cls, samples: Tensor, means: Tensor | None = None, seed: int = 0) -> Judge:
        """The judge that held-out samples make, shape (N, \\*S), with the mean given the condition of each."""
        given = None if means is None else _Reference.of(samples - means, seed)
        return cls(means, _Reference.of(samples, seed), given)

    def project(self, samples: Tensor, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """Samples of shape (n, \\*S) in all views, each of shape (n, k); linear in them.

        Arguments:
            samples: what is judged; or differences of samples that were asked for the same, without ``rows``.
            rows: whose conditions, of the held-out data, each was asked for, shape (n,).
        """
        found = self.plain.project(samples)
        if self.given is None or self.means is None:
            return found
        return found + self.given.project(samples if rows is None else samples - self.means[rows])

    def energy(self, projected: Sequence[Tensor]) -> Energy:
        """The energy distance to the data of samples with these projections, summed over the views."""
        cross = torch.zeros(len(projected[0]), dtype=torch.float64)
        within = torch.zeros(len(projected[0]), len(projected[0]))
        for x, y in zip(projected, self._points, strict=True):
            cross += _mean_distances(x, y)
            within += torch.cdist(x, x).fill_diagonal_(0)
        return Energy(cross, within, self._real)

    @property
    def _points(self) -> tuple[Tensor, ...]:
        return self.plain.points + (() if self.given is None else self.given.points)

    @cached_property
    def _real(self) -> float:
        n = len(self._points[0])
        return sum(float(_mean_distances(y, y).mean()) for y in self._points) * n / (n - 1)


def _mean_distances(x: Tensor, y: Tensor) -> Tensor:
    """The mean distance of each of x, shape (n, k), to all of y, shape (m, k); of shape (n,), in float64."""
    parts = torch.split(x, max(1, CHUNK // len(y)))
    return torch.cat([torch.cdist(part, y).mean(dim=1, dtype=torch.float64) for part in parts])


def expected(denoiser: Denoiser, held_out: Part, sigma: float, seed: int, compute: Compute) -> Tensor | None:
    """The mean that the network gives the samples of each condition, at its highest level; None without conditions.

    Arguments:
        denoiser: the network, on the device.
        held_out: the data, whose conditions are asked for.
        sigma: the highest level.
        seed: of the noise.
        compute: how the network is called.

    Returns:
        Shape (N, \\*S), on the CPU.

    Raises:
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
    """
    if not held_out.conditions:
        return None
    seeds, found = Stream.EXPECTED.seeds(seed, len(held_out)), []
    with torch.no_grad():
        for rows in compute.batches(len(held_out), "asking for means"):
            x = sigma * compute.noise(seeds[rows]).normal(tuple(held_out.samples.shape[1:]))
            answer = partial(denoise, denoiser, **held_out.conditions.take(rows).to(compute.device))
            found.append(answer(x, sigma).float().cpu())
    return torch.cat(found)
