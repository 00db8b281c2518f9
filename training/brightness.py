"""Train the network of ``experiments/brightness`` on Fashion-MNIST: ``python -m training.brightness --steps 2000``.

It predicts noise at uniform times of its table, as DDPM is trained: by the plain squared error.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from experiments.brightness.network import STEPS, Predictor, small, table
from headstart.data import fashion_mnist
from training.denoiser import options, train


def loss_at_step(model: Predictor, images: Tensor, step: int, seed: int, batch: int) -> Tensor:
    """The squared error of the noise on the batch that belongs to this step."""
    generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
    device = next(model.parameters()).device
    x0 = images[torch.randint(len(images), (batch,), generator=generator)]
    time = torch.randint(STEPS, (batch,), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    signal = table()[time].float().view(-1, 1, 1, 1)
    z = signal.sqrt() * x0 + (1 - signal).sqrt() * noise
    return (model(z.to(device), time.to(device)) - noise.to(device)).square().mean()


def main() -> None:
    args = options(__doc__, "runs/brightness", 2000, 600).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    images = small(fashion_mnist("train", args.folder).samples)
    model = Predictor().to(args.device, memory_format=torch.channels_last)
    train(model, partial(loss_at_step, model, images, seed=args.seed, batch=args.batch), args, "predictor")


if __name__ == "__main__":
    main()
