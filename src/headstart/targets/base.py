r"""Laws whose noised versions are known exactly.

For a law :math:`p_0` and :math:`p_\sigma = p_0 * N(0, \sigma^2 I)`, a target knows at every noise level

.. math::
    \log p_\sigma(x), \qquad
    s(x, \sigma) = \nabla \log p_\sigma(x), \qquad
    D(x, \sigma) = E[x_0 \mid x_0 + \sigma \varepsilon = x] = x + \sigma^2 s(x, \sigma).

The last equality is Tweedie's formula. Everything is computed in float64, whatever the dtype of x.

References:
    Efron, *Tweedie's Formula and Selection Bias*, Journal of the American Statistical Association, 2011.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from headstart.denoiser import expand
from headstart.errors import InputError
from headstart.noise import Noise

__all__ = ["Target"]


class Target(ABC):
    """A law with an exact denoiser: calling it obeys the contract of :mod:`headstart.denoiser`.

    Attributes:
        shape: the shape S of one sample.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def sample(self, noise: Noise) -> Tensor:
        """One clean sample per stream of ``noise``, of shape (B, \\*S), in the noise's dtype and device."""

    @abstractmethod
    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Log density in nats of the noised law: (B, \\*S) to (B,), in float64.

        Arguments:
            x: noised samples, shape (B, \\*S).
            sigma: the noise level, a scalar or of shape (B,).

        Raises:
            InputError: if x or sigma has the wrong shape or is not finite, if sigma is negative, or if the law has no
                density at it.
        """

    @abstractmethod
    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        """The denoiser, of x's shape and dtype. Conditions are ignored. See :meth:`log_prob`."""

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Gradient of the log density in x, of x's shape and dtype. See :meth:`log_prob`."""
        z, s = self._inputs(x, sigma)
        return ((self(z, sigma) - z) / s**2).to(x.dtype)

    def _inputs(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """x in float64, and sigma in float64 in a shape that multiplies it, both checked."""
        if x.ndim != len(self.shape) + 1 or tuple(x.shape[1:]) != self.shape:
            raise InputError(f"x has shape {tuple(x.shape)}: {self!r} expects (B, {', '.join(map(str, self.shape))})")
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device)
        if level.shape not in ((), (1,), x.shape[:1]):
            raise InputError(
                f"sigma has shape {tuple(level.shape)} for {len(x)} samples: expected a scalar or ({len(x)},)"
            )
        if not torch.isfinite(level).all() or (level < 0).any():
            raise InputError("sigma must be finite and at least 0")
        if not torch.isfinite(x).all():
            raise InputError("x holds NaN or infinite values")
        z = x.double()
        return z, expand(level, z)
