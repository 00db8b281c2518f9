r"""The leading principal components of the data, and the Gaussian that is left when nothing finer is said.

With mean :math:`\mu`, leading directions :math:`U` (orthonormal columns) of variances :math:`\lambda` and a common
variance :math:`\rho` of all other directions, the data noised at level sigma have the covariance

.. math:: U \operatorname{diag}(\lambda + \sigma^2)\, U^T + (\rho + \sigma^2)(I - U U^T).

Noise hides every direction whose standard deviation is small against it, so a few directions are all that a start must
model well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from headstart.errors import DataError

__all__ = ["Subspace"]


@dataclass(frozen=True, eq=False)
class Subspace:
    """Leading principal components and what is left.

    Attributes:
        mean: shape (d,).
        basis: orthonormal columns, shape (d, k).
        variances: of the leading directions, shape (k,).
        residual: variance of every other direction, shape ().
    """

    mean: Tensor
    basis: Tensor
    variances: Tensor
    residual: Tensor

    @classmethod
    def fit(cls, data: Tensor, components: int) -> Subspace:
        """By principal component analysis of ``data`` (N, \\*S), in float64.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
        """
        x = data.flatten(1).double().cpu()
        if len(x) < 2 or not torch.isfinite(x).all():
            raise DataError("an initialization is fitted on at least two samples, without NaN or Inf")
        k = max(1, min(components, x.shape[1], len(x) - 1))
        pca = PCA(k, random_state=0).fit(x.numpy())
        variances = torch.from_numpy(pca.explained_variance_).clamp_min(0.0)
        # Not scikit-learn's noise_variance_: with fewer samples than dimensions it averages over the samples.
        residual = ((x.var(dim=0).sum() - variances.sum()) / max(1, x.shape[1] - k)).clamp_min(0.0)
        return cls(
            mean=torch.from_numpy(pca.mean_),
            basis=torch.from_numpy(pca.components_.T.copy()),
            variances=variances,
            residual=residual if k < x.shape[1] else torch.zeros_like(residual),
        )

    @property
    def dimension(self) -> int:
        """The dimension d of the data."""
        return len(self.mean)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (B, \\*S) as leading coordinates (B, k) and squared norm of the rest (B,), in float64."""
        centred = x.flatten(1).double() - self.mean
        z = centred @ self.basis
        return z, (centred.square().sum(1) - z.square().sum(1)).clamp_min(0.0)

    def log_prob_rest(self, rest: Tensor, sigma: float) -> Tensor:
        """Log density of the directions that are not leading, from their squared norm (B,)."""
        left, variance = self.dimension - len(self.variances), float(self.residual) + sigma**2
        return -0.5 * (rest / variance + left * math.log(2 * math.pi * variance)) if left else torch.zeros_like(rest)

    def compose(self, normal: Tensor, coordinates: Tensor, sigma: float) -> Tensor:
        """Samples (B, d) with the given leading coordinates (B, k) and a Gaussian rest, driven by ``normal`` (B, d)."""
        basis = self.basis.to(normal)
        scale = math.sqrt(float(self.residual) + sigma**2)
        return self.mean.to(normal) + scale * normal + (coordinates - scale * (normal @ basis)) @ basis.T

    def tensors(self) -> dict[str, Tensor]:
        """What saves it."""
        return {"mean": self.mean, "basis": self.basis, "variances": self.variances, "residual": self.residual}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Subspace:
        """The subspace that :meth:`tensors` describes."""
        return cls(*(tensors[name].double() for name in ("mean", "basis", "variances", "residual")))
