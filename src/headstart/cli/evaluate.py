"""``headstart evaluate``: scores of samples against real data, with their errors, beside the noise floor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.common import Answer, BatchSize, DataSpec, Device, Json, Seed, answers, staged, usable
from headstart.cli.progress import RichProgress
from headstart.cli.real import FeaturesSpec, ReferenceCount, feature_network, split
from headstart.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.metrics import Features, Reference, Scores

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = (
    "headstart evaluate samples builtin:fashion-mnist",
    "headstart evaluate samples data.npy --json",
    "headstart evaluate generated.npz images/ --reference-count 50000",
    "headstart evaluate samples builtin:fashion-mnist --scores kid,precision,recall,density,coverage",
    "headstart evaluate generated.npz images/ --features torchscript:inception.pt --stats published.npz",
)

#: Columns that are always shown, the others in their order, and the width of each.
FIRST = ("frechet", "swd", "max_swd")
OTHERS = ("max_sliced", "kid", "precision", "recall", "density", "coverage")
WIDTH = 20

#: Samples from which errors are told.
ENOUGH = 4


@answers
def evaluate(
    samples: Annotated[
        str, typer.Argument(metavar="OUT", help="The folder that headstart sample made, or anything that DATA may be.")
    ],
    data: DataSpec,
    features: FeaturesSpec = "auto",
    scores: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Scores beside frechet, swd and max_swd, separated by commas: "
            "max_sliced, kid, precision, recall, density, coverage, or all.",
        ),
    ] = "",
    stats: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure the Frechet distance to the mu and sigma of this .npz file."),
    ] = None,
    save_stats: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write mu and sigma of the real samples' features to this .npz file."),
    ] = None,
    reference_count: ReferenceCount = 10_000,
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Score samples against real DATA, beside the noise floor: what as many real samples score.

    Every score has its standard error.

    Of bundled data, the test split is compared with, and the train split gives the floor; of other data, two halves.
    """
    _names(scores, features != "none")
    device = usable(device)
    from headstart import metrics
    from headstart.data import load_data

    saved = Path(samples) / "samples.npz"
    found = load_data(saved if saved.is_file() else samples)
    real, held_out = split(data, reference_count, seed)
    network = feature_network(features, data, device, batch_size)
    if network is None and (stats or save_stats):
        raise InputError("statistics are of features: say which with --features")
    published = None if stats is None else metrics.GaussianStatistics.load(stats)
    names = _names(scores, network is not None)
    progress = RichProgress()
    reference = metrics.Reference.of(
        real.to(device), network, seed=seed, progress=progress, keep=bool(names), statistics=published
    )
    count = min(len(found), len(held_out))
    errors = count >= ENOUGH
    result = metrics.evaluate(found.samples.to(device), reference, progress, scores=names, errors=errors)
    floor = metrics.floor(
        reference, held_out.to(device), count, seed=seed, progress=progress, scores=names, errors=errors
    )
    if save_stats is not None:
        _save(real.to(device), network, reference, published is not None, save_stats)
    text = f"{_table({'samples': result, 'noise floor': floor})}\nagainst {len(real)} real samples of {data}"
    if not data.startswith("builtin:"):
        text += ", drawn without regard to what a plan was fitted on"
    if note := metrics.floor_note(count, len(found)):
        text += f"\n{note}"
    if published is not None:
        text += f"\nThe Fréchet distances are to the statistics in {stats}"
    if result.converged is False:
        text += "\nThe search for the max-sliced distance did not converge: it may be larger"
    values = {"samples": asdict(result), "floor": asdict(floor), "data": data, "features": network is not None}
    return Answer(text, values)


def _names(scores: str, features: bool) -> tuple[str, ...]:
    """The scores that an option names; all are those that can be computed, with or without features."""
    from headstart.metrics import SCORES

    names = tuple(name.strip().replace("-", "_") for name in scores.split(",") if name.strip())
    if unknown := [name for name in names if name not in (*SCORES, "all")]:
        raise InputError(f"unknown scores {', '.join(unknown)}: expected {', '.join(SCORES)}, or all")
    if "all" in names:
        return SCORES if features else ("swd", "max_swd", "max_sliced")
    return names


def _save(real: Tensor, network: Features | None, reference: Reference, others: bool, path: Path) -> None:
    """Write the statistics of the real samples' features; they are not the reference's if those are others'."""
    from headstart.metrics import Reference

    own = Reference.of(real, network, directions=1) if others else reference
    assert own.statistics is not None
    with staged(path.parent) as folder:
        own.statistics.save(folder / path.name)


def _table(rows: dict[str, Scores]) -> str:
    """One line for what is scored and one for the floor: each score with its standard error."""
    names = [name for name in (*FIRST, *OTHERS) if name in FIRST or _has(rows, name)]
    lines = [" " * 12 + "".join(f"{name:>{WIDTH}}" for name in names) + f"{'n':>10}"]
    for title, scores in rows.items():
        cells = [_cell(getattr(scores, name), scores.errors.get(name)) for name in names]
        lines.append(f"{title:<12}" + "".join(f"{cell:>{WIDTH}}" for cell in cells) + f"{scores.n:>10}")
    return "\n".join(lines)


def _has(rows: dict[str, Scores], name: str) -> bool:
    return any(getattr(scores, name) is not None for scores in rows.values())


def _cell(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
