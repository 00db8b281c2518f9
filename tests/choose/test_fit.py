"""Choosing a plan: what is asked for is kept, what is chosen is good, and what cannot be is refused."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from headstart import Noise, Plan, Sampler, fit
from headstart.denoiser import Counted, expand
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Empirical, Gaussian, Isotropic, Mixture
from headstart.metrics import Reference, evaluate
from headstart.progress import Progress
from headstart.schedule import Rho, Schedule, get_rule, rho_grid, rule_names, split_name, usual_rules
from headstart.solver import USUAL_SOLVERS, DPMSolverPP2M, Heun, get_solver, linear_weights
from tests.choose.cases import DATA, FAST, SETTLED, TARGET, evaluations, untimed


@pytest.mark.parametrize("nfe", [1, 2, 3, 5, 20])
def test_a_plan_spends_the_evaluations_it_is_given(nfe, profile):
    plan = fit(TARGET, DATA, nfe, profile=profile, **FAST)
    assert plan.nfe == evaluations(plan) == nfe
    assert plan.schedule.sigmas[-1] == 0
    assert len(plan.budget.discretization) == nfe - 1


@pytest.mark.parametrize("nfe", [3, 5])
def test_a_plan_beats_the_usual_sampler(nfe):
    """The whole of it with the exact denoiser; far from the rho grid from 80 at the same cost."""
    plan = fit(TARGET, DATA, nfe)
    reference = Reference.of(TARGET.sample(Noise(range(10_000, 12_000))))
    usual = Sampler(Isotropic((2,)), rho_grid(nfe, 80.0, 0.002), DPMSolverPP2M())
    ours, theirs = (evaluate(p.sample(TARGET, 1000), reference).swd for p in (plan, usual))
    assert evaluations(plan) == nfe
    assert ours < 0.75 * theirs
    piloted = [c for c in plan.record.candidates if c.pilot is not None]
    assert min(c.pilot for c in piloted) < 0.02
    chosen = [
        c
        for c in piloted
        if (c.horizon, c.sigma_min) == (plan.horizon, plan.schedule.sigma_min)
        and (c.turn or c.solver == plan.solver.name)
    ]
    assert plan.initialization.name in {c.initialization for c in chosen}
    pairs = set(product((rule.name for rule in usual_rules()), USUAL_SOLVERS))
    places = {(c.horizon, c.sigma_min) for c in piloted}
    assert any(pairs == {(c.schedule, c.solver) for c in piloted if (c.horizon, c.sigma_min) == p} for p in places)


# What is asked for


def test_a_horizon_is_kept(profile):
    plan = fit(TARGET, DATA, 3, profile=profile, horizon=4.321, pilot_samples=16)
    assert plan.horizon == plan.schedule.sigmas[0] == 4.321
    assert {c.horizon for c in plan.record.candidates} == {4.321}
    assert {c.initialization for c in plan.record.candidates} == {"isotropic", "gaussian", "mixture"}


@pytest.mark.parametrize(
    ("asked", "kind"),
    [("isotropic", Isotropic), ("gaussian", Gaussian), ("mixture", Mixture), ("empirical", Empirical)],
)
@pytest.mark.parametrize("criterion", ["pilot", "budget"])
def test_a_family_is_kept(asked, kind, criterion, profile):
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=asked, pilot_samples=16, criterion=criterion)
    assert isinstance(plan.initialization, kind)
    assert {c.initialization for c in plan.record.candidates} == {asked}
    assert (plan.budget.initialization is None) == (asked == "empirical")


def test_a_fitted_start_is_kept(profile):
    start = Gaussian.fit(DATA)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=start, pilot_samples=16)
    assert plan.initialization is start


def test_starts_are_chosen_from_a_list(profile):
    start = Isotropic((2,))
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=[start, "gaussian"], horizon=2.0, pilot_samples=16)
    assert plan.initialization.name == "gaussian"
    assert {c.initialization for c in plan.record.candidates} == {"isotropic", "gaussian"}


@pytest.mark.parametrize("kind", rule_names())
def test_a_kind_of_schedule_is_kept(kind, profile):
    plan = fit(TARGET, DATA, 4, profile=profile, schedule=kind, **FAST)
    assert {c.schedule for c in plan.record.candidates} == {kind}
    place = (plan.horizon, plan.schedule.sigma_min)
    solvers = {c.solver for c in plan.record.candidates if (c.horizon, c.sigma_min) == place and c.pilot is not None}
    rule = get_rule(kind)
    assert plan.schedule in [rule(profile, 4, *place, get_solver(solver)) for solver in solvers]


@pytest.mark.parametrize("rule", ["rho 3", Rho(3.0)], ids=["name", "value"])
def test_a_rule_with_its_parameters_is_kept(rule, profile):
    plan = fit(TARGET, DATA, 4, profile=profile, schedule=rule, **FAST)
    assert {c.schedule for c in plan.record.candidates} == {"rho"}
    assert plan.schedule == rho_grid(4, plan.horizon, plan.schedule.sigma_min, rho=3.0)


def test_the_old_names_of_arguments_still_work(profile):
    given = {"profile": profile, "initialization": "gaussian", "schedule": "defect", "solver": "euler"}
    with pytest.warns(DeprecationWarning, match='criterion="nats" is now criterion="budget"'):
        old = fit(TARGET, DATA, 3, criterion="nats", **given)
    assert old.record.criterion == "budget"
    assert old.digest == fit(TARGET, DATA, 3, criterion="budget", **given).digest
    with pytest.warns(DeprecationWarning, match="own= of fit"), pytest.raises(InputError, match="shape of one sample"):
        fit(TARGET, None, 3, own=40)


@pytest.mark.parametrize("criterion", ["pilot", "budget"])
def test_a_schedule_is_kept(criterion, profile):
    schedule = Schedule([5.0, 1.0, 0.2, 0.1], "mine")
    plan = fit(TARGET, DATA, 3, profile=profile, schedule=schedule, criterion=criterion, pilot_samples=16)
    assert plan.schedule is schedule
    assert plan.horizon == 5.0
    assert evaluations(plan) == 3
    assert len(plan.budget.discretization) == 3
    assert fit(TARGET, DATA, 3, profile=profile, schedule=schedule, horizon=5.0, **FAST).schedule is schedule


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m", "ddpm", Heun(churn=2.0)], ids=str)
def test_a_solver_is_kept(solver, profile):
    plan = fit(TARGET, DATA, 5, profile=profile, solver=solver, **FAST)
    assert solver in (plan.solver, plan.solver.name)
    assert {c.solver for c in plan.record.candidates} == {plan.solver.name}
    assert plan.nfe == evaluations(plan) == 5
    assert plan.schedule.steps == (3 if plan.solver.name == "heun" else 5)
    assert plan.record.chosen == {
        "initialization": "as asked",
        "horizon": "by pilot",
        "schedule": "by pilot",
        "sigma_min": "by pilot",
        "solver": "as asked",
    }


def test_heun_spends_an_odd_number(profile):
    plan = fit(TARGET, DATA, 4, profile=profile, solver="heun", criterion="budget")
    assert plan.nfe == evaluations(plan) == 3


def test_the_default_is_four_evaluations_or_those_of_the_schedule(profile):
    assert fit(TARGET, DATA, profile=profile, criterion="budget").nfe == 4
    schedule = rho_grid(7, 5.0, 0.1)
    assert fit(TARGET, DATA, profile=profile, schedule=schedule, **FAST).nfe == 7
    assert fit(TARGET, DATA, profile=profile, schedule=schedule, solver="heun", **FAST).nfe == 13


def test_a_last_level_is_kept(profile):
    plan = fit(TARGET, DATA, 4, profile=profile, sigma_min=0.0771, **FAST)
    assert plan.schedule.sigma_min == plan.schedule.sigmas[-2] == 0.0771
    assert {c.sigma_min for c in plan.record.candidates} == {0.0771}


def test_with_everything_asked_for_nothing_is_piloted(profile):
    counted = Counted(TARGET)
    plan = fit(
        counted,
        DATA,
        5,
        profile=profile,
        horizon=3.0,
        initialization="gaussian",
        schedule="rho",
        solver="heun",
        sigma_min=0.1,
        check=False,
    )
    assert counted.samples == SETTLED + 2 * 8 + 256 * 5
    assert all(c.pilot is None for c in plan.record.candidates)
    assert plan.schedule == rho_grid(3, 3.0, 0.1)
    assert set(plan.record.chosen.values()) == {"as asked"}
    assert len(plan.record.candidates) == 1


def test_states_have_the_dtype_that_is_asked_for():
    seen = set()

    def denoiser(x, sigma):
        seen.add(x.dtype)
        return TARGET(x, sigma)

    fit(denoiser, DATA[:100], 2, dtype=torch.float64, horizon=2.0, **FAST)
    assert seen == {torch.float64}


# What is chosen


def test_a_plans_profile_serves_other_plans():
    first = fit(TARGET, DATA, 3, **FAST)
    second = fit(TARGET, DATA, 6, profile=first.profile, **FAST)
    np.testing.assert_array_equal(second.profile.losses, first.profile.losses)
    assert untimed(second) == untimed(fit(TARGET, DATA, 6, **FAST))


def test_a_loaded_plans_profile_serves_other_plans(tmp_path):
    """Its samples are not saved, and are found again in the data."""
    first = fit(TARGET, DATA, 3, **FAST)
    first.save(tmp_path / "plan")
    loaded = Plan.load(tmp_path / "plan").profile
    assert loaded.samples is None
    plans = [fit(TARGET, DATA, 6, profile=profile, **FAST) for profile in (first.profile, loaded)]
    assert untimed(plans[0]) == untimed(plans[1])
    assert torch.equal(plans[1].profile.samples, first.profile.samples)


def test_fitting_is_a_function_of_its_seed():
    arguments = {"initialization": ["isotropic", "mixture"], "pilot_samples": 32}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fit(TARGET, DATA[:400], 3, seed=5, **arguments)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (fit(TARGET, DATA[:400], 3, seed=s, **arguments) for s in (5, 6))
    assert untimed(first) == untimed(again)
    assert torch.equal(first.sample(TARGET, 9), again.sample(TARGET, 9))
    assert first.record.candidates != other.record.candidates
    assert (first.seed, other.seed) == (5, 6)
    assert first.record.fit_seconds > 0


def test_progress_is_told():
    said = []

    class Heard(Progress):
        def track(self, items, description, total=None):
            said.append(description)
            yield from items

    fit(TARGET, DATA, 3, progress=Heard(), **FAST)
    assert {"measuring the network", "fitting starts", "piloting"} < set(said)


# Kinds of data


def test_images():
    """Samples of shape (1, 4, 4), in every family: the plan and what it samples have that shape."""
    g = torch.Generator().manual_seed(0)
    data = 0.5 * torch.randn(300, 1, 4, 4, generator=g) + torch.linspace(-1, 1, 4)

    def denoiser(x, sigma):
        s2 = expand(sigma, x) ** 2
        return (0.25 * x + s2 * torch.linspace(-1, 1, 4)) / (0.25 + s2)

    plan = fit(denoiser, data, 3, pilot_samples=64)
    samples = plan.sample(denoiser, 500)
    assert samples.shape == (500, 1, 4, 4)
    assert plan.profile.shape == plan.initialization.shape == (1, 4, 4)
    assert (samples.mean(0) - torch.linspace(-1, 1, 4)).abs().max() < 0.15
    assert samples.std(0).mean() == pytest.approx(0.5, rel=0.15)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nfe": 0}, "network evaluations, 1 to 1000: nfe is 0"),
        ({"nfe": -3}, "network evaluations"),
        ({"nfe": 2.5}, "whole number of network evaluations"),
        ({"pilot_samples": 15}, "a pilot has 16 to 1,000,000 samples, a whole number: got 15"),
        ({"criterion": "taste"}, "unknown criterion 'taste': expected one of pilot, budget"),
        ({"horizon": 0.05, "sigma_min": 0.06}, "horizon must lie above sigma_min.*0.05 and 0.06"),
        ({"horizon": 0.01}, "horizon must lie above sigma_min"),
        ({"horizon": math.nan}, "horizon is nan"),
        ({"horizon": DATA.numpy()}, "horizon is of type ndarray: expected a number above 0"),
        ({"horizon": 1e6}, "levels were measured from"),
        ({"sigma_min": 0.0}, "sigma_min is 0.0: it must be above 0"),
        ({"sigma_min": "0.1"}, "sigma_min is of type str: expected a number above 0"),
        ({"sigma_max": [80.0]}, "sigma_max is of type list: expected a number above 0"),
        ({"sigma_min": 1e6}, "no horizon of this data .* is above it"),
        ({"sigma_min": 1e-6}, "levels were measured from"),
        ({"schedule": "quadratic"}, "unknown schedule 'quadratic': expected one of defect, corrector"),
        ({"schedule": DATA}, "a schedule is one of headstart.schedule, a rule or its name: not of type Tensor"),
        ({"criterion": DATA.numpy()}, "a criterion is named, pilot or budget: it is not of type ndarray"),
        ({"start_cost": DATA.numpy()}, "the cost of a start is finite"),
        ({"initialization": "laplace"}, "unknown initialization 'laplace': expected one of isotropic, shifted"),
        ({"initialization": []}, "name at least one initialization"),
        ({"initialization": Isotropic((3,))}, r"does not fit samples of shape \(2,\)"),
        ({"solver": "rk4"}, "unknown solver 'rk4': expected one of euler"),
        ({"criterion": "budget", "nfe": 1}, "which is all that one evaluation does: use a pilot"),
        ({"sigma_max": 50.0, "horizon": 60.0, "profile": None}, "knows noise up to sigma = 50: got a level of 60"),
        ({"sigma_max": -1.0}, "sigma_max is -1.0"),
        ({"schedule": rho_grid(5, 3.0, 0.1)}, "costs 5 evaluations with dpm.*, and nfe is 3"),
        ({"schedule": rho_grid(3, 3.0, 0.1), "solver": "heun"}, "costs 5 evaluations with heun, and nfe is 3"),
        ({"schedule": rho_grid(3, 3.0, 0.1), "horizon": 2.0}, "horizon is 2, and the schedule starts at 3"),
        ({"schedule": rho_grid(3, 1e6, 0.1)}, "measured from"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1, "schedule": "distilled"}, "batch_size is at least 2"),
        ({"seed": 0.5}, "the seed is 0.5"),
        ({"dtype": torch.int32}, "floating-point"),
        ({"device": f"cuda:{torch.cuda.device_count()}"}, "cannot be used here"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"seed": 2**28}, "seed from 0 to"),
    ],
    ids=str,
)
def test_arguments_are_checked(arguments, message, profile):
    with pytest.raises(InputError, match=message):
        fit(TARGET, DATA, **{"nfe": 3, "profile": profile, **arguments})


@pytest.mark.parametrize(
    "denoiser", [lambda x, s: x / 0, lambda x, s: x[:, :1], lambda x, s: None], ids=["Inf", "shape", "type"]
)
def test_denoisers_are_checked(denoiser):
    with pytest.raises(DenoiserError, match="the denoiser returned"):
        fit(denoiser, DATA, 3, **FAST)


@pytest.mark.parametrize("data", [DATA + 1, DATA[:500], DATA.flip(0)], ids=["moved", "fewer", "reversed"])
def test_a_profile_of_other_data_cannot_be_planned_on(data, profile):
    with pytest.raises(InputError, match="measured on other data"):
        fit(TARGET, data, 3, profile=profile)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": "a"}, "whole number"),
        ({"pilot_samples": 20.5}, "a whole number: got 20.5"),
        ({"pilot_samples": 10**12}, "1,000,000 samples"),
        ({"conditions": [1]}, "expected a mapping"),
        ({"profile": "x"}, "a profile is"),
        ({"training": "x"}, "training a"),
        ({"initialization": 3}, "unknown initialization 3"),
        ({"data": None, "shape": (10**12,), "own": 20}, "draw fewer"),
        ({"denoiser": None}, "a denoiser is called"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_of_another_kind_is_named(wrong, message):
    with pytest.raises(InputError, match=message):
        fit(**{"denoiser": TARGET, "data": DATA, "nfe": 3, "initialization": "gaussian", **wrong})
    with pytest.raises(InputError, match="are numbers"):
        Schedule(("a", 0))


def test_ten_samples_are_enough():
    plan = fit(TARGET, DATA[:10], 2, pilot_samples=16)
    assert torch.isfinite(plan.sample(TARGET, 5)).all()


def test_every_plan_has_its_novelty_tested(profile):
    plan = fit(TARGET, DATA, 3, profile=profile, **FAST)
    assert plan.record.novelty is not None
    assert plan.record.novelty.n == 16
    assert fit(TARGET, DATA, 3, profile=profile, horizon=2.0, novelty=False, **FAST).record.novelty is None
    copied = fit(TARGET, DATA, 3, profile=profile, initialization="empirical", horizon=0.05, sigma_min=0.04)
    assert copied.record.novelty.memorising
    assert "they may be copies" in copied.explain()
    assert fit(TARGET, DATA[:20], 3, initialization="gaussian", pilot_samples=16).record.novelty is None


def test_what_is_asked_for_beside_a_schedule_must_not_be_in_it(profile):
    for extra in ({"sigma_min": 0.1}, {"horizon": "unimodal"}):
        with pytest.raises(InputError, match="has its horizon and its last level"):
            fit(TARGET, DATA, schedule=Schedule([3.0, 1.0, 0.5, 0.0]), profile=profile, **extra)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_a_plan_knows_no_unit(scale):
    """Of data and a network in another unit, the plan is the same in that unit."""
    given = {"initialization": "mixture", "pilot_samples": 32, "seed": 1}
    ours = fit(TARGET, DATA, 3, **given)

    def scaled(x, sigma):
        return scale * TARGET((x.double() / scale).to(x.dtype), sigma / scale)

    theirs = fit(scaled, DATA * scale, 3, **given)
    names = [(split_name(plan.schedule.name)[0], plan.solver.name) for plan in (theirs, ours)]
    assert names[0] == names[1]
    weights = [linear_weights(plan.solver, plan.schedule) for plan in (theirs, ours)]
    assert weights[0] == pytest.approx(weights[1], abs=0.05)  # the last row is turned to within 0.02
    assert [s / scale for s in theirs.schedule.sigmas] == pytest.approx(list(ours.schedule.sigmas), rel=1e-3)
    assert theirs.budget.total == pytest.approx(ours.budget.total, rel=0.02, abs=0.02)


# Several budgets


def test_several_budgets_share_what_is_measured_and_fitted(profile):
    counted = Counted(TARGET)
    plans = fit(counted, DATA, [3, 2], check=False, **FAST)
    together = counted.samples
    assert list(plans) == [3, 2]
    assert {n: plan.nfe for n, plan in plans.items()} == {3: 3, 2: 2}
    assert plans[2].profile is plans[3].profile
    assert plans[2].initialization is plans[3].initialization
    alone = {}
    for n in (2, 3):
        counted = Counted(TARGET)
        alone[n] = fit(counted, DATA, n, check=False, **FAST)
        together -= counted.samples
        assert alone[n].record.candidates == plans[n].record.candidates
        assert alone[n].schedule == plans[n].schedule
    assert together < -len(DATA)  # the network is measured once


@pytest.mark.parametrize("nfe", [[], [3, 3]], ids=str)
def test_budgets_differ(nfe):
    with pytest.raises(InputError, match="several that differ"):
        fit(TARGET, DATA, nfe, **FAST)
