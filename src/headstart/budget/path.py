r"""The budget of a stochastic sampler: the divergence of its whole path, up to one constant that all samplers share.

The sampler starts at :math:`\sigma_0 = \sigma_T` from :math:`p_\theta` and goes from level a to b < a by
:math:`N(r x + (1 - r) D(x, a),\, \tau^2 I)` with :math:`r = b^2 / a^2`; the data take the path of the noise. With
:math:`\beta^2 = b^2 (1 - r)`, :math:`\Delta u = b^{-2} - a^{-2}` and the denoising loss l,

.. math::
    KL(\text{path of the data} \,\|\, \text{path of the sampler}) &= J - h(p_{\sigma_{\min}}), \\
    J &= -E \log p_\theta(x_T) - d \ln \frac{\sigma_T}{\sigma_{\min}} + \sum_i T_i, \\
    T &= \tfrac12 \Big[ d \frac{\beta^2}{\tau^2} - d + \frac{(1 - r)^2\, l(a)}{\tau^2}
        + d \ln \frac{\tau^2}{\beta^2} \Big],

=======  ===================================  ======================================================
variance :math:`\tau^2`                       :math:`T`
=======  ===================================  ======================================================
``ddpm`` :math:`\beta^2`                      :math:`\tfrac12 \Delta u\, l(a)`
``em``   :math:`a^2 - b^2`                    :math:`\tfrac12 [r\, \Delta u\, l(a) - d (1 - r) - d \ln r]`
``opt``  :math:`\beta^2 (1 + \Delta u\, l/d)`  :math:`\tfrac d2 \ln(1 + \Delta u\, l(a) / d)`
=======  ===================================  ======================================================

The entropy of the noised data at the horizon, which the error of the start alone would need, cancels. So J compares
starts, horizons, schedules and variances in nats, and the divergence of the samples is at most that of the path. The
first variance is the posterior's given a clean sample, the second is that of Euler and Maruyama's method with the score
frozen, and the last is the one with the smallest T. The gap between path and samples depends on the schedule, and is
large for deterministic samplers: for those see :class:`headstart.budget.Budget`.

References:
    Kingma et al., *Variational Diffusion Models*, NeurIPS 2021, arXiv 2107.00630 (``ddpm``).

    Chen et al., *Sampling is as easy as learning the score*, ICLR 2023, arXiv 2209.11215 (``em``).

    Bao et al., *Analytic-DPM*, ICLR 2022, arXiv 2201.06503 (``opt``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from headstart.budget.base import Curve, Estimate, finite, steps_above_zero
from headstart.budget.initialization import excess
from headstart.denoiser import Denoiser, denoise, in_evaluation_mode
from headstart.errors import InputError
from headstart.initialization import Initialization
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import ReverseVariance, Schedule, path_terms
from headstart.targets import Target

__all__ = [
    "path_bound",
    "path_log_ratios",
    "path_objective",
    "path_objectives",
    "reverse_variances",
    "step_terms",
]


def path_objectives(
    profile: Profile,
    start: Initialization | Target,
    schedule: Schedule,
    variance: ReverseVariance = "ddpm",
    law: Target | None = None,
) -> Curve:
    r"""The contribution of each sample of the profile to J in nats, shape (M,); given the law, less its last entropy.

    Differences between plans, sample by sample, are far smaller than the numbers themselves. All levels share their
    noise, so that their losses rise and fall together with :math:`\|\varepsilon\|^2`, whose mean is known to be d: its
    regression is taken out (a control variate, with a bias of the order of 1 / M).

    Arguments and errors as in :func:`path_objective` and :func:`path_bound`.
    """
    last = schedule.sigma_min
    values = excess(profile, start, schedule.horizon)
    values = values + torch.from_numpy(step_terms(profile, schedule, variance).sum(axis=1))
    if law is None:
        values = values + 0.5 * math.prod(profile.shape) * math.log(2 * math.pi * math.e * last**2)
    else:
        values = values - excess(profile, law, last)
    each = np.asarray(finite(values, f"the divergence of the path from {schedule.horizon:.6g}").numpy())
    control = np.asarray((profile.noise.double().flatten(1).square() - 1).sum(1).numpy())
    return _regressed(each, control)


def _regressed(values: Curve, control: Curve) -> Curve:
    """The values less their regression on a control of mean 0, shape (M,)."""
    slope = np.cov(values, control)[0, 1] / control.var(ddof=1)
    return np.asarray(values - slope * control)


def path_objective(
    profile: Profile, start: Initialization | Target, schedule: Schedule, variance: ReverseVariance = "ddpm"
) -> Estimate:
    """J of a stochastic sampler, in nats. A step to 0 is left out, so that the path ends at the last level above 0.

    Arguments:
        profile: measured on samples that neither start nor network were fitted on.
        start: the start; a target stands for the perfect start, its own law at the horizon.
        schedule: the levels; all but the last above 0 must be among those of the profile, between which the loss is
            interpolated.
        variance: of the reverse steps.

    Raises:
        InputError: if the schedule leaves the profile's levels, the variance is unknown, or the profile was loaded
            without its samples.
        DenoiserError: if the loss or the density is such that J is not finite.
    """
    return Estimate.of(path_objectives(profile, start, schedule, variance))


def path_bound(
    profile: Profile,
    start: Initialization | Target,
    schedule: Schedule,
    law: Target,
    variance: ReverseVariance = "ddpm",
) -> Estimate:
    """The divergence of the path in nats, which is above that of the samples, where the law of the data is known.

    It is :func:`path_objective` less the entropy of the law at the last level above 0, on the same samples and noise.
    Arguments and errors as there.
    """
    return Estimate.of(path_objectives(profile, start, schedule, variance, law))


def step_terms(profile: Profile, schedule: Schedule, variance: ReverseVariance = "ddpm") -> Curve:
    """T of each step above 0 in nats, sample by sample, shape (M, N).

    T is linear in the loss but for ``opt``, where it is a function of the mean: there a sample's share is that of the
    tangent at the mean, so that the means are T and the spread gives its standard error.

    Raises:
        InputError: if the schedule leaves the profile's levels, or the variance is unknown.
    """
    _check_variance(variance)
    d, terms = math.prod(profile.shape), []
    for a, b in steps_above_zero(schedule):
        loss = losses_at(profile, a)
        if variance != "opt":
            terms.append(path_terms(a, b, loss, d, variance))
        else:
            du, mean = b**-2 - a**-2, loss.mean()
            terms.append(path_terms(a, b, mean, d, variance) + 0.5 * du * (loss - mean) / (1 + du * mean / d))
    return np.stack(terms, axis=1) if terms else np.zeros((len(profile.losses), 0))


def reverse_variances(profile: Profile, schedule: Schedule, variance: ReverseVariance = "ddpm") -> tuple[float, ...]:
    r""":math:`\tau^2` of each step above 0. Raises as :func:`step_terms`."""
    _check_variance(variance)
    d, variances = math.prod(profile.shape), []
    for a, b in steps_above_zero(schedule):
        posterior = b**2 * (1 - (b / a) ** 2)
        if variance == "ddpm":
            variances.append(posterior)
        elif variance == "em":
            variances.append(a**2 - b**2)
        else:
            variances.append(posterior * (1 + (b**-2 - a**-2) * float(losses_at(profile, a).mean()) / d))
    return tuple(variances)


def losses_at(profile: Profile, sigma: float) -> Curve:
    """The loss of each sample at a level between those of the profile, shape (M,).

    The mean follows a monotone interpolant of its logarithm; each sample's share of it, a straight line in ln sigma.

    Raises:
        InputError: if sigma lies outside the levels.
    """
    from scipy.interpolate import PchipInterpolator

    low, high = profile.sigmas[-1], profile.sigmas[0]
    if not low * (1 - 1e-9) <= sigma <= high * (1 + 1e-9):
        raise InputError(f"the network was measured from sigma = {high:.6g} down to {low:.6g}: got {sigma:.6g}")
    place, levels = math.log(min(max(sigma, low), high)), np.log(profile.sigmas[::-1])
    mean = math.exp(float(PchipInterpolator(levels, np.log(np.maximum(profile.loss[::-1], 1e-300)))(place)))
    right = int(np.clip(np.searchsorted(levels, place), 1, len(levels) - 1))
    share = (place - levels[right - 1]) / (levels[right] - levels[right - 1])
    losses = profile.losses[:, ::-1]
    each = (1 - share) * losses[:, right - 1] + share * losses[:, right]
    return np.asarray(each * (mean / max(each.mean(), 1e-300)))


@in_evaluation_mode
@torch.no_grad()
def path_log_ratios(
    denoiser: Denoiser,
    law: Target,
    start: Initialization | Target,
    schedule: Schedule,
    variances: Sequence[float],
    noise: Noise,
    **conditions: Any,
) -> Tensor:
    r"""Log ratios of the two path densities at paths of the data, shape (B,); their mean is the path's divergence.

    It is what :func:`path_bound` says in closed form, by simulation:

    .. math::
        \log p_{\sigma_{\min}}(x_N) + \sum_i \log N(x_i;\, x_{i+1}, (a^2 - b^2) I)
        - \log p_\theta(x_0) - \sum_i \log N(x_{i+1};\, r x_i + (1 - r) D(x_i, a), \tau^2 I).

    Arguments:
        denoiser: the sampler's; it is called in float64.
        law: of the clean data, known exactly.
        start: of the sampler.
        schedule: the levels; a step to 0 is left out.
        variances: of the steps above 0, as :func:`reverse_variances` returns them.
        noise: one stream for each path.
        **conditions: handed to the denoiser.

    Raises:
        InputError: if there is not one positive variance for each step.
        DenoiserError: if a ratio is not finite.
    """
    steps = steps_above_zero(schedule)
    if len(variances) != len(steps) or not all(0 < v < math.inf for v in variances):
        raise InputError(f"{len(steps)} steps need as many variances, finite and above 0: got {list(variances)}")
    x = (law.sample(noise) + schedule.sigma_min * noise.normal(law.shape)).double()
    ratios = law.log_prob(x, schedule.sigma_min)
    for (a, b), variance in zip(reversed(steps), reversed(variances), strict=True):
        before = x + math.sqrt(a**2 - b**2) * noise.normal(law.shape).double()
        r = (b / a) ** 2
        mean = r * before + (1 - r) * denoise(denoiser, before, a, **conditions)
        ratios = ratios + _log_normal(before - x, a**2 - b**2) - _log_normal(x - mean, variance)
        x = before
    return finite(ratios - start.log_prob(x, schedule.horizon).to(x.device), "a log ratio of paths")


def _log_normal(x: Tensor, variance: float) -> Tensor:
    """Log density of N(0, variance I) at x (B, \\*S), shape (B,)."""
    return -0.5 * (x.flatten(1).square() / variance + math.log(2 * math.pi * variance)).sum(1)


def _check_variance(variance: str) -> None:
    if variance not in get_args(ReverseVariance):
        raise InputError(f"unknown variance {variance!r}: expected ddpm, em or opt")
