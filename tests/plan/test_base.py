"""The plan as a value: what it says of itself, and the names that its record had before."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from headstart.plan import Record
from headstart.sampler import Sampler
from headstart.schedule import Schedule
from headstart.solver import DDPM
from tests.cases import TARGET
from tests.plan.cases import make, recorded

#: Fields that plans never had as attributes of their own.
NEW = {"doubts", "conditioning", "guidance", "latents"}


def test_repr():
    assert repr(make()) == "Plan(3 evaluations: gaussian start at 3, rho 7 levels, dpm++2m; E_init 0.25 ± 0.12 nats)"
    one = make(schedule=Schedule([3.0, 0.0]))
    assert repr(one).startswith("Plan(1 evaluation: gaussian start at 3, custom levels")


def test_a_plan_samples_as_its_three_parts_do():
    plan = make(solver=DDPM())
    assert isinstance(plan, Sampler)
    parts = Sampler(plan.initialization, plan.schedule, plan.solver)
    assert torch.equal(plan.sample(TARGET, 4), parts.sample(TARGET, 4))
    assert (plan.nfe, plan.horizon) == (parts.nfe, parts.horizon) == (3, 3.0)
    assert set(parts.cited) < set(plan.cited)


@pytest.mark.parametrize("name", [field.name for field in fields(Record) if field.name not in NEW])
def test_fields_of_the_record_keep_their_old_names(name):
    plan = make()
    with pytest.warns(DeprecationWarning, match=f"Plan.{name} is now Plan.record.{name}"):
        old = getattr(plan, name)
    assert old is getattr(plan.record, name)


def test_the_equal_horizons_are_those_of_the_criterion_with_its_start():
    plan = make("mixture")
    assert plan.equivalent is None
    first, second, third = plan.record.candidates
    changed = (replace(first, flat=True), replace(second, flat=True), replace(second, horizon=2.5, pilot_flat=True))
    assert recorded(plan, candidates=(*changed, third), criterion="budget").flat == (1.5, 1.5)
    assert recorded(plan, candidates=(*changed, third)).flat == (2.5, 2.5)
