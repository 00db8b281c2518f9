r"""Classifier-free guidance, :math:`D = D_u + s\,(D_c - D_u)`, at all levels of noise or in an interval of them.

References:
    Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv 2207.12598.

    Kynkaanniemi et al., *Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
    Models*, 2024, arXiv 2404.07724.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart.denoiser.contract import Denoiser, Wrapper, called, expand
from headstart.denoiser.modules import parts_of
from headstart.errors import InputError

__all__ = ["Guided", "guide", "guided_in"]

#: All levels.
EVERY = (0.0, math.inf)


@dataclass(frozen=True)
class Guided(Wrapper):
    """A denoiser with classifier-free guidance. Made by :func:`guide`.

    Attributes:
        denoiser: takes the conditions that it is guided by.
        scale: the guidance scale; 1 means no guidance.
        unconditional: the conditions that make the denoiser unconditional.
        interval: the lowest and the highest level that it is guided at; at others it is the conditional denoiser.
    """

    denoiser: Denoiser
    scale: float
    unconditional: Mapping[str, Any]
    interval: tuple[float, float] = EVERY

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        inside = self.guides(sigma)
        if not inside.any():
            return called(self.denoiser, x, sigma, **conditions)
        plain = called(self.denoiser, x, sigma, **{**conditions, **self.unconditional})
        aimed = called(self.denoiser, x, sigma, **conditions)
        if inside.all():
            return plain + self.scale * (aimed - plain)
        return torch.where(expand(inside, x).bool(), plain + self.scale * (aimed - plain), aimed)

    def guides(self, sigma: Any) -> Tensor:
        """Whether it is guided at a level, or at each of several."""
        level = torch.as_tensor(sigma)
        return (level >= self.interval[0]) & (level <= self.interval[1])

    def evaluations(self, sigma: float) -> int:
        """How often it calls the network for one evaluation at this level: 2 where it is guided, or 1."""
        return 2 if bool(self.guides(sigma)) else 1


def guide(
    denoiser: Denoiser,
    scale: float,
    unconditional: Mapping[str, Any] | None = None,
    *,
    interval: tuple[float, float] = EVERY,
) -> Denoiser:
    r"""Classifier-free guidance: :math:`D = D_u + s\,(D_c - D_u)`, where a scale :math:`s` of 1 means no guidance.

    Each guided evaluation then costs two of the network. A guided denoiser is no longer an estimate of E[x0 | x], so
    that the loss of one, and an error budget drawn from it, mean little. ``fit(..., guidance=s)`` fits and judges a
    plan on samples of the guided sampler itself. In the convention :math:`(1 + w) D_c - w D_u`, :math:`s = 1 + w`.

    Arguments:
        denoiser: takes the conditions that it is guided by.
        scale: the guidance scale s. At 1 the denoiser is returned as it is, at one evaluation per call.
        unconditional: the conditions that make the denoiser unconditional; by default ``{"label": None}``.
        interval: the lowest and the highest level that it is guided at, both included; all by default. At other levels
            the denoiser is the conditional one, at one evaluation per call.

    Raises:
        InputError: if the scale is not finite, or the interval is empty.

    References:
        Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv 2207.12598.

        Kynkaanniemi et al., *Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
        Diffusion Models*, 2024, arXiv 2404.07724.
    """
    if not math.isfinite(scale):
        raise InputError(f"the guidance scale is {scale}: it must be finite (1 means no guidance)")
    low, high = interval
    if not 0 <= low < high:
        raise InputError(f"guidance is for levels from a lower to a higher one: got {low} to {high}")
    without = {"label": None} if unconditional is None else dict(unconditional)
    return denoiser if scale == 1 else Guided(denoiser, scale, without, (float(low), float(high)))


def guided_in(denoiser: Any) -> Guided | None:
    """The guidance inside a denoiser, if there is any."""
    return next((part for part in parts_of(denoiser) if isinstance(part, Guided)), None)
