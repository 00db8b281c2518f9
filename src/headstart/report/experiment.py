"""The page of a paper's experiment: what it reports, what was measured, why they differ, and what comes out.

All but the pictures is drawn from the plain values of ``results.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.files import atomic_write
from headstart.metrics import floor_note
from headstart.report.drawing import (
    LEGEND,
    LIGHT,
    annotate,
    as_svg,
    axis_ticks,
    error_bars,
    new_figure,
    round_ticks,
    style,
    titles,
    widen,
)
from headstart.report.images import addresses
from headstart.report.page import Tile, drawn, entries, judged, render
from headstart.report.text import duration, number

__all__ = ["write_experiment_page"]

Values = Mapping[str, Any]

#: The colours and markers of the rows, in their order, and those of the one that the paper argues for.
MARKS = (("heun", "D"), ("dpm", "s"), ("noise", "^"), ("gaussian", "v"), ("other", "P"), ("floor", "X"))
PROPOSED = ("plan", "o")


def write_experiment_page(
    experiment: Values,
    results: Values,
    grids: Mapping[str, bytes],
    beside: Mapping[str, bytes],
    path: str | Path,
) -> None:
    """Write the page of an experiment as one self-contained HTML file, whole or not at all.

    Arguments:
        experiment: what is known beforehand: "name", "title", "paper", "set_up", "ours", "differences", "proposed" (the
            row that the paper argues for), and "published", tables of a "title", a "corner", "columns", and "rows", a
            value or None a column under each name; where the least of each column is to be set off, "best" is true.
        results: the object of ``results.json``: "model", "data", "n", "seeds", "n_reference", "floor", "floor_n" (how
            many samples that is of), "found" (sentences, the verdict first), "seconds", "environment" if there is one,
            and "tables", by metric, which have "errors" too. Of "rows", "row" and "column" are the place in a table,
            "evaluations" what a sample costs, and "cited" the keys of what the method stands on.
        grids: PNG files by their captions.
        beside: likewise, of samples above their nearest neighbours.
        path: the file.

    Raises:
        ArtefactError: if the file cannot be written; nothing is left behind then.
    """
    tables, known = results["tables"], results["floor"]
    floors = ", ".join(
        f"{table['title']} {number(known[metric])}" for metric, table in tables.items() if metric in known
    )
    sets = f"{results['seeds']} set{'s' * (results['seeds'] != 1)} of seeds"
    note = floor_note(results["floor_n"], results["n"])
    conditions = (
        f"Network {results['model']}, data {results['data']}: {results['n']} samples of each method against "
        f"{results['n_reference']} real ones, {sets}; standard errors are over the sets. "
        f"Real samples against real ones: {floors}." + (f" {note}." if note else "")
    )
    verdict, *found = results["found"]
    page = render(
        "experiment.html",
        verdict=judged(verdict, results["n"]),
        tiles=_tiles(experiment, results),
        **{key: experiment[key] for key in ("name", "title", "paper", "set_up", "ours", "differences")},
        published=[_table(table) for table in experiment["published"]],
        measured=[_table(table) for table in tables.values()],
        conditions=conditions,
        curves=drawn(*(_curves(results, metric, experiment["proposed"]) for metric in tables)),
        found=found,
        grids=addresses(grids),
        beside=addresses(beside),
        data=results["data"],
        duration=duration(results["seconds"]),
        environment=dict(results.get("environment") or {}),
        references=entries(key for row in results["rows"] for key in row.get("cited") or ()),
    )
    atomic_write(page.encode(), path)


def _tiles(experiment: Values, results: Values) -> list[Tile]:
    """Of the first column where the proposed row and another can be compared: evaluations, ratio, the time of all.

    An oracle, which knows the training data, is no rival.
    """
    proposed = experiment["proposed"]
    for metric, table in results["tables"].items():
        for place, column in enumerate(table["columns"]):
            values = {name: row[place] for name, row in table["rows"].items() if row[place]}
            others = {name: value for name, value in values.items() if name != proposed and "oracle" not in name}
            if proposed not in values or not others:
                continue
            least = min(others, key=lambda name: others[name])
            spent = next(r["evaluations"] for r in results["rows"] if (r["row"], r["column"]) == (proposed, column))
            floor = results["floor"].get(metric)
            real = f"; real samples have {number(floor / others[least], 2)} ×" if floor is not None else ""
            return Tile.three(
                (f"{spent} evaluations", f"of the network for a sample, by what the paper argues for: {proposed}"),
                (
                    f"{number(values[proposed] / others[least], 2)} ×",
                    f"the {table['title']} of the best other row at {column}, {least}{real}",
                ),
                (duration(results["seconds"]), f"to draw the samples of all {len(results['rows'])} cells"),
            )
    return []


def _curves(results: Values, metric: str, proposed: str) -> str:
    """A distance against evaluations, one line a row of its table with two standard errors either way, as one SVG."""
    table, floor = results["tables"][metric], results["floor"].get(metric)
    spent = {(row["row"], row["column"]): row["evaluations"] for row in results["rows"]}
    lines = {}
    for name, values in table["rows"].items():
        errors = table["errors"].get(name) or (None,) * len(values)
        own = zip(table["columns"], values, errors, strict=True)
        lines[name] = [(spent[name, column], y, error) for column, y, error in own if y]
    xs, ys, _ = zip(*(point for line in lines.values() for point in line), strict=True)
    levels = [*ys, *([floor] if floor else [])]
    with style():
        legend = 16 * math.ceil(len(lines) / 2)
        figure, (ax,) = new_figure(260 + legend, [1], left=42, bottom=52 + legend, top=24)
        ax.set(xscale="log", yscale="log", xlim=widen(xs, 1.18), ylim=widen(levels, 1.5))
        axis_ticks(ax, "x", round_ticks(min(xs), max(xs)))
        axis_ticks(ax, "y", round_ticks(*ax.get_ylim()))
        titles(ax, f"{table['title']}, log scale (lower is better)", "network evaluations for a sample")
        if floor:
            ax.axhline(floor, color=LIGHT["floor"], linewidth=1.2, linestyle=(0, (4, 3)))
            annotate(ax, (0, floor), "real samples", LIGHT["floor"], (5, 4), across=True)
        marks = iter(MARKS * len(lines))
        for name, line in lines.items():
            strong = name == proposed
            colour, marker = PROPOSED if strong else next(marks)
            x, y, errors = zip(*line, strict=True)
            ax.errorbar(
                x,
                y,
                yerr=error_bars(y, errors),
                label=name,
                color=LIGHT[colour],
                marker=marker,
                markersize=5 if strong else 4,
                linewidth=2.4 if strong else 1.2,
                elinewidth=1.0,
                capsize=2,
                zorder=5 if strong else 3,
            )
        handles, names = ax.get_legend_handles_labels()
        figure.legend(handles, names, loc="lower left", ncols=2, bbox_to_anchor=(0.02, 0.0), fontsize=9.5, **LEGEND)
        return as_svg(figure, f"{table['title']} against network evaluations", f"experiment-{metric}")


def _table(table: Values) -> dict[str, Any]:
    """A table with the text of every cell, the value that it sorts by, and whether it is the least of its column."""
    errors = table.get("errors") or {}
    rows = []
    for name, values in table["rows"].items():
        own = errors.get(name) or (None,) * len(values)
        cells = [{"text": name, "value": name}]
        cells += [
            {"text": _text(value, error), "value": "" if value is None else value, "best": False}
            for value, error in zip(values, own, strict=True)
        ]
        rows.append({"cells": cells})
    for place in range(1, 1 + len(table["columns"])) if table.get("best") else ():
        column: Sequence[dict[str, Any]] = [row["cells"][place] for row in rows]
        known = [cell["value"] for cell in column if cell["value"] != ""]
        for cell in column:
            cell["best"] = len(known) > 1 and cell["value"] == min(known)
    headings = [(table["corner"], False), *((column, True) for column in table["columns"])]
    return {"title": table["title"], "headings": headings, "rows": rows}


def _text(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return number(value, padded=True) + ("" if error is None else f" ± {number(error, 2)}")
