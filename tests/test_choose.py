"""Choosing a plan: what is asked for is kept, what is chosen is good, and what cannot be is refused."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from headstart import Dataset, Noise, Plan, Profile, fit
from headstart.budget import Budget, discretization_error, path_objective
from headstart.choose import SCHEDULES, build_schedule, fit_starts, hold_out, own_samples
from headstart.choose.levels import RIVALS, SOLVERS
from headstart.choose.pilot import winner
from headstart.choose.screen import Score
from headstart.denoiser import Counted, expand
from headstart.errors import DataError, DenoiserError, InputError
from headstart.initialization import Empirical, Gaussian, Generator, Isotropic, Mixture
from headstart.metrics import Reference, evaluate, sliced_wasserstein
from headstart.progress import Progress
from headstart.schedule import Schedule, equidistribute, rho_grid
from headstart.solver import DPMSolverPP2M, Heun, get_solver
from headstart.targets import Gaussian as GaussianTarget
from headstart.targets import gmm25, t_prod

TARGET = gmm25()
DATA = TARGET.sample(Noise(range(1000)))
FAST = {"initialization": "gaussian", "pilot_samples": 16}

#: Evaluations that every plan takes beside the samples of its novelty test: the start's cost, on 64 samples, twice.
SETTLED = 128


@pytest.fixture(scope="module")
def profile():
    return Profile.measure(TARGET, DATA[hold_out(DATA)[1]])


def evaluations(plan, **conditions):
    counted = Counted(TARGET)
    plan.sample(counted, 2, **conditions)
    assert counted.samples == 2 * counted.calls
    return counted.calls


@pytest.mark.parametrize("nfe", [1, 2, 3, 5, 20])
def test_a_plan_spends_the_evaluations_it_is_given(nfe, profile):
    plan = fit(TARGET, DATA, nfe, profile=profile, **FAST)
    assert plan.nfe == evaluations(plan) == nfe
    assert plan.schedule.sigmas[-1] == 0
    assert len(plan.budget.discretization) == nfe - 1


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


@pytest.mark.parametrize("nfe", [3, 5])
def test_a_plan_beats_the_usual_sampler(nfe):
    """The whole of it with the exact denoiser; far from the rho grid from 80 at the same cost."""
    plan = fit(TARGET, DATA, nfe)
    reference = Reference.of(TARGET.sample(Noise(range(10_000, 12_000))))
    usual = Plan(Isotropic((2,)), rho_grid(nfe, 80.0, 0.002), DPMSolverPP2M(), None, plan.profile)
    ours, theirs = (evaluate(p.sample(TARGET, 1000), reference).swd for p in (plan, usual))
    assert evaluations(plan) == nfe
    assert ours < 0.75 * theirs
    piloted = [c for c in plan.candidates if c.pilot is not None]
    best = min(piloted, key=lambda c: c.pilot)
    assert best.pilot < 0.25
    chosen = [
        c
        for c in piloted
        if (c.horizon, c.sigma_min, c.solver) == (plan.horizon, plan.schedule.sigma_min, plan.solver.name)
    ]
    assert plan.initialization.name in {c.initialization for c in chosen}
    pairs = set(product(("defect", *RIVALS), ("dpm++2m", *SOLVERS)))
    places = {(c.horizon, c.sigma_min) for c in piloted}
    assert any(pairs == {(c.schedule, c.solver) for c in piloted if (c.horizon, c.sigma_min) == p} for p in places)


# What is asked for


def test_a_horizon_is_kept(profile):
    plan = fit(TARGET, DATA, 3, profile=profile, horizon=4.321, pilot_samples=16)
    assert plan.horizon == plan.schedule.sigmas[0] == 4.321
    assert {c.horizon for c in plan.candidates} == {4.321}
    assert {c.initialization for c in plan.candidates} == {"isotropic", "gaussian", "mixture"}


@pytest.mark.parametrize(
    ("asked", "kind"),
    [("isotropic", Isotropic), ("gaussian", Gaussian), ("mixture", Mixture), ("empirical", Empirical)],
)
@pytest.mark.parametrize("criterion", ["pilot", "nats"])
def test_a_family_is_kept(asked, kind, criterion, profile):
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=asked, pilot_samples=16, criterion=criterion)
    assert isinstance(plan.initialization, kind)
    assert {c.initialization for c in plan.candidates} == {asked}
    assert (plan.budget.initialization is None) == (asked == "empirical")


def test_a_fitted_start_is_kept(profile):
    start = Gaussian.fit(DATA)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=start, pilot_samples=16)
    assert plan.initialization is start


def test_starts_are_chosen_from_a_list(profile):
    start = Isotropic((2,))
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=[start, "gaussian"], horizon=2.0, pilot_samples=16)
    assert plan.initialization.name == "gaussian"
    assert {c.initialization for c in plan.candidates} == {"isotropic", "gaussian"}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_kind_of_schedule_is_kept(kind, profile):
    plan = fit(TARGET, DATA, 4, profile=profile, schedule=kind, **FAST)
    assert {c.schedule for c in plan.candidates} == {kind}
    assert plan.schedule == build_schedule(kind, profile, 4, plan.horizon, plan.schedule.sigma_min)


@pytest.mark.parametrize("criterion", ["pilot", "nats"])
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
    assert {c.solver for c in plan.candidates} == {plan.solver.name}
    assert plan.nfe == evaluations(plan) == 5
    assert plan.schedule.steps == (3 if plan.solver.name == "heun" else 5)
    assert plan.chosen == {
        "initialization": "as asked",
        "horizon": "by pilot",
        "schedule": "by pilot",
        "sigma_min": "by pilot",
        "solver": "as asked",
    }


def test_heun_spends_an_odd_number(profile):
    plan = fit(TARGET, DATA, 4, profile=profile, solver="heun", criterion="nats")
    assert plan.nfe == evaluations(plan) == 3


def test_the_default_is_four_evaluations_or_those_of_the_schedule(profile):
    assert fit(TARGET, DATA, profile=profile, criterion="nats").nfe == 4
    schedule = rho_grid(7, 5.0, 0.1)
    assert fit(TARGET, DATA, profile=profile, schedule=schedule, **FAST).nfe == 7
    assert fit(TARGET, DATA, profile=profile, schedule=schedule, solver="heun", **FAST).nfe == 13


def test_a_last_level_is_kept(profile):
    plan = fit(TARGET, DATA, 4, profile=profile, sigma_min=0.0771, **FAST)
    assert plan.schedule.sigma_min == plan.schedule.sigmas[-2] == 0.0771
    assert {c.sigma_min for c in plan.candidates} == {0.0771}


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
    )
    assert counted.samples == SETTLED + 256 * 5
    assert all(c.pilot is None for c in plan.candidates)
    assert plan.schedule == rho_grid(3, 3.0, 0.1)
    assert set(plan.chosen.values()) == {"as asked"}
    assert len(plan.candidates) == 1


def test_levels_beyond_the_usual_ones_are_measured():
    """The user's own levels decide how far the network is measured; what it knows is the limit."""
    wide = fit(TARGET, DATA, 3, horizon=1000.0, sigma_min=0.001, criterion="nats", initialization="isotropic")
    assert wide.schedule.sigmas[0] == wide.profile.sigmas[0] == pytest.approx(1000)
    assert wide.schedule.sigma_min == 0.001
    assert wide.profile.sigmas[-1] == pytest.approx(0.001)
    asked = []

    def limited(x, sigma):
        asked.append(float(sigma.max()))
        return TARGET(x, sigma)

    limited.sigma_max = 20.0
    assert max(c.horizon for c in fit(limited, DATA, 3, **FAST).candidates) <= 20
    assert max(asked) == pytest.approx(20, rel=1e-6)
    asked.clear()
    fit(limited, DATA, 3, sigma_max=10.0, **FAST)
    assert max(asked) == pytest.approx(10, rel=1e-6)


def test_states_have_the_dtype_that_is_asked_for():
    seen = set()

    def denoiser(x, sigma):
        seen.add(x.dtype)
        return TARGET(x, sigma)

    fit(denoiser, DATA[:100], 2, dtype=torch.float64, horizon=2.0, **FAST)
    assert seen == {torch.float64}


# What is chosen


CHI2 = gmm25(weights="chi2")
CHI2_DATA = CHI2.sample(Noise(range(15_000)))


@pytest.fixture(scope="module")
def chi2_profile():
    """Of the law of method.md 8.3, on enough samples for its divergences of hundredths of a nat."""
    held_out = CHI2_DATA[hold_out(CHI2_DATA)[1]]
    return Profile.measure(CHI2, held_out, samples=3000, cost_samples=1000, batch_size=3000)


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
        criterion="nats",
    )
    assert low <= plan.horizon <= high
    assert plan.criterion == "nats"
    assert plan.flat[1] == plan.horizon
    assert all(c.pilot is None for c in plan.candidates)


def test_a_start_that_knows_less_starts_farther_out(chi2_profile):
    near, far = (
        fit(CHI2, CHI2_DATA, 6, profile=chi2_profile, initialization=start, criterion="nats").horizon
        for start in ("gaussian", "isotropic")
    )
    assert far > 2 * near


def test_the_largest_horizon_of_equal_budgets_is_taken(profile):
    plan = fit(TARGET, DATA, 6, profile=profile, initialization="isotropic", criterion="nats")
    equal = [c for c in plan.candidates if c.flat]
    assert {c for c in plan.candidates if c.nats <= 1.05 * min(c.nats for c in equal)} <= set(equal)
    assert plan.horizon == max(c.horizon for c in equal) == plan.flat[1]


def test_screening_takes_no_evaluations(profile):
    """Only the chosen plan is sampled, for the novelty test, and its start timed."""
    counted = Counted(TARGET)
    fit(counted, DATA, 4, profile=profile, criterion="nats", pilot_samples=32)
    assert counted.samples == (settled := SETTLED + 32 * 4)
    counted = Counted(TARGET)
    plan = fit(counted, DATA, 4, criterion="nats", pilot_samples=32)
    levels, (count, costed) = len(plan.profile.sigmas), (len(plan.profile.losses), len(plan.profile.defect))
    assert counted.samples == settled + levels * count + (2 * (levels - 1) + levels) * costed


def untimed(plan):
    """What a plan says of itself, without what was timed."""
    return plan.to_dict() | {"fit_seconds": 0.0, "start_cost": 0.0}


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
    assert first.candidates != other.candidates
    assert (first.seed, other.seed) == (5, 6)
    assert first.fit_seconds > 0


def test_batches_change_nothing_but_the_last_digits(profile):
    large, small = (fit(TARGET, DATA, 3, profile=profile, batch_size=b, **FAST) for b in (256, 5))
    for a, b in zip(large.candidates, small.candidates, strict=True):
        assert (a.schedule, a.horizon, a.pilot is None) == (b.schedule, b.horizon, b.pilot is None)
        assert a.pilot is None or a.pilot == pytest.approx(b.pilot, rel=1e-4)


def test_held_out_samples_are_a_fifth_and_apart():
    for count, held in ((1000, 200), (10, 2), (40_000, 3000)):
        fitted, out = hold_out(torch.zeros(count, 1), seed=3)
        assert len(out) == held
        assert torch.equal(torch.cat([fitted, out]).sort().values, torch.arange(count))
    assert not torch.equal(hold_out(DATA, 0)[1], hold_out(DATA, 1)[1])


def test_starts_are_fitted_on_what_is_not_held_out(profile):
    fitted, out = hold_out(DATA, 0)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization="empirical", criterion="nats")
    assert torch.equal(plan.initialization.data, DATA[fitted])
    assert {tuple(x) for x in fit(TARGET, DATA, 3, criterion="nats").profile.samples.tolist()} <= {
        tuple(x) for x in DATA[out].tolist()
    }


def test_starts_by_name():
    starts = fit_starts(DATA)
    assert [start.name for start in starts] == ["isotropic", "gaussian", "mixture"]
    assert fit_starts(DATA, starts[1])[0] is starts[1]
    assert 10 <= len(starts[2].weights) <= 50


def test_progress_is_told():
    said = []

    class Heard(Progress):
        def track(self, items, description, total=None):
            said.append(description)
            yield from items

    fit(TARGET, DATA, 3, progress=Heard(), **FAST)
    assert {"measuring the network", "fitting starts", "piloting"} < set(said)


# Kinds of data


def test_kinds_of_data_make_the_same_plan(profile):
    """A tensor, an array, float64, a data set, a list."""
    expected = fit(TARGET, DATA, 3, horizon=2.0, **FAST)
    for data in (DATA.numpy(), DATA.double(), DATA.double().numpy(), Dataset(DATA, name="points"), DATA.tolist()):
        plan = fit(TARGET, data, 3, horizon=2.0, **FAST)
        assert plan.schedule.steps == 3
        assert plan.schedule.sigmas == pytest.approx(expected.schedule.sigmas, rel=1e-4)
        assert plan.budget.total == pytest.approx(expected.budget.total, rel=1e-4)


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


CLASSES = torch.tensor([[-20.0, 0.0], [20.0, 5.0]])


def needs_label(x, sigma, label):
    """Two classes, N(centre, I) each, for a network that knows nothing without its label."""
    assert label.shape == (len(x),)
    s2 = expand(sigma, x) ** 2
    return (x + s2 * CLASSES.to(x)[label]) / (1 + s2)


def test_labels_condition_the_network_and_the_start():
    label = torch.arange(400) % 2
    data = CLASSES[label] + torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    plan = fit(needs_label, data, 3, labels=label, pilot_samples=64)
    assert plan.initialization.name == "mixture"
    assert len(plan.initialization.owners.unique()) == 2
    assert plan.budget.initialization.value < 0.5
    assert plan.profile.loss[-1] < 0.2
    wanted = torch.tensor([1, 0, 0, 1, 1, 0] * 50)
    samples = plan.sample(needs_label, 300, label=wanted, batch_size=64)
    assert (samples - CLASSES[wanted]).square().sum(1).max() < 5**2
    assert (samples[wanted == 1].mean(0) - CLASSES[1]).abs().max() < 0.4
    for other in (label.numpy(), label.tolist()):
        again = fit(needs_label, data, 3, labels=other, pilot_samples=64)
        assert again.candidates == plan.candidates
    dataset = fit(needs_label, Dataset(data, label), 3, labels=label, pilot_samples=64)
    assert dataset.candidates == plan.candidates


@pytest.mark.parametrize("label", [1, torch.tensor(1), torch.tensor([1])], ids=repr)
def test_one_label_for_all_data(label):
    """A plan for one class is that for data which are all of it: the network is told the class of every sample."""
    data = CLASSES[1] + torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    given = {"pilot_samples": 16, "initialization": "mixture"}
    plan = fit(needs_label, data, 2, conditions={"label": label}, **given)
    assert plan.candidates == fit(needs_label, data, 2, labels=torch.ones(200, dtype=torch.long), **given).candidates
    assert plan.initialization.owners.unique().tolist() == [1]
    assert plan.profile.label.unique().tolist() == [1]
    assert plan.sample(needs_label, 50, label=label).mean(0) == pytest.approx(CLASSES[1], abs=0.6)


@pytest.mark.parametrize("label", [1, torch.tensor([1])], ids=repr)
def test_one_label_for_all_samples_of_the_network_itself(label):
    given = {"shape": (2,), "own": 60, "pilot_samples": 16, "initialization": "gaussian", "schedule": "rho"}
    plan = fit(needs_label, None, 2, conditions={"label": label}, **given)
    assert plan.profile.label.unique().tolist() == [1]


@pytest.mark.parametrize("length", [60, 20, 24, 10, 7], ids=lambda length: f"{length} rows")
def test_conditions_that_the_data_share_are_never_cut(length):
    """300 data, of which 60 are held out, 20 of them with costs; 24 samples are piloted, in batches of 10."""

    def denoiser(x, sigma, table):
        assert len(table) == length
        return TARGET(x, sigma)

    given = {"initialization": "gaussian", "schedule": "distilled", "solver": "dpm++2m", "horizon": 2.0}
    conditions = {"table": torch.zeros(length)}
    plan = fit(denoiser, DATA[:300], 2, conditions=conditions, pilot_samples=24, batch_size=10, **given)
    assert plan.nfe == 2


def test_conditions_go_with_the_data():
    shift = torch.arange(400.0)[:, None] * torch.ones(2)
    data = shift + 0.1 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))

    def denoiser(x, sigma, shift, scale):
        s2 = expand(sigma, x) ** 2
        return scale * (0.01 * x + s2 * shift) / (0.01 + s2)

    plan = fit(denoiser, data, 2, conditions={"shift": shift, "scale": 1.0}, **FAST)
    assert plan.profile.loss.max() < 0.1


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nfe": 0}, "at least one network evaluation: nfe is 0"),
        ({"nfe": -3}, "at least one network evaluation"),
        ({"nfe": 2.5}, "whole number of steps"),
        ({"pilot_samples": 15}, "a pilot needs at least 16 samples: got 15"),
        ({"criterion": "taste"}, "unknown criterion 'taste': expected 'pilot' or 'nats'"),
        ({"horizon": 0.05, "sigma_min": 0.06}, "horizon must lie above sigma_min.*0.05 and 0.06"),
        ({"horizon": 0.01}, "horizon must lie above sigma_min"),
        ({"horizon": math.nan}, "horizon is nan"),
        ({"horizon": 1e6}, "levels were measured from"),
        ({"sigma_min": 0.0}, "sigma_min is 0.0: it must be above 0"),
        ({"sigma_min": 1e6}, "no horizon of this data .* is above it"),
        ({"sigma_min": 1e-6}, "levels were measured from"),
        ({"schedule": "quadratic"}, "unknown schedule 'quadratic': expected one of defect, corrector"),
        ({"initialization": "laplace"}, "unknown initialization 'laplace': expected one of isotropic, shifted"),
        ({"initialization": []}, "name at least one initialization"),
        ({"initialization": Isotropic((3,))}, r"does not fit samples of shape \(2,\)"),
        ({"solver": "rk4"}, "unknown solver 'rk4': expected one of euler"),
        ({"criterion": "nats", "nfe": 1}, "which is all that one evaluation does: use a pilot"),
        ({"sigma_max": 50.0, "horizon": 60.0, "profile": None}, "knows noise up to sigma = 50: got a level of 60"),
        ({"sigma_max": -1.0}, "sigma_max is -1.0"),
        ({"schedule": rho_grid(5, 3.0, 0.1)}, "costs 5 evaluations with dpm.*, and nfe is 3"),
        ({"schedule": rho_grid(3, 3.0, 0.1), "solver": "heun"}, "costs 5 evaluations with heun, and nfe is 3"),
        ({"schedule": rho_grid(3, 3.0, 0.1), "horizon": 2.0}, "horizon is 2, and the schedule starts at 3"),
        ({"schedule": rho_grid(3, 1e6, 0.1)}, "measured from"),
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"batch_size": 1, "schedule": "distilled"}, "batch_size is at least 2"),
        ({"seed": -1}, "seed from 0 to"),
        ({"seed": 2**28}, "seed from 0 to"),
    ],
    ids=str,
)
def test_arguments_are_checked(arguments, message, profile):
    with pytest.raises(InputError, match=message):
        fit(TARGET, DATA, **{"nfe": 3, "profile": profile, **arguments})


def with_nan():
    data = DATA.clone()
    data[3, 1] = math.nan
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA[:9], "at least ten samples of the data: got 9"),
        (DATA[:1], "at least 2"),
        (with_nan(), "1 NaN or infinite values"),
        (DATA / 0, "NaN or infinite values"),
        (torch.ones(50, 2), "all samples are equal"),
        (torch.arange(100).reshape(50, 2), "expected floating point"),
        (DATA[:, 0], "expected \\(N, ...\\)"),
    ],
)
def test_data_are_checked(data, message):
    with pytest.raises(DataError, match=message):
        fit(TARGET, data, 3, **FAST)


def test_labels_are_checked():
    with pytest.raises(DataError, match=r"1000 samples but labels of shape \(7,\)"):
        fit(TARGET, DATA, 3, labels=torch.zeros(7), **FAST)


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


def test_labels_that_leave_nothing_to_hold_out_are_named():
    labels = torch.arange(1000)
    labels[500] = labels[501]
    with pytest.raises(DataError, match=r"of 1000 samples could be held out, .* by these labels"):
        fit(lambda x, sigma, label: TARGET(x, sigma), DATA, 3, labels=labels, **FAST)


def test_the_labels_of_a_dataset_count_only_if_they_are_given(profile):
    """A network that takes none is not told any."""
    labelled = fit(TARGET, Dataset(DATA, torch.arange(1000) % 2), 3, profile=profile, **FAST)
    assert labelled.candidates == fit(TARGET, DATA, 3, profile=profile, **FAST).candidates


def test_ten_samples_are_enough():
    plan = fit(TARGET, DATA[:10], 2, pilot_samples=16)
    assert torch.isfinite(plan.sample(TARGET, 5)).all()


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_kind_of_schedule_ends_at_zero(kind, profile):
    grid = build_schedule(kind, profile, 5, 10.0, 0.1)
    assert (grid.steps, grid.horizon, grid.sigma_min, grid.sigmas[-1]) == (5, 10.0, 0.1, 0.0)
    one = build_schedule(kind, profile, 1, 10.0, 0.1)
    assert one.sigmas == (10.0, 0.0)


def test_measuring_and_starting_stay_below_what_the_network_knows():
    """A network whose noise ends at 5, by its own word or the user's, is never called above it."""

    def bounded(x, sigma):
        assert sigma.max() <= 5 * (1 + 1e-6)
        return TARGET(x, sigma)

    plan = fit(bounded, DATA, 3, sigma_max=5.0, pilot_samples=16)
    assert plan.profile.sigmas[0] == pytest.approx(5.0)
    bounded.sigma_max = 5.0
    assert fit(bounded, DATA, 3, pilot_samples=16).horizon == plan.horizon
    with pytest.raises(InputError, match="knows noise up to sigma = 5"):
        fit(bounded, DATA, 3, horizon=20.0)


# Tails, the network's own samples, the unimodality rule, what starts cost


def test_heavy_tails_are_given_a_student_t_start():
    """On product t data the usual starts miss the tails at short horizons, and the plan says what it took instead."""
    law = t_prod(d=20)
    plan = fit(law, law.sample(Noise(range(8000))), 3, horizon=0.7, pilot_samples=32)
    assert plan.initialization.name == "student-t"
    missed = {c.initialization: c.tail for c in plan.candidates if c.tail is not None}
    assert missed["gaussian"] < -0.1
    assert abs(missed["student-t"]) < 0.1
    assert "Tails      far quantiles of the start are" in plan.explain()


def test_light_tails_are_not(profile):
    assert "student-t" not in {c.initialization for c in fit(TARGET, DATA, 3, profile=profile).candidates}


def test_without_data_a_plan_is_fitted_on_samples_of_the_network():
    counted = Counted(TARGET)
    plan = fit(counted, None, 3, shape=(2,), own=400, initialization="gaussian", pilot_samples=16)
    assert counted.samples > 400 * 35
    assert plan.source.startswith("400 samples of the network itself, drawn with 35 evaluations each in ")
    assert plan.source in plan.explain()
    x = plan.sample(TARGET, 2000)
    assert abs(float(x.std()) / float(DATA.std()) - 1) < 0.1


@pytest.mark.parametrize(("sigma_max", "first"), [(None, 80.0), (400.0, 80.0), (math.inf, 80.0), (50.0, 50.0)])
def test_own_samples_begin_at_80_or_where_the_network_ends(sigma_max, first):
    """However far a network is known to work, its own samples are those of EDM's sampler."""
    asked = []

    def network(x, sigma):
        asked.append(float(sigma[0]))
        return TARGET(x, sigma)

    fit(network, None, 2, shape=(2,), own=40, sigma_max=sigma_max, schedule="rho", **FAST)
    assert asked[0] == pytest.approx(first)


def test_own_samples_are_those_of_the_network():
    """Of an exact denoiser, with the solver's small error: as far from real sets as these are from each other."""
    x = own_samples(TARGET, (2,), 1000)
    real = [TARGET.sample(Noise(range(k, k + 1000))) for k in range(20_000, 25_000, 1000)]
    apart = [sliced_wasserstein(a, b) for i, a in enumerate(real) for b in real[i + 1 :]]
    assert np.mean([sliced_wasserstein(x, a) for a in real]) < 1.5 * max(apart)
    torch.testing.assert_close(x[:20], own_samples(TARGET, (2,), 20))
    assert not torch.equal(x[:20], own_samples(TARGET, (2,), 20, seed=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"n": 3}, "at least ten samples"), ({"sigma_max": 0.001}, "a level above 0.002"), ({"batch_size": 0}, "batches")],
)
def test_own_samples_check_their_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        own_samples(TARGET, (2,), **{"n": 20, **arguments})


@pytest.mark.parametrize("labels", [torch.tensor(1), torch.zeros(7), torch.zeros(40, 2)], ids=lambda x: str(x.shape))
def test_labels_of_the_networks_own_samples_are_one_for_each(labels):
    with pytest.raises(InputError, match=r"expected \(40,\), one for each sample to draw"):
        fit(TARGET, None, 2, shape=(2,), own=40, labels=labels)


def test_without_data_the_shape_must_be_said():
    with pytest.raises(InputError, match="say the shape of one sample"):
        fit(TARGET, None, 3)


def test_the_unimodality_rule_gives_the_horizon():
    """25 modes 1.25 apart merge near sigma = 0.6 along an axis."""
    plan = fit(TARGET, TARGET.sample(Noise(range(3000))), 3, horizon="unimodal", **FAST)
    assert 0.4 < plan.horizon < 1.0
    assert plan.chosen["horizon"] == "by the unimodality rule"
    with pytest.raises(InputError, match="unknown horizon 'bimodal'"):
        fit(TARGET, DATA, 3, horizon="bimodal")


class Clock:
    """What the costs of starts are timed by: it stands still but for what is said to take time."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def network(self, x, sigma):
        """A network whose evaluation takes 0.025 s."""
        self.now += 0.025
        return TARGET(x, sigma)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("headstart.choose.starts.time", clock)
    return clock


class Slow(Gaussian):
    """A start that takes 0.05 s, as long as two evaluations of the network, and is not in closed form."""

    closed_form = False

    def __init__(self, clock):
        super().__init__((2,), Gaussian.fit(DATA).subspace)
        self.clock = clock

    def _sample(self, noise, sigma, label):
        self.clock.now += 0.05
        return super()._sample(noise, sigma, label)


def test_a_costly_start_leaves_fewer_evaluations_to_the_solver(profile, clock):
    """One evaluation of this network takes 0.025 s and a start 0.05 s: of 5 evaluations, 3 are left."""
    start = Slow(clock)
    plan = fit(clock.network, DATA, 5, profile=profile, initialization=start, criterion="nats", pilot_samples=16)
    assert plan.nfe == 3
    assert 1.5 < plan.start_cost < 2.5
    assert "drawing a start costs" in plan.explain()


@pytest.mark.parametrize(("solver", "nfe"), [("dpm++2m", 3), ("heun", 4)])
def test_nats_do_not_choose_a_start_that_leaves_a_single_step(solver, nfe, profile, clock):
    """A start of two evaluations leaves one, or two of which Heun's method makes one step: a step to 0 has no nats."""
    arguments = {"profile": profile, "solver": solver, "criterion": "nats", "pilot_samples": 16}
    with pytest.raises(InputError, match="which is all that one evaluation does: use a pilot"):
        fit(clock.network, DATA, nfe, initialization=Slow(clock), **arguments)
    plan = fit(clock.network, DATA, nfe, initialization=[Slow(clock), "isotropic"], **arguments)
    assert plan.initialization.name == "isotropic"
    assert plan.schedule.steps > 1


@pytest.mark.parametrize(("scale", "highest"), [(0.01, 80.0), (100.0, 200.0 * 100.0)])
def test_teleportation_begins_beyond_data_of_any_scale(scale, highest):
    data = scale * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    (start,) = fit_starts(data, "teleportation")
    assert start.sigma_max == pytest.approx(highest, rel=0.05)


def test_starts_know_the_horizons_that_they_are_screened_at(profile):
    start = Gaussian.fit(DATA)
    start.sigmas = (2.0, 9.0)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=start, criterion="nats")
    assert all(2 <= c.horizon <= 9 for c in plan.candidates)


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


def test_the_budget_of_a_stochastic_solver_is_that_of_its_path(chi2_profile):
    plan = fit(CHI2, CHI2_DATA, 11, profile=chi2_profile, initialization="gaussian", solver="ddpm", criterion="nats")
    best = min((c for c in plan.candidates if c.horizon == plan.horizon), key=lambda c: c.nats)
    expected = path_objective(chi2_profile, plan.initialization, plan.schedule, "ddpm")
    assert best.nats == pytest.approx(expected.value, rel=1e-12)


def test_every_plan_has_its_novelty_tested(profile):
    plan = fit(TARGET, DATA, 3, profile=profile, **FAST)
    assert plan.novelty is not None
    assert plan.novelty.n == 16
    copied = fit(TARGET, DATA, 3, profile=profile, initialization="empirical", horizon=0.05, sigma_min=0.04)
    assert copied.novelty.memorising
    assert "they may be copies" in copied.explain()
    assert fit(TARGET, DATA[:20], 3, initialization="gaussian", pilot_samples=16).novelty is None


def test_a_class_with_a_single_sample_is_fitted_on():
    labels = torch.cat([torch.zeros(99), torch.ones(1)]).long()
    for seed in range(20):
        fitted, held = hold_out(torch.zeros(100, 1), seed, labels=labels)
        assert 99 in fitted
        assert sorted(torch.cat([fitted, held]).tolist()) == list(range(100))


def test_what_is_asked_for_beside_a_schedule_must_not_be_in_it(profile):
    for extra in ({"sigma_min": 0.1}, {"horizon": "unimodal"}):
        with pytest.raises(InputError, match="has its horizon and its last level"):
            fit(TARGET, DATA, schedule=Schedule([3.0, 1.0, 0.5, 0.0]), profile=profile, **extra)


def test_the_unimodality_rule_on_unimodal_data_gives_the_shortest_horizon():
    """Every level has one mode; the data's standard deviation is 1.78, and 0.35 of it the shortest horizon of use."""
    data = 1.78 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    plan = fit(GaussianTarget([0.0, 0.0], 1.78**2), data, 3, horizon="unimodal", **FAST)
    assert plan.horizon == pytest.approx(0.35 * 1.78, rel=0.1)


def test_a_horizon_that_no_start_knows_is_named(profile):
    start = Gaussian.fit(DATA)
    start.sigmas = (2.0, 9.0)
    with pytest.raises(InputError, match=r"no start knows the horizon .* gaussian from 2 to 9"):
        fit(TARGET, DATA, 3, profile=profile, initialization=start, horizon=1.0)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=[start, "isotropic"], horizon=1.0, pilot_samples=16)
    assert plan.initialization.name == "isotropic"


def test_a_start_too_costly_for_the_evaluations_is_left_out(profile, clock):
    """A start of two evaluations leaves one of three: the other one is taken, with all three."""
    starts = [Slow(clock), "gaussian"]
    plan = fit(clock.network, DATA, 3, profile=profile, initialization=starts, criterion="nats", pilot_samples=16)
    assert (type(plan.initialization), plan.nfe) == (Gaussian, 3)


def test_nats_need_a_density(profile):
    bank = Generator((2,), lambda noise, label: TARGET.sample(noise)).drawn(50)
    with pytest.raises(InputError, match="without a density has no budget in nats"):
        fit(TARGET, DATA, 3, profile=profile, initialization=bank, criterion="nats")


def test_a_single_step_leaves_no_choice(profile):
    chosen = fit(TARGET, DATA, 1, profile=profile, **FAST).chosen
    assert {chosen[part] for part in ("schedule", "sigma_min", "solver")} == {"one level or two leave no choice"}
    assert chosen["horizon"] == "by pilot"


# Solvers and schedules


def test_the_budget_chooses_the_solver_and_the_schedule(profile):
    """At its horizon, no other of the usual combinations has a smaller budget."""
    plan = fit(TARGET, DATA, 6, profile=profile, initialization="gaussian", criterion="nats", pilot_samples=32)
    assert (plan.chosen["solver"], plan.chosen["schedule"]) == ("by budget", "by budget")
    for solver in map(get_solver, ("dpm++2m", *SOLVERS)):
        for kind in ("defect", *RIVALS):
            last = plan.schedule.sigma_min
            grid = build_schedule(kind, plan.profile, 6, plan.horizon, last, solver)
            steps = discretization_error(plan.profile, grid, solver)
            assert plan.budget.total <= Budget(plan.budget.initialization, steps).total * (1 + 1e-9)


@pytest.mark.parametrize("given", [{"solver": "deis"}, {"schedule": "rho"}, {"solver": "euler", "schedule": "tangent"}])
@pytest.mark.parametrize("criterion", ["nats", "pilot"])
def test_what_is_fixed_is_not_varied(profile, given, criterion):
    plan = fit(
        TARGET, DATA, 4, profile=profile, initialization="gaussian", criterion=criterion, pilot_samples=32, **given
    )
    for part, name in given.items():
        assert {getattr(c, part) for c in plan.candidates} == {name}
        assert plan.chosen[part] == "as asked"
    if "solver" not in given and criterion == "pilot":
        assert {c.solver for c in plan.candidates} == {"dpm++2m", *SOLVERS}


@pytest.mark.parametrize("kind", ["defect", "corrector"])
def test_the_exponent_is_that_of_the_length(profile, kind):
    plan = fit(TARGET, DATA, 5, schedule=kind, exponent=3.0, horizon=4.0, sigma_min=0.1, solver="euler", **FAST)
    expected = equidistribute(plan.profile.length(kind, 3.0), 5, 4.0, 0.1)
    assert plan.schedule.sigmas == expected.sigmas
    assert plan.schedule.sigmas != equidistribute(plan.profile.length(kind), 5, 4.0, 0.1).sigmas


@pytest.mark.parametrize(
    "given", [{"exponent": 2.0}, {"exponent": 2.0, "schedule": "rho"}, {"exponent": -1.0, "schedule": "defect"}]
)
def test_an_exponent_needs_a_measured_length(profile, given):
    with pytest.raises(InputError, match="an exponent is"):
        fit(TARGET, DATA, 4, profile=profile, **given)


def test_a_profile_without_trajectories_falls_back_on_the_defect(profile):
    grid = build_schedule("rho", profile, 4, 5.0, 0.1)
    own = discretization_error(profile, grid, get_solver("deis"))
    bare = replace(profile, trajectories=None)
    assert discretization_error(bare, grid, get_solver("deis")) == discretization_error(profile, grid) != own
    assert discretization_error(profile, grid, Heun()) == discretization_error(profile, grid)
    np.testing.assert_array_equal(own, profile.trajectories.local_errors(grid, get_solver("deis")).mean(axis=0))
    with pytest.raises(InputError, match="no trajectories"):
        build_schedule("least_error", bare, 4, 5.0, 0.1)


def test_two_steps_above_0_are_piloted_with_every_solver(profile):
    """Without a step to 0 two steps are two steps, in the second of which solvers differ."""
    plan = fit(TARGET, DATA, profile=profile, schedule=Schedule([5.0, 1.0, 0.1]), **FAST)
    assert {c.solver for c in plan.candidates} == {"dpm++2m", *SOLVERS}
    assert plan.chosen["solver"] == "by pilot"


def test_an_outlier_that_is_not_held_out_hides_no_level():
    """It is in the spread of all data, which says how far to measure, and not in that of the held-out data."""
    data = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    data[hold_out(data)[0][0]] = 1e4
    profile = fit(GaussianTarget([0.0, 0.0], 1.0), data, 3, **FAST).profile
    assert profile.sigma_data < 2
    assert profile.sigmas[-1] <= 0.05 * profile.sigma_data


def test_a_trained_start_learns_the_horizon_of_a_schedule(monkeypatch, profile):
    seen = {}
    fitted = lambda *_, **given: seen.update(given) or [Isotropic((2,))]  # noqa: E731
    monkeypatch.setattr(sys.modules["headstart.choose.fit"], "fit_starts", fitted)
    far = 75 * float(DATA.std())
    fit(TARGET, DATA, profile=profile, schedule=rho_grid(3, far, 0.1), solver="euler", initialization="flow")
    assert seen["sigmas"][0] < seen["sigmas"][1] == far


def test_what_is_learned_below_the_levels_that_were_measured_is_not_taken(monkeypatch, profile):
    """Nothing is known of its error there."""

    def low(denoiser, start, schedule, solver, data, **_):
        grid = Schedule([*schedule.sigmas[:-2], profile.sigmas[-1] / 2, 0.0])
        return SimpleNamespace(won=1, schedule=grid, solver=solver, winner=SimpleNamespace(objective="data"))

    monkeypatch.setattr("headstart.choose.learn.distill", low)
    plan = fit(TARGET, DATA, 3, profile=profile, schedule="distilled", **FAST)
    assert plan.schedule.sigma_min >= profile.sigmas[-1]
    assert "nothing that was learned is better" in plan.chosen["schedule"]


def test_two_evaluations_are_not_piloted_with_every_solver():
    """One level above 0 besides the horizon: all solvers take the same step to it."""
    plan = fit(TARGET, DATA, 2, **FAST)
    assert {(c.solver, c.schedule) for c in plan.candidates} == {("dpm++2m", "defect")}
    assert plan.chosen["solver"] == "one level or two leave no choice"
    assert len({c.sigma_min for c in plan.candidates if c.horizon == plan.horizon}) > 1
