r"""Sliced Wasserstein distances: 2-Wasserstein distances of one-dimensional projections,

.. math:: SW_2^2 = E_u\, W_2^2(u_\# a, u_\# b), \qquad \text{max-}SW_2^2 = \max_u W_2^2(u_\# a, u_\# b),
    \qquad W_2^2(a, b) = \int_0^1 |F_a^{-1}(t) - F_b^{-1}(t)|^2\, dt,

over directions u on the unit sphere of :math:`R^d`, so that the distances are in the data's units. The mean and the
maximum are over the same random directions (:mod:`headstart.metrics.max_sliced` searches for the largest). Between N
and M points the integral is a sum over the steps of the two quantile functions, at most N + M - 1 of them, and exact
for any N and M.

Of heavy tails the second moment, and with it the distance, may be infinite, and a few samples decide it. So the
quantiles are also compared in parts, which together are the whole,

.. math:: SW_2^2 = (q - p)\, \text{bulk}^2 + (1 - q + p)\, \text{tail}^2, \qquad
    \text{bulk}^2 = \frac{1}{q - p} E_u \int_p^q |F_a^{-1}(t) - F_b^{-1}(t)|^2\, dt,

each the mean square over its own levels t. The bulk is finite for every law; the tails are what is left.

References:
    Bonneel, Rabin, Peyré and Pfister, *Sliced and Radon Wasserstein Barycenters of Measures*, JMIV, 2015.

    Deshpande et al., *Max-Sliced Wasserstein Distance and its Use for GANs*, CVPR 2019, arXiv 1904.05877.

    Manole, Balakrishnan and Wasserman, *Minimax Confidence Intervals for the Sliced Wasserstein Distance*, Electronic
    Journal of Statistics, 2022, arXiv 1909.07862 (the trimmed distance).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from headstart.errors import InputError
from headstart.metrics.checks import check_same_shape, check_samples
from headstart.metrics.jackknife import jackknife, others
from headstart.metrics.metric import METRICS, Comparison, Metric, Value
from headstart.noise import generator_of
from headstart.processes import count, spread

__all__ = [
    "LargestSliced",
    "Sliced",
    "SlicedDistances",
    "bulk_sliced_wasserstein",
    "directions_of",
    "max_sliced_wasserstein",
    "project",
    "quantile_steps",
    "quantiles",
    "sliced",
    "sliced_wasserstein",
    "sorted_projections",
    "tail_sliced_wasserstein",
]

#: The most random directions.
MOST = 2**20

#: How many directions, and how many projections, are worked on at a time, which bounds the memory.
CHUNK, NUMBERS = 64, 2**22

#: Quantiles of each direction that a reference keeps: of a million samples they err by far less than these do.
QUANTILES = 2**18


@dataclass(frozen=True)
class SlicedDistances:
    """Root mean square and maximum, over the directions, of the 2-Wasserstein distances of the projections."""

    mean: float
    max: float


def directions_of(dimension: int, count: int = 512, seed: int = 0) -> Tensor:
    """``count`` random unit vectors, of shape (dimension, count), in float64 and on the CPU.

    Raises:
        InputError: if the count is below 1, or the seed is negative or too large.
    """
    if not isinstance(count, Integral) or not 1 <= count <= MOST:
        raise InputError(f"{count} directions: expected a whole number from 1 to {MOST}")
    draws = torch.randn(count, dimension, generator=generator_of(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(draws, dim=1).T


def project(x: Tensor, directions: Tensor) -> Tensor:
    """The sorted projections of N samples on each direction, of shape (directions, N), on the CPU.

    They are in float32, or in float64 if x is.
    """
    return torch.cat([values for values, _ in sorted_projections(x, directions)])


def quantiles(x: Tensor, directions: Tensor, most: int = QUANTILES) -> Tensor:
    """The sorted projections as :func:`project` has them, or ``most`` quantiles of each direction if N is more.

    Those are at the middle of equal steps, and the memory does not grow with N beyond them.
    """
    if len(x) <= most:
        return project(x, directions)
    places = ((torch.arange(most, dtype=torch.float64) + 0.5) * (len(x) / most)).long()
    found = torch.empty(directions.shape[1], most, dtype=torch.promote_types(x.dtype, torch.float32))
    place = 0
    for values, _ in sorted_projections(x, directions):
        found[place : (place := place + len(values))] = values[:, places]
    return found


def sorted_projections(x: Tensor, directions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The projections as :func:`project` has them, and of which sample each is, a few directions at a time."""
    flat = _flat(x)
    for chunk in torch.split(directions.to(flat.device, flat.dtype), _together(len(x)), dim=1):
        yield _sorted(flat, chunk)


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))


def _sorted(flat: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    found = (flat @ directions).T.sort(dim=1)
    return found.values.cpu(), found.indices.cpu()


def _together(n: int) -> int:
    """How many directions of n samples are worked on at a time."""
    return max(1, min(CHUNK, NUMBERS // n))


def quantile_steps(
    n: int, m: int, levels: tuple[float, float] = (0.0, 1.0), outside: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The steps of the quantile functions of n and of m points: whose points are compared, and with which weight.

    Arguments:
        n: points of the one.
        m: points of the other.
        levels: from where to where quantiles are compared.
        outside: whether to compare those outside the levels instead.

    Returns:
        Indices i into the first sorted points, j into the second, and weights that sum to 1, of one shape.

    Raises:
        InputError: if the levels do not satisfy 0 <= p < q <= 1, or nothing is outside of them where that is asked.
    """
    low, high = levels
    if not 0 <= low < high <= 1 or (outside and levels == (0.0, 1.0)):
        raise InputError(f"quantiles between {low} and {high} cannot be compared: expected 0 <= p < q <= 1")
    # The quantile functions step at i / N and j / M: as whole numbers over N M, so that equal steps are equal.
    steps = np.unique(np.concatenate([np.arange(n + 1) * m, np.arange(m + 1) * n]))
    lengths = np.diff(np.clip(steps, low * n * m, high * n * m)) / (n * m)
    share = high - low
    if outside:
        lengths, share = np.diff(steps) / (n * m) - lengths, 1 - share
    kept = lengths > 1e-15  # a difference of levels that are equal up to rounding is no step
    i, j = (torch.from_numpy(steps[:-1][kept] // count) for count in (m, n))
    return i, j, torch.from_numpy(lengths[kept] / share)


def compare(a: Tensor, b: Tensor, levels: tuple[float, float] = (0.0, 1.0), outside: bool = False) -> SlicedDistances:
    """The distances between two sets of sorted projections, of shapes (directions, N) and (directions, M)."""
    square = squares(a, b, quantile_steps(a.shape[1], b.shape[1], levels, outside))
    return SlicedDistances(float(square.mean().sqrt()), float(square.max().sqrt()))


def squares(a: Tensor, b: Tensor, steps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Squared distances of each direction's sorted projections, shape (directions,), in float64."""
    i, j, weights = steps
    size = _together(max(a.shape[1], b.shape[1]))
    parts = zip(torch.split(a, size), torch.split(b, size), strict=True)
    return torch.cat([(p[:, i].double() - q[:, j].double()).square() @ weights for p, q in parts])


def sliced(a: Tensor, b: Tensor, directions: int = 512, seed: int = 0) -> SlicedDistances:
    """Sliced and max-sliced 2-Wasserstein distances, from one set of projections.

    Arguments:
        a: samples of shape (N, \\*S).
        b: samples of shape (M, \\*S); M need not be N.
        directions: number of random directions.
        seed: of the directions: the same seed gives the same directions for samples of the same size.

    Raises:
        DataError: if a set has fewer than two samples, NaN or Inf, or if the shapes of a sample differ.
        InputError: if the number of directions or the seed is out of range.
    """
    return compare(*_projected(a, b, directions, seed))


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 512, seed: int = 0) -> float:
    """The sliced 2-Wasserstein distance: see :func:`sliced`.

    >>> cloud = torch.randn(50, 3)
    >>> sliced_wasserstein(cloud, cloud)
    0.0
    """
    return sliced(a, b, directions, seed).mean


def max_sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 512, seed: int = 0) -> float:
    """The largest 2-Wasserstein distance of the same projections: see :func:`sliced`.

    In many dimensions no random direction is near the worst one: :func:`headstart.metrics.max_sliced` searches for it.
    """
    return sliced(a, b, directions, seed).max


def bulk_sliced_wasserstein(
    a: Tensor, b: Tensor, low: float = 0.1, high: float = 0.9, directions: int = 512, seed: int = 0
) -> float:
    """The sliced 2-Wasserstein distance of the quantiles from ``low`` to ``high`` of every projection.

    Raises:
        DataError: as :func:`sliced`.
        InputError: as :func:`sliced`, or if the levels do not satisfy 0 <= low < high <= 1.

    >>> cloud = torch.linspace(-1, 1, 1000)[:, None]
    >>> bulk_sliced_wasserstein(cloud, torch.where(cloud.abs() > 0.9, 100 * cloud, cloud))
    0.0
    """
    return compare(*_projected(a, b, directions, seed), (low, high)).mean


def tail_sliced_wasserstein(
    a: Tensor, b: Tensor, low: float = 0.1, high: float = 0.9, directions: int = 512, seed: int = 0
) -> float:
    """The sliced 2-Wasserstein distance of the quantiles below ``low`` and above ``high`` of every projection.

    Of laws without a second moment it grows with the number of samples, without limit: compare it at equal counts.

    Raises:
        DataError: as :func:`sliced`.
        InputError: as :func:`bulk_sliced_wasserstein`, or if the levels are 0 and 1, outside of which there is nothing.
    """
    return compare(*_projected(a, b, directions, seed), (low, high), outside=True).mean


def _projected(a: Tensor, b: Tensor, directions: int, seed: int) -> tuple[Tensor, Tensor]:
    """The sorted projections of both sets on the same random directions."""
    a, b = check_samples(a, "first samples"), check_samples(b, "second samples")
    check_same_shape(a.shape[1:], b.shape[1:], "samples")
    u = directions_of(a[0].numel(), directions, seed)
    return project(a, u), project(b, u)


def _distances(compared: Comparison) -> tuple[SlicedDistances, SlicedDistances | None]:
    """Both distances on the reference's directions, and their errors if these are asked for.

    Several processes share the directions out.
    """
    real, n = compared.reference.projections, len(compared.samples)
    groups = compared.groups if compared.errors else []
    rest = [len(others(groups, g)) for g in range(len(groups))]
    steps = [quantile_steps(count, real.shape[1]) for count in (n, *rest)]
    group = torch.empty(n, dtype=torch.long)
    for g, members in enumerate(groups):
        group[members] = g
    flat, size, processes = _flat(compared.samples), _together(n), count()
    places, directions = range(0, len(real), size), compared.reference.directions.to(flat.device, flat.dtype)

    def share(process: int) -> Tensor:
        """Squared distances of all samples, and without each group, along the directions of a process, and 0 along
        the others: in one piece, since small ones left between what is freed after each step keep the memory of all
        steps.
        """
        found = torch.zeros(len(steps), len(real), dtype=torch.float64)
        for place in places[process::processes]:
            rows = slice(place, place + size)
            projections, order = _sorted(flat, directions[:, rows])
            dealt = group[order]
            kept = [projections, *(projections[dealt != g].reshape(-1, rest[g]) for g in range(len(groups)))]
            for line, each, own in zip(found, kept, steps, strict=True):
                line[rows] = squares(each, real[rows], own)
        return found

    whole, *without = torch.stack(spread(range(processes), share)).sum(0)
    errors = None
    if without:
        errors = SlicedDistances(
            jackknife([float(square.mean().sqrt()) for square in without]),
            jackknife([float(square.max().sqrt()) for square in without]),
        )
    return SlicedDistances(float(whole.mean().sqrt()), float(whole.max().sqrt())), errors


@METRICS.register
class Sliced(Metric):
    """Sliced Wasserstein distance, in the data's units."""

    name = "swd"
    cites = ("bonneel2015sliced",)
    cost = "R N (d + log N)"
    always = True

    @classmethod
    def score(cls, compared: Comparison) -> Value:
        found, errors = compared.once(_distances)
        return Value(found.mean, None if errors is None else errors.mean)


@METRICS.register
class LargestSliced(Metric):
    """Largest Wasserstein distance of the same random directions."""

    name = "max_swd"
    cites = ("deshpande2019max",)
    cost = "R N (d + log N)"
    always = True

    @classmethod
    def score(cls, compared: Comparison) -> Value:
        found, errors = compared.once(_distances)
        return Value(found.max, None if errors is None else errors.max)
