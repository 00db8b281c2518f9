"""Laws that experiments and tests share: mixtures of Gaussians, and heavy tails.

Where a law is standardised, its location and scale are those of its exact moments: samples of a law without a fourth
moment say little of its variance.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (25 modes, and
    Student-t mixtures). The random parameters are drawn by its recipe, and are not its own: they are kept in
    ``parameters.json``, so that they do not depend on a random generator, and :func:`draw_parameters` drew them.
    It standardises with 100,000 samples, and we with the exact moments.

    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877 (Cantor, bimodal). It does not
    give the constants of its Cantor law; those here are our own.
"""

from __future__ import annotations

import itertools
import json
import math
from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from headstart.errors import InputError
from headstart.targets.mixture import GaussianMixture
from headstart.targets.student import ProductT, StudentTMixture

__all__ = ["bimodal", "cantor", "draw_parameters", "gmm25", "gmm_paper", "t_mix2", "t_mix10", "t_prod"]

#: The laws with random parameters: number of components, and dimension.
DRAWN = {"gmm_paper_2": (25, 2), "gmm_paper_10": (25, 10), "t_mix2": (4, 2), "t_mix10": (20, 10)}


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


def gmm_paper(d: int = 2) -> GaussianMixture:
    """25 modes on a square grid, each with a random covariance and a random weight, standardised.

    The paper has two dimensions. In ten, which is our own, the grid's two coordinates are repeated as in :func:`gmm25`.

    Arguments:
        d: the dimension, 2 or 10.

    Raises:
        InputError: if d is another.
    """
    if d not in (2, 10):
        raise InputError(f"the parameters of this mixture were drawn for 2 and 10 dimensions: got {d}")
    weights, means, roots = _parameters(f"gmm_paper_{d}")
    covariances = roots @ roots.mT
    centre, unit = _moments(weights, means, covariances)
    return GaussianMixture(weights, (means - centre) / unit, covariances / unit**2)


def t_prod(d: int = 100, nu: float = 3.0) -> ProductT:
    r"""Independent Student-t coordinates of variance 1, which have the scale :math:`\sqrt{(\nu - 2) / \nu}`.

    Arguments:
        d: the dimension.
        nu: degrees of freedom, above 2.

    Raises:
        InputError: if an argument is out of its range.
    """
    if d < 1 or not nu > 2:
        raise InputError(f"d must be at least 1, and nu above 2 for a variance to exist: got {d} and {nu}")
    return ProductT(nu, math.sqrt((nu - 2) / nu), torch.zeros(d, dtype=torch.float64))


def t_mix2() -> StudentTMixture:
    """Four Student-t components with 3 degrees of freedom in two dimensions, standardised."""
    return _t_mixture("t_mix2")


def t_mix10() -> StudentTMixture:
    """Twenty Student-t components with 3 degrees of freedom in ten dimensions, standardised."""
    return _t_mixture("t_mix10")


def draw_parameters() -> dict[str, dict[str, list[object]]]:
    r"""The contents of ``parameters.json``: for each law its weights, locations and roots L, to ten digits.

    The roots are :math:`0.4\, A \operatorname{diag}(b)` with A unit lower triangular with standard normal numbers,
    and b uniform on [0.1, 1]; weights are Dirichlet; locations are the grid's, or uniform on [-1, 1].
    """
    drawn = {}
    line = np.arange(-2.0, 3.0)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(25, 2)
    for seed, (name, (count, d)) in enumerate(DRAWN.items()):
        stream = np.random.Generator(np.random.Philox(key=seed))
        weights = stream.dirichlet(np.ones(count))
        locations = np.tile(grid, d // 2) if count == 25 else stream.uniform(-1, 1, (count, d))
        lower = np.tril(stream.standard_normal((count, d, d)), -1) + np.eye(d)
        roots = 0.4 * lower * stream.uniform(0.1, 1, (count, 1, d))
        arrays = {"weights": weights, "locations": locations, "roots": roots}
        drawn[name] = {key: np.vectorize(lambda v: float(f"{v:.10g}"))(a).tolist() for key, a in arrays.items()}
    return drawn


def _parameters(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (M,), locations (M, d) and roots (M, d, d)."""
    kept = json.loads(files("headstart.targets").joinpath("parameters.json").read_text(encoding="utf-8"))[name]
    weights, locations, roots = (
        torch.tensor(kept[key], dtype=torch.float64) for key in ("weights", "locations", "roots")
    )
    return weights, locations, roots


def _t_mixture(name: str, nu: float = 3.0) -> StudentTMixture:
    weights, locations, roots = _parameters(name)
    scales = roots @ roots.mT
    centre, unit = _moments(weights, locations, scales * nu / (nu - 2))
    return StudentTMixture(weights, (locations - centre) / unit, scales / unit**2, nu)


def _moments(weights: Tensor, means: Tensor, covariances: Tensor) -> tuple[Tensor, float]:
    """A mixture's mean (d,), and the root of its mean variance per coordinate."""
    weights = weights / weights.sum()
    centre = weights @ means
    variances = weights @ (covariances.diagonal(dim1=1, dim2=2) + (means - centre).square())
    return centre, math.sqrt(float(variances.mean()))
