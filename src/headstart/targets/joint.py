r"""Gaussian mixtures of samples and conditions together, whose conditional laws are exact at every noise level.

Of a mixture of :math:`[x_0; c]` the law of :math:`x_0` given c is a mixture again, with weights
:math:`w_k(c) \propto w_k N(c; m_{k,c}, S_{k,cc})`, means :math:`m_k(c) = m_{k,x} + S_{k,xc} S_{k,cc}^{-1} (c -
m_{k,c})` and covariances that do not depend on c. Its denoiser is :math:`E[x_0 \mid x_\sigma, c]`, the network that a
conditional diffusion model learns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.denoiser import expand
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.targets.mixture import GaussianMixture

__all__ = ["JointMixture"]


class JointMixture:
    """A Gaussian mixture of samples and conditions. Called as a denoiser, ``joint(x, sigma, c=c)``.

    Arguments:
        weights: shape (K,), not negative.
        means: shape (K, d + q), the samples' coordinates first.
        covariances: shape (K, d + q, d + q); that of the conditions must not be singular.
        dimension: d, how many of the coordinates are the samples'.

    Attributes:
        shape: the shape (d,) of one sample.
        law: of samples and conditions together.
        marginal: of the samples alone.

    Raises:
        InputError: as for :class:`GaussianMixture`, or if d is not from 1 to one less than all coordinates.

    >>> JointMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.8], [0.8, 1.0]]], 1)
    JointMixture(1 component, 1 dimension given 1)
    """

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike, dimension: int) -> None:
        self.law = GaussianMixture(weights, means, covariances)
        m, s = self.law.means, torch.as_tensor(covariances, dtype=torch.float64)
        if s.ndim != 3 or not 0 < dimension < m.shape[1]:
            raise InputError(f"expected full covariances, and 0 < d < {m.shape[1]}: got {tuple(s.shape)}, {dimension}")
        d = dimension
        self.shape = (d,)
        self.marginal = GaussianMixture(weights, m[:, :d], s[:, :d, :d])
        self.condition = GaussianMixture(weights, m[:, d:], s[:, d:, d:])
        self.slopes = torch.linalg.solve(s[:, d:, d:], s[:, d:, :d])
        left = s[:, :d, :d] - s[:, :d, d:] @ self.slopes
        variances, self.axes = torch.linalg.eigh((left + left.mT) / 2)
        self.variances = variances.clamp_min(0.0)

    def sample(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Samples (B, d) and their conditions (B, q), in the noise's dtype and device."""
        both = self.law.sample(noise)
        return both[:, : self.shape[0]], both[:, self.shape[0] :]

    def __call__(self, x: Tensor, sigma: Any, /, c: Tensor) -> Tensor:
        """E[x0 | x, c]: states (B, d) and conditions (B, q) or (q,) to (B, d), in x's dtype."""
        y, variances, log_r, means = self._components(x, sigma, c)
        r = log_r.softmax(1)[..., None]
        kept = torch.einsum("bkj,kij->bki", y * self.variances / variances, self.axes)
        return (r * (means + kept)).sum(1).to(x)

    def log_prob(self, x: Tensor, sigma: Tensor | float, c: Tensor) -> Tensor:
        """Log density in nats of samples noised at sigma, given their conditions: (B, d) to (B,), in float64."""
        return self._components(x, sigma, c)[2].logsumexp(1)

    def score(self, x: Tensor, sigma: float, c: Tensor) -> Tensor:
        """Its gradient in x: (B, d)."""
        return (self(x.double(), sigma, c) - x.double()) / sigma**2

    def _components(self, x: Tensor, sigma: Any, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """In each component's axes the offsets from its mean (B, K, d) and variances; log r (B, K); the means."""
        x = x.cpu().double()
        c = torch.as_tensor(c, dtype=torch.float64).cpu().expand(len(x), -1)
        gates = self.condition._components(c, 0.0)[2].log_softmax(1)
        means = self.marginal.means + torch.einsum("bkq,kqd->bkd", c[:, None] - self.condition.means, self.slopes)
        y = torch.einsum("bki,kij->bkj", x[:, None] - means, self.axes)
        level = torch.as_tensor(sigma, dtype=torch.float64).cpu()
        variances = self.variances + expand(level, x)[..., None] ** 2
        log_r = gates - 0.5 * (y.square() / variances + (2 * math.pi * variances).log()).sum(-1)
        return y, variances, log_r, means

    def __repr__(self) -> str:
        count, d = self.marginal.means.shape
        q = self.condition.shape[0]
        return f"JointMixture({count} component{'s' * (count > 1)}, {d} dimension{'s' * (d > 1)} given {q})"
