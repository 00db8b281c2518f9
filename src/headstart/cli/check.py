"""``headstart check``: is a model a denoiser of the data, in these units?"""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.cli.common import Answer, BatchSize, DataSpec, Device, Json, ModelSpec, Seed, command, usable
from headstart.cli.conditions import ConditionFiles, SharedFiles, read_conditions
from headstart.cli.progress import RichProgress
from headstart.errors import InputError

__all__ = ["EXAMPLES", "check"]

EXAMPLES = (
    "headstart check builtin:fashion-mnist builtin:fashion-mnist",
    "headstart check python:mymodel:load data.npy --json",
    "headstart check python:mymodel:load fields.npy --condition coarse=coarse.npy --shared table=table.npy",
)


@command(*EXAMPLES)
def check(
    model: ModelSpec,
    data: DataSpec,
    sigma_max: Annotated[
        float | None,
        typer.Option(metavar="SIGMA", help="The highest noise level that MODEL knows, if it does not say."),
    ] = None,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Hand the data's labels to MODEL, as label=.")
    ] = False,
    condition: ConditionFiles = None,
    shared: SharedFiles = None,
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Tell whether MODEL is a denoiser of DATA, in these units, and what is likely wrong if it is not.

    One line a finding: doubts end with exit code 0, an error with 2.
    """
    device = usable(device)
    from headstart import denoiser
    from headstart.data import load_data
    from headstart.models import load_denoiser

    dataset = load_data(data)
    if conditional and dataset.labels is None:
        raise InputError(f"{data} holds no labels, which --conditional needs")
    found = denoiser.check(
        load_denoiser(model, device),
        dataset.samples,
        read_conditions(condition, shared, *(["label"] if conditional else [])),
        labels=dataset.labels if conditional else None,
        seed=seed,
        sigma_max=sigma_max,
        device=device,
        batch_size=batch_size,
        progress=RichProgress(),
    )
    unused = dataset.labels is not None and not conditional
    note = f"\n{data} holds labels, which --conditional hands to the model as label=" if unused else ""
    return Answer(f"{found}{note}", found.to_dict(), InputError.exit_code if found.errors else 0)
