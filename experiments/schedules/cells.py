"""The best of many rows, and figures of them; the cells on disk are :class:`headstart.compare.cells.Cells`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from experiments.common import groups
from headstart.compare.cells import Cells

__all__ = ["Cells", "best", "lines"]

Row = Mapping[str, Any]


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
