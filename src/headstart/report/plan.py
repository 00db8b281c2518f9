"""The page of a plan: what it does, why, what it draws, and what to cite.

:func:`plan_values` and :func:`profile_values` are a plan and its measurements as plain values, which the pages show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from headstart.environment import environment
from headstart.errors import InputError
from headstart.files import atomic_write
from headstart.metrics import nearest
from headstart.plan import Candidate, Plan
from headstart.plan.explain import decided_by, references, total
from headstart.profile import Profile
from headstart.report import figures
from headstart.report.images import data_uri, image_grid, is_images, neighbours_grid, png
from headstart.report.lanes import pictured
from headstart.report.page import Tile, drawn, entries, render
from headstart.report.text import duration, number

__all__ = ["plan_values", "profile_values", "write_plan_page"]

#: Samples shown, in rows of so many; and how many of them beside their nearest neighbours.
SHOWN, COLUMNS, BESIDE = 64, 8, 8

#: The candidates' table: a field, the heading, whether it holds numbers.
COLUMNS_OF = (
    ("initialization", "start", False),
    ("horizon", "horizon", True),
    ("schedule", "schedule", False),
    ("sigma_min", "last level", True),
    ("solver", "solver", False),
    ("e_init", "E_init, nats", True),
    ("nats", "budget, nats", True),
    ("pilot", "pilot", True),
    ("final", "final", True),
    ("turn", "last row turned by", True),
)

#: The headings of the discretization errors, and whether they hold numbers.
COMPARING = (("sampler", False), ("levels", False), ("solver", False), ("discretization, nats", True))


def plan_values(plan: Plan) -> dict[str, Any]:
    """A plan as plain values: what it is, its budget, and the curve of its candidates over the horizon.

    The curve is of the schedule and the solver that all starts and horizons were screened with.
    """
    curve: dict[tuple[str, float], Candidate] = {}
    for candidate in plan.record.candidates:
        screened = plan.record.candidates[0]
        if (candidate.schedule, candidate.solver) == (screened.schedule, screened.solver):
            curve.setdefault((candidate.initialization, candidate.horizon), candidate)
    budget = None
    if plan.budget is not None:
        start = plan.budget.initialization
        budget = {
            "initialization": None if start is None else [start.value, start.error],
            "discretization": list(plan.budget.discretization),
            "total": plan.budget.total,
            "steps": total(plan.budget.discretization),
            "references": [
                {"name": name, "solver": r.sampler.solver.name, "schedule": r.sampler.schedule.name, "steps": r.nats}
                for name, r in references(plan).items()
            ],
        }
    return {
        "nfe": plan.nfe,
        "horizon": plan.horizon,
        "initialization": plan.initialization.name,
        "schedule": plan.schedule.name,
        "sigmas": list(plan.schedule.sigmas),
        "solver": plan.solver.name,
        "fit_seconds": plan.record.fit_seconds,
        "explanation": plan.explain(),
        "decided_by": decided_by(plan),
        "budget": budget,
        "curve": [asdict(candidate) for candidate in curve.values()],
        "flat_region": None if plan.equivalent is None else list(plan.equivalent),
        "start_cost": plan.record.start_cost,
        "novelty": None if plan.record.novelty is None else plan.record.novelty.to_dict(),
    }


def profile_values(profile: Profile) -> dict[str, list[float]]:
    """The measured curves of a profile as plain values."""
    return {
        "sigmas": profile.sigmas.tolist(),
        "loss": profile.loss.tolist(),
        "corrector": profile.corrector.mean(axis=0).tolist(),
        "defect": profile.defect.mean(axis=0).tolist(),
    }


def write_plan_page(
    plan: Plan,
    path: str | Path,
    samples: Tensor | None = None,
    data: Tensor | None = None,
    lanes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page of a plan as one self-contained HTML file, whole or not at all.

    Arguments:
        plan: the plan.
        path: the file.
        samples: what it drew, shape (N, \\*S); images of 1 or 3 channels are shown.
        data: real samples of the same shape; the first samples are shown beside their nearest neighbours among them.
        lanes: trajectories of a few samples, ``lanes(beside_classic(plan, denoiser), denoiser)`` of
            :mod:`headstart.report.lanes`.

    Raises:
        InputError: if samples or data are not of the plan's shape.
        DataError: if they hold NaN or Inf, or there are fewer than two.
        ArtefactError: if the file cannot be written; nothing is left behind then.
    """
    for name, given in (("samples", samples), ("data", data)):
        if given is not None and tuple(given.shape[1:]) != plan.profile.shape:
            raise InputError(f"{name} have the shape {tuple(given.shape[1:])}: the plan's is {plan.profile.shape}")
    values = plan_values(plan)
    page = render(
        "plan.html",
        plan=values,
        verdict=verdict(plan),
        tiles=_tiles(plan),
        lanes=pictured(lanes),
        e_init=None if plan.budget is None else plan.budget.initialization,
        compared=_compared(values),
        comparing=COMPARING,
        schedules=drawn(figures.schedules([{"method": "plan", **values}])),
        budget=drawn(figures.error_budget([values])),
        horizons=drawn(figures.horizon_curve(values)),
        profile=drawn(figures.measured_profile(profile_values(plan.profile))),
        grid=_grid(samples),
        neighbours=_neighbours(samples, data),
        headings=[column[1:] for column in COLUMNS_OF],
        candidates=[{"cells": _candidate(c)} for c in sorted(plan.record.candidates, key=lambda c: c.rank)],
        environment=environment("cpu") | {"plan's seed": plan.profile.seed},
        references=entries(plan.cited),
    )
    atomic_write(page.encode(), path)


def verdict(plan: Plan) -> str:
    """The plan in one sentence: where it starts, how many evaluations it takes, the start's error, and what decided."""
    many = f"{plan.nfe} evaluation{'s' * (plan.nfe != 1)}"
    sentence = f"{many} from a {plan.initialization.name} start at {number(plan.horizon)}, decided by the "
    e_init = None if plan.budget is None else plan.budget.initialization
    error = "not known" if e_init is None else f"{e_init!r} nats"
    return f"{sentence}{decided_by(plan)}; the start's error is {error}."


def _tiles(plan: Plan) -> list[Tile]:
    """The plan's evaluations, its quality as far as it was measured, and its cost."""
    many = f"{plan.nfe} evaluation{'s' * (plan.nfe != 1)}"
    got = many, f"of the network for a sample, from a {plan.initialization.name} start at {number(plan.horizon)}"
    start = plan.record.start_cost
    drawing = f"; drawing a start takes as long as {number(start, 2)} evaluations" * (start > 0)
    cost = duration(plan.record.fit_seconds), f"to fit, once; the network stays as it is{drawing}"
    return Tile.three(got, _goodness(plan), cost)


def _goodness(plan: Plan) -> tuple[str, str]:
    """The measured quality of the plan, as a figure and in words, beside the best that starts from noise."""
    parts = plan.initialization.name, plan.horizon, plan.schedule.name, plan.solver.name
    ranked = sorted(plan.record.candidates, key=lambda c: c.rank)
    own = [c for c in ranked if (c.initialization, c.horizon, c.schedule, c.solver) == parts] or ranked
    key, what = "nats", "nats, the estimated error"
    if own and own[0].pilot is not None:
        key, what = "pilot", "the distance of its pilot's samples to held-out data"
    if own:
        value = getattr(own[0], key)
        others = [getattr(c, key) for c in ranked if c.initialization == "isotropic" and c is not own[0]]
        noise = min((other for other in others if other is not None), default=None)
        return number(value), what + ("" if noise is None else f"; the best from noise has {number(noise)}")
    e_init = None if plan.budget is None else plan.budget.initialization
    return ("-", "nothing was measured") if e_init is None else (f"{number(e_init.value)} nats", "of the start's error")


def _compared(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table of the discretization error: of the plan, and of what it is compared with."""
    if values["budget"] is None:
        return []
    own = {**values, "name": "this plan", "steps": values["budget"]["steps"]}
    rows = []
    for row in (own, *values["budget"]["references"]):
        texts = [row["name"], row["schedule"], row["solver"]]
        cells = [{"text": text, "value": text} for text in texts]
        rows.append({"cells": [*cells, {"text": number(row["steps"], padded=True), "value": row["steps"]}]})
    return rows


def _candidate(candidate: Candidate) -> list[dict[str, Any]]:
    """A row of the table: the text of every cell, and the value that it sorts by."""
    own = asdict(candidate)
    return [
        {"text": number(own[key], padded=numeric), "value": "" if own[key] is None else own[key]}
        for key, _, numeric in COLUMNS_OF
    ]


def _grid(samples: Tensor | None) -> str | None:
    """The first samples side by side, as the address of an image."""
    if samples is None or not is_images(samples):
        return None
    return _address(image_grid(samples[:SHOWN], COLUMNS))


def _neighbours(samples: Tensor | None, data: Tensor | None) -> dict[str, Any] | None:
    """The first samples above their nearest neighbours among the data, and how far these are."""
    if samples is None or data is None:
        return None
    distances, places = nearest(samples[:BESIDE], data)
    uri = _address(neighbours_grid(samples[:BESIDE], data[places])) if is_images(samples) else None
    return {"uri": uri, "count": len(data), "distances": ", ".join(number(float(d)) for d in distances)}


def _address(grid: Any) -> str:
    return data_uri(png(grid))
