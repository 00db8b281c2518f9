"""Finished cells on disk, so that a run that is cut off goes on where it stopped; and the best of many rows.

A cell is known by its key, plain values that say what was done. Its row is appended to the file as soon as it is
there. A rerun in the same folder reads the file and does what is missing; a last line that was cut off is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from headstart.errors import InputError
from headstart.report.images import write_whole

__all__ = ["Cells", "best", "groups", "lines"]

Row = Mapping[str, Any]


class Cells:
    """The cells of one run.

    Arguments:
        path: their file, which is made if it is missing.
        settings: of the run, plain values. Cells of another one are not mixed in.

    Raises:
        InputError: if the file holds the cells of a run with other settings, or something else.
    """

    def __init__(self, path: Path, settings: Row) -> None:
        self.path, self.rows = path, dict[str, dict[str, Any]]()
        whole = path.read_text().split("\n")[:-1] if path.exists() else []
        head = json.dumps({"settings": settings}, sort_keys=True)
        if whole and whole[0] != head:
            raise InputError(f"{path} holds the cells of another run: give --out another folder, or remove the file")
        for line in whole[1:]:
            cell = json.loads(line)
            self.rows[_name(cell["key"])] = cell["row"]
        write_whole("\n".join([*(whole or [head]), ""]).encode(), path)

    def __call__(self, key: Row, make: Callable[[], Row]) -> dict[str, Any]:
        """The row of a cell, its key first: as it was found on disk, or made and put there.

        The row has gone through JSON either way, so that a rerun sees the same values.

        Raises:
            ValueError: if the row holds NaN or Inf.
        """
        name = _name(key)
        if name not in self.rows:
            line = json.dumps({"key": key, "row": make()}, allow_nan=False)
            with self.path.open("a") as file:
                file.write(line + "\n")
            self.rows[name] = json.loads(line)["row"]
        return {**key, **self.rows[name]}


def _name(key: Row) -> str:
    return json.dumps(key, sort_keys=True)


def groups(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """The rows by the values of some columns, in their order."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def best(rows: Iterable[Row], score: str, *keys: str) -> list[Row]:
    """Of the rows with equal values in some columns, the one with the smallest score."""
    return [min(own, key=lambda row: float(row[score])) for own in groups(rows, *keys).values()]


def lines(rows: Sequence[Row], score: str, label: str, marks: Mapping[str, float]) -> Figure:
    """A panel for each start, in it a line for each class of schedules: the score against evaluations.

    Arguments:
        rows: of which each panel and line takes its own.
        score: the column that is shown.
        label: its name.
        marks: levels to hold it against, such as the floor, by name.
    """
    every = groups(rows, "start")
    names = list(dict.fromkeys(row["class"] for row in rows))
    figure = Figure(figsize=(3.0 * len(every), 3.4), layout="constrained")
    axes = figure.subplots(1, len(every), sharey=True, squeeze=False)[0]
    for ax, ((panel,), own) in zip(axes, every.items(), strict=True):
        for i, name in enumerate(names):
            line = sorted((row["nfe"], row[score]) for row in own if row["class"] == name)
            if line:
                ax.plot(*zip(*line, strict=True), f"C{i}o-", markersize=3)
        for (name, level), style in zip(marks.items(), (":", "--"), strict=False):
            ax.axhline(level, color="k", linewidth=0.8, linestyle=style, label=name)
        ax.set(xscale="log", yscale="log", title=panel, xlabel="evaluations")
        ax.xaxis.set_major_locator(FixedLocator(sorted({row["nfe"] for row in rows})))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel(label)
    handles = [axes[0].plot([], [], f"C{i}o-", markersize=3)[0] for i in range(len(names))]
    handles += axes[0].get_legend_handles_labels()[0]
    figure.legend(handles, [*names, *marks], frameon=False, fontsize=8, loc="outside lower center", ncols=5)
    return figure
