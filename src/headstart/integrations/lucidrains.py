r"""denoising-diffusion-pytorch: trained ``GaussianDiffusion`` and ``ElucidatedDiffusion`` as denoisers.

The first holds a network at whole times of a table and its ``objective``, and is asked between the times too; the
second is a denoiser of EDM's kind. Samples are in the units that the network sees, [-1, 1] where ``auto_normalize`` is
on. Networks with self-conditioning are called without an estimate of their own.

References:
    Wang, *denoising-diffusion-pytorch*, version 2.3.4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headstart.denoiser import Denoiser, DiscreteVariancePreserving, Prediction, adapt
from headstart.errors import InputError

__all__ = ["from_lucidrains"]

#: Our names of its objectives.
OBJECTIVES: dict[str, Prediction] = {"pred_noise": "epsilon", "pred_x0": "x0", "pred_v": "v"}


def from_lucidrains(diffusion: Any, *, rounded: bool = False) -> Denoiser:
    """A denoiser from a trained diffusion of denoising-diffusion-pytorch.

    Arguments:
        diffusion: a ``GaussianDiffusion`` (also in one dimension) or an ``ElucidatedDiffusion``.
        rounded: ask its network at the nearest whole time.

    Raises:
        InputError: if it is neither, or has an unknown objective.
    """
    if hasattr(diffusion, "preconditioned_network_forward"):

        def denoised(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
            level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
            found: Tensor = diffusion.preconditioned_network_forward(x, level, **conditions)
            return found

        return denoised
    objective = getattr(diffusion, "objective", None)
    if objective not in OBJECTIVES or not hasattr(diffusion, "alphas_cumprod"):
        raise InputError(
            f"a {type(diffusion).__name__} with objective {objective!r} is not known: expected a "
            f"GaussianDiffusion with {', '.join(OBJECTIVES)}, or an ElucidatedDiffusion"
        )
    table = diffusion.alphas_cumprod.double().tolist()
    return adapt(diffusion.model, OBJECTIVES[objective], DiscreteVariancePreserving(table, rounded=rounded))
