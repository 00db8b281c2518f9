"""The race: which combination wins, and which are judged by more samples."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart import fit
from headstart.choose.race import ALIKE, OTHERS, better, winner
from headstart.choose.screen import Score
from tests.choose.cases import DATA, TARGET


def option(
    value: float, horizon: float, e_init: float, spread: float = 0.1, tractable: bool = True, last: float = 0.1
) -> Any:
    """What the pilot's winner looks at; the standard error of the difference to another one is that of the spreads."""
    turns = [spread * (-1) ** i for i in range(10)]
    score = Score(value, tuple(value + turn for turn in turns))
    return SimpleNamespace(
        pilot=score,
        final=None,
        best_known=score,
        errors=None,
        schedule=SimpleNamespace(horizon=horizon, sigma_min=last),
        start=SimpleNamespace(tractable=tractable),
        e_init=e_init,
    )


def test_of_plans_that_the_pilot_cannot_tell_apart_the_shortest_that_shows_no_error_wins():
    best, shorter, visible = option(1.0, 2.0, 0.1), option(1.1, 1.0, 0.9, -0.1), option(1.1, 0.5, 1.5, -0.1)
    assert winner([best, shorter, visible]) is shorter
    assert winner([best, visible]) is best
    assert winner([best, option(2.9, 1.0, 0.1, -0.1)]) is best  # the pilot can tell
    assert winner([visible, option(1.0, 0.5, 9.0)]) is visible  # another start with less of an error
    same = option(1.05, 1.0, 0.2)
    assert winner([shorter, same]) is shorter
    assert winner([same, shorter]) is same  # of one horizon and last level the first
    assert winner([option(1.0, 1.0, math.inf, tractable=False), option(1.05, 2.0, 0.0, -0.1)]).e_init == 0


def test_of_one_horizon_the_highest_last_level_wins():
    low, high = option(1.0, 1.0, 0.1, last=0.1), option(1.01, 1.0, 0.1, -0.1, last=0.3)
    assert winner([low, high]) is high
    assert winner([low, option(2.9, 1.0, 0.1, -0.1, last=0.3)]) is low


@pytest.mark.parametrize(("gap", "noise", "alike"), [(0.9, 0.0, True), (1.5, 0.0, False), (1.5, 30.0, True)])
def test_errors_of_starts_are_alike_up_to_the_error_of_their_difference(gap, noise, alike):
    """On 100 data: a nat is not seen, and more of them are where their difference is told from 0."""
    errors = np.random.default_rng(0).standard_normal(100)
    far, near = option(1.0, 2.0, 0.0), option(1.0, 1.0, gap, -0.1)
    far.errors, near.errors = errors, errors + gap + noise * np.random.default_rng(1).standard_normal(100)
    assert winner([far, near]) is (near if alike else far)


def test_a_handful_is_judged_by_all_samples(profile):
    plan = fit(TARGET, DATA, 3, profile=profile, pilot_samples=256)
    piloted = [c for c in plan.record.candidates if c.pilot is not None]
    finalists = [c for c in piloted if c.final is not None]
    assert 1 <= len(finalists) <= ALIKE + OTHERS < len(piloted)
    here = [c for c in piloted if c.horizon == plan.horizon]
    best = sorted(c.pilot for c in here)[:ALIKE]
    assert plan.horizon in {c.horizon for c in finalists}
    horizons = [c.horizon for c in finalists]
    assert max(map(horizons.count, horizons)) <= ALIKE
    assert min(best) in {c.pilot for c in finalists}
    listed = plan.explain().split("Decided by a pilot")[1].splitlines()[1:]
    assert len(listed) == min(5, len(finalists))


def test_better_is_what_all_samples_surely_say():
    """By which a plan of fewer evaluations takes the place of one of more."""
    near, far, alike = (Score(value, tuple(value + 0.1 * (-1) ** i for i in range(8))) for value in (1.0, 2.0, 1.1))
    noisy = Score(2.0, tuple(2 - 3 * (-1) ** i for i in range(8)))

    def of(score: Score | None) -> Any:
        return SimpleNamespace(final=score)

    assert better(of(near), of(far))
    assert not better(of(far), of(near))
    assert not better(of(near), of(noisy))
    assert not better(of(near), of(None))
    assert not better(of(None), of(far))
    assert better(of(near), of(alike))  # whose differences are the same in all groups
