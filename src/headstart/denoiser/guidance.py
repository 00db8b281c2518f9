r"""Classifier-free guidance: :math:`D = D_u + s\,(D_c - D_u)`.

References:
    Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv 2207.12598.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from headstart.denoiser.contract import Denoiser, Wrapper, called
from headstart.errors import InputError

__all__ = ["Guided", "guide"]


@dataclass(frozen=True)
class Guided(Wrapper):
    """A denoiser with classifier-free guidance. Made by :func:`guide`.

    Attributes:
        denoiser: takes the conditions that it is guided by.
        scale: the guidance scale; 1 means no guidance.
        unconditional: the conditions that make the denoiser unconditional.
    """

    denoiser: Denoiser
    scale: float
    unconditional: Mapping[str, Any]

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        plain = called(self.denoiser, x, sigma, **{**conditions, **self.unconditional})
        return plain + self.scale * (called(self.denoiser, x, sigma, **conditions) - plain)


def guide(denoiser: Denoiser, scale: float, unconditional: Mapping[str, Any] | None = None) -> Denoiser:
    r"""Classifier-free guidance: :math:`D = D_u + s\,(D_c - D_u)`, where a scale :math:`s` of 1 means no guidance.

    Each evaluation then costs two of the network. A guided denoiser is no longer an estimate of E[x0 | x], so that the
    loss of one, and an error budget drawn from it, mean little: fit without guidance, and sample with it. In the
    convention :math:`(1 + w) D_c - w D_u`, :math:`s = 1 + w`.

    Arguments:
        denoiser: takes the conditions that it is guided by.
        scale: the guidance scale s. At 1 the denoiser is returned as it is, at one evaluation per call.
        unconditional: the conditions that make the denoiser unconditional; by default ``{"label": None}``.

    References:
        Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv 2207.12598.
    """
    if not math.isfinite(scale):
        raise InputError(f"the guidance scale is {scale}: it must be finite (1 means no guidance)")
    without = {"label": None} if unconditional is None else dict(unconditional)
    return denoiser if scale == 1 else Guided(denoiser, scale, without)
