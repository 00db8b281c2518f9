r"""Teleportation: the first part of the way, from :math:`\sigma_{\max}` down to sigma_T, in one exact step.

While the noise is large the score is nearly that of the Gaussian with the data's mean :math:`\mu` and covariance, of
eigenvalues :math:`\lambda_j` and eigenvectors Q. The probability-flow ODE of that Gaussian has a solution in closed
form. From the noise :math:`x_{\max} = \sigma_{\max} z`, :math:`z \sim N(0, I)`, that every sampler begins with,

.. math::
    x_T = \mu + G\, (x_{\max} - \mu), \qquad G = Q \operatorname{diag}(g_j)\, Q^T, \qquad
    g_j = \sqrt{\frac{\lambda_j + \sigma_T^2}{\lambda_j + \sigma_{\max}^2}},

without an evaluation of the network. So a seed leads to nearly the sample that the long way leads it to. (The start
:class:`~headstart.initialization.Gaussian` puts the same noise through the root of its own covariance: its samples are
these, but for :math:`G \mu` and a share :math:`\lambda_j / 2 \sigma_{\max}^2` of their deviations.) The law is

.. math:: x_T \sim N\big((I - G)\, \mu,\; \sigma_{\max}^2\, G^2\big).

The same map carries :math:`N(\mu, Q (\Lambda + \sigma_{\max}^2)\, Q^T)` to the law of the Gaussian start, and a map
that can be inverted leaves a divergence as it is. So the two starts differ at every horizon by what noise misses at
:math:`\sigma_{\max}`,

.. math:: KL(\text{Gaussian} \,\|\, \text{this one}) = \tfrac12 \sum_j \Big[
    \frac{\lambda_j + \mu_j^2}{\sigma_{\max}^2} - \ln \Big( 1 + \frac{\lambda_j}{\sigma_{\max}^2} \Big) \Big],

with :math:`\mu_j` the coordinates of the mean along Q: small from EDM's 80, and smaller from higher levels.

References:
    Wang and Vastola, *The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models*, 2024,
    arXiv 2412.09726. There directions that are not leading have no variance, and here a common one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.errors import InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.gaussian import Gaussian
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise
from headstart.saved import Saved

__all__ = ["Teleportation"]


@INITIALIZATIONS.register
class Teleportation(Initialization):
    """The law to which the ODE of the Gaussian with the data's mean and covariance carries noise of a high level.

    Arguments:
        shape: the shape of one sample.
        subspace: leading directions and residual variance.
        sigma_max: the level that the sampler it replaces starts from, in the data's units: 80 for EDM. It is the
            farthest horizon, at which the start is that noise.

    Raises:
        InputError: if sigma_max is not finite and above 0.
    """

    name = "teleportation"
    cites = ("fassina2026initialization", "wang2024unreasonable")

    def __init__(self, shape: Sequence[int], subspace: Subspace, sigma_max: float = 80.0) -> None:
        if not 0 < sigma_max < math.inf:
            raise InputError(f"sigma_max must be finite and above 0: got {sigma_max}")
        self.shape = tuple(shape)
        self.subspace = subspace
        self.sigma_max = float(sigma_max)
        self.sigmas = (0.0, self.sigma_max)
        self._latest: tuple[float, Gaussian] | None = None

    @classmethod
    def fit(
        cls, data: Tensor, components: int = 256, sigma_max: float = 80.0, *, subspace: Subspace | None = None
    ) -> Teleportation:
        """Fit to clean data (N, \\*S), with at most ``components`` leading directions.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
            InputError: if sigma_max is not finite and above 0.
        """
        return cls(data.shape[1:], Subspace.fit(data, components) if subspace is None else subspace, sigma_max)

    def settings(self) -> dict[str, Any]:
        return {"sigma_max": self.sigma_max}

    def _law(self, sigma: float) -> Gaussian:
        """The law at horizon sigma, its noise included: a Gaussian start at a horizon of 0. Batches share it."""
        if self._latest is None or self._latest[0] != sigma:
            self._latest = sigma, self._made(sigma)
        return self._latest[1]

    def _made(self, sigma: float) -> Gaussian:
        space = self.subspace
        leading, rest = (_gain(variances, sigma, self.sigma_max) for variances in (space.variances, space.residual))
        pulled = rest * space.mean + space.basis @ ((leading - rest) * (space.mean @ space.basis))
        far = self.sigma_max**2
        return Gaussian(
            self.shape, Subspace(space.mean - pulled, space.basis, far * leading.square(), far * rest.square())
        )

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        # G x_max as the symmetric root of its covariance times z: the same numbers, and half types hold them.
        return self._law(sigma)._sample(noise, 0.0, given)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        return self._law(sigma)._log_prob(x, 0.0, given)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape), "sigma_max": self.sigma_max}, self.subspace.tensors()

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Teleportation:
        saved = Saved(values, tensors)
        shape = saved.shape()
        return cls(shape, Subspace.from_tensors(tensors, math.prod(shape)), saved.number("sigma_max"))

    def __repr__(self) -> str:
        components = len(self.subspace.variances)
        return f"Teleportation(shape={self.shape}, components={components}, sigma_max={self.sigma_max:g})"


def _gain(variances: Tensor, sigma: float, sigma_max: float) -> Tensor:
    """The gain of a deviation from the mean between the two levels, in directions of the given variances."""
    return torch.sqrt((variances + sigma**2) / (variances + sigma_max**2))
