r"""The error budget of a plan, in nats: what the start costs, and what each step costs.

**Initialization.** By the relation of mutual information and mean-square error, a network's own loss l tells the
entropy of the noised data that it stands for, :math:`h(p_T) \approx \tfrac d2 \ln(2 \pi e \sigma_T^2) + I(\sigma_T)`
with :math:`I(\sigma_T) = \int_{\sigma_T}^\infty s^{-3} l(s)\, ds`, so that

.. math:: E_\text{init}(\sigma_T) \approx
    -E \log p_\theta(x_0 + \sigma_T \varepsilon) - \tfrac d2 \ln(2 \pi e \sigma_T^2) - I(\sigma_T).

It is what is lost by starting from the law :math:`p_\theta` at the horizon, against letting the network come down from
infinity. The loss of a trained network is larger than the least possible, so this is a lower estimate; below 0, the
start models the noised data better than the network does.

The samples must be held out from what the start was fitted on. If the network has been trained on them, its loss there
is too small, and the estimate that much too large; it still compares starts, to which this is common.

**Discretization.** The defect cost of a step estimates the divergence that a step of Euler's method adds
(:mod:`headstart.profile`). It stands for every solver: a better one adds less, on the same levels.

**Together.** Roots of divergences add, since total variation does and a deterministic step preserves it:

.. math:: B_\text{ODE} = \Big( \sqrt{E_\text{init}} + \sum_i \sqrt{K_i} \Big)^2.

It is a guide, not a bound: it compares plans for one network. A last step to 0, which all plans have, is left out.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (the split into
    initialization, score and discretization).

    Guo, Shamai and Verdu, *Mutual Information and Minimum Mean-Square Error in Gaussian Channels*, 2005.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headstart.errors import DenoiserError, InputError
from headstart.initialization import Initialization
from headstart.profile import Profile
from headstart.schedule import Schedule

__all__ = ["Budget", "Estimate", "discretization_error", "initialization_error"]


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error.

    >>> Estimate(1.234, 0.05)
    1.23 ± 0.05
    """

    value: float
    error: float

    def __repr__(self) -> str:
        return f"{self.value:.3g} ± {self.error:.2g}"


@dataclass(frozen=True)
class Budget:
    """The error budget of one plan, in nats.

    Attributes:
        initialization: :math:`E_\\text{init}`, or None for an oracle, which has no density.
        discretization: :math:`K_i` of each step above 0.
    """

    initialization: Estimate | None
    discretization: tuple[float, ...]

    @property
    def total(self) -> float:
        """:math:`B_\\text{ODE}`; an initialization error below 0 counts as 0."""
        start = max(self.initialization.value, 0.0) if self.initialization is not None else 0.0
        return (math.sqrt(start) + sum(math.sqrt(step) for step in self.discretization)) ** 2

    def __repr__(self) -> str:
        steps = ", ".join(f"{step:.2g}" for step in self.discretization)
        start = "unknown" if self.initialization is None else f"{self.initialization!r}"
        return f"Budget(initialization {start}; steps {steps or 'none'}; total {self.total:.3g} nats)"


def initialization_error(profile: Profile, initialization: Initialization, sigma: float) -> Estimate:
    """E_init of a start at horizon ``sigma``, on the profile's samples and with its noise.

    The same noise enters both terms, and :math:`-\\log N(x;\\, x_0, \\sigma^2 I)` of each sample stands for its mean,
    so the large fluctuations common to both cancel sample by sample.

    Raises:
        InputError: if sigma lies outside the profile's levels, or the profile was loaded without its samples.
        DenoiserError: if the loss is such that the estimate is not finite.
    """
    noise = profile.noise
    if profile.samples is None or initialization.shape != profile.shape:
        raise InputError(f"a start of shape {initialization.shape} cannot be held against samples of {profile.shape}")
    x = profile.samples.double() + sigma * noise.double()
    channel = 0.5 * (noise.double().flatten(1).square().sum(1) + noise[0].numel() * math.log(2 * math.pi * sigma**2))
    surprise = -initialization.log_prob(x, sigma, profile.label)
    gaps = (surprise - channel).numpy() - profile.information(sigma)
    if not np.isfinite(gaps).all():
        raise DenoiserError(f"the initialization error at horizon {sigma:.6g} is not finite")
    return Estimate(float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(len(gaps))))


def discretization_error(profile: Profile, schedule: Schedule) -> tuple[float, ...]:
    """The divergence that each step adds, in nats; a step to 0 is left out.

    Raises:
        InputError: if the schedule leaves the profile's levels.
    """
    return tuple(float(cost) for cost in profile.length("defect").step_costs(schedule))
