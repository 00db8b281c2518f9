"""Train the networks of ``experiments/latents`` on Fashion-MNIST: ``python -m training.latents --part autoencoder``.

The autoencoder comes first; its weights belong into ``experiments/latents`` before ``--part denoiser`` is trained on
its latents, by EDM's loss.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from experiments.latents.network import Autoencoder, latent_network, latents
from headstart.data import fashion_mnist
from headstart.models.unet import Preconditioned
from training.denoiser import edm_loss, options, train

P_MEAN, P_STD = -0.8, 1.4


def coding_loss(model: Autoencoder, images: Tensor, step: int, seed: int, batch: int) -> Tensor:
    """The loss of the autoencoder on the batch that belongs to this step."""
    generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
    x = images[torch.randint(len(images), (batch,), generator=generator)]
    return model.loss(x.to(next(model.parameters()).device), generator)


def denoising_loss(model: Preconditioned, data: Tensor, step: int, seed: int, batch: int) -> Tensor:
    """EDM's weighted denoising loss on the batch that belongs to this step."""
    generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
    x0 = data[torch.randint(len(data), (batch,), generator=generator)]
    sigma = (P_MEAN + P_STD * torch.randn(batch, generator=generator)).exp()
    return edm_loss(model, x0, sigma, torch.randn(x0.shape, generator=generator))


def main() -> None:
    parser = options(__doc__, "runs/latents", 1500, 500)
    parser.add_argument("--part", choices=("autoencoder", "denoiser"), default="autoencoder")
    args = parser.parse_args()
    args.out = args.out / args.part
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    images = fashion_mnist("train", args.folder).samples
    if args.part == "autoencoder":
        coder = Autoencoder().to(args.device)
        train(coder, partial(coding_loss, coder, images, seed=args.seed, batch=args.batch), args, args.part)
    else:
        model = latent_network().to(args.device)
        data = latents().encode(images)
        train(model, partial(denoising_loss, model, data, seed=args.seed, batch=args.batch), args, args.part)


if __name__ == "__main__":
    main()
