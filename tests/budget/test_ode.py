"""What the steps of an ODE sampler cost, against exact divergences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headstart.budget import Budget, Estimate, discretization_error
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import Schedule, equidistribute, log_linear, rho_grid, tangent
from headstart.targets import gmm25


def defect_profile(c=1.0, count=2000):
    """N(0, c^2) on the line, its defect cost in closed form."""
    sigmas = np.geomspace(100.0, 0.001, count)
    a, b = sigmas[:-1], sigmas[1:]
    slope = a / (c**2 + a**2)
    bend = b / (c**2 + b**2) * (1 + (b - a) * slope) - slope
    costs = ((b - a) / 2 * bend) ** 2 * (c**2 + a**2) / (c**2 + b**2)
    two = np.tile(costs, (2, 1))
    return Profile(sigmas, np.ones((2, count)), two, two, c, (1,), 0)


@pytest.mark.parametrize("grid", [tangent(40, 80.0, 0.002, 1.0, False), log_linear(100, 80.0, 0.002, False)], ids=repr)
def test_the_budget_of_an_exact_start_is_eulers_divergence(grid):
    """For an isotropic Gaussian the square of the sum of the roots is exact to leading order."""
    gain = math.prod((1 + a * b) / (1 + a**2) for a, b in grid.pairs())
    w = (1 + grid.sigma_min**2) / ((1 + grid.horizon**2) * gain**2)
    exact = (w - 1 - math.log(w)) / 2
    budget = Budget(Estimate(0.0, 0.0), discretization_error(defect_profile(), grid))
    assert len(budget.discretization) == grid.steps
    assert budget.total == pytest.approx(exact, rel=0.1)


def test_discretization_error_is_of_fourth_order_in_each_step():
    profile = defect_profile()
    coarse, fine = (discretization_error(profile, log_linear(n, 10.0, 0.1, False)) for n in (20, 40))
    assert sum(k**0.25 for k in coarse) == pytest.approx(sum(k**0.25 for k in fine), rel=1e-9)
    assert sum(coarse) / sum(fine) == pytest.approx(8, rel=0.05)


def test_equidistributed_steps_have_equal_budgets_and_the_smallest_sum():
    profile = defect_profile()
    best = discretization_error(profile, equidistribute(profile.length("defect"), 6, 50.0, 0.01))
    assert len(best) == 5
    np.testing.assert_allclose(best, best[0], rtol=0.01)
    for other in (rho_grid(6, 50.0, 0.01), log_linear(6, 50.0, 0.01)):
        assert sum(discretization_error(profile, other)) > sum(best)


def test_a_step_to_zero_is_left_out():
    profile = defect_profile()
    levels = [10.0, 1.0, 0.1]
    with_zero = discretization_error(profile, Schedule([*levels, 0.0]))
    assert with_zero == discretization_error(profile, Schedule(levels))
    assert discretization_error(profile, Schedule([10.0, 0.0])) == ()


@pytest.mark.parametrize("levels", [[101.0, 1.0], [10.0, 0.0009]])
def test_schedules_outside_the_levels_are_refused(levels):
    with pytest.raises(InputError, match=r"levels were measured from 100 down to 0\.001"):
        discretization_error(defect_profile(), Schedule(levels))


def test_levels_of_the_profile_itself_give_the_defect_of_each_step():
    target, levels = gmm25(), [4.0, 1.0, 0.4, 0.1]
    data = target.sample(Noise(range(300)))
    profile = Profile.measure(target, data, sigmas=np.array(levels), cost_samples=192)
    steps = discretization_error(profile, Schedule(levels))
    np.testing.assert_allclose(steps, profile.defect.mean(axis=0), rtol=1e-6)
