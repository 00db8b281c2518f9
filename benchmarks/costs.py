"""``python -m benchmarks.costs``: what a plan costs before it samples, against samples, dimensions and levels.

Every family of starts is fitted on more and more samples, and in more and more dimensions; those that are trained, one
epoch. The bundled network is measured on more and more levels, which is the one part that calls it. Then every kind of
schedule is cut from that profile. :mod:`benchmarks.starts` has fitting at the sizes of whole data sets.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count as count_from
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.starts import _natural
from benchmarks.timing import cost, power, processor, seconds_of
from experiments.common import Run, command
from headstart.choose import fit_starts
from headstart.data import fashion_mnist
from headstart.initialization import Training
from headstart.models import load_denoiser
from headstart.profile import LEVELS, Profile
from headstart.schedule import Schedule, get_rule, rule_names

#: What one profile of the bundled network, and a schedule from it, may take in seconds.
PROFILE_BAR, SCHEDULE_BAR = 60.0, 0.1

CLOSED = ("shifted", "diagonal", "gaussian", "teleportation", "mixture", "student-t")
TRAINED = ("flow", "autoregressive")


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: measuring the network, and the dearest start and schedule."""
    measured = results["measuring"][-1]
    start = max(results["fitting"], key=lambda row: row["seconds"])
    grid = max(results["schedules"], key=lambda row: row["milliseconds"])
    return (
        f"Measuring the network on {measured['levels']} levels takes {measured['seconds']:.0f} s; the dearest start, "
        f"{start['family']} on {start['samples']:,} samples of {start['dimensions']:,} dimensions, "
        f"{start['seconds']:.0f} s; the dearest schedule, {grid['schedule']} of {grid['steps']} steps, "
        f"{grid['milliseconds'] / 1000:.2g} s."
    )


def costs(run: Run) -> dict[str, Any]:
    """The cost of fitting starts, measuring a network and making schedules."""
    images = fashion_mnist("train", bundled=True).samples
    counts = [200, 400] if run.quick else [1000, 2000, 4000]
    sides = [8, 16] if run.quick else [16, 32, 64]
    sets = [("samples", images[:n]) for n in counts] + [
        ("dimensions", _natural(side, 100 if run.quick else 1000)) for side in sides
    ]
    fitting = [
        row
        for against, data in run.progress.track(sets, "fitting", len(sets))
        for row in _fitted(against, data, run.device)
    ]
    measuring, profile = _measured(run, images)
    schedules = _schedules(run, profile)
    run.table("fitting", fitting)
    run.table("measuring", measuring)
    run.table("schedules", schedules)
    return {
        "fitting": fitting,
        "powers": _powers(fitting),
        "measuring": measuring,
        "schedules": schedules,
        "bars": {"profile seconds": PROFILE_BAR, "schedule seconds": SCHEDULE_BAR},
        "processor": processor(),
    }


def _fitted(against: str, data: Tensor, device: str) -> list[dict[str, Any]]:
    """Seconds and memory of fitting each family; a family that is trained gets one epoch."""
    families = CLOSED + tuple(name for name in TRAINED if name != "flow" or importlib.util.find_spec("zuko"))
    rows = []
    for family in families:
        fit = partial(fit_starts, data, family, training=Training(epochs=1), device=device)
        size = {"against": against, "samples": len(data), "dimensions": data[0].numel()}
        taken = cost(fit, device)
        row = {"family": family, **size, "seconds": taken.seconds, "memory_mib": taken.memory}
        rows.append({**row, "epoch": family in TRAINED})
    return rows


def _powers(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How the time of each family grows: the power of what it is measured against."""
    found = {}
    for family, against in dict.fromkeys((row["family"], row["against"]) for row in rows):
        own = [row for row in rows if (row["family"], row["against"]) == (family, against)]
        sizes = [row[against] for row in own]
        found[f"{family} against {against}"] = power(sizes, [row["seconds"] for row in own])
    return found


def _measured(run: Run, images: Tensor) -> tuple[list[dict[str, Any]], Profile]:
    """Seconds and memory of the measuring pass over more and more levels, and the profile with the usual ones."""
    denoiser = load_denoiser("builtin:fashion-mnist", run.device)
    scale = float(images.double().flatten(1).var(dim=0).mean().sqrt())
    samples, cost_samples = (4, 2) if run.quick else (None, None)
    rows, found = [], list[Profile]()
    for levels in (LEVELS,) if run.quick else (LEVELS // 4, LEVELS // 2, LEVELS):
        sigmas = np.geomspace(200 * scale, 0.02 * scale, levels)

        def measure(sigmas: NDArray[np.float64] = sigmas) -> None:
            found.append(
                Profile.measure(
                    denoiser, images, sigmas=sigmas, samples=samples, cost_samples=cost_samples, device=run.device
                )
            )

        taken = cost(measure, run.device)
        used = {"samples": len(found[-1].losses), "cost_samples": len(found[-1].corrector)}
        rows.append({"levels": levels, **used, "seconds": taken.seconds, "memory_mib": taken.memory})
    return rows, found[-1]


def _schedules(run: Run, profile: Profile) -> list[dict[str, Any]]:
    """Milliseconds that each kind of schedule takes to make from the profile, the median of several."""
    rows = []
    for kind in rule_names():
        for steps in (4,) if run.quick else (4, 10, 30):
            make = partial(_another, kind, profile, steps, count_from(2.0, 1e-6))
            count = 1 if run.quick else 3 if kind == "least_error" else 15
            make()
            milliseconds = 1e3 * median(seconds_of(make) for _ in range(count))
            met = milliseconds < 1e3 * SCHEDULE_BAR
            rows.append({"schedule": kind, "steps": steps, "milliseconds": milliseconds, "meets_bar": met})
    return rows


def _another(kind: str, profile: Profile, steps: int, horizons: Iterator[float]) -> Schedule:
    """A schedule from the next horizon: one that was made before is remembered."""
    return get_rule(kind)(profile, steps, next(horizons), 0.05)


if __name__ == "__main__":
    command("costs", costs, verdict, package="benchmarks")
