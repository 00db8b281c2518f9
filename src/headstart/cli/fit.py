"""``headstart fit``: from a denoiser and data to a plan for a budget of network evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from headstart.cli.common import Answer, BatchSize, DataSpec, Device, Json, ModelSpec, Seed, answers, staged, usable
from headstart.cli.progress import RichProgress
from headstart.errors import InputError

__all__ = ["EXAMPLES", "fit"]

EXAMPLES = (
    "headstart fit builtin:fashion-mnist builtin:fashion-mnist --nfe 4 -o plan",
    "headstart fit python:mymodel:load images/ --nfe 6 -o plan --conditional",
    "headstart fit python:mymodel:load data.npy --nfe 4 -o plan --solver euler --horizon 3",
)


@answers
def fit(
    model: ModelSpec,
    data: DataSpec,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PLAN", help="The folder that gets the plan.")],
    nfe: Annotated[int, typer.Option(metavar="N", help="Network evaluations for a sample.")] = 4,
    horizon: Annotated[
        float | None, typer.Option(metavar="SIGMA", help="Fix the noise level where sampling starts.")
    ] = None,
    initialization: Annotated[
        str | None, typer.Option(metavar="NAME", help="Fix the start: isotropic, gaussian or mixture.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Fix the noise levels: defect, corrector, rho, log_linear or tangent."),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(metavar="NAME", help="Fix the solver: euler, heun, dpm++2m or ddpm.")
    ] = None,
    sigma_min: Annotated[float | None, typer.Option(metavar="SIGMA", help="Fix the last noise level above 0.")] = None,
    sigma_max: Annotated[
        float | None,
        typer.Option(metavar="SIGMA", help="The highest noise level that MODEL knows, if it does not say."),
    ] = None,
    criterion: Annotated[
        str, typer.Option(metavar="NAME", help="Choose by a pilot of samples (pilot) or by the bound alone (nats).")
    ] = "pilot",
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Fit on the data's labels: sampling then takes --label.")
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Choose where to start, which noise levels to visit and how, for N network evaluations; save the PLAN.

    Whatever is fixed by an option is kept, and the rest is chosen around it.
    """
    device = usable(device)
    from headstart import choose
    from headstart.data import load_data
    from headstart.models import load_denoiser
    from headstart.plan import check_place

    dataset = load_data(data)
    if conditional and dataset.labels is None:
        raise InputError(f"{data} holds no labels, which --conditional needs")
    denoiser = load_denoiser(model, device)
    check_place(output)
    with staged(output.parent):  # a place that cannot be written to is found out before the work, not after it
        plan = choose.fit(
            denoiser,
            dataset.samples,
            nfe,
            labels=dataset.labels if conditional else None,
            horizon=horizon,
            initialization=initialization,
            schedule=schedule,
            solver=solver,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            criterion=cast(Any, criterion),
            seed=seed,
            device=device,
            batch_size=batch_size,
            progress=RichProgress(),
        )
        plan.save(output)
    return Answer(f"{plan.explain()}\nThe plan is in {output}", {"out": str(output), "plan": plan.to_dict()})
