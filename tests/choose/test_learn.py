"""Schedules that are learned: what is taken of them."""

from __future__ import annotations

from types import SimpleNamespace

from headstart import fit
from headstart.schedule import Schedule
from tests.choose.cases import DATA, FAST, TARGET


def test_what_is_learned_below_the_levels_that_were_measured_is_not_taken(monkeypatch, profile):
    """Nothing is known of its error there."""

    def low(denoiser, start, schedule, solver, data, **_):
        grid = Schedule([*schedule.sigmas[:-2], profile.sigmas[-1] / 2, 0.0])
        return SimpleNamespace(won=1, schedule=grid, solver=solver, winner=SimpleNamespace(objective="data"))

    monkeypatch.setattr("headstart.choose.learn.distill", low)
    plan = fit(TARGET, DATA, 3, profile=profile, schedule="distilled", **FAST)
    assert plan.schedule.sigma_min >= profile.sigmas[-1]
    assert "nothing that was learned is better" in plan.record.chosen["schedule"]
