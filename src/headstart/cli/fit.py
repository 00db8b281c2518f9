"""``headstart fit``: from a denoiser and data to a plan for a budget of network evaluations."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from headstart.cli.common import NAMES, Answer, BatchSize, Device, Json, ModelSpec, Seed, command, usable, whole_numbers
from headstart.cli.conditions import ConditionFiles, SharedFiles, read_conditions
from headstart.cli.progress import RichProgress
from headstart.errors import InputError
from headstart.files import check_file
from headstart.processes import same

__all__ = ["EXAMPLES", "fit"]

#: What stands for samples of the network itself, in place of data.
SELF = "self"

EXAMPLES = (
    "headstart fit builtin:fashion-mnist builtin:fashion-mnist --nfe 4 -o plan",
    "headstart fit python:mymodel:load images/ --nfe 6 -o plan --conditional",
    "headstart fit python:mymodel:load data.npy --nfe 4 -o plan --solver euler --horizon 3",
    "headstart fit builtin:fashion-mnist builtin:fashion-mnist -o plan --initialization flow --checkpoint flow.pt",
    "headstart fit builtin:fashion-mnist builtin:fashion-mnist --nfe 3 -o plan --schedule distilled",
    "headstart fit python:mymodel:load fields.npy -o plan --condition coarse=coarse.npy --shared table=table.npy",
    "headstart fit builtin:fashion-mnist self --shape 1,28,28 --n-samples 1000 -o plan",
)


@command(*EXAMPLES)
def fit(
    model: ModelSpec,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Clean samples; 'self' to draw them with MODEL, see --shape.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", readable=False, metavar="PLAN", help="The folder that gets the plan.")
    ],
    nfe: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Network evaluations for a sample; or several numbers of them, separated by commas, "
            "for as many plans that share what is measured and fitted: PLAN-3, PLAN-4 and so on.",
        ),
    ] = "4",
    horizon: Annotated[
        str | None,
        typer.Option(metavar="SIGMA", help="Fix the noise level where sampling starts: a number, or 'unimodal'."),
    ] = None,
    initialization: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="The starts to choose from, separated by commas: {starts}. "
            "(default: {usual_starts}, and student-t where a Gaussian misses the tails)",
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Fix the noise levels: {rules}, with parameters after it as in 'rho 3'; or "
            "distilled, to learn them and the solver's coefficients, in minutes.",
        ),
    ] = None,
    exponent: Annotated[
        float | None,
        typer.Option(metavar="Q", help="The power of the step that the cost grows as: 4 for defect, 2 for corrector."),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Fix the solver: {solvers}.",
        ),
    ] = None,
    sigma_min: Annotated[float | None, typer.Option(metavar="SIGMA", help="Fix the last noise level above 0.")] = None,
    sigma_max: Annotated[
        float | None,
        typer.Option(metavar="SIGMA", help="The highest noise level that MODEL knows, if it does not say."),
    ] = None,
    criterion: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Choose by a pilot of samples (pilot) or by the error budget alone (budget)."
        ),
    ] = "pilot",
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Ask first whether MODEL is a denoiser of DATA; see headstart check."),
    ] = True,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over the data at most, for the starts that are trained.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="FILE",
            help="The file that training a start ({trained_starts}) writes after every epoch, and goes on from.",
        ),
    ] = None,
    start_cost: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="What drawing a trained start costs, in evaluations of MODEL, as you measured it. "
            "(default: counted in operations)",
        ),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="The shape of one sample, where DATA is 'self'.")
    ] = None,
    n_samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Samples of MODEL to fit on where DATA is 'self', with 35 evaluations each. "
            "(default: 2000, or 10000 of at most 256 numbers each)",
        ),
    ] = None,
    own: Annotated[int | None, typer.Option("--own", hidden=True, help="An earlier name of --n-samples.")] = None,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Fit on the data's labels: sampling then takes --label.")
    ] = False,
    condition: ConditionFiles = None,
    shared: SharedFiles = None,
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print all that led to the choice, as headstart inspect does.")
    ] = False,
    as_json: Json = False,
) -> Answer:
    """Choose where to start, which noise levels to visit and how, for N network evaluations; save the PLAN.

    Whatever is fixed by an option is kept, and the rest is chosen around it.
    """
    from headstart.plan import check_place

    budgets = whole_numbers(nfe, "--nfe", "3,4,6")
    places = {budgets[0]: output} if len(budgets) == 1 else {n: output.with_name(f"{output.name}-{n}") for n in budgets}
    for place in places.values():
        check_place(place)
    if checkpoint is not None:
        check_file(checkpoint)
    device = usable(device)
    from headstart import choose
    from headstart.choose.work import Work, beside
    from headstart.data import load_data
    from headstart.initialization import Training
    from headstart.models import load_denoiser

    dataset = None if data == SELF else load_data(data)
    if conditional and (dataset is None or dataset.labels is None):
        raise InputError(f"{data} holds no labels, which --conditional needs")
    families = None if initialization is None else [name.strip() for name in initialization.split(",")]
    trained = tuple(NAMES["trained_starts"]())
    if (epochs is not None or checkpoint is not None) and not set(trained) & set(families or ()):
        raise InputError(f"--epochs and --checkpoint are for the starts that are trained: {' and '.join(trained)}")
    if dataset is not None and shape is not None:
        raise InputError(f"--shape is for DATA {SELF!r}: {data} has a shape of its own")
    training = Training(epochs=Training.epochs if epochs is None else epochs, checkpoint=checkpoint)
    from headstart.report.brief import brief

    denoiser = load_denoiser(model, device)
    with Work(beside(output)) as work:
        plans = choose.fit(
            denoiser,
            None if dataset is None else dataset.samples,
            budgets,
            labels=dataset.labels if dataset is not None and conditional else None,
            conditions=read_conditions(condition, shared, *(["label"] if conditional else [])),
            shape=None if shape is None else whole_numbers(shape, "--shape", "1,28,28", least=1),
            n_samples=n_samples if own is None else own,
            horizon=_horizon(horizon),
            initialization=families,
            training=training,
            start_cost=start_cost,
            schedule=schedule,
            solver=solver,
            sigma_min=sigma_min,
            exponent=exponent,
            sigma_max=sigma_max,
            criterion=cast(Any, criterion),
            check=check,
            seed=seed,
            device=device,
            batch_size=batch_size,
            progress=RichProgress(sooner=True),
            work=work,
        )
        answers = []
        for n, place in places.items():
            same(partial(plans[n].save, place))
            told = {"out": str(place), "plan": plans[n].to_dict()}
            said = plans[n].explain() if verbose else f"{brief(plans[n])}\nWhy        headstart inspect {place}"
            answers.append(Answer(f"{said}\nThe plan is in {place}", told))
    if len(answers) == 1:
        return answers[0]
    return Answer("\n\n".join(answer.text for answer in answers), {"plans": [answer.values for answer in answers]})


def _horizon(text: str | None) -> float | Literal["unimodal"] | None:
    if text is None:
        return None
    if text == "unimodal":
        return "unimodal"
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--horizon {text!r} is neither a number nor 'unimodal'") from error
