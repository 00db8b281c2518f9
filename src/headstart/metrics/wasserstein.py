r"""Sliced Wasserstein distances: 2-Wasserstein distances of one-dimensional projections,

.. math:: SW_2^2 = E_u\, W_2^2(u_\# a, u_\# b), \qquad \text{max-}SW_2^2 = \max_u W_2^2(u_\# a, u_\# b),
    \qquad W_2^2(a, b) = \int_0^1 |F_a^{-1}(t) - F_b^{-1}(t)|^2\, dt,

over directions u on the unit sphere of :math:`R^d`, so that the distances are in the data's units. The mean and the
maximum are over the same random directions. Between N and M points the integral is a sum over the steps of the two
quantile functions, at most N + M - 1 of them, and exact for any N and M.

References:
    Bonneel, Rabin, Peyré and Pfister, *Sliced and Radon Wasserstein Barycenters of Measures*, JMIV, 2015.

    Deshpande et al., *Max-Sliced Wasserstein Distance and its Use for GANs*, CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.errors import InputError
from headstart.metrics.checks import check_same_shape, check_samples

__all__ = ["SlicedDistances", "directions_of", "max_sliced_wasserstein", "project", "sliced", "sliced_wasserstein"]

#: How many directions are worked on at a time, which bounds the memory.
CHUNK = 64


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
    if count < 1 or not 0 <= seed < 2**64:
        raise InputError(f"{count} directions from seed {seed}: expected at least 1, and a seed from 0 to 2^64 - 1")
    draws = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(draws, dim=1).T


def project(x: Tensor, directions: Tensor) -> Tensor:
    """The sorted projections of N samples on each direction, of shape (directions, N), on the CPU.

    They are in float32, or in float64 if x is.
    """
    flat = x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))
    chunks = torch.split(directions.to(flat.device, flat.dtype), CHUNK, dim=1)
    return torch.cat([(flat @ chunk).T.sort(dim=1).values.cpu() for chunk in chunks])


def compare(a: Tensor, b: Tensor) -> SlicedDistances:
    """The distances between two sets of sorted projections, of shapes (directions, N) and (directions, M)."""
    n, m = a.shape[1], b.shape[1]
    # The quantile functions step at i / N and j / M: as whole numbers over N M, so that equal steps are equal.
    steps = np.unique(np.concatenate([np.arange(n + 1) * m, np.arange(m + 1) * n]))
    weights = torch.from_numpy(np.diff(steps) / (n * m))
    i, j = torch.from_numpy(steps[:-1] // m), torch.from_numpy(steps[:-1] // n)
    squares = [
        (p[:, i].double() - q[:, j].double()).square() @ weights
        for p, q in zip(torch.split(a, CHUNK), torch.split(b, CHUNK), strict=True)
    ]
    square = torch.cat(squares)
    return SlicedDistances(float(square.mean().sqrt()), float(square.max().sqrt()))


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
    check_samples(a, "first samples")
    check_samples(b, "second samples")
    check_same_shape(a.shape[1:], b.shape[1:], "samples")
    u = directions_of(a[0].numel(), directions, seed)
    return compare(project(a, u), project(b, u))


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 512, seed: int = 0) -> float:
    """The sliced 2-Wasserstein distance: see :func:`sliced`.

    >>> cloud = torch.randn(50, 3)
    >>> sliced_wasserstein(cloud, cloud)
    0.0
    """
    return sliced(a, b, directions, seed).mean


def max_sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 512, seed: int = 0) -> float:
    """The largest 2-Wasserstein distance of the same projections: see :func:`sliced`."""
    return sliced(a, b, directions, seed).max
