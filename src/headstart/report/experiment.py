"""The page of a paper's experiment: what it reports, what was measured, why they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.metrics import floor_note
from headstart.report.figures import number
from headstart.report.images import write_whole
from headstart.report.page import duration, entries, render

__all__ = ["write_experiment_page"]

Values = Mapping[str, Any]


def write_experiment_page(experiment: Values, results: Values, path: str | Path) -> None:
    """Write the page of an experiment as one self-contained HTML file, whole or not at all.

    Arguments:
        experiment: what is known beforehand: "name", "title", "paper", "set_up", "ours", "differences", and
            "published", tables of a "title", a "corner", "columns", and "rows", a value or None a column under each
            name; where the least of each column is to be set off, "best" is true.
        results: the object of ``results.json``: "model", "data", "n", "seeds", "n_reference", "floor", "floor_n" (how
            many samples that is of), "found", "seconds", "environment" if there is one, and "tables", by metric, which
            have "errors" too. Of "rows", if there are any, "cited" are the keys of what their arms stand on.
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
        f"Network {results['model']}, data {results['data']}: {results['n']} samples of each arm against "
        f"{results['n_reference']} real ones, {sets}; standard errors are over the sets. "
        f"Real samples against real ones: {floors}." + (f" {note}." if note else "")
    )
    page = render(
        "experiment.html",
        **{key: experiment[key] for key in ("name", "title", "paper", "set_up", "ours", "differences")},
        published=[_table(table) for table in experiment["published"]],
        measured=[_table(table) for table in results["tables"].values()],
        conditions=conditions,
        found=results["found"],
        data=results["data"],
        duration=duration(results["seconds"]),
        environment=dict(results.get("environment") or {}),
        references=entries(key for row in results.get("rows") or () for key in row.get("cited") or ()),
    )
    write_whole(page.encode(), path)


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
