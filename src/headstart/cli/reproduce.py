"""``headstart reproduce``: the papers' experiments, beside what the papers report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.common import Answer, BatchSize, Device, Json, command, usable
from headstart.cli.progress import RichProgress
from headstart.cli.real import FASHION_MNIST, FeaturesSpec, ReferenceCount, feature_network, split
from headstart.errors import InputError, unknown
from headstart.files import check_folder

__all__ = ["EXAMPLES", "reproduce"]

EXAMPLES = (
    "headstart reproduce --list",
    "headstart reproduce starts --quick --out runs/starts-quick",
    "headstart reproduce schedules python:mymodel:load data.npy --samples 50000",
)

#: What a quick run does at most.
QUICK_SAMPLES = 64


@command(*EXAMPLES)
def reproduce(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The experiment; see --list.")] = None,
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="builtin:fashion-mnist, or python:package.module:factory.")
    ] = FASHION_MNIST,
    data: Annotated[
        str, typer.Argument(metavar="[DATA]", help="builtin:fashion-mnist, a file of arrays, or a folder of images.")
    ] = FASHION_MNIST,
    show: Annotated[bool, typer.Option("--list", help="List the experiments and end.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", readable=False, metavar="OUT", help="The folder for the page. (default: runs/reproduce/NAME)"
        ),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="Samples of each sampler and set of seeds.")] = 1000,
    seeds: Annotated[int, typer.Option(metavar="N", help="How many sets of seeds.")] = 2,
    features: FeaturesSpec = "auto",
    reference_count: ReferenceCount = 10_000,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, to see that it works.")] = False,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Do an experiment of a paper on MODEL and DATA, by default at a size that a laptop can run.

    OUT gets index.html, to be opened in a browser: what the paper reports, what was measured, why they differ; and
    results.json. What is finished is kept: run the same command again to go on.
    """
    from headstart.reproduce import EXPERIMENTS

    if show:
        lines = [
            f"{experiment.name:<12}{experiment.title}\n{'':12}{experiment.paper}" for experiment in EXPERIMENTS.values()
        ]
        listed = {key: {"title": e.title, "paper": e.paper} for key, e in EXPERIMENTS.items()}
        return Answer("\n".join(lines), listed)
    if name is None or name not in EXPERIMENTS:
        raise InputError(unknown("experiment", name, EXPERIMENTS))
    folder = out or Path("runs/reproduce") / name
    check_folder(folder)
    device = usable(device)
    from headstart import reproduce as reproduction
    from headstart.metrics import Reference
    from headstart.models import load_denoiser

    progress = RichProgress()
    real, rest = (part.samples for part in split(data, reference_count, seed=0))
    network = feature_network(features, data, device, batch_size)
    if quick:
        samples, seeds, rest = min(samples, QUICK_SAMPLES), 1, rest[:1000]
    subject = reproduction.Subject(
        denoiser=load_denoiser(model, device),
        model=model,
        fitting=rest,
        reference=Reference.of(real.to(device), network, progress=progress),
        data=data,
        held_out=rest.to(device),
        n=samples,
        seeds=seeds,
        quick=quick,
        features=features,
        device=device,
        batch_size=batch_size,
        progress=progress,
    )
    results = reproduction.reproduce(EXPERIMENTS[name], subject, folder)
    return Answer("\n".join([*results["found"], f"The page is {folder / 'index.html'}"]), results)
