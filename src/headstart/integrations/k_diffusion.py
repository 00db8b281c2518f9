r"""k-diffusion: its denoisers are ours.

A model of k-diffusion is called as ``model(x, sigma, **extra_args)`` with sigma of shape (B,), and returns the denoised
x: the contract of :mod:`headstart.denoiser`. What it lacks is to say which levels it knows, which its wrappers of
discrete models (``CompVisDenoiser`` and the like) have in ``sigmas``.

References:
    Crowson, *k-diffusion*, version 0.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["from_k_diffusion"]


@dataclass(frozen=True)
class _Model:
    model: Any
    sigma_max: float | None
    sigma_min: float | None
    fixed: dict[str, Any]

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        if self.sigma_min is not None:  # below it the model extrapolates its table
            level = level.clamp_min(self.sigma_min)
        found: Tensor = self.model(x, level.expand(len(x)), **self.fixed, **conditions)
        return found


def from_k_diffusion(model: Any, **extra_args: Any) -> Any:
    """A denoiser from a model of k-diffusion, with the levels that it knows as far as it says.

    Arguments:
        model: called as ``model(x, sigma, **extra_args)``.
        extra_args: handed to it in every call, beside the conditions of the call.
    """
    known = getattr(model, "sigmas", None)
    highest, lowest = (None, None) if known is None else (float(max(known)), float(min(known)))
    return _Model(model, highest, lowest, extra_args)
