r"""Gaussian mixtures with any covariances, exact at every noise level.

With the eigendecomposition :math:`\Sigma_k = Q_k \Lambda_k Q_k^\top`, done once, and coordinates
:math:`y_k = Q_k^\top (x - \mu_k)`, noise only adds :math:`\sigma^2` to every eigenvalue:

.. math::
    \log r_k &= \log w_k - \tfrac12 \sum_j \Big[ \frac{y_{kj}^2}{\lambda_{kj} + \sigma^2}
        + \log (\lambda_{kj} + \sigma^2) + \log 2 \pi \Big], \qquad
    \log p_\sigma(x) = \log \sum_k r_k, \\
    s(x, \sigma) &= - \sum_k \bar r_k \, Q_k (\Lambda_k + \sigma^2)^{-1} y_k, \\
    D(x, \sigma) &= \sum_k \bar r_k \, [\mu_k + Q_k \Lambda_k (\Lambda_k + \sigma^2)^{-1} y_k],

where :math:`\bar r` is r normalised over the components. Neither the score nor the denoiser subtracts large numbers, so
both keep their digits for small and large sigma.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.targets.base import Target

__all__ = ["Gaussian", "GaussianMixture"]


class GaussianMixture(Target):
    """A mixture of K Gaussians in d dimensions. One evaluation takes memory of order B K d.

    Arguments:
        weights: shape (K,), not negative; they are divided by their sum.
        means: shape (K, d).
        covariances: of shape (K, d, d); or (K, d), the diagonals; or a scalar, the variance of every coordinate.
            They may be singular: the clean law then has no density.

    Raises:
        InputError: if the shapes do not fit, a value is NaN or infinite, the weights are negative or all 0, or a
            covariance is not symmetric or has a negative eigenvalue.

    >>> GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.04)
    GaussianMixture(2 components, 2 dimensions)
    """

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> None:
        w, self.means, c = (torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covariances))
        if self.means.ndim != 2 or 0 in self.means.shape:
            raise InputError(f"means have shape {tuple(self.means.shape)}: expected (K, d)")
        count, d = self.means.shape
        if w.shape != (count,):
            raise InputError(f"weights have shape {tuple(w.shape)}: expected ({count},), one for each mean")
        if tuple(c.shape) not in ((), (count, d), (count, d, d)):
            raise InputError(
                f"covariances have shape {tuple(c.shape)}: expected a scalar, ({count}, {d}) or ({count}, {d}, {d})"
            )
        if not all(torch.isfinite(a).all() for a in (w, self.means, c)):
            raise InputError("weights, means and covariances must be finite")
        if (w < 0).any() or w.sum() <= 0:
            raise InputError("weights must be at least 0, and not all 0")
        self.shape = (d,)
        self.weights = w / w.sum()
        #: Eigenvalues of the covariances, (K, d), and their eigenvectors, (K, d, d): None if those are the coordinates.
        self.variances: Tensor
        self.axes: Tensor | None
        self.variances, self.axes = (c.expand(count, d), None) if c.ndim < 3 else _eigen(c)
        if (self.variances < 0).any():
            raise InputError("a covariance has a negative eigenvalue: variances must be at least 0")

    def __repr__(self) -> str:
        count, d = self.means.shape
        return f"{type(self).__name__}({count} components, {d} dimensions)"

    def sample(self, noise: Noise) -> Tensor:
        u, z = noise.uniform().double(), noise.normal(self.shape).double()
        component = torch.searchsorted(self.weights.cumsum(0).to(u.device), u, right=True).clamp(
            max=len(self.weights) - 1
        )
        means, deviations = self.means.to(u.device), self.variances.to(u.device).sqrt()
        x, z = means[component], deviations[component] * z
        if self.axes is None:
            return (x + z).to(noise.dtype)
        # Axis by axis, in a fixed order: the last bits of a matrix product would depend on the batch.
        for axis, amount in zip(self.axes.to(u.device).unbind(-1), z.unbind(-1), strict=True):
            x = x + axis[component] * amount[:, None]
        return x.to(noise.dtype)

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        _, _, log_r = self._components(x, sigma)
        return log_r.logsumexp(1)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        y, variances, log_r = self._components(x, sigma)
        return -self._average(log_r.softmax(1), y / variances).to(x.dtype)

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        y, variances, log_r = self._components(x, sigma)
        r = log_r.softmax(1)
        return (r @ self.means.to(x.device) + self._average(r, y * (self.variances.to(x.device) / variances))).to(
            x.dtype
        )

    def _components(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """y (B, K, d), the noised variances (B or 1, K, d) and log r (B, K) of the formulas above."""
        z, s = self._inputs(x, sigma)
        y = z[:, None] - self.means.to(z.device)
        if self.axes is not None:
            y = torch.einsum("bkd,kde->bke", y, self.axes.to(z.device))
        variances = self.variances.to(z.device) + s[..., None] ** 2
        if (variances <= 0).any():
            raise InputError("at sigma = 0 a mixture with a singular covariance has no density: give a sigma above 0")
        exponents = (y**2 / variances + variances.log()).sum(-1) + y.shape[-1] * math.log(2 * math.pi)
        return y, variances, self.weights.to(z.device).log() - 0.5 * exponents

    def _average(self, r: Tensor, y: Tensor) -> Tensor:
        """Vectors (B, K, d) in the components' axes, rotated back and averaged with weights r (B, K): (B, d)."""
        y = r[..., None] * y
        return y.sum(1) if self.axes is None else torch.einsum("bke,kde->bd", y, self.axes.to(y.device))


class Gaussian(GaussianMixture):
    r"""A Gaussian :math:`N(\mu, \Sigma)` in d dimensions, with what is known of it in closed form.

    Arguments:
        mean: shape (d,).
        covariance: of shape (d, d); or (d,), its diagonal; or a scalar, the variance of every coordinate.

    Raises:
        InputError: as for :class:`GaussianMixture`.

    >>> Gaussian([0.3, -1.0, 2.0], [0.25, 1.0, 4.0])
    Gaussian(3 dimensions)
    """

    def __init__(self, mean: ArrayLike, covariance: ArrayLike) -> None:
        m, c = (torch.as_tensor(a, dtype=torch.float64) for a in (mean, covariance))
        if m.ndim != 1 or c.shape not in ((), (len(m),), (len(m), len(m))):
            raise InputError(
                f"the mean has shape {tuple(m.shape)} and the covariance {tuple(c.shape)}: "
                "expected (d,), and (d, d), (d,) or a scalar"
            )
        super().__init__([1.0], m[None], c[None] if c.ndim else c)

    def __repr__(self) -> str:
        return f"Gaussian({self.shape[0]} dimensions)"

    def mmse(self, sigma: float) -> float:
        r""":math:`E\|x_0 - D\|^2 = \sum_j \lambda_j \sigma^2 / (\lambda_j + \sigma^2)`."""
        return float((self.variances * (sigma**2 / self._noised(sigma))).sum())

    def fisher_information(self, sigma: float) -> float:
        r""":math:`E\|s\|^2 = \sum_j 1 / (\lambda_j + \sigma^2)`."""
        return float((1 / self._noised(sigma)).sum())

    def entropy(self, sigma: float = 0.0) -> float:
        r"""Differential entropy in nats, :math:`\tfrac12 \sum_j \log (2 \pi e (\lambda_j + \sigma^2))`."""
        return 0.5 * float((2 * math.pi * math.e * self._noised(sigma)).log().sum())

    def _noised(self, sigma: float) -> Tensor:
        """Eigenvalues of the covariance at sigma."""
        variances = self.variances + sigma**2
        if not math.isfinite(sigma) or sigma < 0 or (variances <= 0).any():
            raise InputError(
                f"sigma is {sigma}: it must be finite and at least 0, and above 0 where the covariance is singular"
            )
        return variances


def _eigen(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of symmetric matrices (K, d, d); one of the size of rounding errors is 0."""
    scale = covariances.abs().amax((1, 2), keepdim=True)
    if ((covariances - covariances.mT).abs() > 1e-6 * scale).any():
        raise InputError("the covariances must be symmetric")
    values, vectors = torch.linalg.eigh((covariances + covariances.mT) / 2)
    rounding = 4 * values.shape[-1] * torch.finfo(torch.float64).eps * values.abs().amax(-1, keepdim=True)
    return torch.where(values.abs() <= rounding, 0.0, values), vectors
