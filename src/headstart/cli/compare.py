"""``headstart compare``: our plans and other samplers on one network, with the same seeds and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.common import (
    Answer,
    BatchSize,
    DataSpec,
    Device,
    Json,
    ModelSpec,
    Seed,
    command,
    usable,
    whole_numbers,
)
from headstart.cli.progress import RichProgress
from headstart.cli.real import FeaturesSpec, ReferenceCount, feature_network, split
from headstart.errors import InputError
from headstart.files import check_folder

__all__ = ["EXAMPLES", "compare"]

EXAMPLES = (
    "headstart compare builtin:fashion-mnist builtin:fashion-mnist --quick --out runs/compare-quick",
    "headstart compare builtin:fashion-mnist builtin:fashion-mnist --nfe 3,4,6 --methods plan,heun,dpm++2m-karras",
    "headstart compare python:mymodel:load data.npy --samples 2000 --seeds 2 --plan plan",
)

#: What a quick run does at most.
QUICK_SAMPLES, QUICK_NFE = 64, (3,)


@command(*EXAMPLES)
def compare(
    model: ModelSpec,
    data: DataSpec,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            readable=False,
            metavar="OUT",
            help="The folder for the results; a stopped run goes on there.",
        ),
    ] = Path("runs/compare"),
    nfe: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Numbers of network evaluations. (default: 3,4,5,6,8,10; 3 with --quick)"),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What to compare, separated by commas: {methods}. (default: all whose packages are installed)",
        ),
    ] = None,
    arms: Annotated[str | None, typer.Option("--arms", hidden=True, help="An earlier name of --methods.")] = None,
    plan: Annotated[
        list[Path] | None,
        typer.Option("--plan", readable=False, metavar="PLAN", help="A saved plan to show too; may be repeated."),
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", help="Samples of each method for each number of evaluations and seed.")
    ] = 10_000,
    seeds: Annotated[int, typer.Option(metavar="N", help="How many seeds; each has its own samples and fits.")] = 3,
    features: FeaturesSpec = "auto",
    reference_count: ReferenceCount = 10_000,
    sigma_min: Annotated[
        float, typer.Option(metavar="SIGMA", help="The last noise level above 0 of the peers' grids made by hand.")
    ] = 0.002,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, to see that everything works.")] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Compare our plans with other samplers, packages' own among them, on MODEL: quality, evaluations and seconds.

    OUT gets index.html, to be opened in a browser, summary.md, results.json, results.csv and figures. Of bundled DATA
    the test split is scored against, of other data one half; all fits see the rest alone. What is finished is kept: run
    the same command again to go on, or with more methods, evaluations or seeds to add them.
    """
    named = None if nfe is None else whole_numbers(nfe, "--nfe", "3,4,6", least=1)
    counts = named or (QUICK_NFE if quick else None)
    methods = methods or arms
    names = None if methods is None else [name.strip() for name in methods.split(",")]
    if reference_count < 2:
        raise InputError(f"--reference-count is {reference_count}: expected at least 2")
    if not 0 < sigma_min < 80:
        raise InputError(f"--sigma-min is {sigma_min}: expected a level above 0 and below 80")
    check_folder(out)
    device = usable(device)
    from headstart import compare as comparison
    from headstart.compute import Compute
    from headstart.metrics import Reference
    from headstart.models import load_denoiser
    from headstart.report.comparison import comparison_table

    compute = Compute(device, batch_size=batch_size, progress=RichProgress())
    denoiser = load_denoiser(model, device)
    real, training = (part.samples for part in split(data, reference_count, seed=0))
    network = feature_network(features, data, device, batch_size)
    if quick:
        samples, seeds, training = min(samples, QUICK_SAMPLES), min(seeds, 1), training[:2000]
    results = comparison.compare(
        denoiser,
        training,
        Reference.of(real.to(device), network, progress=compute.progress),
        out,
        draws=comparison.Draws(counts or comparison.NFE, samples, seeds, seed),
        methods=names,
        plans=[comparison.saved(path) for path in plan or ()],
        sigma_min=sigma_min,
        sizes=comparison.QUICK if quick else None,
        description={
            "model": model,
            "data": data,
            "features": features if network is not None else "none",
            "training": len(training),
            "reference": len(real),
        },
        compute=compute,
    )
    return Answer(f"{comparison_table(results)}\n\nThe page is {out / 'index.html'}", results)
