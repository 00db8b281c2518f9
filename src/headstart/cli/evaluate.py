"""``headstart evaluate``: distances of samples from real data, beside the noise floor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.common import Answer, BatchSize, DataSpec, Device, Json, Seed, answers, usable
from headstart.cli.progress import RichProgress
from headstart.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.metrics import Features, Scores

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = (
    "headstart evaluate samples builtin:fashion-mnist",
    "headstart evaluate samples data.npy --json",
    "headstart evaluate generated.npz images/ --reference-count 50000",
)

FASHION_MNIST = "builtin:fashion-mnist"


@answers
def evaluate(
    samples: Annotated[
        str, typer.Argument(metavar="OUT", help="The folder that headstart sample made, or anything that DATA may be.")
    ],
    data: DataSpec,
    features: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What the Frechet distance is measured in: builtin:fashion-mnist, none, or auto: what fits DATA.",
        ),
    ] = "auto",
    reference_count: Annotated[int, typer.Option(metavar="N", help="Compare with at most N real samples.")] = 10_000,
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Score samples against real DATA, beside the noise floor: what as many real samples score.

    Of bundled data, the test split is compared with, and the train split gives the floor; of other data, two halves.
    """
    if features not in ("auto", "none", FASHION_MNIST):
        raise InputError(f"unknown features {features!r}: expected auto, none or {FASHION_MNIST}")
    if reference_count < 2:
        raise InputError(f"--reference-count is {reference_count}: expected at least 2")
    device = usable(device)
    from headstart import metrics
    from headstart.data import load_data

    saved = Path(samples) / "samples.npz"
    found = load_data(saved if saved.is_file() else samples)
    real, held_out = _split(data, reference_count, seed)
    network = _features(features, data, device, batch_size)
    progress = RichProgress()
    reference = metrics.Reference.of(real.to(device), network, seed=seed, progress=progress)
    scores = metrics.evaluate(found.samples.to(device), reference, progress)
    count = min(len(found), len(held_out))
    floor = metrics.floor(reference, held_out.to(device), count, seed=seed, progress=progress)
    text = f"{_table({'samples': scores, 'noise floor': floor})}\nagainst {len(real)} real samples of {data}"
    if not data.startswith("builtin:"):
        text += ", drawn without regard to what a plan was fitted on"
    if count < len(found):
        text += f"\nThe floor is of {count} samples, all that are held out: it is higher than that of {len(found)}"
    values = {"samples": asdict(scores), "floor": asdict(floor), "data": data, "features": network is not None}
    return Answer(text, values)


def _split(data: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """At most ``count`` real samples to compare with, and others to measure the floor on."""
    import torch

    from headstart.data import load_data

    if data.startswith("builtin:"):
        other = load_data(data.partition("/")[0], "test" if data.endswith("/train") else "train")
        return load_data(data, "test").samples[:count], other.samples
    real = load_data(data).samples
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    half = len(real) // 2
    return real[order[:half][:count]], real[order[half:]]


def _features(name: str, data: str, device: str, batch_size: int) -> Features | None:
    """What maps samples to features, ``batch_size`` at a time; None without features."""
    if name == "none" or (name == "auto" and not data.startswith(FASHION_MNIST)):
        return None
    import torch

    from headstart.models import features

    network = features(device)
    return lambda x: torch.cat([network(part) for part in torch.split(x, batch_size)])


def _table(rows: dict[str, Scores]) -> str:
    names = ("frechet", "swd", "max_swd", "n")
    lines = [" " * 12 + "".join(f"{name:>10}" for name in names)]
    for title, scores in rows.items():
        cells = ["-" if (value := getattr(scores, name)) is None else f"{value:.4g}" for name in names[:-1]]
        lines.append(f"{title:<12}" + "".join(f"{cell:>10}" for cell in (*cells, str(scores.n))))
    return "\n".join(lines)
