"""The results of a demo run as a table in Markdown, which reads as well in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.report.text import number

__all__ = ["results_table"]

Row = Mapping[str, Any]

HEADINGS = ("sampler", "start", "evaluations", "Fréchet", "SWD", "max-SWD", "seconds")


def results_table(rows: Sequence[Row], floor: Row) -> str:
    """One line for each method and NFE, by evaluations, with the noise floor last.

    Arguments:
        rows: the "rows" of ``results.json``.
        floor: its "floor".

    >>> row = {"method": "plan", "initialization": "mixture", "horizon": 1.0, "nfe": 4, "solver": "dpm++2m",
    ...        "frechet": 2.491, "swd": 0.0296, "max_swd": 0.0549, "sample_seconds": 5.21}
    >>> print(results_table([row], {"frechet": 0.4, "swd": 0.02, "max_swd": 0.04}))
    | sampler | start | evaluations | Fréchet | SWD | max-SWD | seconds |
    |---|---|---|---|---|---|---|
    | plan | mixture at 1.0 | 4 | 2.49 | 0.0296 | 0.0549 | 5.21 |
    | real images |  |  | 0.400 | 0.0200 | 0.0400 |  |
    """
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for row in sorted(rows, key=lambda row: (row["nfe"], row["method"] != "plan", row["frechet"] or 0.0)):
        start = f"{row['initialization']} at {number(row['horizon'], 2, padded=True)}"
        lines.append((row["method"], start, str(row["nfe"]), *_figures(row), number(row["sample_seconds"])))
    lines.append(("real images", "", "", *_figures(floor), ""))
    top, rule, *rest = lines
    table = ["| " + " | ".join(cells) + " |" for cells in (top, *rest)]
    return "\n".join([table[0], "|" + "|".join(rule) + "|", *table[1:]])


def _figures(row: Row) -> tuple[str, str, str]:
    frechet, swd, max_swd = (number(row[name], padded=True) for name in ("frechet", "swd", "max_swd"))
    return frechet, swd, max_swd
