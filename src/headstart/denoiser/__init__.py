r"""The contract everything stands on, and what turns other networks into it.

A **denoiser** estimates the clean sample from a noisy one, in variance-exploding units:

.. math:: D(x, \sigma) \approx E[x_0 \mid x_0 + \sigma \varepsilon = x], \qquad \varepsilon \sim N(0, I),

and is called as ``denoiser(x, sigma, **conditions)`` with ``x`` of shape (B, \*S), ``sigma`` a scalar or of shape
(B,), and the return of x's shape. EDM and k-diffusion networks obey it as they are. Its score is :math:`(D(x, \sigma)
- x) / \sigma^2` (Tweedie).

:mod:`~headstart.denoiser.contract` calls denoisers and checks what they return, :mod:`~headstart.denoiser.adapters`
makes them of networks that see or predict something else, :mod:`~headstart.denoiser.guidance` guides them, and
:mod:`~headstart.denoiser.check` asks whether something is one.

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022.
"""

from headstart.denoiser.adapters import (
    Adapted,
    DiscreteVariancePreserving,
    Prediction,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    adapt,
)
from headstart.denoiser.check import Check, Finding, check
from headstart.denoiser.contract import Counted, Denoiser, answer, cast_input, denoise, expand, is_finite
from headstart.denoiser.guidance import Guided, guide, guided_in
from headstart.denoiser.modules import in_evaluation_mode, parts_of
from headstart.denoiser.range import Range
from headstart.deprecation import renamed

__all__ = [
    "Adapted",
    "Check",
    "Counted",
    "Denoiser",
    "DiscreteVariancePreserving",
    "Finding",
    "Guided",
    "Prediction",
    "Process",
    "Range",
    "RectifiedFlow",
    "VarianceExploding",
    "VariancePreserving",
    "adapt",
    "answer",
    "cast_input",
    "check",
    "denoise",
    "expand",
    "guide",
    "guided_in",
    "in_evaluation_mode",
    "is_finite",
    "parts_of",
]

#: Names of an earlier version.
__getattr__ = renamed(
    __name__,
    {
        "called_in": "headstart.denoiser:cast_input",
        "labelled": "headstart.conditions:labelled",
        "moved": "headstart.conditions:to_device",
        "rows_of": "headstart.conditions:take",
        "split_conditions": "headstart.conditions:split_conditions",
    },
)
