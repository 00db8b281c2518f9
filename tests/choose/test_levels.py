"""The levels of a plan: what is measured, the kinds of schedule, and the horizon by rule."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from headstart import Noise, Profile, choose, fit
from headstart.budget import discretization_error
from headstart.choose import build_schedule, hold_out
from headstart.choose.constraints import Constraints
from headstart.choose.levels import (
    horizon_range,
    horizons_of,
    measured_levels,
    nearest_horizon,
    unseen_detail,
)
from headstart.denoiser import Range
from headstart.errors import InputError
from headstart.profile import HEAVY, core_deviation
from headstart.schedule import Defect, LeastError, Rho, Schedule, equidistribute, get_rule, rule_names
from headstart.solver import Heun, get_solver
from headstart.targets import Gaussian as GaussianTarget
from headstart.targets import ProductT
from tests.choose.cases import DATA, FAST, TARGET


@pytest.mark.parametrize("kind", rule_names())
def test_every_kind_of_schedule_ends_at_zero(kind, profile):
    grid = get_rule(kind)(profile, 5, 10.0, 0.1)
    assert (grid.steps, grid.horizon, grid.sigma_min, grid.sigmas[-1]) == (5, 10.0, 0.1, 0.0)
    one = get_rule(kind)(profile, 1, 10.0, 0.1)
    assert one.sigmas == (10.0, 0.0)


def test_levels_beyond_the_usual_ones_are_measured():
    """The user's own levels decide how far the network is measured; what it knows is the limit."""
    wide = fit(TARGET, DATA, 3, horizon=1000.0, sigma_min=0.001, criterion="budget", initialization="isotropic")
    assert wide.schedule.sigmas[0] == wide.profile.sigmas[0] == pytest.approx(1000)
    assert wide.schedule.sigma_min == 0.001
    assert wide.profile.sigmas[-1] == pytest.approx(0.001)
    asked = []

    def limited(x, sigma):
        asked.append(float(sigma.max()))
        return TARGET(x, sigma)

    limited.sigma_max = 20.0
    assert max(c.horizon for c in fit(limited, DATA, 3, **FAST).record.candidates) <= 20
    assert max(asked) == pytest.approx(20, rel=1e-6)
    asked.clear()
    fit(limited, DATA, 3, sigma_max=10.0, **FAST)
    assert max(asked) == pytest.approx(10, rel=1e-6)


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


def test_the_unimodality_rule_gives_the_horizon():
    """25 modes 1.25 apart merge near sigma = 0.6 along an axis."""
    plan = fit(TARGET, TARGET.sample(Noise(range(3000))), 3, horizon="unimodal", **FAST)
    assert 0.4 < plan.horizon < 1.0
    assert plan.record.chosen["horizon"] == "by the unimodality rule"
    with pytest.raises(InputError, match="unknown horizon 'bimodal'"):
        fit(TARGET, DATA, 3, horizon="bimodal")


def test_the_unimodality_rule_on_unimodal_data_gives_the_shortest_horizon():
    """Every level has one mode; the data's standard deviation is 1.78, and 0.35 of it the shortest horizon of use."""
    data = 1.78 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    plan = fit(GaussianTarget([0.0, 0.0], 1.78**2), data, 3, horizon="unimodal", **FAST)
    assert plan.horizon == pytest.approx(0.35 * 1.78, rel=0.1)


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
    grid = Rho()(profile, 4, 5.0, 0.1)
    own = discretization_error(profile, grid, get_solver("deis"))
    bare = replace(profile, trajectories=None)
    assert discretization_error(bare, grid, get_solver("deis")) == discretization_error(profile, grid) != own
    assert discretization_error(profile, grid, Heun()) == discretization_error(profile, grid)
    np.testing.assert_array_equal(own, profile.trajectories.local_errors(grid, get_solver("deis")).mean(axis=0))
    with pytest.raises(InputError, match="no trajectories"):
        LeastError()(bare, 4, 5.0, 0.1)


def test_an_outlier_that_is_not_held_out_hides_no_level():
    """It is in the spread of all data, which says how far to measure, and not in that of the held-out data."""
    data = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    data[hold_out(data)[0][0]] = 1e4
    profile = fit(GaussianTarget([0.0, 0.0], 1.0), data, 3, **FAST).profile
    assert profile.sigma_data < 2
    assert profile.sigmas[-1] <= 0.05 * profile.sigma_data


def test_heavy_tails_do_not_set_the_scale():
    """Cauchy data: the standard deviation grows with the data, and 9 of 10 lie within 6.3 of the centre."""
    data = ProductT(1.0, 1.0, [0.0, 0.0]).sample(Noise(range(1500))).float()
    law = ProductT(1.0, 1.0, [0.0, 0.0])
    profile = Profile.measure(law, data, sigmas=measured_levels(data, [], Range()), samples=600, cost_samples=8)
    assert profile.sigma_data > 8
    assert profile.core == pytest.approx(2 * 6.31 / 3.29, rel=0.3)
    pairs = horizons_of(profile, None)
    horizons = [h for h, _ in pairs]
    assert horizons[0] == pytest.approx(0.35 * profile.core)
    assert max(b / a for a, b in pairwise(horizons[:-1])) < 1.4
    assert horizons[-1] == pytest.approx(190 * profile.sigma_data, rel=0.01)
    assert max(last for _, last in pairs) <= 0.05 * profile.core * (1 + 1e-9)
    assert horizon_range(profile.sigma_data, None, profile.core)[0] == pytest.approx(horizons[0])


def test_shorter_horizons_are_looked_at_where_samples_of_few_numbers_are_many():
    """Down to what 15,625 = 5^6 points in the plane resolve, a fifth of a deviation; of images, those of before."""
    assert nearest_horizon(5**6, 2) == pytest.approx(0.2)
    assert nearest_horizon(100, 2) == nearest_horizon(10**6, 784) == pytest.approx(0.35)
    law = GaussianTarget([0.0, 0.0], 1.0)
    profile = Profile.measure(law, law.sample(Noise(range(200))), samples=100, cost_samples=8)
    usual, more = ([h for h, _ in horizons_of(profile, None, nearest)] for nearest in (0.35, 0.2))
    assert more[0] == pytest.approx(0.2 * profile.core)
    assert more[-len(usual) :] == pytest.approx(usual)
    assert max(b / a for a, b in pairwise(more[:-1])) < 1.4


@pytest.mark.parametrize("make", [torch.randn, torch.rand, lambda *n, generator: torch.eye(4).repeat(25, 1)])
def test_data_without_heavy_tails_are_measured_by_their_standard_deviation(make):
    data = make(100, 4, generator=torch.Generator().manual_seed(0))
    assert core_deviation(data) > 1.5 * float(data.var(0).mean().sqrt()) / HEAVY


def test_coordinates_that_the_last_level_hides_are_named():
    g = torch.Generator().manual_seed(0)
    data, levels = torch.tensor([100.0, 0.1, 0.0]) * torch.randn(500, 3, generator=g), Schedule((50.0, 3.0, 0.0))
    (doubt,) = unseen_detail(data, levels)
    assert "3, exceeds the standard deviation of 1 of 3 coordinates" in doubt
    assert not unseen_detail(data, Schedule((50.0, 0.05, 0.0)))
    assert not unseen_detail(data.reshape(500, 1, 3), levels)


@pytest.mark.parametrize(("count", "seed"), [(10, 4), (15, 6), (25, 0)])
def test_few_data_choose_nothing(count, seed):
    """N(0, 1) in two dimensions: the spread is that of the law, and not what two held-out samples make of it."""
    law = GaussianTarget([0.0, 0.0], 1.0)
    data = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    plan = fit(law, data, 4, pilot_samples=16)
    assert float(plan.sample(law, 2000).std()) == pytest.approx(1, abs=0.15)
    assert plan.horizon >= 4 * plan.profile.sigma_data
    assert {plan.record.chosen[part] for part in ("horizon", "schedule", "solver")} == {"too few data to choose by"}
    assert "too few to choose a plan by" in plan.record.doubts[-1]


def test_of_few_data_what_is_asked_for_is_kept(profile):
    law = GaussianTarget([0.0, 0.0], 1.0)
    data = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    plan = fit(law, data, 3, pilot_samples=16, horizon=2.0, solver="euler")
    assert (plan.horizon, plan.solver.name, plan.record.chosen["horizon"]) == (2.0, "euler", "as asked")
    levels = Schedule((3.0, 0.5, 0.0))
    assert fit(law, data, pilot_samples=16, schedule=levels).schedule == levels
    in_many = replace(profile, shape=(3, 64, 64))
    assert Constraints(4).without_choice(in_many, 10).sigma_T == pytest.approx(
        profile.sigma_data * (5 * 3 * 64 * 64 / 10) ** 0.5
    )


def test_rules_are_also_made_as_before(profile):
    with pytest.warns(DeprecationWarning, match="get_rule"):
        grid = build_schedule("defect", profile, 5, 10.0, 0.1, exponent=3.0)
    assert grid == Defect(3.0)(profile, 5, 10.0, 0.1)
    with pytest.warns(DeprecationWarning, match="rule_names"):
        assert rule_names() == choose.SCHEDULES
