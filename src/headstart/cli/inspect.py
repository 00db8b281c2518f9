"""``headstart inspect``: what is in a plan, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.common import Answer, Json, answers

__all__ = ["EXAMPLES", "inspect"]

EXAMPLES = ("headstart inspect plan", "headstart inspect plan --citation", "headstart inspect plan --json")


@answers
def inspect(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="The folder that headstart fit made.")],
    citation: Annotated[bool, typer.Option("--citation", help="What to cite for it, in BibTeX, instead.")] = False,
    as_json: Json = False,
) -> Answer:
    """Tell what a PLAN does and why it was chosen."""
    from headstart.plan import Plan

    chosen = Plan.load(plan)
    if citation:
        return Answer(chosen.citation(), {"citation": chosen.citation()})
    return Answer(chosen.explain(), chosen.to_dict())
