r"""Two simulators of the benchmark of simulation-based inference, whose posteriors can be drawn exactly.

**Gaussian linear**: :math:`\theta \sim N(0, 0.1\, I_{10})` and :math:`x \sim N(\theta, 0.1\, I)`, so that the posterior
is :math:`N(x / 2, 0.05\, I)`.

**Two moons**: :math:`\theta` is uniform on :math:`[-1, 1]^2`, and

.. math:: x = \begin{pmatrix} r \cos a + 0.25 \\ r \sin a \end{pmatrix} + \frac 1{\sqrt 2}
    \begin{pmatrix} -|\theta_1 + \theta_2| \\ -\theta_1 + \theta_2 \end{pmatrix}, \quad
    a \sim U(-\pi/2, \pi/2), \quad r \sim N(0.1, 0.01^2).

Given x, a point p of the moon tells :math:`|\theta_1 + \theta_2|` and :math:`\theta_2 - \theta_1`: draw p, take either
sign of the sum, and keep what lies within the prior.

References:
    Lueckmann et al., *Benchmarking Simulation-Based Inference*, AISTATS 2021.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Uniform

__all__ = ["TASKS", "GaussianLinear", "Task", "TwoMoons"]


class Task(ABC):
    """A prior, a simulator, and the exact posterior."""

    name: str
    dimension: int

    @abstractmethod
    def prior(self) -> Distribution:
        """The law of the parameters."""

    @abstractmethod
    def simulated(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """Observations (N, q) of parameters (N, d)."""

    @abstractmethod
    def posterior(self, x: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Exact samples (n, d) of the parameters given one observation (q,)."""

    @abstractmethod
    def parameters(self, n: int, generator: torch.Generator) -> Tensor:
        """Samples (n, d) of the prior."""

    def pairs(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Parameters (n, d) and an observation of each (n, q)."""
        generator = torch.Generator().manual_seed(seed)
        theta = self.parameters(n, generator)
        return theta, self.simulated(theta, generator)

    def within(self, theta: Tensor) -> Tensor:
        """Which parameters (N, d) the prior allows: (N,)."""
        return torch.ones(len(theta), dtype=torch.bool)


class GaussianLinear(Task):
    """Ten parameters, each seen with noise of its prior's own width."""

    name, dimension = "Gaussian linear", 10
    VARIANCE = 0.1

    def prior(self) -> Distribution:
        return MultivariateNormal(torch.zeros(self.dimension), self.VARIANCE * torch.eye(self.dimension))

    def parameters(self, n: int, generator: torch.Generator) -> Tensor:
        return math.sqrt(self.VARIANCE) * torch.randn(n, self.dimension, generator=generator)

    def simulated(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        return theta + math.sqrt(self.VARIANCE) * torch.randn(theta.shape, generator=generator)

    def posterior(self, x: Tensor, n: int, generator: torch.Generator) -> Tensor:
        return x / 2 + math.sqrt(self.VARIANCE / 2) * torch.randn(n, self.dimension, generator=generator)


class TwoMoons(Task):
    """Two parameters, whose posterior is two crescents."""

    name, dimension = "two moons", 2

    def prior(self) -> Distribution:
        return Independent(Uniform(-torch.ones(2), torch.ones(2)), 1)

    def parameters(self, n: int, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(n, 2, generator=generator) - 1

    def simulated(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        total, difference = theta.sum(1).abs(), theta[:, 1] - theta[:, 0]
        return _moon(len(theta), generator) + torch.stack([-total, difference], 1) / math.sqrt(2)

    def posterior(self, x: Tensor, n: int, generator: torch.Generator) -> Tensor:
        found, there = [], 0
        while there < n:
            total, difference = (math.sqrt(2) * (_moon(2 * n, generator) - x) * torch.tensor([1.0, -1.0])).unbind(1)
            signed = torch.where(torch.rand(2 * n, generator=generator) < 0.5, total, -total)
            theta = torch.stack([signed - difference, signed + difference], 1) / 2
            found.append(theta[(total >= 0) & self.within(theta)])
            there += len(found[-1])
        return torch.cat(found)[:n]

    def within(self, theta: Tensor) -> Tensor:
        return (theta.abs() <= 1).all(1)


def _moon(n: int, generator: torch.Generator) -> Tensor:
    """Points (n, 2) of a half ring of radius 0.1 about (0.25, 0)."""
    angle = math.pi * (torch.rand(n, generator=generator) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(n, generator=generator)
    return torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)


TASKS: tuple[Task, ...] = (GaussianLinear(), TwoMoons())
