r"""Gaussian starts: from :math:`N(0, \sigma_T^2 I)` to the Gaussian with the data's mean and covariance.

The last is the closed form to beat (Wang and Vastola, *The Unreasonable Effectiveness of Gaussian Score
Approximation for Diffusion Models*, 2024, arXiv 2412.09726). For data of covariance eigenvalues :math:`\lambda_j` it
is off by

.. math:: E_\text{init} = \tfrac12 \sum_j \ln(1 + \lambda_j / \sigma_T^2) - I(x_0; x_T).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.memory import owned
from headstart.initialization.subspace import Subspace, moments
from headstart.noise import Noise
from headstart.saved import SQUARE, Saved

__all__ = ["Diagonal", "Gaussian", "Isotropic", "Shifted"]


@INITIALIZATIONS.register
class Diagonal(Initialization):
    """Independent coordinates with the data's means and variances.

    Arguments:
        shape: the shape of one sample.
        mean: shape (d,).
        variances: shape (d,).
    """

    name = "diagonal"
    cites = ("fassina2026initialization",)

    def __init__(self, shape: Sequence[int], mean: Tensor, variances: Tensor) -> None:
        self.shape = tuple(shape)
        self.mean, self.variances = owned(mean), owned(variances)

    @classmethod
    def fit(cls, data: Tensor) -> Diagonal:
        """Fit to clean data (N, \\*S).

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
        """
        return cls(data.shape[1:], *moments(data))

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        normal = noise.normal((len(self.mean),))
        scales = (self.variances + sigma**2).sqrt().to(normal)
        return (self.mean.to(normal) + scales * normal).reshape(-1, *self.shape)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        return log_normal(x.cpu().flatten(1).double() - self.mean, self.variances + sigma**2)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape)}, {"mean": self.mean, "variances": self.variances}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Diagonal:
        saved = Saved(values, tensors)
        shape = saved.shape()
        d = math.prod(shape)
        return cls(shape, saved.tensor("mean", d).double(), saved.tensor("variances", d, low=0.0, high=SQUARE).double())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape})"


@INITIALIZATIONS.register
class Shifted(Diagonal):
    r""":math:`N(\mu, \sigma_T^2 I)`: the data's mean, and nothing else of them.

    Arguments:
        shape: the shape of one sample.
        mean: shape (d,).
    """

    name = "shifted"
    cites = ("fassina2026initialization",)

    def __init__(self, shape: Sequence[int], mean: Tensor) -> None:
        super().__init__(shape, mean, torch.zeros_like(mean))

    @classmethod
    def fit(cls, data: Tensor) -> Shifted:
        """Fit to clean data (N, \\*S). It raises the errors of :meth:`Diagonal.fit`."""
        return cls(data.shape[1:], moments(data)[0])

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape)}, {"mean": self.mean}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Shifted:
        saved = Saved(values, tensors)
        shape = saved.shape()
        return cls(shape, saved.tensor("mean", math.prod(shape)).double())


@INITIALIZATIONS.register
class Isotropic(Shifted):
    r""":math:`N(0, \sigma_T^2 I)`, the start of every diffusion model: right at 80, and wrong at a short horizon.

    Arguments:
        shape: the shape of one sample.
    """

    name = "isotropic"
    cites = ("song2021score",)
    usual = True

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, torch.zeros(math.prod(shape), dtype=torch.float64))

    @classmethod
    def fit(cls, data: Tensor) -> Isotropic:
        """Only the shape of the data (N, \\*S) matters."""
        return cls(data.shape[1:])

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape)}, {}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Isotropic:
        return cls(Saved(values, tensors).shape())


@INITIALIZATIONS.register
class Gaussian(Initialization):
    """The Gaussian with the data's mean and covariance, up to small directions.

    Arguments:
        shape: the shape of one sample.
        subspace: leading directions and residual variance.
    """

    name = "gaussian"
    cites = ("fassina2026initialization", "wang2024unreasonable")
    usual = True

    def __init__(self, shape: Sequence[int], subspace: Subspace) -> None:
        self.shape = tuple(shape)
        self.subspace = subspace

    @classmethod
    def fit(cls, data: Tensor, components: int = 256, *, subspace: Subspace | None = None) -> Gaussian:
        """Fit to clean data (N, \\*S), with at most ``components`` leading directions.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
        """
        return cls(data.shape[1:], Subspace.fit(data, components) if subspace is None else subspace)

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        normal = noise.normal((self.subspace.dimension,))
        scales = (self.subspace.variances + sigma**2).sqrt().to(normal)
        leading = self.subspace.leading(normal)
        return self.subspace.compose(normal, leading, scales * leading, sigma).reshape(-1, *self.shape)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        z, rest = self.subspace.split(x)
        return log_normal(z, self.subspace.variances + sigma**2) + self.subspace.log_prob_rest(rest, sigma)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape)}, self.subspace.tensors()

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Gaussian:
        shape = Saved(values, tensors).shape()
        return cls(shape, Subspace.from_tensors(tensors, math.prod(shape)))

    def __repr__(self) -> str:
        return f"Gaussian(shape={self.shape}, components={len(self.subspace.variances)})"


def log_normal(z: Tensor, variances: Tensor) -> Tensor:
    """Log density of independent centred normals of the given variances, summed over the last axis."""
    return -0.5 * (z.square() / variances + (2 * math.pi * variances).log()).sum(-1)
