"""A plan in five lines, for a terminal: what was chosen, from what, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headstart.plan import Candidate, Plan
from headstart.report.text import duration, number

__all__ = ["brief", "sparkline"]

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float]) -> str:
    """Numbers as blocks, from the least to the greatest; a space for what is not finite.

    >>> sparkline([1.0, 2.0, 4.0, 8.0]), sparkline([3.0, math.inf, 3.0])
    ('▁▂▄█', '▁ ▁')
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    wide = (high - low) or 1.0
    return "".join(
        BLOCKS[round((value - low) / wide * (len(BLOCKS) - 1))] if math.isfinite(value) else " " for value in values
    )


def brief(plan: Plan) -> str:
    """The plan in five lines, and one more for every doubt."""
    lines = [
        repr(plan),
        f"Levels     {' > '.join(number(sigma) for sigma in plan.schedule.sigmas)}",
        _horizons(plan),
        _decided(plan),
        f"Took       {duration(plan.record.fit_seconds)}; {_copying(plan)}",
    ]
    return "\n".join([*lines, *(f"Doubt      {doubt}" for doubt in plan.record.doubts)])


def _copying(plan: Plan) -> str:
    """The verdict of the novelty test in a few words."""
    novelty = plan.record.novelty
    if novelty is None:
        return "too few data to test for copies"
    seen = "its samples may be copies of the data" if novelty.memorising else "no copying seen"
    return f"{seen} (p {number(novelty.p_value, 2)})"


def _horizons(plan: Plan) -> str:
    """The least of every horizon that was looked at, by what decided, from the shortest to the longest."""
    least: dict[float, float] = {}
    for candidate in plan.record.candidates:
        value = _value(candidate, plan.record.criterion)
        if value is not None:
            least[candidate.horizon] = min(value, least.get(candidate.horizon, math.inf))
    if len(least) < 2:
        return f"Horizon    {number(plan.horizon)}, as asked for"
    ordered = sorted(least)
    drawn = sparkline(_heights([least[horizon] for horizon in ordered]))
    said = "distance to held-out data" if plan.record.criterion == "pilot" else "nats"
    between = f"{number(ordered[0])} {drawn} {number(ordered[-1])}"
    return f"Horizon    {number(plan.horizon)}, chosen between {between} (height: {said})"


def _heights(values: Sequence[float]) -> list[float]:
    """The heights to draw: on a log scale; by roots where chance makes some estimates of small distances negative."""
    low = min((value for value in values if math.isfinite(value)), default=0.0)
    if low > 0:
        return [math.log(value) for value in values]
    return [math.sqrt(value - low) if math.isfinite(value) else value for value in values]


def _value(candidate: Candidate, criterion: str) -> float | None:
    return candidate.pilot if criterion == "pilot" else candidate.nats


def _decided(plan: Plan) -> str:
    """How many candidates there were, and how far the best two are apart."""
    values = [(_value(candidate, plan.record.criterion), candidate) for candidate in plan.record.candidates]
    known = sorted((value for value, _ in values if value is not None and math.isfinite(value)))
    if not known:
        return "Decided    by you: nothing was left to choose"
    word, unit = ("pilot", "distances") if plan.record.criterion == "pilot" else ("budget", "nats")
    chance = ": small ones can come out below 0" if word == "pilot" and known[0] < 0 else ""
    return (
        f"Decided    by the {word} of {len(known)} candidates, {unit} {number(known[0])} to {number(known[-1])}{chance}"
    )
