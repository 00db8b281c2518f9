"""``headstart inspect``: what is in a plan, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.common import Answer, Json, command
from headstart.errors import InputError
from headstart.files import check_file

if TYPE_CHECKING:
    from headstart.plan import Plan

__all__ = ["EXAMPLES", "inspect"]

EXAMPLES = (
    "headstart inspect plan",
    "headstart inspect plan --citation",
    "headstart inspect plan --json",
    "headstart inspect plan --page plan.html --samples samples --data builtin:fashion-mnist",
    "headstart inspect plan --page plan.html --model builtin:fashion-mnist",
)


@command(*EXAMPLES)
def inspect(
    plan: Annotated[Path, typer.Argument(readable=False, metavar="PLAN", help="The folder that headstart fit made.")],
    citation: Annotated[bool, typer.Option("--citation", help="Print what to cite, in BibTeX, instead.")] = False,
    page: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FILE", help="Write a page about it, to be opened in a browser."),
    ] = None,
    samples: Annotated[
        str | None, typer.Option(metavar="OUT", help="Samples to show on the page: what headstart sample made.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Real samples, whose nearest neighbours the page shows too.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Show samples of this network on their way from the start.")
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Tell what a PLAN does and why it was chosen."""
    from headstart.plan import Plan

    if page is not None:
        check_file(page)
    chosen = Plan.load(plan)
    if citation and page is not None:
        raise InputError("--citation prints what to cite instead of all else: leave it out, or --page, which cites too")
    if citation:
        return Answer(chosen.citation(), {"citation": chosen.citation()})
    if page is not None:
        _write(chosen, page, samples, data, model)
    elif (samples, data, model) != (None, None, None):
        raise InputError("--samples, --data and --model are for the page: say where to write it with --page FILE")
    return Answer(chosen.explain() + ("" if page is None else f"\n\nThe page is {page}"), chosen.to_dict())


def _write(plan: Plan, page: Path, samples: str | None, data: str | None, model: str | None) -> None:
    from headstart.data import load_data
    from headstart.models import load_denoiser
    from headstart.report import write_plan_page
    from headstart.report.lanes import beside_classic, lanes

    drawn = None
    if samples is not None:
        saved = Path(samples) / "samples.npz"
        drawn = load_data(saved if saved.is_file() else samples).samples
    real = None if data is None else load_data(data).samples
    shown = []
    if model is not None:
        denoiser = load_denoiser(model)
        shown = lanes(beside_classic(plan, denoiser), denoiser)
    write_plan_page(plan, page, drawn, real, shown)
