"""Train the bundled classifier of Fashion-MNIST: ``python training/classifier.py --epochs 8``.

Cross-entropy with smoothed labels on images shifted by up to two pixels; the learning rate rises and falls once.
An epoch draws from a generator seeded with (seed, epoch): a run that was stopped and resumed from its checkpoint takes
the same steps as one that was not. The accuracy reported is that of the weights as saved, in float16.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from headstart.data import fashion_mnist
from headstart.models.classifier import Classifier

SHIFT = 2


def shifted(images: Tensor) -> Tensor:
    """Each image moved by up to two pixels in each direction; what moves in is background."""
    n, _, height, width = images.shape
    padded = F.pad(images, (SHIFT,) * 4, value=float(images.min()))[:, 0]
    down, right = torch.randint(2 * SHIFT + 1, (2, n, 1))
    rows = (down + torch.arange(height))[:, :, None]
    columns = (right + torch.arange(width))[:, None, :]
    return padded[torch.arange(n)[:, None, None], rows, columns][:, None]


def rate(progress: float, peak: float) -> float:
    """One cycle: the learning rate rises over the first quarter of the run and falls to zero over the rest."""
    return peak * min(progress / 0.25, (1 - progress) / 0.75)


@torch.no_grad()
def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose class is the most probable one."""
    model.eval()
    hits = [(model(x).argmax(1) == y).sum() for x, y in zip(images.split(1000), labels.split(1000), strict=True)]
    return sum(int(h) for h in hits) / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/classifier"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=4e-3, help="peak of the learning rate")
    parser.add_argument("--smoothing", type=float, default=0.05, help="share of a label spread over all classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="folder with the original Fashion-MNIST files")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    train, test = (fashion_mnist(split, args.folder) for split in ("train", "test"))
    assert train.labels is not None
    assert test.labels is not None
    model = Classifier().to(args.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.02)
    start, seconds = 0, 0.0

    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=args.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds = state["epoch"], state["seconds"]
        print(f"resumed after epoch {start}", flush=True)

    began = time.monotonic()
    for epoch in range(start, args.epochs):
        torch.manual_seed(args.seed * 10_007 + epoch)
        model.train()
        batches = torch.randperm(len(train)).split(args.batch)
        total = 0.0
        for i, index in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = rate((epoch + (i + 1) / len(batches)) / args.epochs, args.rate)
            x = shifted(train.samples[index]).to(args.device, memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), train.labels[index].to(args.device), label_smoothing=args.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / len(batches)
        score = accuracy(model, test.samples.to(args.device), test.labels.to(args.device))
        spent = seconds + time.monotonic() - began
        print(f"epoch {epoch + 1}/{args.epochs}  loss {total:.4f}  accuracy {score:.4f}  {spent:.0f} s", flush=True)
        partial = checkpoint.with_suffix(".partial")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "epoch": epoch + 1, "seconds": spent}, partial)
        partial.replace(checkpoint)

    weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    weights = {k: v.contiguous() for k, v in weights.items()}
    saved = Classifier()
    saved.load_state_dict(weights)
    facts = {"accuracy": accuracy(saved, test.samples, test.labels), "epochs": args.epochs, "seed": args.seed}
    save_file(weights, args.out / "classifier.safetensors", metadata={"training": json.dumps(facts)})
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
