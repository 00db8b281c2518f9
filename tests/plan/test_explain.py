"""The explanation of a plan shows the numbers that were computed, beside those that they are held against."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from headstart import fit
from headstart.budget import Budget, Estimate, discretization_error
from headstart.plan import Plan
from headstart.plan.explain import decided_by, number_of, references, total
from headstart.profile import Profile
from headstart.schedule import Schedule, rho_grid, usual_rules
from headstart.solver import DDPM, USUAL_SOLVERS, Heun, get_solver
from headstart.trajectory import Trajectories
from tests.cases import DATA, TARGET
from tests.plan.cases import CANDIDATES, make, recorded

HEUN, NOISE = "EDM's Heun, 35 evaluations", "the best from noise, 3 evaluations"
STORED = Path(__file__).parent / "stored"


@pytest.fixture(scope="module")
def plan():
    """With trajectories, so that solvers have estimates of their own."""
    return fit(TARGET, DATA, 3, initialization="gaussian", pilot_samples=16)


# What stands in it


def test_it_names_the_parts_the_reasons_and_the_errors():
    plan = make()
    text = plan.explain()
    for shown in (plan, plan.initialization, plan.schedule, plan.solver, plan.budget.initialization):
        assert repr(shown) in text
    for part, reason in plan.record.chosen.items():
        assert re.search(rf"{part}.* {reason}", text)


@pytest.mark.parametrize("nats", [0.0, 0.01234, 1.0, 999.4, 999.6, 1474.3, 123456.7])
def test_a_number_of_nats_has_no_exponent(nats):
    assert float(number_of(nats)) == pytest.approx(nats, rel=6e-3)
    assert "e" not in number_of(nats)


def test_discretization_stands_beside_what_it_is_held_against(plan):
    shown = re.findall(r"^(?:  discretization   | {19})(\S+) +(this plan|EDM|the best)", plan.explain(), re.MULTILINE)
    found = references(plan)
    own = total(plan.budget.discretization)
    assert shown == [
        (number_of(own), "this plan"),
        (number_of(found[HEUN].nats), "EDM"),
        (number_of(found[NOISE].nats), "the best"),
    ]
    assert own == Budget(Estimate(0.0, 0.0), plan.budget.discretization).total


def test_the_sum_of_start_and_steps_is_nowhere(plan):
    changed = replace(plan, budget=Budget(Estimate(1.0, 0.1), (1474.25,)))
    assert changed.budget.total == pytest.approx(1552.04, abs=0.01)
    for text in (changed.explain(), repr(changed)):
        assert not re.search(r"155[0-9]|1\.55e", text)
    assert "1 ± 0.1" in repr(changed)
    assert "nats" not in repr(replace(plan, budget=None))


def test_whose_steps_the_estimate_is_of(plan):
    assert "its solver's own steps" in plan.explain()
    for other in (replace(plan, solver=DDPM()), replace(plan, profile=replace(plan.profile, trajectories=None))):
        assert "its solver's own steps" not in other.explain()


def test_an_oracle_and_a_start_below_the_network():
    oracle = recorded(make("empirical", budget=Budget(None, ())), candidates=()).explain()
    assert "no density" in oracle
    assert "for comparison only" in oracle
    assert "for comparison only" not in make().explain()
    assert "Below 0" in make(budget=Budget(Estimate(-1.0, 0.1), ())).explain()
    assert "Below 0" not in make(budget=Budget(Estimate(-0.1, 0.1), ())).explain()


def test_without_a_budget_there_is_nothing_to_compare():
    assert "nats" not in make(budget=None).explain()


# What decided


@pytest.mark.parametrize(
    ("criterion", "candidates", "chosen", "expected"),
    [
        ("pilot", CANDIDATES, {"solver": "by pilot"}, "pilot"),
        ("pilot", CANDIDATES[:1], {"solver": "as asked"}, "user"),
        ("budget", CANDIDATES[:1], {"solver": "as asked", "horizon": "by budget"}, "budget"),
        ("budget", CANDIDATES, {"solver": "as asked"}, "user"),
    ],
)
def test_what_decided(criterion, candidates, chosen, expected):
    plan = recorded(make(), criterion=criterion, candidates=candidates, chosen=chosen)
    assert decided_by(plan) == expected
    assert re.findall(r"Decided by (?:a|the) (\w+)", plan.explain()) == [expected]


def test_the_best_pilots_come_first():
    lines = make().explain().split("Decided by a pilot of 2 candidates")[1].splitlines()[1:]
    piloted = sorted((c for c in CANDIDATES if c.pilot is not None), key=lambda c: c.pilot)
    assert [float(line.split()[0]) for line in lines] == [c.pilot for c in piloted]
    assert [line.split()[1] for line in lines] == [c.initialization for c in piloted]


def test_the_chosen_candidate_is_marked():
    plan = make()
    own = replace(
        CANDIDATES[0],
        initialization=plan.initialization.name,
        horizon=plan.horizon,
        schedule=plan.schedule.name,
        sigma_min=plan.schedule.sigma_min,
        solver=plan.solver.name,
        pilot=9.0,
    )
    lines = recorded(plan, candidates=(*CANDIDATES, own), criterion="pilot").explain().splitlines()
    assert [line.split()[0] for line in lines if line.endswith("(chosen)")] == ["9.0000"]


# What it is held against


def test_heun_has_the_estimate_that_the_budget_has_for_it(plan):
    profile = plan.profile
    high, low = min(160 * profile.sigma_data, profile.sigmas[0]), max(0.004 * profile.sigma_data, profile.sigmas[-1])
    found = references(plan)[HEUN]
    assert (found.sampler.nfe, found.sampler.schedule, found.sampler.solver) == (35, rho_grid(18, high, low), Heun())
    assert found.nats == total(discretization_error(profile, found.sampler.schedule)) > 0


def test_the_best_from_noise_is_the_least_of_all_that_a_fit_tries(plan):
    best, profile = references(plan)[NOISE], plan.profile
    last = plan.schedule.sigma_min
    found = []
    for solver in map(get_solver, USUAL_SOLVERS):
        for rule in usual_rules():
            grid = rule(profile, 3, best.sampler.horizon, last, solver)
            found.append(total(discretization_error(profile, grid, solver)))
    assert len(found) == 25
    assert best.nats == min(found)
    assert (best.sampler.nfe, best.sampler.initialization.name) == (plan.nfe, "isotropic")
    assert best.sampler.schedule.sigma_min == last


def test_references_do_not_depend_on_the_units_of_the_data(plan):
    c, p = 7.0, plan.profile
    t = p.trajectories
    scaled = Profile(
        sigmas=c * p.sigmas,
        losses=c**2 * p.losses,
        corrector=p.corrector,
        defect=p.defect,
        sigma_data=c * p.sigma_data,
        shape=p.shape,
        seed=p.seed,
        trajectories=Trajectories(c * t.sigmas, c**2 * t.products, c**2 * t.spread),
    )
    schedule = Schedule([c * level for level in plan.schedule.sigmas])
    other = references(replace(plan, profile=scaled, schedule=schedule))
    for name, reference in references(plan).items():
        assert other[name].nats == pytest.approx(reference.nats, rel=1e-3)


def test_with_many_evaluations_no_grid_is_sought_by_descent(plan, monkeypatch):
    monkeypatch.setattr(Trajectories, "least_error", lambda *_: pytest.fail("it takes a minute"))
    found = references(replace(plan, schedule=rho_grid(40, 3.0, 0.1)))
    assert found["the best from noise, 40 evaluations"].sampler.nfe == 40


def test_one_evaluation_is_held_against_heun_alone():
    assert list(references(make(schedule=Schedule([3.0, 0.0])))) == [HEUN]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_plans_that_were_saved_before_have_references_too(version):
    plan = Plan.load(STORED / f"version-{version}")
    found = references(plan)
    assert list(found) == [HEUN, NOISE]
    for reference in found.values():
        assert 0 < reference.nats < float("inf")
        assert number_of(reference.nats) in plan.explain()
