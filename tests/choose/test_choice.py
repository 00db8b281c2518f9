"""The choice among plans of one fit: a cheaper plan that is surely better takes the place of a dearer one."""

from __future__ import annotations

import pytest

from headstart import fit
from headstart.solver import Euler
from tests.choose.cases import DATA, TARGET

GIVEN = {"initialization": "gaussian", "pilot_samples": 64}


@pytest.mark.parametrize("surely", [True, False])
def test_no_plan_is_worse_than_a_cheaper_one(surely, profile, monkeypatch):
    monkeypatch.setattr("headstart.choose.choice.better", lambda option, other: surely)
    plans = fit(TARGET, DATA, [4, 3, 2], profile=profile, **GIVEN)
    assert {n: plan.nfe for n, plan in plans.items()} == ({4: 2, 3: 2, 2: 2} if surely else {4: 4, 3: 3, 2: 2})
    for plan in plans.values():
        chosen = [c for c in plan.record.candidates if c.horizon == plan.horizon and c.final is not None]
        assert chosen
        assert (plan.schedule == plans[2].schedule) == (surely or plan is plans[2])


def test_a_cheaper_plan_by_the_budget_alone_is_not_looked_at(profile):
    plans = fit(TARGET, DATA, [2, 3], profile=profile, criterion="budget", solver=Euler(), **GIVEN)
    assert [plan.nfe for plan in plans.values()] == [2, 3]
