"""A small autoencoder of Fashion-MNIST, and a denoiser of its latents.

Images of 28 x 28 become latents of 4 x 8 x 8 and back. Both networks were trained by ``python -m training.latents``,
the autoencoder with noise on its latents and a penalty on their squares, so that near latents are near images.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from headstart.latents import Latents
from headstart.models.unet import PatchUNet, Preconditioned

__all__ = ["SPEC", "Autoencoder", "codec", "denoiser", "latent_network", "latents"]

#: The channels of the latents, and the name by which encoder and decoder are built.
CHANNELS, SPEC = 4, "python:experiments.latents.network:codec"

#: By :meth:`Latents.standard` on 10,000 training images: channels of mean 0 and standard deviation 0.5.
SCALE, SHIFT = (0.5524, 0.5523, 0.7104, 0.7850), (0.1315, 0.1069, 0.0434, 0.0348)

FOLDER = Path(__file__).parent


class Autoencoder(nn.Module):
    """An encoder of images (B, 1, 28, 28) to latents (B, 4, 8, 8), and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.ZeroPad2d(2),
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, CHANNELS, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(CHANNELS, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 4, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ZeroPad2d(-2),
        )

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The squared error of images through noised latents, and the penalty."""
        z = self.encoder(images)
        noise = torch.randn(z.shape, generator=generator).to(z)
        loss: Tensor = F.mse_loss(self.decoder(z + 0.1 * noise), images) + 1e-3 * z.square().mean()
        return loss


def latent_network() -> Preconditioned:
    """An untrained denoiser ``(z, sigma)`` of latents of mean 0 and standard deviation 0.5."""
    return Preconditioned(PatchUNet(CHANNELS, widths=(32, 64), blocks=(1, 3), classes=0), classes=0)


def codec() -> tuple[nn.Module, nn.Module]:
    """The trained encoder and decoder: what :data:`SPEC` builds."""
    model = Autoencoder()
    model.load_state_dict(load_file(FOLDER / "autoencoder.safetensors"))
    model.eval().requires_grad_(False)
    return model.encoder, model.decoder


def latents() -> Latents:
    """The trained autoencoder, in the units of the denoiser."""
    return Latents(*codec(), SCALE, SHIFT, SPEC)


def denoiser(device: torch.device | str = "cpu") -> Preconditioned:
    """The trained denoiser of latents."""
    model = latent_network()
    model.load_state_dict(load_file(FOLDER / "denoiser.safetensors"))
    return model.to(device).eval().requires_grad_(False)
