"""A plan in five lines: its levels, the horizons that were looked at, and what decided."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from headstart.budget import Budget, Estimate
from headstart.initialization import Isotropic
from headstart.noise import Noise
from headstart.plan import Candidate, Plan, Record
from headstart.profile import Profile
from headstart.report.brief import brief, sparkline
from headstart.schedule import rho_grid
from headstart.solver import Euler
from headstart.targets import gmm25


@pytest.fixture(scope="module")
def plan() -> Plan:
    law = gmm25()
    levels = np.geomspace(10.0, 0.01, 9)
    profile = Profile.measure(law, law.sample(Noise(range(64))), sigmas=levels, samples=32, cost_samples=16)
    found = [Candidate("gaussian", h, "rho", 0.1, "euler", 1.0, 0.1, 2.0, p) for h, p in ((1, 4.0), (2, 1.0), (4, 2.0))]
    worse = [Candidate("isotropic", 2, "rho", 0.1, "euler", 1.0, 0.1, 2.0, 8.0), replace(found[0], pilot=None)]
    record = Record((*found, *worse), chosen={"horizon": "by pilot"}, fit_seconds=12.0)
    return Plan(Isotropic((2,)), rho_grid(4, 2.0, 0.1), Euler(), Budget(Estimate(1.0, 0.1), (0.5,)), profile, record)


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([-2.0, 5.0], "▁█"),
        ([1.0, math.inf, math.nan, 2.0], "▁  █"),
        ([5.0], "▁"),
        ([], ""),
        ([math.inf], " "),
    ],
)
def test_a_sparkline_goes_from_the_least_to_the_greatest(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


def test_a_plan_is_told_in_five_lines(plan: Plan) -> None:
    lines = brief(plan).splitlines()
    assert len(lines) == 5
    assert lines[0] == repr(plan)
    assert lines[1].split(None, 1)[1].split(" > ") == [f"{sigma:.3g}" for sigma in plan.schedule.sigmas]
    assert "█▁▅" in lines[2], "of every horizon the best that was sampled, on a log scale"
    assert "4 candidates, distances 1 to 8" in lines[3]
    assert "12 s" in lines[4]


def test_distances_below_0_spoil_no_line(plan: Plan) -> None:
    """Estimates of small distances can be negative, and the others still differ in height."""
    found = [replace(c, pilot=c.pilot and c.pilot - 1.25) for c in plan.record.candidates]  # -0.25, 0.75 and 2.75
    lines = brief(replace(plan, record=replace(plan.record, candidates=tuple(found)))).splitlines()
    assert "█▁▅" in lines[2], "of roots of 3, 0 and 1"
    assert "below 0" in lines[3]
    assert "below 0" not in brief(plan)


def test_doubts_are_told_too(plan: Plan) -> None:
    doubted = replace(plan, record=replace(plan.record, doubts=("it may be guided",)))
    assert "it may be guided" in brief(doubted).splitlines()[5]


def test_a_plan_whose_parts_were_all_asked_for_has_nothing_to_compare(plan: Plan) -> None:
    asked = brief(replace(plan, record=Record()))
    assert len(asked.splitlines()) == 5
    assert "asked" in asked
