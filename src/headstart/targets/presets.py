"""Mixtures of Gaussians that experiments and tests share.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (25 modes).

    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877 (Cantor, bimodal). It does not
    give the constants of its Cantor law; those here are our own.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch

from headstart.errors import InputError
from headstart.targets.mixture import GaussianMixture

__all__ = ["bimodal", "cantor", "gmm25"]


def gmm25(
    d: int = 2, spacing: float = 1.25, std: float = 0.25, weights: Literal["uniform", "chi2"] = "uniform"
) -> GaussianMixture:
    """25 modes on a square grid, ``spacing * {-2, ..., 2}^2``, whose two coordinates are repeated d / 2 times.

    The defaults have a variance near 1; the paper's own scale is ``spacing=5, std=1``.

    Arguments:
        d: the dimension, even.
        spacing: distance between neighbouring modes along an axis.
        std: standard deviation of each mode.
        weights: "uniform", or "chi2": squares of standard normal numbers (seed 42), as in the paper.

    Raises:
        InputError: if an argument is out of its range.
    """
    if d < 2 or d % 2:
        raise InputError(f"the 25 modes repeat two coordinates: d must be even and at least 2, got {d}")
    if not (0 < spacing < math.inf and 0 < std < math.inf):
        raise InputError(f"spacing and std must be positive and finite, got {spacing} and {std}")
    if weights not in ("uniform", "chi2"):
        raise InputError(f"unknown weights {weights!r}: expected uniform or chi2")
    line = spacing * torch.arange(-2.0, 3.0, dtype=torch.float64)
    means = torch.cartesian_prod(line, line).repeat(1, d // 2)
    normal = torch.randn(25, generator=torch.Generator().manual_seed(42), dtype=torch.float64)
    return GaussianMixture(normal**2 if weights == "chi2" else torch.ones(25), means, std**2)


def bimodal() -> GaussianMixture:
    """0.3 N(-1, 0.2^2) + 0.7 N(1, 0.2^2), in one dimension."""
    return GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], 0.04)


def cantor(level: int = 3, tau: float = 0.005) -> GaussianMixture:
    r"""The Cantor measure smoothed by :math:`N(0, \tau^2)`, in one dimension, as :math:`2^K` Gaussians at level K.

    The centres are those of the intervals left after K cuts, :math:`\sum_k 2 b_k 3^{-k} + 3^{-K} / 2` with b in
    :math:`\{0, 1\}^K`. The variance :math:`\tau^2 + 9^{-K} / 8` counts what the cuts after them would spread, so that
    mean and variance are those of the smoothed Cantor measure itself, at every level.

    Arguments:
        level: number of cuts K, at least 1; level 3 has 8 modes.
        tau: standard deviation of the smoothing.

    Raises:
        InputError: if an argument is out of its range.
    """
    if level < 1 or not 0 <= tau < math.inf:
        raise InputError(f"level must be at least 1 and tau at least 0 and finite, got {level} and {tau}")
    cuts = itertools.product(*[(0.0, 2.0 * 3.0**-k) for k in range(1, level + 1)])
    centres = torch.tensor([[sum(cut) + 0.5 * 3.0**-level] for cut in cuts], dtype=torch.float64)
    return GaussianMixture(torch.ones(2**level), centres, tau**2 + 9.0**-level / 8)
