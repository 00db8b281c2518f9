"""``headstart export``: a plan in the form of another framework."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.common import Answer, Json, command, parse_numbers

__all__ = ["EXAMPLES", "export"]

EXAMPLES = (
    "headstart export plan --to json -o levels.json",
    "headstart export plan --to k-diffusion --seeds 0-15 -o starts.safetensors",
    "headstart export plan --to comfyui -o sigmas.txt",
    "headstart export plan --to diffusers --scheduler pipeline/scheduler -o scheduler.json",
)


@command(*EXAMPLES)
def export(
    plan: Annotated[Path, typer.Argument(readable=False, metavar="PLAN", help="The folder that headstart fit made.")],
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="The framework or the form: {exports}.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", readable=False, metavar="FILE", help="The file that gets it.")
    ],
    seeds: Annotated[
        str | None, typer.Option(metavar="A-B", help="Add the starts of these seeds; the file is safetensors then.")
    ] = None,
    scheduler: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FOLDER", help="The scheduler of diffusers, as it was saved."),
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Write the levels of a PLAN, and starts, in the form that another framework takes.

    It says how many evaluations that makes there, how the levels end and what was transformed.
    """
    from headstart.integrations.export import export as exported
    from headstart.plan import Plan

    options: dict[str, Any] = {} if scheduler is None else {"scheduler": scheduler}
    found = exported(Plan.load(plan), to, seeds=None if seeds is None else parse_numbers(seeds), **options)
    found.save(output)
    lines = [f"{output}: {found.call}, {found.evaluations} network evaluations a sample", *found.notes]
    return Answer("\n".join(lines), {"out": str(output), **found.about})
