r"""A small network that predicts noise, trained by a table that does not end in pure noise.

Its table is DDPM's linear one, :math:`\beta_t` from :math:`10^{-4}` to 0.02, in 200 steps: the last level has
:math:`\bar\alpha_T = 0.13`, a signal-to-noise ratio that is not 0. What noise tells of the mean of an image is decided
by its mean, of standard deviation :math:`\sigma_T / 16` over 16 x 16 pixels: 0.16, where images differ by 0.31. In
Stable Diffusion's latents of 64 x 64 it is 14.6 / 64 = 0.23, with larger differences. It was trained by
``python -m training.brightness``.

References:
    Lin et al., *Common Diffusion Noise Schedules and Sample Steps Are Flawed*, WACV 2024 (the fault).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from headstart.denoiser import Denoiser, DiscreteVariancePreserving, adapt
from headstart.models.unet import PatchUNet

__all__ = ["STEPS", "Predictor", "denoiser", "small", "table"]

#: Times of the table.
STEPS = 200

#: Mean and standard deviation of the pixels of small images.
MEAN, STD = -0.0952, 0.4437

WEIGHTS = Path(__file__).with_name("predictor.safetensors")


class Predictor(nn.Module):
    """The noise in small images (B, 1, 16, 16) at whole times (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = PatchUNet(1, widths=(24, 48), blocks=(1, 2), classes=0)

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        alike = torch.zeros(len(z), dtype=torch.long, device=z.device)
        found: Tensor = self.network(z, time.to(z) / STEPS, alike)
        return found


def table() -> Tensor:
    r""":math:`\bar\alpha_t` at the times 0 to 199, in float64."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64), 0)


def small(images: Tensor) -> Tensor:
    """Images (N, 1, 28, 28) with a dark margin, at half the resolution, of mean 0 and standard deviation 1."""
    framed = F.pad(images, (2, 2, 2, 2), value=float(images.min()))
    return (F.avg_pool2d(framed, 2) - MEAN) / STD


def denoiser(device: torch.device | str = "cpu") -> Denoiser:
    """The trained network as a denoiser."""
    model = Predictor()
    model.load_state_dict(load_file(WEIGHTS))
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return adapt(model.eval().requires_grad_(False), "epsilon", DiscreteVariancePreserving(table().tolist()))
