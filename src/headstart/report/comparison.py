"""The results of a comparison for people: a table in Markdown, two figures, and one self-contained HTML page.

All of it is drawn from the plain values of ``results.json``, so that it can be drawn again from the files of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
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
from headstart.report.lanes import pictured
from headstart.report.page import Tile, drawn, entries, render
from headstart.report.text import duration, number

__all__ = ["NAMES", "Pictures", "comparison_headline", "comparison_table", "quality", "write_comparison"]

Row = Mapping[str, Any]

#: The colour and the marker of every family of methods.
FAMILIES = {
    "ours": ("plan", "o"),
    "saved": ("plan", "*"),
    "other starts": ("gaussian", "v"),
    "learned grids": ("noise", "p"),
    "diffusers": ("dpm", "s"),
    "k-diffusion": ("other", "P"),
    "azula": ("ink", "X"),
    "EDM": ("heun", "D"),
    "oracle": ("floor", "."),
}

#: No figure shows more than so many times its smallest distance: what lies above is marked, and in the tables.
SPAN = 300.0

#: The dashes of the lines that all samplers are compared with.
REFERENCE, REAL = (0, (6, 3)), (0, (1.5, 2))

#: What the distances are called.
NAMES = {"frechet": "Fréchet distance", "swd": "sliced Wasserstein distance", "max_swd": "max-sliced Wasserstein"}

#: The page's table: a key of a row of the summary, its heading, whether it holds numbers. Scores come in between.
BEFORE = (("label", "method", False), ("family", "of", False), ("nfe", "asked", True), ("evaluations", "NFE", True))
AFTER = (("seconds_per_1000", "s per 1,000", True), ("prepare_seconds", "prepare s", True), ("how", "how", False))


def comparison_table(results: Row) -> str:
    """The comparison in Markdown: methods down, evaluations across, the best of each column bold, and who is ahead.

    The oracle knows the training data, saved plans may have seen what they are scored against, and marks are no
    competitors: none of them is ever bold. A cell that failed says so.

    Arguments:
        results: the object of ``results.json``.
    """
    metric, counts = results["metric"], _counts(results)
    title = f"{NAMES[metric]} at so many evaluations (lower is better; ± one standard error over the seeds)"
    lines = [results["verdict"], "", title, ""]
    lines += _lines(("sampler", *(str(nfe) for nfe in counts)), _distances(results, metric, counts))
    lines += ["", "Beside these:", "", *(f"* {label}: {text}" for label, text, *_ in _marks(results, metric))]
    for note in _notes(results):
        lines += ["", f"{note}."]
    lines += ["", "Seconds for 1,000 samples, drawing the start included; to prepare, the longest of them", ""]
    lines += _lines(("sampler", *(str(nfe) for nfe in counts), "to prepare"), _times(results, counts))
    failures = [row for row in results["summary"] if row["failed"]]
    for heading, own in (
        ("Failed", [f"{row['label']}, {row['nfe']} evaluations: {row['failed']}" for row in failures]),
        ("Skipped", [f"{row['label']}: {row['reason']}" for row in results["skipped"]]),
    ):
        if own:
            lines += ["", f"{heading}:", "", *(f"* {line}" for line in own)]
    return "\n".join(lines)


def comparison_headline(results: Row) -> str:
    """The comparison in short: our plans, of every other family the best sampler of each column, and what all of them
    are compared with. The best of each column is bold.

    The oracle and saved plans, which are no competitors, are left out.

    Arguments:
        results: the object of ``results.json``.
    """
    metric, counts = results["metric"], _counts(results)
    groups: dict[tuple[str, str], dict[str, dict[int, Row]]] = {}
    for label, own in _by_method(results)[0].items():
        first = next(iter(own.values()))
        if first["kind"] in ("ours", "peer"):
            groups.setdefault((first["kind"], label if first["kind"] == "ours" else first["family"]), {})[label] = own
    least = _least(results, metric)
    rows = []
    for (_, family), methods in groups.items():
        name = next(iter(methods)) if len(methods) == 1 else f"the best of {len(methods)} of {family}"
        columns = {nfe: [own[nfe] for own in methods.values() if nfe in own] for nfe in counts}
        best = {nfe: min(own, key=lambda row: _value(row, metric), default=None) for nfe, own in columns.items()}
        rows.append([name, *(_cell(row, metric, least[nfe]) for nfe, row in best.items())])
    rows += _best_row(results)
    rows += [[label, text, *[""] * (len(counts) - 1)] for label, text, *_ in _marks(results, metric)]
    return "\n".join(_lines(("sampler", *map(str, counts)), rows))


def _least(results: Row, metric: str) -> dict[int, float]:
    """The least distance of ours and the others, for every number of evaluations."""
    rivals = [row for row in results["summary"] if row["kind"] in ("ours", "peer")]
    return {
        nfe: min((_value(row, metric) for row in rivals if row["nfe"] == nfe), default=math.inf)
        for nfe in _counts(results)
    }


def _counts(results: Row) -> list[int]:
    return list(results["settings"]["nfe"])


def _lines(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heading, ("---",) * len(heading), *rows)]


def _distances(results: Row, metric: str, counts: Sequence[int]) -> list[list[str]]:
    """The rows of methods, and of what the best of ours has of the best of the others."""
    methods = _by_method(results)[0]
    least = _least(results, metric)
    rows = []
    for label, own in methods.items():
        rows.append([label, *(_cell(own.get(nfe), metric, least[nfe]) for nfe in counts)])
    rows += _best_row(results)
    return rows


def _best_row(results: Row) -> list[list[str]]:
    """A row of the ratio of our best score to the best of the others; none where there are no others."""
    if not results["ratios"]:
        return []
    best = {row["nfe"]: row for row in results["ratios"]}
    said = [
        f"{best[nfe]['ratio']:.2f} × {best[nfe]['others']}" if nfe in best and best[nfe]["ratio"] is not None else ""
        for nfe in _counts(results)
    ]
    return [["*the best of ours to that of the others*", *said]]


def _marks(results: Row, metric: str) -> list[tuple[str, str, float, str]]:
    """Reference lines that all samplers are compared with: label, description, value, colour."""
    found = []
    for label, own in _by_method(results)[1].items():
        (row,) = own.values()
        speed = row["seconds_per_1000"]
        text = _cell(row, metric, 0.0) + (f", {number(speed)} s for 1,000 samples" if speed else "")
        found.append((label, text, _value(row, metric), FAMILIES["EDM"][0]))
    real = results["floor"].get(metric)
    if real is not None:
        found.append(("real samples", _estimate(real), float(real["mean"]), "floor"))
    return found


def _notes(results: Row) -> list[str]:
    """Notes that a reader of this run's numbers needs."""
    settings, methods = results["settings"], {row["method"]: row["kind"] for row in results["summary"]}
    notes = [floor_note(results["floor_n"], settings["samples"])]
    if "saved" in methods.values():
        notes.append(
            "A saved plan may have been fitted on what it is scored against here: it is shown, and counts neither for "
            "us nor for the others"
        )
    if "align-your-steps" in methods:
        sizes = settings["sizes"]
        notes.append(
            f"Align Your Steps is reduced: its bound is estimated on {sizes['aligned']} samples, the paper's on 8,192; "
            f"its first grid has {sizes['coarse']} steps, the paper's 10"
        )
    return [note for note in notes if note]


def _by_method(results: Row) -> tuple[dict[str, dict[int, Row]], dict[str, dict[int, Row]]]:
    """The summary by label and number of evaluations: methods, and marks to hold them against."""
    methods: dict[str, dict[int, Row]] = {}
    marks: dict[str, dict[int, Row]] = {}
    for row in results["summary"]:
        (marks if row["kind"] == "reference" else methods).setdefault(row["label"], {})[row["nfe"]] = row
    return methods, marks


def _value(row: Row, metric: str) -> float:
    return float(row["scores"][metric]["mean"]) if metric in (row["scores"] or {}) else float("inf")


def _cell(row: Row | None, metric: str, least: float) -> str:
    if row is None:
        return ""
    if row["failed"] or metric not in (row["scores"] or {}):
        return "failed"
    best = row["kind"] in ("ours", "peer") and _value(row, metric) <= least
    text = _estimate(row["scores"][metric], bold=best)
    spent = row["evaluations"]
    return text if spent is None or spent == row["nfe"] else f"{text} ({spent:g} spent)"


def _estimate(score: Row, bold: bool = False) -> str:
    value = number(score["mean"], padded=True)
    error = "" if score["error"] is None else f" ± {number(score['error'], 2)}"
    return f"**{value}**{error}" if bold else f"{value}{error}"


def _times(results: Row, counts: Sequence[int]) -> list[list[str]]:
    rows = []
    for label, own in _by_method(results)[0].items():
        prepared = max((row["prepare_seconds"] or 0.0 for row in own.values()), default=0.0)
        cells = [number(own[nfe]["seconds_per_1000"]) if nfe in own else "" for nfe in counts]
        rows.append([label, *cells, number(prepared) if prepared else "-"])
    return rows


def quality(results: Row, against: str) -> str:
    """The distance against evaluations or seconds, one line a method, with two standard errors either way, as one SVG.

    Our plans are drawn over the others. A family has one colour; which of its lines is which, the table says. A
    triangle at the upper edge stands for a point beyond it, or for a cell that failed.

    Arguments:
        results: the object of ``results.json``.
        against: "nfe" or "seconds".
    """
    metric = results["metric"]
    place = "nfe" if against == "nfe" else "seconds_per_1000"
    points = [row for row in results["summary"] if 0 < _value(row, metric) < float("inf") and (row[place] or 0) > 0]
    methods = [row for row in points if row["kind"] != "reference" or against != "nfe"]
    if not methods:
        return ""
    label = "network evaluations for a sample" if against == "nfe" else "seconds for 1,000 samples"
    marks = [mark for mark in _marks(results, metric) if 0 < mark[2] < float("inf")]
    with style():
        shown = [name for name in FAMILIES if any(row["family"] == name for row in methods)]
        legend = 16 * math.ceil(len(shown) / 4)
        figure, (ax,) = new_figure(330 + legend, [1], left=42, bottom=56 + legend, top=24)
        ys = [_value(row, metric) for row in methods] + [value for _, _, value, _ in marks]
        high = 1.6 * max(y for y in ys if y <= min(ys) * SPAN)
        competing = [row for row in results["summary"] if row["kind"] != "reference" and row[place]]
        lost = [row for row in competing if not _value(row, metric) <= high]
        xs = [float(row[place]) for row in (*methods, *lost)]
        ax.set(xscale="log", yscale="log", xlim=widen(xs, 1.18), ylim=(min(ys) / 1.5, high))
        axis_ticks(ax, "x", sorted(set(xs)) if against == "nfe" else round_ticks(min(xs), max(xs)))
        axis_ticks(ax, "y", round_ticks(*ax.get_ylim()))
        titles(ax, f"{NAMES[metric]}, log scale (lower is better)", label)
        lowest = min((level for _, _, level, _ in marks), default=0.0)
        for name, _, level, colour in [mark for mark in marks if mark[2] <= high]:
            real = colour == "floor"
            ax.axhline(level, color=LIGHT[colour], linewidth=1.1, linestyle=REAL if real else REFERENCE, zorder=1)
            # The levels can be close: a name at either end, the lower level's below its line.
            end, inwards, align = (1.0, -2, "right") if real else (0.0, 4, "left")
            above = 2 if level > lowest or len(marks) == 1 else -12
            annotate(ax, (end, level), name, LIGHT[colour], (inwards, above), size=9.5, align=align, across=True)
        for row in lost:
            colour = LIGHT[FAMILIES.get(row["family"], ("other", ""))[0]]
            edge: Any = ax.get_xaxis_transform()
            ax.plot([row[place]], [1.0], "^", color=colour, markersize=7, transform=edge, clip_on=False)
        for method in dict.fromkeys(row["method"] for row in methods):
            own = sorted((row for row in methods if row["method"] == method), key=lambda row: float(row[place]))
            colour, marker = FAMILIES.get(own[0]["family"], ("other", "X"))
            strong = own[0]["kind"] == "ours"
            values = [_value(row, metric) for row in own]
            ax.errorbar(
                [row[place] for row in own],
                values,
                yerr=error_bars(values, [row["scores"][metric]["error"] for row in own]),
                color=LIGHT[colour],
                marker=marker,
                markersize=5 if strong else 3.5,
                linewidth=2.4 if strong else 1.0,
                linestyle="--" if "distilled" in method else "-",
                elinewidth=1.0,
                capsize=2,
                alpha=1.0 if strong else 0.75,
                zorder=5 if strong else 3,
            )
        handles = [
            ax.plot([], [], color=LIGHT[FAMILIES[name][0]], marker=FAMILIES[name][1], markersize=5)[0] for name in shown
        ]
        figure.legend(handles, shown, loc="lower left", ncols=4, bbox_to_anchor=(0.02, 0.0), fontsize=9.5, **LEGEND)
        return as_svg(figure, f"{NAMES[metric]} against {label}", f"comparison-{against}")


@dataclass(frozen=True)
class Pictures:
    """The pictures of a page.

    Attributes:
        grids: PNG files of samples, by their captions.
        beside: likewise, of samples above their nearest neighbours.
        lanes: trajectories of a few samples (:func:`headstart.report.lanes.lanes`).
    """

    grids: Mapping[str, bytes] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)
    lanes: Sequence[Row] = ()


def write_comparison(results: Row, pictures: Pictures, folder: Path) -> None:
    """Write ``index.html``, which needs nothing beside it, and the figures as ``quality-nfe.svg`` and ``-seconds``.

    Arguments:
        results: the object of ``results.json``.
        pictures: of samples.
        folder: that gets the files.

    Raises:
        ArtefactError: if a file cannot be written.
    """
    figures = {against: quality(results, against) for against in ("nfe", "seconds")}
    for against, svg in figures.items():
        if svg:
            atomic_write(svg.encode(), folder / f"quality-{against}.svg")
    page = _page(results, pictures, drawn(*figures.values()))
    atomic_write(page.encode(), folder / "index.html")


def _page(results: Row, pictures: Pictures, quality: Sequence[str]) -> str:
    settings, metric = results["settings"], results["metric"]
    scores = list(dict.fromkeys(name for row in results["summary"] for name in row["scores"] or ()))
    scores = [metric, *(name for name in scores if name != metric)]
    columns = [*BEFORE, *((name, NAMES.get(name, name.replace("_", " ")), True) for name in scores), *AFTER]
    seeds = len(settings["seeds"])
    return render(
        "comparison.html",
        title=" on ".join(str(settings[key]) for key in ("model", "data") if key in settings) or "samplers",
        verdict=results["verdict"],
        tiles=_tiles(results),
        lanes=pictured(pictures.lanes),
        details=f"{settings['samples']:,} samples of each sampler for each of {seeds} seed{'s' * (seeds != 1)}.",
        quality=quality,
        columns=[("sampler", False), *((str(nfe), True) for nfe in _counts(results))],
        matrix=_matrix(results, metric),
        notes=_notes(results),
        name=NAMES[metric],
        headings=[column[1:] for column in columns],
        table=[_table_row(row, columns) for row in results["summary"]],
        failures=[row for row in results["summary"] if row["failed"]],
        skipped=results["skipped"],
        grids=addresses(pictures.grids),
        beside=addresses(pictures.beside),
        environment={**results["environment"], "seeds": ", ".join(map(str, settings["seeds"]))},
        references=entries(key for row in results["summary"] for key in row.get("cited") or ()),
    )


def _tiles(results: Row) -> list[Tile]:
    """Of the fewest evaluations at which ours and others can be compared: what they are, how far apart, the cost."""
    known = [row for row in results["ratios"] if row["ratio"] is not None]
    if not known:
        return []
    first, metric = known[0], results["metric"]
    own = next(row for row in results["summary"] if (row["label"], row["nfe"]) == (first["ours"], first["nfe"]))
    spans = f" (at {known[-1]['nfe']}: {number(known[-1]['ratio'], 2)} ×)" * (len(known) > 1)
    got = f"{first['nfe']} evaluations", f"of the network for a sample, by {first['ours']}"
    good = f"{number(first['ratio'], 2)} ×", f"the {NAMES[metric]} of the best of the others, {first['others']}{spans}"
    speed = own["seconds_per_1000"]
    once = f"; once, {duration(own['prepare_seconds'])} to prepare" if own["prepare_seconds"] else ""
    cost = (f"{number(speed)} s", f"for 1,000 samples{once}") if speed else ("-", f"no times are known{once}")
    return Tile.three(got, good, cost)


def _matrix(results: Row, metric: str) -> list[dict[str, Any]]:
    """The distances with methods down and evaluations across, and below them what all are compared with."""
    counts = _counts(results)
    methods = _by_method(results)[0]
    texts = _distances(results, metric, counts)
    rows = []
    for (label, *cells), own in zip_longest(texts, methods.values()):
        values = [_value(own[nfe], metric) if own and nfe in own else float("inf") for nfe in counts]
        first = next(iter(own.values())) if own else None
        rows.append(
            {
                "colour": FAMILIES.get(first["family"], ("other", ""))[0] if first else "floor",
                "cells": [
                    _head(label.strip("*"), first is not None and first["kind"] == "ours"),
                    *(
                        {
                            "text": text.replace("**", "").partition(" × ")[0],
                            "best": text.startswith("**"),
                            "value": _sortable(value),
                        }
                        for text, value in zip(cells, values, strict=True)
                    ),
                ],
            }
        )
    for label, text, value, colour in _marks(results, metric):
        wide = {"text": text, "value": _sortable(value), "span": len(counts)}
        rows.append({"colour": colour, "cells": [_head(label), wide]})
    return rows


def _head(label: str, best: bool = False) -> dict[str, Any]:
    """The cell that names a row."""
    return {"text": label, "value": label, "best": best}


def _sortable(value: float) -> float | str:
    """The sort key of a cell; empty if it holds no number."""
    return "" if value == float("inf") else value


def _table_row(row: Row, columns: Sequence[tuple[str, str, bool]]) -> dict[str, Any]:
    scores = row["scores"] or {}
    cells = []
    for key, _, numeric in columns:
        if key in scores:
            cells.append({"text": _estimate(scores[key]), "value": scores[key]["mean"]})
        else:
            value = row.get(key)
            cells.append({"text": number(value) if numeric else value or "-", "value": "" if value is None else value})
    return {
        "cells": cells,
        "colour": FAMILIES.get(row["family"], ("other", ""))[0],
        "strong": row["kind"] == "ours",
    }
