r"""Shared parts of the experiments: their command line, the files that they write, many samples, and a distance.

Every experiment is a function of a :class:`Run` that returns what ``results.json`` holds, and another one of these
results that says what was found in a sentence. Its folder gets that file, the tables as Markdown and CSV, the figures
as SVG, and a page with all of it.

The distances of :func:`max_sliced` and :func:`trimmed` are those of :mod:`headstart.metrics`, of sets of one size.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import torch
import typer
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from headstart import metrics
from headstart.artefact import read_json
from headstart.cli.common import usable
from headstart.cli.progress import RichProgress
from headstart.compare.cells import Cells
from headstart.environment import environment
from headstart.errors import HeadstartError, InputError
from headstart.files import atomic_write
from headstart.noise import Noise
from headstart.progress import Progress
from headstart.report import write_folder_page
from headstart.report.drawing import style

__all__ = ["Blocks", "Run", "command", "drawn", "estimate", "groups", "max_sliced", "mean", "record", "trimmed"]

Row = Mapping[str, Any]

#: What figures of several panels differ in from those of pages: small letters, and powers of ten at the ticks.
FIGURES: dict[Any, Any] = {"font.size": 9, "text.parse_math": True}


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        out: the folder that gets its files.
        quick: whether to do a small part of everything, to see that it works.
        seeds: how many seeds, 0 and on.
        device: where networks work.
        progress: told of what takes time.
        only: texts of which one is in the name of each part that is to be done; all parts where there are none.
        files: the tables and figures that were written, in their order.
    """

    out: Path
    quick: bool
    seeds: int
    device: str
    progress: Progress
    only: tuple[str, ...] = ()
    files: dict[str, None] = field(default_factory=dict)

    def command(self, module: str) -> str:
        """The command that repeats the run."""
        seeds = "" if self.quick else f" --seeds {self.seeds}"
        device = "" if self.device == "cpu" else f" --device {self.device}"
        return f"python -m {module}{' --quick' if self.quick else ''}{seeds}{device}"

    def asked(self, part: str) -> bool:
        """Whether a part by its name is to be done."""
        return not self.only or any(text in part for text in self.only)

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows as ``name.md`` and ``name.csv``; what a row does not have is left blank."""
        if not rows:
            raise InputError(f"the table {name} has no rows")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(text.getvalue().encode(), self.out / f"{name}.csv")
        lines = [
            "| " + " | ".join(cells) + " |" for cells in [columns, *([_cell(r.get(c)) for c in columns] for r in rows)]
        ]
        lines.insert(1, "|" + "---|" * len(columns))
        self.text(name, "\n".join([*lines, ""]))

    def text(self, name: str, text: str) -> None:
        """Write ``name.md``: headings, paragraphs, lists and tables in Markdown."""
        self._write(f"{name}.md", text)

    def figure(self, name: str, figure: Figure) -> None:
        """Write a figure as ``name.svg``, the same bytes for the same figure."""
        with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches="tight")
        self._write(f"{name}.svg", text.getvalue())

    def cells(self) -> Cells:
        """The finished cells of this run, so that one in the same folder goes on."""
        settings = {"quick": self.quick, "headstart": environment(self.device)["headstart"], "device": self.device}
        return Cells(self.out / "cells.jsonl", settings)

    def _write(self, name: str, text: str) -> None:
        atomic_write(text.encode(), self.out / name)
        self.files[name] = None

    def results(self, results: Mapping[str, Any]) -> None:
        """Write ``results.json``; NaN and Inf are refused."""
        atomic_write((json.dumps(results, indent=1, allow_nan=False) + "\n").encode(), self.out / "results.json")


def record(
    run: Run,
    name: str,
    experiment: Callable[[Run], Mapping[str, Any]],
    verdict: Callable[[Mapping[str, Any]], str],
    package: str = "experiments",
) -> None:
    """Do an experiment, and write ``results.json`` and ``index.html`` into its folder.

    Arguments:
        run: where and how.
        name: of its module.
        experiment: does it.
        verdict: from what it found to a sentence.
        package: where the module is.
    """
    began = time.perf_counter() - _spent(run.out, name)
    with style(), matplotlib.rc_context(FIGURES):
        results = experiment(run)
    found = {
        "experiment": name,
        "quick": run.quick,
        "seeds": run.seeds,
        "about": _about(experiment),
        "command": run.command(f"{package}.{name}"),
        **results,
        "files": list(run.files),
        "environment": environment(run.device),
        "seconds": time.perf_counter() - began,
    }
    run.results(found)  # at once: what is said of it may fail
    run.results(found | {"verdict": verdict(found)})
    write_folder_page(run.out)


def _spent(folder: Path, name: str) -> float:
    """Seconds that the runs before took which this one goes on from."""
    path = folder / "results.json"
    if not ((folder / "cells.jsonl").exists() and path.exists()):
        return 0.0
    before: dict[str, Any] = read_json(path)
    return float(before["seconds"]) if before.get("experiment") == name else 0.0


def _about(experiment: Callable[..., Any]) -> str:
    """The first paragraph of its docstring, on one line."""
    return " ".join((experiment.__doc__ or "").split("\n\n")[0].split())


def command(
    name: str,
    experiment: Callable[[Run], Mapping[str, Any]],
    verdict: Callable[[Mapping[str, Any]], str],
    seeds: int = 1,
    package: str = "experiments",
    on_device: bool = True,
    parts: Sequence[str] = (),
) -> None:
    """Run an experiment from the command line, as ``python -m <package>.<name>``; see :func:`record`.

    One that is of exact laws alone works on the CPU, and says so by ``on_device=False``. One that can do some of its
    parts alone names them, and has the option ``--only``.
    """
    # A default, since an annotation cannot name a variable of this function.
    chosen = typer.Option(None, hidden=not parts, help="A text in the names of the parts to do; may be given again.")

    def main(
        out: Annotated[Path | None, typer.Option(help="The folder that gets tables, figures and results.json.")] = None,
        quick: Annotated[
            bool, typer.Option("--quick", help="A small part of everything, to see that it works.")
        ] = False,
        count: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")] = seeds,
        device: Annotated[str, typer.Option(help="Where networks work.")] = "cpu",
        only: list[str] | None = chosen,
    ) -> None:
        folder = out or Path("runs") / name
        try:
            if not on_device and device != "cpu":
                raise InputError(f"{name} has no network, and works on the CPU: leave --device {device} out")
            for text in only or ():
                if not any(text in part for part in parts):
                    known = f"its parts are {', '.join(map(repr, parts))}" if parts else "it is done whole"
                    raise InputError(f"no part of {name} has {text!r} in its name: {known}")
            usable(device)
            folder.mkdir(parents=True, exist_ok=True)
            run = Run(folder, quick, 1 if quick else count, device, RichProgress(), tuple(only or ()))
            record(run, name, experiment, verdict, package)
        except HeadstartError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            typer.echo(f"error: {error.filename or folder}: {error.strerror or error}", err=True)
            raise typer.Exit(5) from error
        typer.echo(f"{name}: {folder / 'index.html'}")

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=_about(experiment))(main)
    app(prog_name=f"python -m {package}.{name}")


def estimate(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, standard error and number of values from different seeds; one value has no error."""
    x = torch.tensor(values, dtype=torch.float64)
    error = float(x.std() / math.sqrt(len(x))) if len(x) > 1 else None
    return {"mean": float(x.mean()), "error": error, "n": len(x)}


def mean(rows: Sequence[Row], key: str) -> float:
    """The mean of one column."""
    return sum(float(row[key]) for row in rows) / len(rows)


def groups(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """The rows by the values of some columns, in their order."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


class Blocks(Noise):
    """Random streams, each for a block of samples: a million samples need a thousand generators, and not a million.

    Arguments:
        seeds: of the blocks.
        block: samples in each.
    """

    def __init__(self, seeds: Iterable[int], block: int) -> None:
        super().__init__(seeds)
        self.block = block

    def __len__(self) -> int:
        return len(self.seeds) * self.block

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return super().normal((self.block, *shape)).flatten(0, 1)

    def uniform(self, shape: tuple[int, ...] = ()) -> Tensor:
        return super().uniform((self.block, *shape)).flatten(0, 1)

    def gamma(self, shape_parameter: ArrayLike, shape: tuple[int, ...] = ()) -> Tensor:
        return super().gamma(shape_parameter, (self.block, *shape)).flatten(0, 1)


def drawn(law: Callable[[Noise], Tensor], n: int, purpose: int, seed: int) -> Tensor:
    """n samples (n, \\*S) of what a law makes of random streams; those of other purposes and seeds are independent."""
    block = min(1000, n)
    first, count = purpose * 2**48 + seed * 2**32, math.ceil(n / block)
    parts = [law(Blocks(range(first + i, first + min(i + 8, count)), block)) for i in range(0, count, 8)]
    return torch.cat(parts)[:n]


def max_sliced(
    a: Tensor, b: Tensor, seed: int = 0, searched: int = 4000, random: int = 256, ascents: int = 4, steps: int = 60
) -> float:
    """The max-sliced 2-Wasserstein distance of two sets (n, d) of one size: one round of :mod:`headstart.metrics`.

    Arguments:
        a: samples.
        b: samples.
        seed: of the random directions.
        searched: samples of each that directions are searched on.
        random: random directions; the difference of the means and the principal axes of both are tried too.
        ascents: how many of all these directions are improved by Adam, 0.05 a step and less and less.
        steps: of each ascent.
    """
    _check_sizes(a, b)
    one_round = partial(metrics.max_sliced, a, b, rounds=1, by_moments=False)
    return one_round(seed=seed, searched=searched, random=random, ascents=ascents, steps=steps).value


def trimmed(a: Tensor, b: Tensor, low: float = 0.1, high: float = 0.9, directions: int = 128, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance of two sets (n, d) of one size between two quantiles of every projection."""
    _check_sizes(a, b)
    return metrics.bulk_sliced_wasserstein(a, b, low, high, directions, seed)


def _check_sizes(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or len(a) < 2:
        raise InputError(f"sets of one size are compared here: got {tuple(a.shape)} and {tuple(b.shape)}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
