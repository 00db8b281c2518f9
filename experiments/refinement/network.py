r"""A small denoiser of Fashion-MNIST given the image at a quarter of the resolution.

The network works on what is left of the coarse image, :math:`r = x - u(c)` with u its bilinear interpolation, in EDM's
preconditioning:

.. math:: D(x; \sigma, c) = u(c) + c_\text{skip}\, r + c_\text{out}\, F(c_\text{in}\, r, u(c);\ \tfrac14 \ln \sigma).

It was trained by ``python -m training.refiner``, on the training images of Fashion-MNIST.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from headstart.models.unet import PatchUNet

__all__ = ["FACTOR", "Refiner", "coarsened", "refiner"]

#: An image of 28 x 28 is known at 7 x 7: means of squares of 4 x 4 pixels.
FACTOR = 4

WEIGHTS = Path(__file__).with_name("refiner.safetensors")


class Refiner(nn.Module):
    """A denoiser ``(x, sigma, coarse)`` of images (B, 1, 28, 28) given coarse ones (B, 1, 7, 7).

    Arguments:
        widths: channels at the higher and at the lower resolution, as of :class:`PatchUNet`.
        blocks: residual blocks at either.
        sigma_data: standard deviation of what is left of the coarse image.
    """

    def __init__(
        self, widths: tuple[int, int] = (32, 64), blocks: tuple[int, int] = (1, 3), sigma_data: float = 0.244
    ) -> None:
        super().__init__()
        self.network = PatchUNet(channels=2, widths=widths, blocks=blocks, classes=0)
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor | float, coarse: Tensor) -> Tensor:
        s = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x)).view(-1, 1, 1, 1)
        below = F.interpolate(coarse.to(x), scale_factor=float(FACTOR), mode="bilinear").expand(len(x), -1, -1, -1)
        left, total = x - below, s**2 + self.sigma_data**2
        alike = torch.zeros(len(x), dtype=torch.long, device=x.device)
        out = self.network(torch.cat([left / total.sqrt(), 2 * below], dim=1), s.flatten().log() / 4, alike)[:, :1]
        denoised: Tensor = below + (self.sigma_data**2 / total) * left + (s * self.sigma_data / total.sqrt()) * out
        return denoised


def coarsened(images: Tensor) -> Tensor:
    """Images (N, 1, 28, 28) at a quarter of the resolution: (N, 1, 7, 7)."""
    return F.avg_pool2d(images, FACTOR)


def refiner(device: torch.device | str = "cpu") -> Refiner:
    """The trained network, in float32, for evaluation only."""
    model = Refiner()
    model.load_state_dict(load_file(WEIGHTS))
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False)
