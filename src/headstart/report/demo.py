"""The demo's report.

The page gets plain values only, the object that ``results.json`` holds and arrays of images, so that it can be drawn
again from the files of a run. The template holds the words that are always true; the sentences that depend on what was
measured are made here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from headstart.citation import IMAGES, PILOT, citations
from headstart.errors import InputError
from headstart.files import atomic_write
from headstart.report import figures
from headstart.report.figures import seconds_per_thousand
from headstart.report.images import data_uri, image_grid, png
from headstart.report.lanes import pictured
from headstart.report.page import APPROACH, Tile, drawn, entries, judged, render
from headstart.report.text import duration, number

__all__ = ["verdict", "write_demo_report"]

Row = Mapping[str, Any]

BASELINE = "edm-heun"
TIMES = "\N{MULTIPLICATION SIGN}"
METRICS = ("frechet", "swd", "max_swd", "sample_seconds", "fit_seconds", "horizon")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

#: What the page asks of a plan; what is missing is shown as "-".
PLAN = ("nfe", "horizon", "initialization", "schedule", "sigmas", "solver", "fit_seconds", "explanation")

#: The table's columns: a row's key (or a name computed below), the heading, whether it holds numbers.
COLUMNS = (
    ("method", "method", False),
    ("nfe", "NFE", True),
    ("frechet", "Fréchet", True),
    ("ratio", "ratio to Heun", True),
    ("swd", "sliced W", True),
    ("max_swd", "max-sliced W", True),
    ("speed", "s per 1,000", True),
    ("initialization", "start", False),
    ("horizon", "horizon", True),
    ("schedule", "schedule", False),
    ("solver", "solver", False),
    ("fit_seconds", "fit s", True),
    ("n", "images", True),
    ("seed", "seed", True),
)


def write_demo_report(
    results: Row,
    grids: Mapping[str, NDArray[Any] | Tensor],
    path: str | Path,
    lanes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the report of a demo run as one self-contained HTML file, whole or not at all.

    Arguments:
        results: the object of ``results.json``: "rows", "floor", "environment", "plans", "profile", "data", "seconds".
        grids: images of shape (N, 1 or 3, H, W), under "real" and under ``f"{method} {nfe}"`` of a row.
        path: the file.
        lanes: trajectories of a few samples (:func:`headstart.report.lanes.lanes`), each lane named as a grid.

    Raises:
        InputError: if the results hold no rows or a number that is not finite, or the images are none.
        ArtefactError: if the file cannot be written; nothing is left behind then.
    """
    atomic_write(_page(results, grids, lanes).encode(), path)


def verdict(rows: Sequence[Row], floor: Row) -> str:
    """The result of the run in one sentence, which says so when the baseline wins.

    Arguments:
        rows: one mapping for each method and number of evaluations.
        floor: the distances of real images against real ones.
    """
    plan, baseline = _find(rows, "plan", 4), _find(rows, BASELINE)
    if plan is None or baseline is None or not all(_known(row, "frechet") for row in (plan, baseline)):
        return f"No verdict: the results hold no Fréchet distance for both a plan and {BASELINE}."
    start = "noise" if plan.get("initialization") == "isotropic" else "a learned start"
    ours, theirs = number(plan["frechet"]), number(baseline["frechet"])
    few, many = _words(plan["nfe"]), baseline["nfe"]
    ratio = plan["frechet"] / baseline["frechet"] if baseline["frechet"] > 0 else math.inf
    if ratio > 1.05:
        sentence = f"The baseline wins on quality: EDM's {many} evaluations from noise reach a Fréchet distance of "
        sentence += f"{theirs}, {few} from {start} {ours}"
    else:
        relation = "better than" if ratio < 0.95 else "level with"
        sentence = f"{few.capitalize()} evaluations from {start} reach a Fréchet distance of {ours}, {relation} the "
        sentence += f"{theirs} of EDM's {many} from noise"
    if (gain := _speedup(plan, baseline)) is not None:
        sentence += f", {_times(gain)}"
    if _known(floor, "frechet"):
        sentence += f"; real images against real ones reach {number(floor['frechet'])}"
    return judged(f"{sentence}.", plan.get("n") or 0, "images")


def _details(rows: Sequence[Row]) -> list[str]:
    """Notes on the verdict: the other plans, the best of the other methods, how far to trust it."""
    plan, baseline = _find(rows, "plan", 4), _find(rows, BASELINE)
    if plan is None or baseline is None or not _known(plan, "frechet") or not _known(baseline, "frechet"):
        return []
    sentences = []
    for row in sorted((r for r in rows if r["method"] == "plan" and r is not plan), key=lambda r: int(r["nfe"])):
        if _known(row, "frechet"):
            sentence = f"{_words(row['nfe']).capitalize()} evaluations reach {number(row['frechet'])}"
            if baseline["frechet"] > 0:
                sentence += f" ({number(row['frechet'] / baseline['frechet'], 2)} times the baseline's)"
            sentences.append(sentence + ".")
    few = [row for row in rows if row["nfe"] <= plan["nfe"] and _known(row, "frechet")]
    others = [row for row in few if row["method"] not in ("plan", BASELINE)]
    if others:
        best = min(others, key=lambda r: float(r["frechet"]))
        beats = " and beats the plan" if best["frechet"] < plan["frechet"] else ""
        how = f"the best of the other methods, {best['method']}, reaches {number(best['frechet'])}{beats}."
        sentences.append(f"With at most {_words(plan['nfe'])} evaluations, {how}")
    seeds, counts = {r.get("seed") for r in rows}, [int(r["n"]) for r in rows if r.get("n")]
    if counts and len(seeds) == 1:
        sentences.append(f"One seed and {number(min(counts))} images a method: trust ratios, not digits.")
    return sentences


def _tiles(rows: Sequence[Row], floor: Row) -> list[Tile]:
    """The plan's evaluations, its quality and its cost, each beside the baseline."""
    plan, baseline = _find(rows, "plan", 4), _find(rows, BASELINE)
    if plan is None or baseline is None:
        return []
    got = f"{plan['nfe']} evaluations", f"of the network for an image; EDM's sampler takes {baseline['nfe']}"
    good, cost = ("-", "no Fréchet distance is known"), ("-", "no times are known")
    if _known(plan, "frechet") and _known(baseline, "frechet") and baseline["frechet"] > 0:
        ratio = plan["frechet"] / baseline["frechet"]
        means = "the Fréchet distance of EDM's sampler (below 1 is better)"
        if _known(floor, "frechet"):
            means += f"; real images have {number(floor['frechet'] / baseline['frechet'], 2)}{TIMES}"
        good = f"{number(ratio, 2)}{TIMES}", means
    if (ours := seconds_per_thousand(plan)) is not None:
        once = f"once, {duration(plan['fit_seconds'])} to fit the plan; the network stays as it is" * _known(
            plan, "fit_seconds"
        )
        theirs = seconds_per_thousand(baseline)
        beside = f"for 1,000 images, EDM's sampler {number(theirs)}" if theirs is not None else "for 1,000 images"
        cost = f"{number(ours)} s", f"{beside}; {once}" if once else beside
    return Tile.three(got, good, cost)


def _page(results: Row, grids: Mapping[str, NDArray[Any] | Tensor], lanes: Sequence[Mapping[str, Any]]) -> str:
    rows, floor, plans = _checked(results)
    seconds = results.get("seconds")
    return render(
        "demo.html",
        data=results.get("data") or "-",
        duration=None if seconds is None else duration(float(seconds)),
        verdict=verdict(rows, floor),
        details=_details(rows),
        tiles=_tiles(rows, floor),
        lanes=pictured(_with_distances(lanes, rows)),
        baseline=BASELINE,
        grids=_grids(rows, floor, grids),
        quality=drawn(figures.quality_against_nfe(rows, floor), figures.quality_against_seconds(rows, floor)),
        plans=plans,
        schedules=drawn(figures.schedules(sorted(rows, key=lambda row: row["method"] != "plan"))),
        budget=drawn(figures.error_budget(plans)),
        horizons=[(plan, svg) for plan in plans for svg in drawn(figures.horizon_curve(plan))],
        profile=drawn(figures.measured_profile(results.get("profile") or {})),
        headings=[column[1:] for column in COLUMNS],
        table=_table(rows, floor),
        environment=dict(results.get("environment") or {}),
        about="The method comes from two papers: where the reverse process starts (Fassina et al., 2026), and where it "
        "stops on the way (Williams et al., 2024). The others are what the methods on this page use.",
        references=entries(_references(rows, plans)),
    )


def _with_distances(lanes: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The lanes with the Fréchet distances of their rows."""
    known = {f"{row['method']} {row['nfe']}": row.get("frechet") for row in rows}
    return [
        {**lane, "title": f"{lane['title']}: Fréchet {number(known[lane['lane']])}"}
        if known.get(lane["lane"]) is not None
        else dict(lane)
        for lane in lanes
    ]


def _references(rows: Sequence[Row], plans: Sequence[Row]) -> list[str]:
    """The keys of what the methods use, and of the plans' pilots; headstart's own approach first."""
    used = list(APPROACH)
    for row in rows:
        used += citations(*(str(row.get(part)) for part in ("initialization", "schedule", "solver")))
    if plans:
        used += [*PILOT, *IMAGES]
    return used


def _checked(results: Row) -> tuple[list[Row], Row, list[Row]]:
    """Rows, floor and plans, once it is certain that they can be shown."""
    rows, floor = list(results.get("rows") or ()), results.get("floor") or {}
    if not rows:
        raise InputError("a report needs results with at least one row under 'rows'")
    for row in rows:
        if not row.get("method") or not isinstance(row.get("nfe"), int) or row["nfe"] < 1:
            raise InputError(
                f"a row needs a 'method' and an 'nfe' of at least 1, got {row.get('method')!r} and {row.get('nfe')!r}"
            )
    for name, values in [(f"row {row['method']!r} {row['nfe']}", row) for row in rows] + [("the floor", floor)]:
        for key in METRICS:
            value = values.get(key)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise InputError(f"{name} holds {key} = {value!r}: expected a finite number or null")
    for key in ("plans", "profile"):
        if not _all_finite(results.get(key)):
            raise InputError(f"the results hold NaN or Inf under {key!r}: expected finite numbers or null")
    return rows, floor, [{**dict.fromkeys(PLAN), **plan} for plan in results.get("plans") or ()]


def _all_finite(value: Any) -> bool:
    """Whether every number in nested mappings and sequences is finite."""
    if isinstance(value, Mapping):
        return all(_all_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_all_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _grids(
    rows: Sequence[Row], floor: Row, grids: Mapping[str, NDArray[Any] | Tensor]
) -> dict[str, list[dict[str, str]]]:
    """The cards of sample grids: those to compare first, and the others; all on the real images' scale of values."""
    plan, baseline = _find(rows, "plan", 4), _find(rows, BASELINE)
    real = grids.get("real")
    scale = None
    if real is not None and not str(real.dtype).endswith("uint8"):
        scale = float(real.min()), float(real.max())
    cards = []
    if real is not None:
        caption = f"Fréchet {number(floor.get('frechet'))} against others"
        cards.append({"key": "real", "title": "real images", "caption": caption, "colour": "floor"})
    for row in rows:
        if (key := f"{row['method']} {row['nfe']}") in grids and key not in [card["key"] for card in cards]:
            caption = f"Fréchet {number(row.get('frechet'))}"
            if baseline is not None and row is not baseline and (gain := _speedup(row, baseline)) is not None:
                caption += f", {_times(gain)} than Heun" if abs(gain - 1) > 0.05 else ", as fast as Heun"
            cards.append(
                {
                    "key": key,
                    "title": key,
                    "caption": caption,
                    "colour": figures.method_colours([row["method"]])[row["method"]],
                }
            )
    for card in cards:
        grid = image_grid(grids[card["key"]][:64], 8, scale)
        card["uri"] = data_uri(png(grid))
    first = {"real", f"dpm++2m {plan['nfe']}" if plan else "", f"{BASELINE} {baseline['nfe']}" if baseline else ""}
    shown = [card for card in cards if card["key"] in first or card["key"].startswith("plan ")]
    return {"first": shown, "others": [card for card in cards if card not in shown]}


def _table(rows: Sequence[Row], floor: Row) -> list[dict[str, Any]]:
    """The table's rows: a colour, and a cell a column with its text and the value that it sorts by."""
    baseline = _find(rows, BASELINE)
    reference = baseline["frechet"] if baseline is not None and _known(baseline, "frechet") else None
    table = []
    for row in [*rows, {"method": "real against real", "nfe": None, **floor}]:
        ratio = row["frechet"] / reference if reference and _known(row, "frechet") else None
        values = {**row, "ratio": ratio, "speed": seconds_per_thousand(row)}
        cells = [{"text": _cell(key, values.get(key)), "value": _sortable(values.get(key))} for key, _, _ in COLUMNS]
        colour = "floor" if row["nfe"] is None else figures.method_colours([row["method"]])[row["method"]]
        table.append({"cells": cells, "colour": colour, "strong": row["method"] == "plan"})
    return table


def _cell(key: str, value: Any) -> str:
    if key == "seed":
        return "-" if value is None else str(value)
    return number(value, padded=key in ("frechet", "ratio", "swd", "max_swd", "speed"))


def _sortable(value: Any) -> Any:
    return "" if value is None else value


def _find(rows: Sequence[Row], method: str, nfe: int | None = None) -> Row | None:
    """A method's row at an NFE, else its middle one."""
    own = sorted((row for row in rows if row["method"] == method), key=lambda row: int(row["nfe"]))
    return next((row for row in own if row["nfe"] == nfe), own[len(own) // 2] if own else None)


def _known(row: Row, key: str) -> bool:
    return row.get(key) is not None


def _speedup(row: Row, baseline: Row) -> float | None:
    ours, theirs = seconds_per_thousand(row), seconds_per_thousand(baseline)
    return theirs / ours if ours and theirs else None


def _factor(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.2g}" if value >= 10 else f"{value:.1f}"


def _times(gain: float) -> str:
    return f"{_factor(gain)} times faster" if gain >= 1 else f"{_factor(1 / gain)} times slower"


def _words(count: int) -> str:
    return WORDS[count] if count < len(WORDS) else str(count)
