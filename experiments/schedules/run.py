"""Every schedule with every solver at every number of evaluations: on Gaussians, on 25 modes, on Fashion-MNIST.

Three parts, one after the other, each of which writes its tables as it ends:

1. **Gaussians** (:mod:`experiments.schedules.gaussians`): exact divergences;
2. **25 modes** (:mod:`experiments.schedules.modes`): exact ones of Euler's method, and all solvers by samples;
3. **images** (:mod:`experiments.schedules.images`): Fashion-MNIST with the bundled network, all solvers from noise,
   from the Gaussian and from the learned start.

Whatever is finished is on disk (``cells.jsonl``), and a run that was cut off goes on where it stopped if it is started
in the same folder again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from experiments.common import Run
from experiments.schedules import images, modes
from experiments.schedules.cells import Cells
from experiments.schedules.gaussians import gaussians
from headstart.environment import environment

__all__ = ["schedules", "summary", "verdict"]


def schedules(run: Run) -> dict[str, Any]:
    """Every schedule with every solver at every number of evaluations: on Gaussians, on 25 modes, on Fashion-MNIST."""
    sizes = [asdict(part.QUICK if run.quick else part.Sizes()) for part in (modes, images)]
    settings = {"sizes": sizes, "device": run.device, "headstart": environment(run.device)["headstart"]}
    cells = Cells(run.out / "cells.jsonl", {"experiment": "schedules", **settings})
    parts: dict[str, Callable[[Run], dict[str, Any]]] = {
        "gaussians": gaussians,
        "modes": partial(modes.modes, cells=cells),
        "images": partial(images.images, cells=cells),
    }
    found: dict[str, Any] = {}
    for name, part in parts.items():
        found[name] = part(run)
        run.text("summary", summary(found))
    return found


def verdict(found: Mapping[str, Any]) -> str:
    """The result in a sentence: the bars that were set before."""
    modes, images = found["modes"]["bar"], found["images"]["bars"]
    known = [bar["met"] for bar in (modes, *images) if bar["met"] is not None]
    left = 1 + len(images) - len(known)
    missing = f", and {left} were not run" if left else ""
    return (
        f"{sum(known)} of {len(known)} bars are met{missing}: on 25 modes, five steps of Euler's method from noise "
        f"come to {modes['divergence']:.2f} nats with a measured schedule and to {modes['rho 7']:.2f} with rho 7."
    )


def summary(found: Mapping[str, Any]) -> str:
    """The results of the finished parts in Markdown, against the bars set beforehand."""
    text = ["# Schedules, solvers and starts", ""]
    if "gaussians" in found:
        text += _gaussians(found["gaussians"])
    if "modes" in found:
        text += _modes(found["modes"])
    if "images" in found:
        text += _images(found["images"])
    return "\n".join(text)


def _gaussians(found: Mapping[str, Any]) -> list[str]:
    lines = ["## Gaussians, exactly", "", "In one dimension, the best of 10 and 20 steps (nats):", ""]
    rows = []
    for steps in (10, 20):
        own = [row for row in found["one_dimension"] if row["steps"] == steps]
        least = {key: min(own, key=lambda row, k=key: row[k]) for key in ("euler", "heun", "em_path", "ddpm_path")}  # type: ignore[misc]
        rows.append([steps, *(f"{row['schedule']} {row[key]:.4g}" for key, row in least.items())])
    lines += table(("steps", "Euler", "Heun", "path of Euler and Maruyama", "path of ddpm"), rows)
    spectrum = found["spectrum"]
    lines += [f"In {spectrum['dimension']} dimensions, the best schedule of each class for each solver (nats):", ""]
    return lines + _best_by_class(spectrum["best"], "divergence")


def _modes(found: Mapping[str, Any]) -> list[str]:
    bar = found["bar"]
    lines = ["## 25 modes", "", "Euler's method, exactly (nats), from the starts at their horizons:", ""]
    by_kind: dict[str, dict[tuple[str, int], float]] = {}
    for row in found["exact"]:
        by_kind.setdefault(row["schedule"], {})[row["start"], row["steps"]] = row["divergence"]
    places = list(dict.fromkeys((row["start"], row["steps"]) for row in found["exact"]))
    rows = [[kind, *(f"{own[place]:.3g}" for place in places)] for kind, own in by_kind.items()]
    lines += table(("schedule", *(f"{start}, {steps}" for start, steps in places)), rows)
    lines += [
        f"Bar: five steps from noise in at most {bar['at_most']} nats with a measured schedule. {said(bar['met'])}: "
        f"{bar['divergence']:.3f} with {bar['schedule']}; {bar['defect']:.3f} with equal defect, {bar['rho 7']:.3f} "
        f"with rho 7 and {bar['tangent']:.3f} with tangent.",
        "",
        f"Sliced distances, the best schedules of each class for each solver. Floor: {found['floor']['mean']:.3g}.",
        "",
    ]
    return lines + _best_by_class(found["best"], "swd")


def _images(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Fashion-MNIST",
        "",
        "The best cells of the sweep, chosen by their distance to held-out training images, at full size with seeds "
        "that the sweep has not seen. Fréchet distance to the test images, mean and standard error:",
        "",
    ]
    rows = []
    for row in found["finals"]:
        error = "" if row["error"] is None else f" ± {row['error']:.2g}"
        ratio = "" if row["to_heun"] is None else f"{row['to_heun']:.2f}"
        cell = [row["start"], row["nfe"], row["class"], f"{row['frechet']:.3f}{error}", ratio]
        rows.append([*cell, "" if row["to_hand"] is None else f"{row['to_hand']:.2f}", row["how"]])
    lines += table(("start", "evaluations", "class", "Fréchet", "to Heun's 35", "to by hand", "schedule, solver"), rows)
    lines += [f"Real images against real ones: {found['floor']['mean']:.3f}.", ""]
    for bar in found["bars"]:
        value = "not run" if bar["value"] is None else f"{bar['value']:.3f}"
        lines.append(f"- {bar['name']}: at most {bar['at_most']}; {value}. {said(bar['met'])}.")
    return [*lines, ""]


def _best_by_class(rows: Sequence[Mapping[str, Any]], score: str) -> list[str]:
    """Starts, evaluations and solvers down, classes across."""
    classes = list(dict.fromkeys(row["class"] for row in rows))
    places: dict[tuple[str, int, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        places.setdefault((row["start"], row["nfe"], row.get("solver", "")), {})[row["class"]] = row
    cells = []
    for place, own in places.items():
        words = (f"{own[name]['schedule']} {own[name][score]:.3g}" if name in own else "" for name in classes)
        cells.append([*place, *words])
    return table(("start", "evaluations", "solver", *classes), cells)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table in Markdown, and an empty one."""
    body = ["| " + " | ".join(map(str, row)) + " |" for row in (columns, *rows)]
    return [body[0], "|" + "---|" * len(columns), *body[1:], ""]


def said(met: bool | None) -> str:
    """Whether a bar is met."""
    return "Not known" if met is None else "Met" if met else "Not met"
