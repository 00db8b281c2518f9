r"""The error of the start: :math:`E_\text{init} = KL(p_T \,\|\, p_\theta)`, estimated, bracketed or bounded.

**By the network's own loss.** The relation of mutual information and mean-square error tells the entropy of the noised
data that a loss l stands for, :math:`h(p_T) \approx \tfrac d2 \ln(2 \pi e \sigma_T^2) + I(\sigma_T)` with
:math:`I(\sigma_T) = \int_{\sigma_T}^\infty s^{-3} l(s)\, ds`, so that

.. math:: E_\text{init}(\sigma_T) \approx
    -E \log p_\theta(x_0 + \sigma_T \varepsilon) - \tfrac d2 \ln(2 \pi e \sigma_T^2) - I(\sigma_T).

It is what is lost by starting from the law :math:`p_\theta` at the horizon, against letting the network come down from
infinity. The loss of a trained network is larger than the least possible, so this is a lower estimate; below 0, the
start models the noised data better than the network does.

**Between two entropies.** With :math:`x_i = x_{0,i} + \sigma_T \varepsilon_i` and :math:`K_{ij} = N(x_i;\, x_{0,j},
\sigma_T^2 I)`, Jensen's inequality gives

.. math::
    -E \log \frac 1n \sum_j K_{ij} \;\le\; h(p_T) \;\le\; -E \log \frac 1{n - 1} \sum_{j \ne i} K_{ij}

without any network. The two are close where n is above :math:`\exp I(x_0; x_T)`; where they are not, the bracket says
that it is open.

**In closed form** for Gaussian data, and **bounded**, since divergence is convex, for every coupling of the data with
the clean law G of a start that is G plus noise:

.. math:: E_\text{init} \le \frac{W_2^2(p_0, G)}{2 \sigma_T^2}, \qquad
    KL(p_T \,\|\, N(\mu, \sigma_T^2 I)) \le \frac{E \|x_0 - \mu\|^2}{2 \sigma_T^2}.

The samples must be held out from what the start was fitted on. If the network has been trained on them, its loss there
is too small, and the first estimate that much too large; it still ranks starts, since all share this error.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (the split into
    initialization, score and discretization).

    Guo, Shamai and Verdu, *Mutual Information and Minimum Mean-Square Error in Gaussian Channels*, 2005.

    Poole et al., *On Variational Bounds of Mutual Information*, ICML 2019, arXiv 1905.06922 (both sums over j).

    Lyu et al., *Accelerating Diffusion Models via Early Stop of the Diffusion Process*, 2022, arXiv 2205.12524 (starts
    from a generator plus noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.budget.base import Curve, Estimate, finite
from headstart.errors import DataError, InputError
from headstart.initialization import Initialization
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.targets import Gaussian, Target

__all__ = [
    "Bracket",
    "excess",
    "gaussian_divergence",
    "initialization_bracket",
    "initialization_error",
    "initialization_errors",
    "moment_bound",
    "transport_bound",
]


def initialization_errors(profile: Profile, initialization: Initialization, sigma: float) -> Curve:
    """The contribution of each sample of the profile to E_init of a start at horizon ``sigma``, in nats, shape (M,).

    Their mean is :func:`initialization_error`. Samples, noise and the network's loss are common to all starts, so that
    the differences of two starts, sample by sample, are far smaller than the numbers themselves.

    Raises:
        InputError: if sigma lies outside the profile's levels, or the profile was loaded without its samples.
        DenoiserError: if the loss or the density is such that the estimate is not finite.
    """
    information = torch.from_numpy(profile.information(sigma))
    gaps = excess(profile, initialization, sigma) - information
    return np.asarray(finite(gaps, f"the initialization error at horizon {sigma:.6g}").numpy())


def initialization_error(profile: Profile, initialization: Initialization, sigma: float) -> Estimate:
    """E_init of a start at horizon ``sigma``, on the profile's samples and with its noise.

    Raises:
        InputError: if sigma lies outside the profile's levels, or the profile was loaded without its samples.
        DenoiserError: if the loss or the density is such that the estimate is not finite.
    """
    return Estimate.of(initialization_errors(profile, initialization, sigma))


def excess(profile: Profile, start: Initialization | Target, sigma: float, *, blind: bool = False) -> Tensor:
    r""":math:`-\log p_\theta(x) + \log N(x;\, x_0, \sigma^2 I)` of each sample of the profile at ``sigma``, shape (M,).

    The mean is the negative log likelihood less :math:`\tfrac d2 \ln(2 \pi e \sigma^2)`. The same noise is in both
    terms, so that the large fluctuations common to them cancel sample by sample. A start is given the conditions of the
    samples, but if ``blind``.
    """
    noise = profile.noise
    if profile.samples is None or start.shape != profile.shape:
        raise InputError(f"a start of shape {start.shape} cannot be compared with samples of {profile.shape}")
    x = profile.samples.double() + sigma * noise.double()
    given = () if blind or isinstance(start, Target) else (profile.conditions,)
    return -start.log_prob(x, sigma, *given).cpu() - channel(noise, sigma)


def channel(noise: Tensor, sigma: float) -> Tensor:
    r""":math:`-\log N(\sigma \varepsilon;\, 0, \sigma^2 I)` for noise (M, \*S), shape (M,)."""
    d = noise[0].numel()
    return 0.5 * (noise.double().flatten(1).square().sum(1) + d * math.log(2 * math.pi * sigma**2))


@dataclass(frozen=True)
class Bracket:
    r"""E_init between two estimates, in nats.

    Attributes:
        low: by the entropy without the sample's own term, which is too large in the mean.
        high: by the entropy with it, which is too small in the mean.
        own: the mean share of a sample's own term in its sum over all, from 0 to 1.

    >>> Bracket(Estimate(0.0644, 0.002), Estimate(0.0649, 0.002), 0.01)
    Bracket(0.0644 ± 0.002 to 0.0649 ± 0.002)
    >>> Bracket(Estimate(-0.3, 0.02), Estimate(7.1, 0.02), 0.98)
    Bracket(-0.3 ± 0.02 to 7.1 ± 0.02, bracket open)
    """

    low: Estimate
    high: Estimate
    own: float

    @property
    def open(self) -> bool:
        """Whether it says too little: wider than a tenth of its middle, or most of each sum is the sample itself."""
        middle = abs(self.low.value + self.high.value) / 2
        return self.high.value - self.low.value > 0.1 * middle or self.own > 0.5

    def __repr__(self) -> str:
        return f"Bracket({self.low!r} to {self.high!r}{', bracket open' if self.open else ''})"


def initialization_bracket(
    data: Tensor,
    initialization: Initialization,
    sigma: float,
    noise: Noise,
    *,
    label: Tensor | None = None,
    chunk: int = 1024,
) -> Bracket:
    """E_init of a start at horizon ``sigma`` between two entropies of the noised data; no network is asked.

    The two ends share samples and noise with the start's likelihood. They lie below and above it in the mean over sets
    of samples. Their standard errors are those of the mean over the noised samples. The clean samples are random too,
    which moves both ends together, by about the bracket's width.

    Arguments:
        data: clean samples that the start is not fitted on, shape (N, \\*S).
        initialization: the start.
        sigma: the horizon.
        noise: one stream for each sample.
        label: their classes, for the start, or None. The entropy is that of all the samples given, whatever their
            class: for the start of one class, give the samples of that class.
        chunk: how many noised samples are compared with all clean ones at a time, which bounds the memory.

    Raises:
        DataError: if there are fewer than two samples, or NaN or Inf among them.
        InputError: if the shapes do not fit, or a number is out of its range.
        DenoiserError: if a density is not finite.
    """
    if data.ndim < 2 or len(data) < 2 or not torch.isfinite(data).all():
        raise DataError("a bracket needs at least two samples in an array (N, ...), without NaN or Inf")
    if len(noise) != len(data) or chunk < 1:
        raise InputError(
            f"a bracket needs one stream of noise for each of the {len(data)} samples, and chunks of 1 or more: "
            f"got {len(noise)} and {chunk}"
        )
    n, clean = len(data), data.cpu().double()
    eps = noise.normal(tuple(data.shape[1:])).cpu().double()
    surprise = -initialization.log_prob(clean + sigma * eps, sigma, label=label) - channel(eps, sigma)
    # In units of the sample's own term: log K_ij - log K_ii, whose sum over j is 1 and what the others add.
    log_others = torch.cat([_others(clean, eps, sigma, slice(i, i + chunk)) for i in range(0, n, chunk)])
    log_all = torch.logaddexp(log_others, torch.zeros_like(log_others))
    what = f"the initialization error at horizon {sigma:.6g}"
    high = finite(surprise + log_all - math.log(n), what)
    low = finite(surprise + log_others - math.log(n - 1), what)
    return Bracket(Estimate.of(low.numpy()), Estimate.of(high.numpy()), float((-log_all).exp().mean()))


def _others(clean: Tensor, eps: Tensor, sigma: float, rows: slice) -> Tensor:
    r""":math:`\log \sum_{j \ne i} K_{ij} / K_{ii}` for the rows i, shape (R,)."""
    centre = clean.mean(0)
    y = (clean - centre).flatten(1)
    own = eps[rows].flatten(1)
    x = y[rows] + sigma * own
    # Distances are |x|^2 + |y|^2 - 2 x.y, from the data's centre so that little cancels.
    squares = (x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.mT).clamp_min(0)
    ratios = 0.5 * (own.square().sum(1, keepdim=True) - squares / sigma**2)
    ratios[torch.arange(len(x)), torch.arange(len(y))[rows]] = -math.inf
    return ratios.logsumexp(1)


def gaussian_divergence(law: Gaussian, start: Gaussian, sigma: float) -> float:
    r"""E_init in closed form where the clean law of the data and that of the start are both Gaussian.

    .. math:: KL(N(\mu, \Sigma + \sigma^2 I) \,\|\, N(m, S + \sigma^2 I)).

    A start may be singular: ``Gaussian([0.0] * d, 0.0)`` stands for :math:`N(0, \sigma^2 I)`.

    Raises:
        InputError: if their dimensions differ, or sigma is not finite and above 0.

    >>> round(gaussian_divergence(Gaussian([1.0], 1.0), Gaussian([0.0], 0.0), 1.0), 6)  # (1 + 1 - ln 2) / 2
    0.653426
    """
    if law.shape != start.shape or not 0 < sigma < math.inf:
        raise InputError(
            f"two Gaussians of one dimension and a horizon above 0 are needed: got {law!r}, {start!r} and {sigma}"
        )
    noised, other = _covariance(law, sigma), torch.linalg.cholesky(_covariance(start, sigma))
    ratio = torch.linalg.eigvalsh(
        torch.linalg.solve_triangular(other, torch.linalg.solve_triangular(other, noised, upper=False).mT, upper=False)
    )
    shift = torch.linalg.solve_triangular(other, (law.means - start.means).mT, upper=False)
    return 0.5 * float((ratio - 1 - ratio.log()).sum() + shift.square().sum())


def _covariance(law: Gaussian, sigma: float) -> Tensor:
    """The covariance (d, d) of a Gaussian at noise level sigma."""
    variances = (law.variances[0] + sigma**2).diag()
    return variances if law.axes is None else law.axes[0] @ variances @ law.axes[0].mT


def moment_bound(data: Tensor, sigma: float, mean: Tensor | None = None) -> Estimate:
    r""":math:`E \|x_0 - \mu\|^2 / (2 \sigma^2)`, which is above :math:`KL(p_T \,\|\, N(\mu, \sigma^2 I))`.

    Arguments:
        data: clean samples, shape (N, \\*S).
        sigma: the horizon.
        mean: :math:`\mu`, shape S; 0 by default.

    Raises:
        DataError: if there are fewer than two samples, or NaN or Inf among them.
        InputError: if sigma is not finite and above 0.
    """
    _check_level(sigma)
    x = _rows(data)
    centred = x if mean is None else x - mean.cpu().double().flatten()
    return Estimate.of((centred.square().sum(1) / (2 * sigma**2)).numpy())


def transport_bound(data: Tensor, generated: Tensor, sigma: float, samples: int = 1000) -> float:
    r""":math:`W_2^2(p_0, G) / (2 \sigma^2)`, which is above E_init of the start "a generator's samples plus noise".

    The distance is that of two empirical laws of equal size, by exact assignment. So it is an estimate of the bound; it
    is too large in the mean, by the convexity of :math:`W_2^2`, and in many dimensions by much.

    Arguments:
        data: clean samples, shape (N, \\*S).
        generated: samples of the generator, shape (N', \\*S).
        sigma: the horizon.
        samples: how many of each are matched, the first ones; the time grows with their cube.

    Raises:
        DataError: if there are fewer than two samples on a side, or NaN or Inf among them.
        InputError: if the shapes do not fit, or a number is out of its range.

    References:
        Lyu et al., 2022, arXiv 2205.12524 (the start).
    """
    from scipy.optimize import linear_sum_assignment

    _check_level(sigma)
    if data.shape[1:] != generated.shape[1:] or samples < 2:
        raise InputError(
            f"samples of shapes {tuple(data.shape)} and {tuple(generated.shape)} cannot be matched, {samples} of each: "
            "expected equal shapes, and two or more"
        )
    count = min(samples, len(data), len(generated))
    costs = torch.cdist(_rows(data[:count]), _rows(generated[:count])).square()
    pairs = linear_sum_assignment(costs.numpy())
    return float(costs[pairs].mean()) / (2 * sigma**2)


def _rows(data: Tensor) -> Tensor:
    """Samples as rows (N, d) in float64."""
    if data.ndim < 2 or len(data) < 2 or not torch.isfinite(data).all():
        raise DataError("a bound needs at least two samples in an array (N, ...), without NaN or Inf")
    return data.detach().cpu().double().flatten(1)


def _check_level(sigma: float) -> None:
    if not 0 < sigma < math.inf:
        raise InputError(f"the horizon must be finite and above 0: got {sigma}")
