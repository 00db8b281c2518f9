"""Screening in nats: the horizon, the start, the schedule and the solver of the smallest budget."""

from __future__ import annotations

import pytest

from headstart import Noise, fit
from headstart.budget import Budget, discretization_error, path_objective
from headstart.choose import fit_starts, hold_out
from headstart.choose.levels import SHORTEST, nearest_horizon
from headstart.denoiser import Counted
from headstart.errors import InputError
from headstart.initialization import Gaussian, Generator
from headstart.schedule import usual_rules
from headstart.solver import USUAL_SOLVERS, get_solver
from headstart.targets import gmm25, t_prod
from tests.choose.cases import CHI2, CHI2_DATA, DATA, SETTLED, TARGET


@pytest.mark.slow
@pytest.mark.parametrize(("nfe", "low", "high"), [(6, 1.2, 2.5), (11, 1.2, 4.3)])
def test_nats_choose_the_horizon_of_the_exact_divergence(nfe, low, high, chi2_profile):
    """Method.md 8.3, a Gaussian start and Euler's method: the best horizons are 1.2 and 2 for 5 and 10 steps."""
    start = Gaussian.fit(CHI2_DATA)
    plan = fit(
        CHI2,
        CHI2_DATA,
        nfe,
        profile=chi2_profile,
        initialization=start,
        solver="euler",
        sigma_min=0.04,
        criterion="budget",
    )
    assert low <= plan.horizon <= high
    assert plan.record.criterion == "budget"
    assert plan.equivalent[1] == plan.horizon
    assert all(c.pilot is None for c in plan.record.candidates)


@pytest.mark.slow
def test_a_start_that_knows_less_starts_farther_out(chi2_profile):
    near, far = (
        fit(CHI2, CHI2_DATA, 6, profile=chi2_profile, initialization=start, criterion="budget").horizon
        for start in ("gaussian", "isotropic")
    )
    assert far > 2 * near


@pytest.mark.slow
def test_the_largest_horizon_of_equal_budgets_is_taken(profile):
    plan = fit(TARGET, DATA, 6, profile=profile, initialization="isotropic", criterion="budget")
    equal = [c for c in plan.record.candidates if c.flat]
    assert {c for c in plan.record.candidates if c.nats <= 1.05 * min(c.nats for c in equal)} <= set(equal)
    assert plan.horizon == max(c.horizon for c in equal) == plan.equivalent[1]


@pytest.mark.slow
def test_the_budget_alone_looks_at_shorter_horizons_than_a_pilot_does():
    """Modes of a seventh of the data's width: a start that knows them may begin below Silverman's 0.26 deviations."""
    law, data = gmm25(), gmm25().sample(Noise(range(4000))).float()
    given = {"initialization": "mixture", "novelty": False, "check": False}
    piloted = fit(law, data, 4, pilot_samples=32, **given)
    plan = fit(law, data, 4, criterion="budget", sigma_min=0.04, **given)
    shortest = [min(c.horizon for c in each.record.candidates) / each.profile.core for each in (piloted, plan)]
    assert shortest == [pytest.approx(nearest_horizon(3200, 2)), pytest.approx(SHORTEST)]
    assert plan.horizon < 0.5 * piloted.horizon
    best = min(c.nats for c in plan.record.candidates if c.flat)
    assert best < 0.1 * min(c.nats for c in plan.record.candidates if c.horizon > piloted.horizon)


def test_screening_takes_no_evaluations(profile):
    """Only the chosen plan is sampled, for the novelty test, its start's cost counted, and a given profile checked."""
    counted = Counted(TARGET)
    fit(counted, DATA, 4, profile=profile, criterion="budget", pilot_samples=32, check=False)
    settled = SETTLED + 32 * 4
    assert counted.samples == settled + 2 * 8
    counted = Counted(TARGET)
    plan = fit(counted, DATA, 4, criterion="budget", pilot_samples=32, check=False)
    levels, (count, costed) = len(plan.profile.sigmas), (len(plan.profile.losses), len(plan.profile.defect))
    assert counted.samples == settled + levels * count + (2 * (levels - 1) + levels) * costed


def test_the_budget_of_a_stochastic_solver_is_that_of_its_path(chi2_profile):
    (start,) = fit_starts(CHI2_DATA[hold_out(CHI2_DATA, 0)[0]], "gaussian")
    plan = fit(CHI2, CHI2_DATA, 11, profile=chi2_profile, initialization=start, solver="ddpm", criterion="budget")
    best = min((c for c in plan.record.candidates if c.horizon == plan.horizon), key=lambda c: c.nats)
    expected = path_objective(chi2_profile, plan.initialization, plan.schedule, "ddpm")
    assert best.nats == pytest.approx(expected.value, rel=1e-12)


def test_nats_need_a_density(profile):
    bank = Generator((2,), lambda noise, label: TARGET.sample(noise)).drawn(50)
    with pytest.raises(InputError, match="without a density has no budget in nats"):
        fit(TARGET, DATA, 3, profile=profile, initialization=bank, criterion="budget")


def test_the_budget_chooses_the_solver_and_the_schedule(profile):
    """At its horizon, no other of the usual combinations has a smaller budget."""
    plan = fit(TARGET, DATA, 6, profile=profile, initialization="gaussian", criterion="budget", pilot_samples=32)
    assert (plan.record.chosen["solver"], plan.record.chosen["schedule"]) == ("by budget", "by budget")
    for solver in map(get_solver, USUAL_SOLVERS):
        for rule in usual_rules():
            last = plan.schedule.sigma_min
            grid = rule(plan.profile, 6, plan.horizon, last, solver)
            steps = discretization_error(plan.profile, grid, solver)
            assert plan.budget.total <= Budget(plan.budget.initialization, steps).total * (1 + 1e-9)


@pytest.mark.parametrize("given", [{"solver": "deis"}, {"schedule": "rho"}, {"solver": "euler", "schedule": "tangent"}])
@pytest.mark.parametrize("criterion", ["budget", "pilot"])
def test_what_is_fixed_is_not_varied(profile, given, criterion):
    plan = fit(
        TARGET, DATA, 4, profile=profile, initialization="gaussian", criterion=criterion, pilot_samples=32, **given
    )
    for part, name in given.items():
        assert {getattr(c, part) for c in plan.record.candidates} == {name}
        assert plan.record.chosen[part] == "as asked"
    if "solver" not in given and criterion == "pilot":
        assert {c.solver for c in plan.record.candidates} == set(USUAL_SOLVERS)


def test_starts_know_the_horizons_that_they_are_screened_at(profile):
    start = Gaussian.fit(DATA)
    start.sigmas = (2.0, 9.0)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=start, criterion="budget")
    assert all(2 <= c.horizon <= 9 for c in plan.record.candidates)


@pytest.mark.slow
def test_heavy_tails_are_given_a_student_t_start():
    """On product t data the usual starts miss the tails at short horizons, and the plan says what it took instead."""
    law = t_prod(d=20)
    plan = fit(law, law.sample(Noise(range(8000))), 3, horizon=0.7, pilot_samples=32)
    assert plan.initialization.name == "student-t"
    missed = {c.initialization: c.tail for c in plan.record.candidates if c.tail is not None}
    assert missed["gaussian"] < -0.1
    assert abs(missed["student-t"]) < 0.1
    assert "Tails      far quantiles of the start are" in plan.explain()


def test_light_tails_are_not(profile):
    assert "student-t" not in {c.initialization for c in fit(TARGET, DATA, 3, profile=profile).record.candidates}
