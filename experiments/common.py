"""What the experiments share: their command line, and the files that they write.

Every experiment is a function of a :class:`Run` that returns what ``results.json`` holds. Its folder gets that file,
the tables as Markdown and CSV, and the figures as SVG.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import torch
import typer
from matplotlib.figure import Figure

from headstart.cli.progress import RichProgress
from headstart.demo import environment
from headstart.errors import HeadstartError, InputError
from headstart.progress import Progress
from headstart.report.images import write_whole

__all__ = ["Run", "command", "estimate"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        out: the folder that gets its files.
        quick: whether to do a small part of everything, to see that it works.
        seeds: how many seeds, 0 and on.
        device: where networks work.
        progress: told of what takes time.
    """

    out: Path
    quick: bool
    seeds: int
    device: str
    progress: Progress

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows as ``name.md`` and ``name.csv``; what a row does not have is left blank."""
        if not rows:
            raise InputError(f"the table {name} has no rows")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(text.getvalue().encode(), self.out / f"{name}.csv")
        lines = [
            "| " + " | ".join(cells) + " |" for cells in [columns, *([_cell(r.get(c)) for c in columns] for r in rows)]
        ]
        lines.insert(1, "|" + "---|" * len(columns))
        write_whole("\n".join([*lines, ""]).encode(), self.out / f"{name}.md")

    def figure(self, name: str, figure: Figure) -> None:
        """Write a figure as ``name.svg``, the same bytes for the same figure."""
        with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches="tight")
        write_whole(text.getvalue().encode(), self.out / f"{name}.svg")

    def results(self, results: Mapping[str, Any]) -> None:
        """Write ``results.json``; NaN and Inf are refused."""
        write_whole((json.dumps(results, indent=1, allow_nan=False) + "\n").encode(), self.out / "results.json")


def command(
    name: str, experiment: Callable[[Run], Mapping[str, Any]], seeds: int = 1, package: str = "experiments"
) -> None:
    """Run an experiment from the command line, as ``python -m <package>.<name>``."""

    def main(
        out: Annotated[Path | None, typer.Option(help="The folder that gets tables, figures and results.json.")] = None,
        quick: Annotated[
            bool, typer.Option("--quick", help="A small part of everything, to see that it works.")
        ] = False,
        count: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")] = seeds,
        device: Annotated[str, typer.Option(help="Where networks work.")] = "cpu",
    ) -> None:
        folder = out or Path("runs") / name
        began = time.perf_counter()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run = Run(folder, quick, 1 if quick else count, device, RichProgress())
            found = experiment(run)
            run.results(
                {
                    "experiment": name,
                    "quick": quick,
                    **found,
                    "environment": environment(device),
                    "seconds": time.perf_counter() - began,
                }
            )
        except HeadstartError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            typer.echo(f"error: {folder} cannot be written: {error.strerror or error}", err=True)
            raise typer.Exit(5) from error
        typer.echo(f"{name}: {folder / 'results.json'}")

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=(experiment.__doc__ or "").split("\n\n")[0])(main)
    app(prog_name=f"python -m {package}.{name}")


def estimate(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, standard error and number of values from different seeds; one value has no error."""
    x = torch.tensor(values, dtype=torch.float64)
    error = float(x.std() / math.sqrt(len(x))) if len(x) > 1 else None
    return {"mean": float(x.mean()), "error": error, "n": len(x)}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
