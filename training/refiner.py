"""Train the network of ``experiments/refinement`` on Fashion-MNIST: ``python -m training.refiner --steps 3000``.

It denoises images given what they are at a quarter of the resolution, by EDM's loss, as ``training/denoiser.py`` trains
the bundled network: the same loop, optimizers and checkpoints.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from experiments.refinement.network import Refiner, coarsened
from headstart.data import fashion_mnist
from training.denoiser import edm_loss, options, train

#: Of the logarithms of the levels; what is to be learned is about 0.24 wide.
P_MEAN, P_STD = -1.2, 1.6


def loss_at_step(model: Refiner, images: Tensor, step: int, seed: int, batch: int) -> Tensor:
    """EDM's weighted denoising loss on the batch that belongs to this step."""
    generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
    x0 = images[torch.randint(len(images), (batch,), generator=generator)]
    sigma = (P_MEAN + P_STD * torch.randn(batch, generator=generator)).exp()
    noise = torch.randn(x0.shape, generator=generator)
    return edm_loss(model, x0, sigma, noise, coarse=coarsened(x0))


def main() -> None:
    args = options(__doc__, "runs/refiner", 3000, 1000).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    images = fashion_mnist("train", args.folder).samples
    model = Refiner().to(args.device, memory_format=torch.channels_last)
    train(model, partial(loss_at_step, model, images, seed=args.seed, batch=args.batch), args, "refiner")


if __name__ == "__main__":
    main()
