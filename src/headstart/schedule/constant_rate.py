r"""Constant-rate scheduling: equal steps of how far a network's estimate moves along its trajectories.

With the signal :math:`\alpha = (1 + \sigma^2)^{-1/2}` of variance-preserving units as the clock, and a rate v at which
the law changes with it, the levels at equal steps of a time t are those of

.. math:: \frac{d\alpha}{dt} \propto v(\alpha)^{-\xi}, \qquad \text{so that} \qquad t \propto \int v^\xi\, d\alpha .

The rate is measured on states :math:`x_i` of trajectories of the probability-flow ODE at neighbouring levels, as that
of the network's estimate of the data, or of the noise,

.. math::
    v_i = \frac{E\, \|f_{i+1} - f_i\|}{\alpha_{i+1} - \alpha_i}, \qquad
    f_i = D(x_i, s_i) \quad \text{or} \quad f_i = \frac{x_i - D(x_i, s_i)}{s_i},

neither of which depends on the units of the states. At :math:`\xi = 1` the clock cancels, and the grid cuts the
length of the estimate's way into equal parts. On data :math:`N(0, c^2)` that means equal steps of

.. math:: (c^2 + \sigma^2)^{-1/2} \quad \text{(data)}, \qquad \sigma\, (c^2 + \sigma^2)^{-1/2} \quad \text{(noise)}.

The change of the estimate of the data is bounded as :math:`\sigma \to 0` and as :math:`\sigma \to \infty`, so that few
levels lie at either end.

What comes from the paper, and what does not: the equation for the time, the two measures and the clock are those of
its abstract and of summaries and reviews of it. That the norm is the Euclidean one, not squared, with the mean over
samples outside it, is from memory, and we could not check it. Its third measure, a Fréchet distance of noised images in
the features of a classifier, and its combinations of measures, are left out.

References:
    Okada et al., *Constant Rate Scheduling: A General Framework for Optimizing Diffusion Noise Schedule via
    Distributional Change*, Transactions on Machine Learning Research, 2026, arXiv 2411.12188.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.denoiser import Denoiser, denoise, in_evaluation_mode
from headstart.errors import InputError
from headstart.schedule.base import Schedule
from headstart.schedule.gits import rows, teacher_states
from headstart.schedule.optimal import Length
from headstart.schedule.rule import RULES, Kind

__all__ = ["ConstantRate", "ConstantRateMeasure", "constant_rate"]

Curve = NDArray[np.float64]
ConstantRateMeasure = Literal["x0", "epsilon"]


@RULES.register
class ConstantRate(Kind):
    """Equal steps of how far the network's estimate moves along its trajectories."""

    name = "constant_rate"
    cites = ("okada2026constant",)


@in_evaluation_mode
@torch.no_grad()
def constant_rate(
    denoiser: Denoiser,
    states: Sequence[Tensor],
    teacher: Schedule,
    *,
    measure: ConstantRateMeasure = "x0",
    xi: float = 1.0,
    conditions: Mapping[str, Any] | None = None,
) -> Length:
    """The length whose equal parts are steps of constant rate: one evaluation a sample and level.

    Arguments:
        denoiser: the network.
        states: those of a fine trajectory at its levels, each of shape (B, \\*S): ``[x, *solver.trajectory(denoiser, x,
            teacher)]``. A state at 0 is not used.
        teacher: the levels, at least two above 0.
        measure: whose change is measured, the estimate of the data, "x0", or that of the noise, "epsilon".
        xi: the power of the rate, at least 0. 1 is the constant rate; 0 gives equal steps of the signal.
        conditions: handed to the denoiser, of B samples.

    Returns:
        A length with the teacher's levels above 0, for :func:`~headstart.schedule.equidistribute` with any horizon and
        number of steps.

    Raises:
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
        InputError: if the states do not fit the levels or are not finite, if the estimate never changes, or if the
            measure is unknown or xi out of its range.
    """
    if measure not in get_args(ConstantRateMeasure):
        raise InputError(f"unknown measure {measure!r}: expected x0 or epsilon")
    if not (math.isfinite(xi) and xi >= 0):
        raise InputError(f"xi is {xi}: it must be finite and at least 0")
    sigmas, above = teacher_states(states, teacher)
    changes = np.zeros(len(sigmas) - 1)
    before = None
    for i, (x, sigma) in enumerate(zip(above, sigmas.tolist(), strict=True)):
        denoised = denoise(denoiser, x, sigma, **(conditions or {}))
        after = rows(denoised if measure == "x0" else (x - denoised) / sigma)
        if before is not None:
            changes[i - 1] = float(torch.linalg.vector_norm(after - before, dim=1).mean())
        before = after
    if changes.max() == 0:
        raise InputError("the estimate never changes along these trajectories: there is no rate to hold constant")
    clock = _signal_steps(sigmas)
    return Length(sigmas, (changes / clock) ** xi * clock, 1)


def _signal_steps(sigmas: Curve) -> Curve:
    """Steps of :math:`(1 + \\sigma^2)^{-1/2}`, in a form that does not subtract nearly equal numbers."""
    a, b = sigmas[:-1], sigmas[1:]
    high, low = np.hypot(1, a), np.hypot(1, b)
    return np.asarray((a - b) * (a + b) / (high * low * (high + low)))
