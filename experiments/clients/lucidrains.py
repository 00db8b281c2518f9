"""denoising-diffusion-pytorch: its Unet and GaussianDiffusion, and its sampler with all 1,000 steps."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.clients.laws import garments
from experiments.clients.network import Calls, Client, Network, Place, descend, package, seeded, without_torchvision
from headstart.integrations.lucidrains import from_lucidrains

__all__ = ["CLIENTS"]


def images(place: Place) -> Network:
    """Small images, by its default objective, v."""
    with without_torchvision():
        ddp = package("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    data = garments("train", place.some(14_000, 300))
    with seeded(0):
        width = place.some(16, 8)
        unet = ddp.Unet(width, dim_mults=(1, 2), channels=1, attn_heads=2, attn_dim_head=16)
        diffusion = ddp.GaussianDiffusion(unet, image_size=8, timesteps=place.some(1000, 20))

        def loss() -> Tensor:
            found: Tensor = diffusion((data[torch.randint(len(data), (64,))] + 1) / 2)
            return found

        place.trained("lucidrains", diffusion, lambda: descend(diffusion, loss, place.some(3000, 20), 2e-3))
    calls = Calls(unet)

    def own(count: int, seed: int) -> Tensor:
        with seeded(seed):
            found: Tensor = diffusion.sample(batch_size=count)
        return 2 * found - 1

    held_out = garments("test", place.some(1000, 200))
    return Network(from_lucidrains(diffusion), own, calls, held_out, data, batch=1000, limits=(-1.0, 1.0))


CLIENTS = (
    Client("denoising-diffusion-pytorch, v", "Fashion-MNIST at 8 x 8", "GaussianDiffusion.sample, 1,000 steps", images),
)
