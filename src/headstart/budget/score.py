r"""The cost of the network's own error, where the exact denoiser D is known.

A loss is that of the exact denoiser and the network's error, :math:`l(\sigma) = E\|x_0 - D\|^2 + E\|D - D_\theta\|^2`.
In the divergence of a stochastic sampler's path (:mod:`headstart.budget.path`), with steps from a to b, the second is

.. math::
    E_\text{score} = \tfrac12 \sum_i w_i\, E\|D - D_\theta\|^2(x_{\sigma_i}, \sigma_i), \qquad
    w = \begin{cases} b^{-2} - a^{-2} & \text{ddpm} \\ (a^2 - b^2) / a^4 & \text{em,} \end{cases}

where the last is the familiar :math:`\tfrac12 \sum (a^2 - b^2)\, E\|s - s_\theta\|^2` of the scores. On real data D is
not known, and this part cannot be told from the first.

References:
    Chen et al., *Sampling is as easy as learning the score*, ICLR 2023, arXiv 2209.11215.

    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from headstart.budget.base import Estimate, steps_above_zero
from headstart.denoiser import Denoiser, cast_input, denoise, in_evaluation_mode
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.schedule import Schedule
from headstart.targets import Target

__all__ = ["score_error"]


@in_evaluation_mode
@torch.no_grad()
def score_error(
    denoiser: Denoiser,
    law: Target,
    schedule: Schedule,
    noise: Noise,
    variance: Literal["ddpm", "em"] = "ddpm",
    *,
    dtype: torch.dtype = torch.float64,
    **conditions: Any,
) -> Estimate:
    """E_score of a network on a schedule, in nats; a step to 0 is left out. All levels share samples and noise.

    Arguments:
        denoiser: the network.
        law: of the clean data, known exactly.
        schedule: the levels.
        noise: one stream for each sample.
        variance: of the sampler's steps. For the best one, ``opt``, the error is no sum of two parts.
        dtype: of the states that the network is called with; float32 is what most are made for.
        **conditions: handed to the network.

    Raises:
        InputError: if the variance is neither.
        DenoiserError: if the network returns NaN, Inf or the wrong shape.
    """
    if variance not in ("ddpm", "em"):
        raise InputError(f"unknown variance {variance!r}: the score's part is known for ddpm and em")
    network = cast_input(denoiser, dtype)
    x0 = law.sample(noise).double()
    eps = noise.normal(law.shape).double()
    total = torch.zeros(len(x0), dtype=torch.float64)
    for a, b in steps_above_zero(schedule):
        x = x0 + a * eps
        gap = denoise(law, x, a) - denoise(network, x, a, **conditions)
        weight = b**-2 - a**-2 if variance == "ddpm" else (a**2 - b**2) / a**4
        total += 0.5 * weight * gap.flatten(1).square().sum(1).cpu()
    return Estimate.of(total.numpy())
