r"""The leading principal components of the data, and the Gaussian that they define.

With mean :math:`\mu`, leading directions :math:`U` (orthonormal columns) of variances :math:`\lambda` and a common
variance :math:`\rho` of all other directions, the data noised at level sigma have the covariance

.. math:: U \operatorname{diag}(\lambda + \sigma^2)\, U^T + (\rho + \sigma^2)(I - U U^T).

Noise hides every direction whose standard deviation is small against it, so a few directions are all that a start must
model well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headstart.errors import DataError
from headstart.initialization.memory import owned
from headstart.saved import SQUARE, Saved

__all__ = ["Subspace", "moments"]

#: Numbers of the data that are worked on at a time, which bounds the memory.
CHUNK = 2**24

#: In more dimensions than this no covariance matrix is formed.
EXACT = 2048

#: Samples that the directions are found on in more dimensions, for each of them; their variances are of all samples.
EACH = 16

#: Power iterations, and directions beyond those asked for: enough for variances to three digits on image spectra.
ITERATIONS, SPARE = 4, 16


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

    def __post_init__(self) -> None:
        for name, tensor in self.tensors().items():
            object.__setattr__(self, name, owned(tensor))

    @classmethod
    def fit(cls, data: Tensor, components: int) -> Subspace:
        """The leading ``components`` principal components of ``data`` (N, \\*S), at most d and N - 1 of them.

        It goes through the data chunk by chunk, without a copy of them. In more than :data:`EXACT` dimensions it takes
        block power iterations on a share of the data, evenly over them, in time that grows linearly in the number of
        dimensions; the variances along the directions that are found are those of all data.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
        """
        mean, variances = moments(data)
        d, k = len(mean), max(1, min(components, len(mean), len(data) - 1))
        if d <= EXACT:
            covariance = sum(x.T @ x for x in _centred(data, mean)) / (len(data) - 1)
            values, vectors = torch.linalg.eigh(covariance)
            values, basis = values.flip(0)[:k], vectors.flip(1)[:, :k]
        else:
            share = data[torch.arange(len(data)) % max(1, len(data) // (EACH * (k + SPARE))) == 0]
            values, basis = _power_iteration(share, mean, k)
            if len(share) < len(data):
                values, order = _variances(data, mean, basis).sort(descending=True)
                basis = basis[:, order]
        values = values.clamp_min(0.0)
        residual = ((variances.sum() - values.sum()) / max(1, d - k)).clamp_min(0.0)
        return cls(mean, basis.contiguous(), values, residual if k < d else torch.zeros_like(residual))

    @property
    def dimension(self) -> int:
        """The dimension d of the data."""
        return len(self.mean)

    @property
    def total_variance(self) -> Tensor:
        """The sum of the variances of all directions, shape ()."""
        return self.variances.sum() + (self.dimension - len(self.variances)) * self.residual

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (B, \\*S) as leading coordinates (B, k) and squared norm of the rest (B,), in float64."""
        centred = x.cpu().flatten(1).double() - self.mean
        z = centred @ self.basis
        return z, (centred.square().sum(1) - z.square().sum(1)).clamp_min(0.0)

    def log_prob_rest(self, rest: Tensor, sigma: float) -> Tensor:
        """Log density of the directions that are not leading, from their squared norm (B,)."""
        left, variance = self.dimension - len(self.variances), float(self.residual) + sigma**2
        return -0.5 * (rest / variance + left * math.log(2 * math.pi * variance)) if left else torch.zeros_like(rest)

    def leading(self, normal: Tensor) -> Tensor:
        """The leading coordinates (B, k) of noise (B, d), in its dtype and on its device."""
        return normal @ self._cast(normal)[1]

    def compose(self, normal: Tensor, leading: Tensor, coordinates: Tensor, sigma: float) -> Tensor:
        """Samples (B, d) with the given leading coordinates (B, k) and a Gaussian rest, driven by ``normal`` (B, d).

        Arguments:
            normal: noise, whose dtype and device the samples have.
            leading: its :meth:`leading` coordinates.
            coordinates: those of the samples.
            sigma: the level of noise.
        """
        mean, basis = self._cast(normal)
        scale = math.sqrt(float(self.residual) + sigma**2)
        return mean + scale * normal + (coordinates - scale * leading) @ basis.T

    def _cast(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and basis in a dtype and on a device, where they are put once: it takes longer than to draw a sample."""
        place = like.dtype, like.device
        if place not in self._casts:
            self._casts[place] = self.mean.to(like), self.basis.to(like)
        return self._casts[place]

    @cached_property
    def _casts(self) -> dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]]:
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to save."""
        return {"mean": self.mean, "basis": self.basis, "variances": self.variances, "residual": self.residual}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], dimension: int | None = None) -> Subspace:
        """The subspace that :meth:`tensors` describes.

        Raises:
            InputError: if a tensor is missing, of the wrong shape or out of its range.
        """
        saved = Saved({}, tensors)
        mean, variances = saved.tensor("mean", dimension), saved.tensor("variances", None, low=0.0, high=SQUARE)
        basis = saved.tensor("basis", len(mean), len(variances), low=-1.001, high=1.001)
        residual = saved.tensor("residual", low=0.0, high=SQUARE)
        return cls(*(tensor.double() for tensor in (mean, basis, variances, residual)))


def moments(data: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every coordinate of ``data`` (N, \\*S), each of shape (d,), in float64.

    Raises:
        DataError: if there are fewer than two samples, a sample has no axis, or NaN or Inf is among them.
    """
    wanted = "an initialization is fitted on at least two samples in an array (N, ...), without NaN or Inf"
    if data.ndim < 2 or len(data) < 2:
        raise DataError(wanted)
    mean = torch.stack([x.sum(0) for x in chunks(data)]).sum(0) / len(data)
    variances = torch.stack([x.square().sum(0) for x in _centred(data, mean)]).sum(0) / (len(data) - 1)
    if not (torch.isfinite(mean).all() and torch.isfinite(variances).all()):
        raise DataError(wanted)
    return mean, variances


def chunks(data: Tensor) -> Iterator[Tensor]:
    """The data (N, \\*S) flat, in float64 and on the CPU, :data:`CHUNK` numbers at a time."""
    rows = max(1, CHUNK // max(1, data[0].numel()))
    return (x.cpu().flatten(1).double() for x in torch.split(data, rows))


def _centred(data: Tensor, mean: Tensor) -> Iterator[Tensor]:
    return (x - mean for x in chunks(data))


def _variances(data: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """The variances of the data along orthonormal directions (d, k), shape (k,)."""
    return torch.stack([(x @ basis).square().sum(0) for x in _centred(data, mean)]).sum(0) / (len(data) - 1)


def _power_iteration(data: Tensor, mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues (k,) of the covariance and their eigenvectors (d, k), without the matrix.

    Halko, Martinsson and Tropp, *Finding Structure with Randomness*, SIAM Review, 2011, Algorithm 4.4.
    """
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(len(mean), count + SPARE, generator=generator, dtype=torch.float64)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(block).Q
        block = sum(x.T @ (x @ basis) for x in _centred(data, mean)) / (len(data) - 1)
    # Rayleigh-Ritz: the covariance in the block's basis.
    values, turn = torch.linalg.eigh(basis.T @ block)
    return values.flip(0)[:count], (basis @ turn).flip(1)[:, :count]
