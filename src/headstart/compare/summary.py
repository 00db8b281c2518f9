"""What the rows of a comparison come to: means with standard errors, ratios to the best of the others, and a verdict.

All functions are of plain values, those of ``results.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

__all__ = ["JUDGEABLE", "NAMES", "ratios", "summarised", "verdict"]

Row = Mapping[str, Any]

#: What the distances are called.
NAMES = {"frechet": "Fréchet distance", "swd": "sliced Wasserstein distance"}

#: With fewer samples than this, the bias of a distance is larger than what sets two samplers apart.
JUDGEABLE = 500

#: Of the scores, what says how they were measured.
HOW = ("n", "n_reference", "seed")


def summarised(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row an arm and number of evaluations: means over the seeds, with their standard errors.

    A score is ``{"mean", "error"}``, its error None for one seed. If a seed failed, there are no scores, and "failed"
    says how many and why.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["arm"], row["nfe"]), []).append(row)
    found = []
    for (arm, nfe), own in groups.items():
        failed = [row["failed"] for row in own if row.get("failed")]
        first = own[0]
        scores = {} if failed else {name: _estimate([row["scores"][name] for row in own]) for name in _scores(own)}
        n = first["scores"]["n"] if first["scores"] else None
        speeds = [1000 * row["seconds"] / row["scores"]["n"] for row in own if row.get("seconds") and row["scores"]]
        found.append(
            {
                "arm": arm,
                "label": first["label"],
                "kind": first.get("kind"),
                "family": first.get("family"),
                "nfe": nfe,
                "evaluations": _mean([row.get("evaluations") for row in own]),
                "scores": scores or None,
                "seconds_per_1000": median(speeds) if speeds else None,
                "prepare_seconds": _mean([row.get("prepare_seconds") for row in own]),
                "n": n,
                "seeds": len(own),
                "how": first.get("how"),
                "failed": f"{len(failed)} of {len(own)} seeds: {failed[0]}" if failed else None,
            }
        )
    return found


def _scores(rows: Sequence[Row]) -> list[str]:
    """The names of the scores that every row has as a number."""
    return [
        name
        for name in rows[0]["scores"]
        if name not in HOW and all(_is_number(row["scores"].get(name)) for row in rows)
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _estimate(values: Sequence[float]) -> dict[str, float | None]:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": mean(values), "error": error}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def ratios(means: Sequence[Row], counts: Sequence[int], metric: str) -> list[dict[str, Any]]:
    """For every number of evaluations the best of ours, the best of the others, their ratio and who is ahead.

    The others are all peers, and so also noise, the Gaussian start and teleportation with schedules that we chose; not
    the oracle. "ahead" is "ours" or "others" if two standard errors of the difference tell them apart, else "level";
    with one seed, whoever has the smaller distance.
    """
    found = []
    for nfe in counts:
        own, others = (_best(means, nfe, kind, metric) for kind in ("ours", "peer"))
        if own is None or others is None:
            continue
        (a, da), (b, db) = ((row["scores"][metric]["mean"], row["scores"][metric]["error"]) for row in (own, others))
        apart = abs(a - b) > 2 * math.hypot(da or 0.0, db or 0.0)
        ratio = a / b if b > 0 else None
        ahead = ("ours" if a < b else "others") if apart else "level"
        found.append({"nfe": nfe, "ours": own["label"], "others": others["label"], "ratio": ratio, "ahead": ahead})
    return found


def _best(means: Sequence[Row], nfe: int, kind: str, metric: str) -> Row | None:
    rows = [row for row in means if row["nfe"] == nfe and row["kind"] == kind and metric in (row["scores"] or {})]
    return min(rows, key=lambda row: float(row["scores"][metric]["mean"]), default=None)


def verdict(means: Sequence[Row], best: Sequence[Row], metric: str) -> str:
    """What the comparison showed, in one sentence that says where the others win."""
    others = len({row["arm"] for row in means if row["kind"] == "peer" and row["scores"]})
    if not best:
        return "No verdict: there is no number of evaluations with scores of both a plan of ours and another sampler."
    said = []
    for ahead, words in (("ours", "ahead of it"), ("level", "level with it"), ("others", "behind it")):
        counts = [str(row["nfe"]) for row in best if row["ahead"] == ahead]
        if counts:
            said.append(f"{words} at {_listed(counts)} evaluations")
    first = best[0]
    rivals = f"{others} other sampler{'s' * (others != 1)}"
    sentence = f"Held against the best of {rivals} by {NAMES[metric]}, the best of our plans is {', '.join(said)}"
    if first["ratio"] is not None:
        sentence += f"; at {first['nfe']} it has {first['ratio']:.2f} times the distance of {first['others']}"
    n = next((row["n"] for row in means if row["n"]), 0)
    if n < JUDGEABLE:
        sentence = f"A trial of {n} samples, too few to judge by. {sentence}"
    return f"{sentence}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
