"""The exact Gaussian, whose every path is known in closed form."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from headstart.denoiser import expand


@dataclass(frozen=True)
class Gaussian:
    """Data of law N(mean, diag(variance)), and its denoiser."""

    mean: Tensor
    variance: Tensor

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        s2 = expand(sigma, x) ** 2
        return (self.variance.to(x) * x + s2 * self.mean.to(x)) / (self.variance.to(x) + s2)

    def flow(self, x: Tensor, a: float, b: float) -> Tensor:
        """The exact solution at level b of the probability-flow ODE that is at x at level a."""
        return self.mean + ((self.variance + b**2) / (self.variance + a**2)).sqrt() * (x - self.mean)


@pytest.fixture
def gaussian() -> Gaussian:
    return Gaussian(
        torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64), torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64)
    )


@pytest.fixture
def standard_gaussian() -> Gaussian:
    return Gaussian(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
