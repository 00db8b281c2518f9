"""``headstart evaluate``: scores of samples against real data, with their errors, beside the noise floor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.common import Answer, BatchSize, DataSpec, Device, Json, Seed, command, usable
from headstart.cli.progress import RichProgress
from headstart.cli.real import FeaturesSpec, ReferenceCount, feature_network, split
from headstart.errors import InputError, unknown
from headstart.files import check_file
from headstart.processes import same

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.data import Dataset
    from headstart.metrics import ClassScores, Features, Reference, Scores
    from headstart.progress import Progress

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = (
    "headstart evaluate samples builtin:fashion-mnist",
    "headstart evaluate samples data.npy --json",
    "headstart evaluate generated.npz images/ --reference-count 50000",
    "headstart evaluate samples builtin:fashion-mnist --scores kid,precision,recall,density,coverage",
    "headstart evaluate generated.npz labelled.npz --by-class",
    "headstart evaluate generated.npz images/ --features torchscript:inception.pt --stats published.npz",
)

#: Width of a column.
WIDTH = 20


@command(*EXAMPLES)
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
            help="Scores beside {usual_metrics}, separated by commas: {metrics}, or all.",
        ),
    ] = "",
    stats: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="FILE", help="Measure the Frechet distance to the mu and sigma of this .npz file."
        ),
    ] = None,
    save_stats: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="FILE", help="Write mu and sigma of the real samples' features to this .npz file."
        ),
    ] = None,
    by_class: Annotated[
        bool,
        typer.Option("--by-class", help="Score each class alone too, and give the mean: OUT and DATA need labels."),
    ] = False,
    citation: Annotated[bool, typer.Option("--citation", help="Also print what to cite, in BibTeX.")] = False,
    reference_count: ReferenceCount = 10_000,
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Score samples against real DATA, beside the noise floor: what as many real samples score.

    Every score has its standard error, from four samples on.

    Of bundled data, the test split is compared with, and the train split gives the floor; of other data, two halves.
    """
    _names(scores, features != "none")
    if save_stats is not None:
        check_file(save_stats)
    device = usable(device)
    from headstart import metrics
    from headstart.data import load_data

    saved = Path(samples) / "samples.npz"
    found = load_data(saved if saved.is_file() else samples).to(device)
    real, held_out = (part.to(device) for part in split(data, reference_count, seed))
    network = feature_network(features, data, device, batch_size)
    if network is None and (stats or save_stats):
        raise InputError("statistics are of features: say which with --features")
    published = None if stats is None else metrics.GaussianStatistics.load(stats)
    names = _names(scores, network is not None)
    if by_class:
        _check_labels(found, real, held_out, metrics.needed(names))
    progress = RichProgress()
    reference = metrics.Reference.of(
        real.samples, network, seed=seed, progress=progress, keep=bool(names), statistics=published
    )
    if save_stats is not None:
        same(partial(_save, real.samples, network, reference, published is not None, save_stats))
    count = min(len(found), len(held_out))
    errors = count >= metrics.scores.ENOUGH
    result = metrics.evaluate(found.samples, reference, progress, scores=names, errors=errors)
    floor = metrics.floor(reference, held_out.samples, count, seed=seed, progress=progress, scores=names, errors=errors)
    rows: dict[str, Scores | ClassScores] = {"samples": result, "noise floor": floor}
    values = {"samples": result.to_dict(), "floor": floor.to_dict(), "data": data, "features": network is not None}
    if by_class:
        classes, floors = _by_class(found, real, held_out, network, names, seed, progress)
        values["by_class"] = {"samples": classes.to_dict(), "floor": floors.to_dict()}
        rows |= {f"mean of {len(classes.each)} classes": classes, "its floor": floors}
        for label, own in classes.each.items():
            rows |= {f"class {label}": own, f"class {label}, floor": floors.each[label]}
    text = f"{_table(rows)}\nagainst {len(real)} real samples of {data}"
    if not data.startswith("builtin:"):
        text += ", drawn without regard to what a plan was fitted on"
    if network is None:
        text += "\nThe column frechet is of features of images: --features names what computes them"
    if note := metrics.floor_note(count, len(found)):
        text += f"\n{note}"
    if published is not None:
        text += f"\nThe Fréchet distances of the whole are to the statistics in {stats}"
    if any(row.converged is False for row in rows.values()):
        text += "\nA search for the max-sliced distance did not converge: the distance may be larger"
    if citation:
        from headstart.citation import bibtex

        values["citation"] = bibtex(result.cited)
        text += f"\n\n{values['citation']}"
    return Answer(text, values)


def _names(scores: str, features: bool) -> tuple[str, ...]:
    """The scores that an option names; all are those that can be computed, with or without features."""
    from headstart.metrics import METRICS

    names = tuple(name.strip().replace("-", "_") for name in scores.split(",") if name.strip())
    for name in names:
        if name not in (*METRICS, "all"):
            raise InputError(unknown("score", name, (*METRICS, "all")))
    if "all" in names:
        return tuple(name for name, metric in METRICS.items() if features or not metric.of_features)
    return names


def _check_labels(found: Dataset, real: Dataset, held_out: Dataset, least: int) -> None:
    """Refuse samples without labels, and classes with fewer samples, real or not, than are needed."""
    if found.labels is None or real.labels is None or held_out.labels is None:
        without = found if found.labels is None else real
        raise InputError(f"{without.name} holds no labels, which --by-class needs")
    for part in (found, real, held_out):
        for label in sorted(set(found.labels.tolist())):
            if (count := int((part.labels == label).sum())) < least:
                raise InputError(f"{part.name} has {count} samples of class {label} to score: {least} are needed")


def _by_class(
    found: Dataset,
    real: Dataset,
    held_out: Dataset,
    network: Features | None,
    names: tuple[str, ...],
    seed: int,
    progress: Progress,
) -> tuple[ClassScores, ClassScores]:
    """The scores of each class of the samples, and their floor."""
    import torch

    from headstart import metrics

    assert found.labels is not None
    assert real.labels is not None
    assert held_out.labels is not None
    labels, sizes = torch.unique(found.labels, return_counts=True)
    counts = dict(zip(labels.tolist(), sizes.tolist(), strict=True))
    wanted = torch.isin(real.labels, labels)
    references = metrics.references_by_class(
        real.samples[wanted], real.labels[wanted], network, seed, progress=progress, keep=bool(names)
    )
    classes = metrics.by_class(found.samples, found.labels, references, progress, scores=names, errors=True)
    floors = metrics.floor_by_class(
        references, held_out.samples, held_out.labels, counts, seed, progress, scores=names, errors=True
    )
    return classes, floors


def _save(real: Tensor, network: Features | None, reference: Reference, others: bool, path: Path) -> None:
    """Write the statistics of the real samples' features; they are not the reference's if those are others'."""
    from headstart.metrics import Reference

    own = Reference.of(real, network, directions=1) if others else reference
    assert own.statistics is not None
    own.statistics.save(path)


def _table(rows: Mapping[str, Scores | ClassScores]) -> str:
    """A line for each row: every score, or its mean over classes, with its standard error."""
    from headstart.metrics import METRICS, always

    shown = {*always(), *(name for row in rows.values() for name in _values(row))}
    names = [name for name in METRICS if name in shown]
    first = max(map(len, rows)) + 1
    lines = [" " * first + "".join(f"{name:>{WIDTH}}" for name in names) + f"{'n':>10}"]
    for title, row in rows.items():
        values = _values(row)
        cells = [_cell(values.get(name), row.errors.get(name)) for name in names]
        lines.append(f"{title:<{first}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells) + f"{row.n:>10}")
    return "\n".join(lines)


def _values(row: Scores | ClassScores) -> Mapping[str, float]:
    return {name: value for name, value, _ in row.items()}


def _cell(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
