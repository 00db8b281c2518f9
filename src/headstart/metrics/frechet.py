r"""The Fréchet distance: the squared 2-Wasserstein distance between Gaussians with the moments of two sets of features,

.. math:: d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr} S_a + \operatorname{tr} S_b
    - 2 \operatorname{tr} (S_a^{1/2} S_b S_a^{1/2})^{1/2}.

The last trace is the sum of the square roots of the eigenvalues of :math:`S_a^{1/2} S_b S_a^{1/2}`. These roots are
computed as the singular values of :math:`S_a^{1/2} S_b^{1/2}`, which they are. An eigenvalue that should be zero would
come out as :math:`10^{-16}`, and its root as :math:`10^{-8}`; covariances of few samples have many of them.

References:
    Dowson and Landau, *The Fréchet Distance between Multivariate Normal Distributions*, J. Multivariate Analysis, 1982.

    Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.errors import DataError
from headstart.metrics.checks import check_same_shape, check_samples

__all__ = ["GaussianStatistics", "frechet_distance"]


@dataclass(frozen=True, eq=False)
class GaussianStatistics:
    """Mean and covariance of a set of features, in float64 and on the CPU.

    Arguments:
        mean: shape (F,).
        covariance: shape (F, F), symmetric and positive semi-definite.
        n: how many samples they are of.

    Raises:
        DataError: if the shapes do not fit, or the covariance is not symmetric, or anything is NaN or infinite.
    """

    mean: Tensor
    covariance: Tensor
    n: int

    def __post_init__(self) -> None:
        mean, covariance = self.mean.cpu().double(), self.covariance.cpu().double()
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            shapes = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
            raise DataError(f"mean and covariance have shapes {shapes}: expected (F,) and (F, F)")
        if not torch.isfinite(mean).all() or not torch.isfinite(covariance).all():
            raise DataError("mean and covariance must be finite")
        if not torch.allclose(covariance, covariance.T):
            raise DataError("the covariance must be symmetric")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @classmethod
    def of(cls, features: Tensor) -> GaussianStatistics:
        """The mean and the unbiased covariance of features of shape (N, F), N of at least 2."""
        x = check_samples(features, "features").cpu().double()
        if x.ndim != 2:
            raise DataError(f"the features have shape {tuple(x.shape)}: expected (N, F)")
        centred = x - x.mean(0)
        return cls(x.mean(0), centred.T @ centred / (len(x) - 1), len(x))

    def distance(self, other: GaussianStatistics) -> float:
        """The Fréchet distance to other statistics, in squared units of the features."""
        check_same_shape(tuple(self.mean.shape), tuple(other.mean.shape), "features")
        cross = torch.linalg.svdvals(_root(self.covariance) @ _root(other.covariance)).sum()
        spread = self.covariance.trace() + other.covariance.trace() - 2 * cross
        return float((self.mean - other.mean).square().sum() + spread.clamp(min=0))

    def __repr__(self) -> str:
        return f"GaussianStatistics({len(self.mean)} features, n = {self.n})"


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """The Fréchet distance between two sets of features, of shapes (N, F) and (M, F).

    It is biased upwards, by an amount that falls as 1/N: compare it at equal counts, and with the noise floor
    (:func:`headstart.metrics.floor`).

    Raises:
        DataError: if a set has fewer than two samples, NaN or Inf, or if the numbers of features differ.
    """
    return GaussianStatistics.of(features_a).distance(GaussianStatistics.of(features_b))


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root. Eigenvalues that are zero up to rounding are zero."""
    values, vectors = torch.linalg.eigh(covariance)
    rounding = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    root: Tensor = (vectors * torch.where(values > rounding, values, 0.0).sqrt()) @ vectors.T
    return root
