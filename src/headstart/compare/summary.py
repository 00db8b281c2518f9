r"""The summary of a comparison: means with standard errors, ratios to the best of the others, and a verdict.

All samplers share their seeds. With the differences :math:`d_1, \dots, d_k` between two of them, seed by seed, one is
ahead if the 95 % interval of the mean difference, of Student's law with k - 1 degrees of freedom, leaves out 0:

.. math:: |\bar d| > t_{0.975,\, k - 1}\, \frac{s_d}{\sqrt k}, \qquad
    s_d^2 = \frac{1}{k - 1} \sum_i (d_i - \bar d)^2,

which takes 12.7 standard errors of two seeds, 4.3 of three and 2.8 of five. One seed tells no error, and nobody is
ahead. The two are picked on the same seeds, each as the least of its side. No correction is made for that; it favours
the side with more samplers, which is the others.

All functions are of plain values, those of ``results.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

from headstart.report.comparison import NAMES
from headstart.report.page import judged
from headstart.report.text import listed

__all__ = ["ratios", "summarised", "verdict"]

Row = Mapping[str, Any]

#: The probability with which the interval of a difference covers it.
COVERAGE = 0.95

#: Of the scores, what says how they were measured.
HOW = ("n", "n_reference", "seed")


def summarised(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row for each method and number of evaluations: means over the seeds, with their standard errors.

    A score is ``{"mean", "error"}``, its error None for one seed. If a seed failed, there are no scores, and "failed"
    says how many and why.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["nfe"]), []).append(row)
    found = []
    for (method, nfe), own in groups.items():
        failed = [row["failed"] for row in own if row.get("failed")]
        first = own[0]
        scores = {} if failed else {name: estimate([row["scores"][name] for row in own]) for name in _scores(own)}
        n = first["scores"]["n"] if first["scores"] else None
        speeds = [1000 * row["seconds"] / row["scores"]["n"] for row in own if row.get("seconds") and row["scores"]]
        found.append(
            {
                "method": method,
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
                "cited": list(dict.fromkeys(key for row in own for key in row.get("cited") or ())),
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


def estimate(values: Sequence[float]) -> dict[str, float | None]:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": mean(values), "error": error}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def ratios(rows: Sequence[Row], means: Sequence[Row], counts: Sequence[int], metric: str) -> list[dict[str, Any]]:
    """For every number of evaluations the best of ours, the best of the others, their ratio and who is ahead.

    The others are all peers, and so also noise, the Gaussian start and teleportation with schedules that we chose; not
    the oracle, and not plans that may have seen what they are scored against.

    Arguments:
        rows: the scores of all seeds.
        means: what they were summarised to.
        counts: numbers of evaluations.
        metric: the score to compare by.

    Returns:
        "ahead" is "ours" or "others" if the paired differences tell them apart (see the module), else "level"; None
        with one seed. "seeds" is how many the two share.
    """
    found = []
    for nfe in counts:
        own, others = (_best(means, nfe, kind, metric) for kind in ("ours", "peer"))
        if own is None or others is None:
            continue
        a, b = (_by_seed(rows, best["method"], nfe, metric) for best in (own, others))
        differences = [a[seed] - b[seed] for seed in a if seed in b]
        against = float(others["scores"][metric]["mean"])
        found.append(
            {
                "nfe": nfe,
                "ours": own["label"],
                "others": others["label"],
                "ratio": own["scores"][metric]["mean"] / against if against > 0 else None,
                "ahead": _ahead(differences),
                "seeds": len(differences),
            }
        )
    return found


def _by_seed(rows: Sequence[Row], method: str, nfe: int, metric: str) -> dict[int, float]:
    own = [row for row in rows if row["method"] == method and row["nfe"] == nfe and row["scores"]]
    return {row["seed"]: float(row["scores"][metric]) for row in own}


def _ahead(differences: Sequence[float]) -> str | None:
    """Who is ahead, by our distance less theirs for every seed."""
    from scipy.stats import t as student

    count = len(differences)
    if count < 2:
        return None
    half = float(student.ppf(0.5 + COVERAGE / 2, count - 1)) * stdev(differences) / math.sqrt(count)
    if abs(mean(differences)) <= half:
        return "level"
    return "ours" if mean(differences) < 0 else "others"


def _best(means: Sequence[Row], nfe: int, kind: str, metric: str) -> Row | None:
    rows = [row for row in means if row["nfe"] == nfe and row["kind"] == kind and metric in (row["scores"] or {})]
    return min(rows, key=lambda row: float(row["scores"][metric]["mean"]), default=None)


def _beside_the_reference(means: Sequence[Row], metric: str) -> str:
    """The distance of our plans as a part of the reference's, where there is nothing else to compare them with."""
    known = [row for row in means if row["scores"]]
    mark = next((row for row in known if row["kind"] == "reference"), None)
    plans = [row for row in known if row["kind"] == "ours"]
    if mark is None or not plans or not mark["scores"][metric]["mean"] > 0:
        return "No verdict: there is no number of evaluations with scores of both a plan of ours and another sampler."
    least: dict[int, float] = {}
    for row in plans:
        ratio = row["scores"][metric]["mean"] / mark["scores"][metric]["mean"]
        least[row["nfe"]] = min(ratio, least.get(row["nfe"], math.inf))
    said = listed([f"{ratio:.2f} times at {nfe}" for nfe, ratio in sorted(least.items())])
    sentence = f"Of the {NAMES[metric]} of {mark['label']}, the best of our plans has {said} evaluations."
    return judged(sentence, mark["n"] or 0)


def verdict(means: Sequence[Row], best: Sequence[Row], metric: str) -> str:
    """The result of the comparison in one sentence, which says where the others win."""
    others = len({row["method"] for row in means if row["kind"] == "peer" and row["scores"]})
    if not best:
        return _beside_the_reference(means, metric)
    rivals = f"{others} other sampler{'s' * (others != 1)}"
    sentence = f"Held against the best of {rivals} by {NAMES[metric]}, the best of our plans "
    if any(row["ahead"] is None for row in best):
        known = [(f"{row['ratio']:.2f} times", row["nfe"]) for row in best if row["ratio"] is not None]
        said = [f"{times} its distance at {nfe} evaluations" for times, nfe in known[:1]]
        said += [f"{times} at {nfe}" for times, nfe in known[1:]]
        sentence += f"has {listed(said)}. " if said else "has no ratio to its distance. "
        sentence += "One seed tells no error, so who is ahead is open"
    else:
        said = []
        for ahead, words in (("ours", "ahead of it"), ("level", "level with it"), ("others", "behind it")):
            counts = [str(row["nfe"]) for row in best if row["ahead"] == ahead]
            if counts:
                said.append(f"{words} at {listed(counts)} evaluations")
        sentence += f"is {', '.join(said)}"
        if best[0]["ratio"] is not None:
            sentence += f"; at {best[0]['nfe']} it has {best[0]['ratio']:.2f} times the distance of {best[0]['others']}"
    n = next((row["n"] for row in means if row["n"]), 0)
    return judged(f"{sentence}.", n)
