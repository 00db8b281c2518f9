r"""The law of a data set: each sample with the same probability.

Its noised version is a Gaussian at each sample, and its denoiser their average, weighted by a softmax over distances:

.. math::
    p_\sigma(x) = \frac1N \sum_n N(x; x_n, \sigma^2 I), \qquad
    D(x, \sigma) = \sum_n \text{softmax}_n \Big( -\frac{\|x - x_n\|^2}{2 \sigma^2} \Big) \, x_n.

A network that minimises the denoising loss on the data set alone is this one, and sampling with it hands the data back.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.noise import Noise
from headstart.targets.base import Target

__all__ = ["Empirical"]


class Empirical(Target):
    """The law of a data set. It has no density without noise.

    Arguments:
        samples: the data, shape (N, \\*S), floating point, finite. They stay in their own dtype and device.
        chunk: how many of them are compared with x at a time, which bounds the memory.

    Raises:
        DataError: if the samples are not floating point, not finite, or there is none.
        InputError: if ``chunk`` is below 1.

    >>> Empirical(torch.zeros(100, 1, 28, 28))
    Empirical(100 samples of shape (1, 28, 28))
    """

    def __init__(self, samples: Tensor, chunk: int = 4096) -> None:
        if samples.ndim < 2 or samples.numel() == 0:
            raise DataError(f"the samples have shape {tuple(samples.shape)}: expected (N, ...) with N of at least 1")
        if not samples.is_floating_point():
            raise DataError(f"the samples hold {samples.dtype} values: expected floating point")
        if not torch.isfinite(samples).all():
            raise DataError("the samples hold NaN or infinite values: remove or fill them first")
        if chunk < 1:
            raise InputError(f"chunk is {chunk}: it must be at least 1")
        self.samples, self.chunk = samples, chunk
        self.shape = tuple(samples.shape[1:])
        self._centre = samples.mean(0, dtype=torch.float64).flatten()

    def __repr__(self) -> str:
        return f"Empirical({len(self.samples)} samples of shape {self.shape})"

    def sample(self, noise: Noise) -> Tensor:
        index = (noise.uniform().double() * len(self.samples)).long().clamp(max=len(self.samples) - 1)
        return self.samples[index.to(self.samples.device)].to(noise.device, noise.dtype)

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        return self._posterior(x, sigma)[0]

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        return self._posterior(x, sigma)[1].to(x.dtype)

    def _posterior(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """The log density (B,) and the posterior mean (B, \\*S), chunk by chunk."""
        z, s = self._inputs(x, sigma)
        variance = s.reshape(-1, 1) ** 2
        if (variance <= 0).any():
            raise InputError("at sigma = 0 a data set has no density: give a sigma above 0")
        # Distances are |z|^2 + |y|^2 - 2 z.y, from the data's centre so that little cancels.
        centre = self._centre.to(z.device)
        z = z.flatten(1) - centre
        total, mean = z.new_full((len(z), 1), -math.inf), torch.zeros_like(z)
        for chunk in torch.split(self.samples, self.chunk):
            y = chunk.to(z.device, torch.float64).flatten(1) - centre
            squares = (z**2).sum(1, keepdim=True) + (y**2).sum(1) - 2 * z @ y.mT
            exponents = -0.5 * squares.clamp(min=0) / variance
            part = exponents.logsumexp(1, keepdim=True)
            total = torch.logaddexp(total, part)
            mean = mean + (part - total).exp() * (exponents.softmax(1) @ y - mean)
        constant = math.log(len(self.samples)) + 0.5 * z.shape[1] * (2 * math.pi * variance).log()
        return (total - constant).flatten(), (mean + centre).reshape(x.shape)
