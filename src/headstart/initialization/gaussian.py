r"""Gaussian starts: :math:`N(0, \sigma_T^2 I)`, and the Gaussian with the data's mean and covariance.

The second is the closed form to beat (Wang and Vastola, *The Unreasonable Effectiveness of Gaussian Score
Approximation for Diffusion Models*, 2024, arXiv 2412.09726). For data of covariance eigenvalues :math:`\lambda_j` it
is off by

.. math:: E_\text{init} = \tfrac12 \sum_j \ln(1 + \lambda_j / \sigma_T^2) - I(x_0; x_T).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from headstart.initialization.base import Initialization
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise

__all__ = ["Gaussian", "Isotropic"]


class Isotropic(Initialization):
    """:math:`N(0, \\sigma_T^2 I)`, the start of every diffusion model: right at 80, wrong at a short horizon.

    Arguments:
        shape: the shape of one sample.
    """

    name = "isotropic"

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    @classmethod
    def fit(cls, data: Tensor) -> Isotropic:
        """Only the shape of the data (N, \\*S) matters."""
        return cls(data.shape[1:])

    def sample(self, noise: Noise, sigma: float, label: Tensor | None = None) -> Tensor:
        return sigma * noise.normal(self.shape)

    def log_prob(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        flat = x.flatten(1).double()
        return -0.5 * (flat.square().sum(1) / sigma**2 + flat.shape[1] * math.log(2 * math.pi * sigma**2))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape)}, {}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Isotropic:
        return cls(values["shape"])

    def __repr__(self) -> str:
        return f"Isotropic(shape={self.shape})"


class Gaussian(Initialization):
    """The Gaussian with the data's mean and covariance, up to small directions.

    Arguments:
        shape: the shape of one sample.
        subspace: leading directions and residual variance.
    """

    name = "gaussian"

    def __init__(self, shape: Sequence[int], subspace: Subspace) -> None:
        self.shape = tuple(shape)
        self.subspace = subspace

    @classmethod
    def fit(cls, data: Tensor, components: int = 256) -> Gaussian:
        """On clean data (N, \\*S), with at most ``components`` leading directions.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
        """
        return cls(data.shape[1:], Subspace.fit(data, components))

    def sample(self, noise: Noise, sigma: float, label: Tensor | None = None) -> Tensor:
        normal = noise.normal((self.subspace.dimension,))
        scales = (self.subspace.variances + sigma**2).sqrt().to(normal)
        coordinates = scales * (normal @ self.subspace.basis.to(normal))
        return self.subspace.compose(normal, coordinates, sigma).reshape(-1, *self.shape)

    def log_prob(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        z, rest = self.subspace.split(x)
        return log_normal(z, self.subspace.variances + sigma**2) + self.subspace.log_prob_rest(rest, sigma)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape)}, self.subspace.tensors()

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Gaussian:
        return cls(values["shape"], Subspace.from_tensors(tensors))

    def __repr__(self) -> str:
        return f"Gaussian(shape={self.shape}, components={len(self.subspace.variances)})"


def log_normal(z: Tensor, variances: Tensor) -> Tensor:
    """Log density of independent centred normals of the given variances, summed over the last axis."""
    return -0.5 * (z.square() / variances + (2 * math.pi * variances).log()).sum(-1)
