"""``headstart demo``: the whole of it on Fashion-MNIST, against the usual samplers, without a network connection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.common import Answer, BatchSize, Device, Json, Seed, command, usable
from headstart.cli.progress import RichProgress
from headstart.files import check_folder

__all__ = ["EXAMPLES", "demo"]

EXAMPLES = ("headstart demo", "headstart demo --quick --out runs/quick", "headstart demo -n 5000 --seed 1 --json")


@command(*EXAMPLES)
def demo(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", readable=False, metavar="OUT", help="The folder for the report and the results."),
    ] = Path("runs/demo"),
    n: Annotated[int, typer.Option("-n", metavar="N", help="Images for each plan and each baseline.")] = 1000,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, to see that it works.")] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Plan and sample on Fashion-MNIST, side by side with the usual samplers, and write a report.

    OUT gets report.html, to be opened in a browser, and results.json. It takes a few minutes on two CPU cores.
    """
    check_folder(out)
    device = usable(device)
    from headstart.demo import run
    from headstart.report import results_table, verdict

    progress = RichProgress(sooner=True)
    results = run(out, n=n, seed=seed, device=device, batch_size=batch_size, quick=quick, progress=progress)
    rows, floor = results["rows"], results["floor"]
    text = f"{results_table(rows, floor)}\n\n{verdict(rows, floor)}\nThe report is {out / 'report.html'}"
    return Answer(text, results)
