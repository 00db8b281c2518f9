r"""The two distances of the table, both in the data's units and both zero for equal laws only.

Sliced Wasserstein distance (:mod:`headstart.metrics.wasserstein`), and the energy distance of two sets,

.. math:: D^2 = 2 E\,|x - y| - E\,|x - x'| - E\,|y - y'|,

whose expectations are over all pairs, those of a point with itself included: it is never negative, and its value for
samples of one law, the floor, falls with their number.

References:
    Székely and Rizzo, *Energy Statistics: A Class of Statistics Based on Distances*, Journal of Statistical Planning
    and Inference, 2013.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headstart.metrics import sliced

__all__ = ["SCORES", "distances", "energy_distance"]

#: The distances, by what their columns are called.
SCORES = {"swd": "sliced Wasserstein distance", "energy": "energy distance"}

#: Rows of pairs that are worked on at a time, which bounds the memory.
ROWS = 1000


def energy_distance(a: Tensor, b: Tensor) -> float:
    """D above, of samples (N, \\*S) and (M, \\*S).

    >>> energy_distance(torch.zeros(3, 2), torch.full((2, 2), 0.5).sqrt())
    1.4142135623730951
    """
    a, b = a.double().flatten(1), b.double().flatten(1)
    square: float = 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b)
    return math.sqrt(max(square, 0.0))


def _mean_distance(a: Tensor, b: Tensor) -> float:
    total = 0.0
    for rows in torch.split(a, ROWS):
        total += float(torch.cdist(rows, b, compute_mode="donot_use_mm_for_euclid_dist").sum())
    return total / (len(a) * len(b))


def distances(samples: Tensor, real: Tensor) -> dict[str, float]:
    """Both distances between two sets of one size."""
    return {"swd": sliced(samples, real).mean, "energy": energy_distance(samples, real)}
