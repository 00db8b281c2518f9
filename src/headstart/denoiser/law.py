r"""The mean and the scale of the law that a denoiser stands for, from a few of its answers and no data.

Whatever the law, the slope of :math:`D(\cdot, \sigma)` on noised data is :math:`k = v / (v + \sigma^2)`, v being the
law's variance, and far out D is near a line of this slope through the mean m. Noise around m is therefore answered with
a slope that tells v, where :math:`\sigma` is neither so high that the slope drowns in the network's own error, nor so
low that it is 1: levels are tried from high ones down, or up, until it is in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Law", "learned_law"]

#: Slopes that tell a variance, and the ratio of the levels that are tried, which is below that of the levels of both.
FLAT, STEEP, RATIO = 0.05, 0.5, 4.0

#: Levels that are tried at most: from 80 up to 10^13 or down to 10^-10.
TRIED = 20


@dataclass(frozen=True)
class Law:
    """The mean and the scale of the law that a network has learned.

    Attributes:
        mean: the root of the mean square of the coordinates' means.
        deviation: the standard deviation per coordinate; at an end of the levels that the network knows, at least or at
            most this.
    """

    mean: float
    deviation: float


def learned_law(
    ask: Callable[[Tensor, float], Tensor], noise: Tensor, start: float, low: float, high: float
) -> Law | None:
    """The mean and the standard deviation of the law of a denoiser, as far as its answers tell.

    Arguments:
        ask: the denoiser, called with noisy samples and one level.
        noise: standard normal numbers, shape (n, \\*S): n answers are asked for at each level that is tried.
        start: the level that is tried first.
        low: the lowest level that it knows.
        high: the highest.

    Returns:
        None if no slope tells a variance.
    """
    eps, sigma, mean = noise - noise.mean(0), min(start, high), torch.zeros_like(noise[0])
    tried = set[float]()
    while sigma not in tried and len(tried) < TRIED:
        tried.add(sigma)
        out = ask(mean + sigma * eps, sigma)
        slope = float(((out - out.mean(0)) * eps).sum() / eps.square().sum()) / sigma
        if 0 < slope < 1 - 1e-6:
            mean = mean + (out.mean(0) - mean) / (1 - slope)
        if FLAT <= slope <= STEEP or (slope > STEEP and sigma >= high) or (0 < slope < FLAT and sigma <= low):
            ratio = slope / max(1 - slope, 1e-6)
            return Law(float(mean.square().mean().sqrt()), sigma * ratio**0.5)
        sigma = min(sigma * RATIO, high) if slope > STEEP else max(sigma / RATIO, low)
    return None
