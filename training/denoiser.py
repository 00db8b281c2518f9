"""Train the bundled denoiser on Fashion-MNIST: ``python training/denoiser.py --steps 8000``.

The loss is EDM's, with log-normal noise levels; labels are dropped for a share of the images, so that one network
serves conditional and unconditional sampling, and guidance. The learning rate is constant and falls linearly to zero
over the last ``--cooldown`` steps, so that a run can be prolonged before it cools down.

A step draws its images and its noise from a generator seeded with (seed, step): a run that was stopped and resumed from
its checkpoint takes the same steps as one that was not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart.data import fashion_mnist
from headstart.models.unet import PatchUNet, Preconditioned

P_MEAN, P_STD = -0.8, 1.4
LABEL_DROPOUT = 0.3


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for weights used as matrices (Jordan et al., 2024).

    ``torch.optim.Muon`` takes matrices only and works in bfloat16, which is slow on CPUs without it; here a
    convolution is the matrix (out, in * kernel), and everything is float32.
    """

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(buffer, group["momentum"]).flatten(1))
                update *= max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view(p.shape), alpha=-group["lr"])


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: a quintic Newton-Schulz iteration on the singular values."""
    x = matrix / (matrix.norm() + 1e-7)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the hidden weights; Adam for the stem, the head, the embeddings, the norms and the biases."""
    named = dict(model.named_parameters())
    hidden = {n for n, p in named.items() if p.ndim >= 2 and not any(k in n for k in ("stem", "head", "label"))}
    others = [p for n, p in named.items() if n not in hidden]
    return [
        Muon([named[n] for n in sorted(hidden)], lr=0.02),
        torch.optim.Adam(others, lr=3e-3, betas=(0.9, 0.99)),
    ]


def loss_at_step(model: nn.Module, images: Tensor, labels: Tensor, step: int, seed: int, batch: int) -> Tensor:
    """EDM's weighted denoising loss on the batch that belongs to this step."""
    generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
    index = torch.randint(len(images), (batch,), generator=generator)
    x0 = images[index]
    label = labels[index].masked_fill(torch.rand(batch, generator=generator) < LABEL_DROPOUT, model.classes)
    sigma = (P_MEAN + P_STD * torch.randn(batch, generator=generator)).exp()
    noise = torch.randn(x0.shape, generator=generator)
    return edm_loss(model, x0, sigma, noise, label=label)


def edm_loss(model: nn.Module, x0: Tensor, sigma: Tensor, noise: Tensor, **given: Tensor) -> Tensor:
    """EDM's weighted denoising loss of samples (B, C, H, W) at levels (B,), given conditions (B, ...)."""
    device = next(model.parameters()).device
    x0, sigma, noise = x0.to(device), sigma.to(device), noise.to(device)
    denoised = model(
        x0 + sigma.view(-1, 1, 1, 1) * noise, sigma, **{name: value.to(device) for name, value in given.items()}
    )
    weight = (sigma**2 + model.sigma_data**2) / (sigma * model.sigma_data) ** 2
    return (weight * (denoised - x0).square().mean(dim=(1, 2, 3))).mean()


def options(about: str | None, out: str, steps: int, cooldown: int) -> argparse.ArgumentParser:
    """The command line of a training: its defaults are those of a network."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--cooldown", type=int, default=cooldown)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the weight average per step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="folder with the original Fashion-MNIST files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint-every", type=int, default=250)
    return parser


def train(model: nn.Module, loss_at: Callable[[int], Tensor], args: argparse.Namespace, name: str) -> None:
    """Train a network by the loss of each step, from its checkpoint on, and write ``name.safetensors`` of the average.

    Arguments:
        model: the network, in the memory format that it is trained in.
        loss_at: from the number of a step to its loss.
        args: as :func:`options` reads them.
        name: of the file of weights.
    """
    opts = optimizers(model)
    rates = [group["lr"] for opt in opts for group in opt.param_groups]
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    start, seconds = 0, 0.0

    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=args.device, weights_only=True)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        average, start, seconds = state["average"], state["step"], state["seconds"]
        print(f"resumed at step {start}", flush=True)

    running, began = [], time.monotonic()
    for step in range(start, args.steps):
        factor = min(1.0, (step + 1) / 50, (args.steps - step) / args.cooldown)
        groups = [group for opt in opts for group in opt.param_groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        loss = loss_at(step)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
        decay = min(args.ema, (step + 1) / (step + 10))
        for key, value in model.state_dict().items():
            average[key].lerp_(value, 1 - decay)
        running.append(loss.item())

        if (step + 1) % 50 == 0:
            spent = seconds + time.monotonic() - began
            print(f"step {step + 1}/{args.steps}  loss {sum(running) / len(running):.4f}  {spent:.0f} s", flush=True)
            running = []
        if (step + 1) % args.checkpoint_every == 0 or step + 1 == args.steps:
            spent = seconds + time.monotonic() - began
            state = {"model": model.state_dict(), "optimizers": [opt.state_dict() for opt in opts]}
            unfinished = checkpoint.with_suffix(".partial")
            torch.save({**state, "average": average, "step": step + 1, "seconds": spent}, unfinished)
            unfinished.replace(checkpoint)
            half = {k: v.to(torch.float16).contiguous() for k, v in average.items()}
            facts = {"steps": step + 1, "batch": args.batch, "seed": args.seed, "seconds": round(spent)}
            save_file(half, args.out / f"{name}.safetensors", metadata={"training": json.dumps(facts)})


def main() -> None:
    args = options(__doc__, "runs/denoiser", 8000, 2500).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    data = fashion_mnist("train", args.folder)
    assert data.labels is not None
    model = Preconditioned(PatchUNet()).to(args.device, memory_format=torch.channels_last)
    loss_at = partial(loss_at_step, model, data.samples, data.labels, seed=args.seed, batch=args.batch)
    train(model, loss_at, args, "denoiser")


if __name__ == "__main__":
    main()
