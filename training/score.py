"""Score the bundled networks for their model card: ``python training/score.py --images 2000``.

The denoiser by EDM's sampler (Heun, 35 evaluations from 80) with and without labels, the classifier by its accuracy,
both on the original test images of Fashion-MNIST, and the noise floor of as many training images beside them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from headstart.data import fashion_mnist
from headstart.initialization import Isotropic
from headstart.metrics import Reference, evaluate, floor
from headstart.models import bundled
from headstart.noise import Noise
from headstart.schedule import rho_grid
from headstart.solver import Heun


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--folder", type=Path, help="folder with the original Fashion-MNIST files")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    train, test = fashion_mnist("train", args.folder), fashion_mnist("test", args.folder)
    classifier = bundled.classifier(args.device)
    guesses = torch.cat([classifier(x.to(args.device)).argmax(1).cpu() for x in test.samples.split(args.batch)])
    print(f"classifier: {(guesses == test.labels).float().mean():.2%} of {len(test)} test images")

    reference = Reference.of(test.samples, bundled.features(args.device))
    print(f"noise floor: {floor(reference, train.samples, args.images)}")
    denoiser = bundled.denoiser(args.device)
    start, grid = Isotropic((1, 28, 28)), rho_grid(18, 80.0, 0.002)
    assert train.labels is not None
    for title, labels in (("without labels", None), ("with labels", train.labels[: args.images])):
        batches = []
        for i in range(0, args.images, args.batch):
            noise = Noise(range(i, min(i + args.batch, args.images)), args.device)
            given = {} if labels is None else {"label": labels[i : i + args.batch].to(args.device)}
            batches.append(Heun().solve(denoiser, start.sample(noise, 80.0), grid, noise, **given).cpu())
        print(f"Heun, 35 evaluations, {title}: {evaluate(torch.cat(batches), reference)}", flush=True)


if __name__ == "__main__":
    main()
