"""The pilot: which plan wins, and which ones are compared."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from headstart import fit
from headstart.choose import fit_starts
from headstart.choose.pilot import winner
from headstart.choose.screen import Score
from headstart.errors import InputError
from headstart.initialization import Generator
from headstart.schedule import Schedule
from headstart.solver import USUAL_SOLVERS
from tests.choose.cases import DATA, FAST, TARGET


def option(value: float, horizon: float, e_init: float, spread: float = 0.1, tractable: bool = True) -> Any:
    """What the pilot's winner looks at; the standard error of the difference to another one is that of the spreads."""
    turns = [spread * (-1) ** i for i in range(10)]
    return SimpleNamespace(
        pilot=Score(value, tuple(value + turn for turn in turns)),
        schedule=SimpleNamespace(horizon=horizon),
        start=SimpleNamespace(tractable=tractable),
        e_init=e_init,
    )


def test_of_plans_that_the_pilot_cannot_tell_apart_the_shortest_that_shows_no_error_wins():
    best, shorter, visible = option(1.0, 2.0, 0.1), option(1.1, 1.0, 0.9, -0.1), option(1.1, 0.5, 1.5, -0.1)
    assert winner([best, shorter, visible]) is shorter
    assert winner([best, visible]) is best
    assert winner([best, option(1.9, 1.0, 0.1, -0.1)]) is best  # the pilot can tell
    assert winner([visible, option(1.0, 0.5, 9.0)]) is visible  # another start with less of an error
    same = option(1.05, 1.0, 0.2)
    assert winner([shorter, same]) is shorter
    assert winner([same, shorter]) is same  # of one horizon the first
    assert winner([option(1.0, 1.0, math.inf, tractable=False), option(1.05, 2.0, 0.0, -0.1)]).e_init == 0


def test_a_generator_joins_the_pilot():
    """It has no density: the pilot alone can tell that the true law is the better start."""
    truth = Generator((2,), lambda noise, label: TARGET.sample(noise))
    truth.closed_form = True  # against a network that is itself a formula, no time is charged
    arguments = {"horizon": 0.5, "schedule": "defect", "solver": "dpm++2m", "sigma_min": 0.1}
    plan = fit(TARGET, DATA, 2, initialization=["isotropic", truth], **arguments)
    assert plan.initialization is truth
    assert plan.budget.initialization is None
    with pytest.raises(InputError, match=r"hand .*Generator in"):
        fit_starts(DATA, "generator")


def test_a_single_step_leaves_no_choice(profile):
    chosen = fit(TARGET, DATA, 1, profile=profile, **FAST).record.chosen
    assert {chosen[part] for part in ("schedule", "sigma_min", "solver")} == {"one level or two leave no choice"}
    assert chosen["horizon"] == "by pilot"


def test_two_evaluations_are_not_piloted_with_every_solver():
    """One level above 0 besides the horizon: all solvers take the same step to it."""
    plan = fit(TARGET, DATA, 2, **FAST)
    assert {(c.solver, c.schedule) for c in plan.record.candidates} == {("dpm++2m", "defect")}
    assert plan.record.chosen["solver"] == "one level or two leave no choice"
    assert len({c.sigma_min for c in plan.record.candidates if c.horizon == plan.horizon}) > 1


def test_two_steps_above_0_are_piloted_with_every_solver(profile):
    """Without a step to 0 two steps are two steps, in the second of which solvers differ."""
    plan = fit(TARGET, DATA, profile=profile, schedule=Schedule([5.0, 1.0, 0.1]), **FAST)
    assert {c.solver for c in plan.record.candidates} == set(USUAL_SOLVERS)
    assert plan.record.chosen["solver"] == "by pilot"


def test_batches_change_nothing_but_the_last_digits(profile):
    large, small = (fit(TARGET, DATA, 3, profile=profile, batch_size=b, **FAST) for b in (256, 5))
    for a, b in zip(large.record.candidates, small.record.candidates, strict=True):
        assert (a.schedule, a.horizon, a.pilot is None) == (b.schedule, b.horizon, b.pilot is None)
        assert a.pilot is None or a.pilot == pytest.approx(b.pilot, rel=1e-4)
