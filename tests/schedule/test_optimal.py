"""Optimal grids: closed forms of the isotropic Gaussian, the Cantor law, invariances, errors."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import Length, Schedule, equidistribute, log_linear, tangent
from headstart.targets import GaussianMixture, cantor

# Method.md 7.4: the best ten steps by corrector cost of the Cantor law with 8 modes and tau = 0.005.
CANTOR = [20, 11.51, 6.617, 3.794, 2.156, 1.191, 0.596, 0.237, 0.0857, 0.0309, 0.002]


def dense(high=80.0, low=0.002, count=2000):
    return np.geomspace(high, low, count)


def corrector(sigmas, c=1.0, marginal=False):
    """Corrector cost of N(0, c^2) in one dimension, with velocity sigma or that of the noised data."""
    a2, b2 = sigmas[:-1] ** 2, sigmas[1:] ** 2
    return (b2 + marginal * c**2) * (a2 - b2) ** 2 / ((c**2 + a2) * (c**2 + b2) ** 2)


def predictor(sigmas, c=1.0):
    """The paper's predictor cost of N(0, c^2), with the velocity of the noised data."""
    a, b = sigmas[:-1], sigmas[1:]
    return (a - b) ** 4 * c**4 / ((c**2 + a**2) * (c**2 + a * b) ** 2 * (c**2 + b**2))


def defect(sigmas, c=1.0):
    """Defect cost of N(0, c^2): Heun's and Euler's steps are linear."""
    a, b = sigmas[:-1], sigmas[1:]
    slope = a / (c**2 + a**2)
    bend = b / (c**2 + b**2) * (1 + (b - a) * slope) - slope
    return ((b - a) / 2 * bend) ** 2 * (c**2 + a**2) / (c**2 + b**2)


def error(schedule, expected):
    return np.abs(np.array(schedule.sigmas) / np.array(expected) - 1).max()


@pytest.mark.parametrize(("c", "high", "low"), [(1.0, 80.0, 0.002), (0.5, 20.0, 0.02), (3.0, 5.0, 0.1)])
def test_corrector_cost_at_the_marginals_scale_makes_variances_geometric(c, high, low):
    sigmas = dense(high, low)
    grid = equidistribute(Length(sigmas, corrector(sigmas, c, marginal=True), 2), 10, high, low, final_zero=False)
    assert error(grid, np.sqrt(np.geomspace(c**2 + high**2, c**2 + low**2, 11) - c**2)) < 1e-5


@pytest.mark.parametrize(("cost", "tolerance"), [(predictor, 2e-6), (defect, 1.5e-3)])
@pytest.mark.parametrize(("c", "high", "low"), [(1.0, 80.0, 0.002), (0.5, 20.0, 0.02), (3.0, 5.0, 0.1)])
def test_fourth_roots_of_eulers_costs_make_the_tangent_grid(cost, tolerance, c, high, low):
    """Align Your Steps, Theorem 3.1; the tolerances are those of method.md 11.4."""
    sigmas = dense(high, low)
    grid = equidistribute(Length(sigmas, cost(sigmas, c), 4), 10, high, low, final_zero=False)
    assert error(grid, tangent(10, high, low, c, final_zero=False).sigmas) < tolerance


def test_the_square_root_of_eulers_cost_makes_another_grid():
    """What the paper's element would give: the exponent matters."""
    sigmas = dense()
    grid = equidistribute(Length(sigmas, defect(sigmas), 2), 10, 80.0, 0.002, final_zero=False)
    assert error(grid, tangent(10, 80.0, 0.002, 1.0, final_zero=False).sigmas) > 0.5


def test_defect_length_converges_with_the_dense_grid():
    errors = []
    for count in (500, 1000, 2000):
        sigmas = dense(count=count)
        grid = equidistribute(Length(sigmas, defect(sigmas), 4), 10, 80.0, 0.002, final_zero=False)
        errors.append(error(grid, tangent(10, 80.0, 0.002, 1.0, final_zero=False).sigmas))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
def test_corrector_length_in_closed_form(c):
    sigmas = dense()

    def exact(sigma):
        return 2 * (math.asinh(sigma / c) - sigma / math.hypot(c, sigma))

    length = Length(sigmas, corrector(sigmas, c), 2)
    assert length.cumulative[-1] == pytest.approx(exact(80.0) - exact(0.002), rel=5e-3)
    for sigma in (50.0, 1.234, 0.01):
        assert length.at(sigma) == pytest.approx(exact(80.0) - exact(sigma), rel=5e-3)


def quadrature(target: GaussianMixture, a: float, b: float) -> float:
    """Corrector cost of a law on the line."""
    reach = 8 * float((target.variances.max() + a**2).sqrt())
    x = torch.linspace(float(target.means.min()) - reach, float(target.means.max()) + reach, 2001, dtype=torch.float64)
    x = x[:, None]
    mass = target.log_prob(x, a).exp() * (x[1, 0] - x[0, 0])
    return b**2 * float(mass @ (target.score(x, b) - target.score(x, a)).square()[:, 0])


def test_cantor_grid_by_quadrature():
    """To the digits that method.md gives."""
    target, sigmas = cantor(level=3, tau=0.005), dense(20.0, 0.002, 300)
    costs = np.array([quadrature(target, a, b) for a, b in pairwise(sigmas)])
    grid = equidistribute(Length(sigmas, costs, 2), 10, 20.0, 0.002, final_zero=False)
    assert error(grid, CANTOR) < 0.008


def test_cantor_grid_by_measuring():
    target = cantor(level=3, tau=0.005)
    profile = Profile.measure(
        target,
        target.sample(Noise(range(2000))),
        sigmas=dense(20.0, 0.002, 160),
        samples=2000,
        cost_samples=2000,
        batch_size=2000,
    )
    grid = equidistribute(profile.length("corrector"), 10, 20.0, 0.002, final_zero=False)
    assert error(grid, CANTOR) < 0.06


@given(i=st.integers(0, 20), j=st.integers(23, 40), seed=st.integers(0, 1000))
def test_length_is_additive(i, j, seed):
    """A dense grid's stretch has the length that it has by itself, so one pass serves every horizon."""
    sigmas, costs = dense(count=41), np.random.default_rng(seed).uniform(0.1, 1, 40)
    whole, part = Length(sigmas, costs, 4), Length(sigmas[i : j + 1], costs[i:j], 4)
    np.testing.assert_allclose(whole.at(sigmas[i : j + 1]) - whole.at(sigmas[i]), part.cumulative, atol=1e-9)


@pytest.mark.parametrize("horizon", [30.0, 5.0, 0.7])
@pytest.mark.parametrize("sigma_min", [0.5, 0.05])
def test_any_stretch_of_the_dense_grid_is_cut(horizon, sigma_min):
    """Levels need not be nodes of the dense grid; the tangent grid between them comes out."""
    sigmas = dense()
    grid = equidistribute(Length(sigmas, predictor(sigmas), 4), 7, horizon, sigma_min, final_zero=False)
    assert grid.horizon == horizon
    assert grid.sigma_min == sigma_min
    assert error(grid, tangent(7, horizon, sigma_min, 1.0, final_zero=False).sigmas) < 2e-5


@pytest.mark.parametrize("steps", [2, 5, 40])
@pytest.mark.parametrize(("cost", "exponent"), [(corrector, 2), (defect, 4)])
def test_steps_are_equally_costly(cost, exponent, steps):
    sigmas = dense()
    length = Length(sigmas, cost(sigmas), exponent)
    costs = length.step_costs(equidistribute(length, steps, 80.0, 0.002, final_zero=False))
    np.testing.assert_allclose(costs, (length.cumulative[-1] / steps) ** exponent, rtol=0.01)


def test_step_costs_are_the_costs_of_the_steps():
    """On a grid of 200 steps the closed form of every step, which no measurement on the dense grid contains."""
    sigmas, grid = dense(), tangent(200, 5.0, 0.05, 1.0, final_zero=False)
    estimated = Length(sigmas, defect(sigmas), 4).step_costs(grid)
    np.testing.assert_allclose(estimated, defect(np.array(grid.sigmas)), rtol=0.15)
    estimated = Length(sigmas, predictor(sigmas), 4).step_costs(grid)
    np.testing.assert_allclose(estimated, predictor(np.array(grid.sigmas)), rtol=0.01)


def test_equal_costs_make_a_log_linear_grid():
    length = Length(dense(100.0, 0.01, 50), np.full(49, 7.0), 2)
    assert error(equidistribute(length, 6, 100.0, 0.01, final_zero=False), log_linear(6, 100.0, 0.01, False).sigmas) < (
        1e-10
    )


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_a_last_step_to_zero_is_added(steps):
    sigmas = dense()
    length = Length(sigmas, defect(sigmas), 4)
    grid = equidistribute(length, steps, 10.0, 0.02)
    assert grid.steps == steps
    assert grid.sigmas[-1] == 0
    if steps == 1:
        assert grid == Schedule([10.0, 0.0], "optimal")
    else:
        assert grid.sigmas[:-1] == equidistribute(length, steps - 1, 10.0, 0.02, final_zero=False).sigmas
        np.testing.assert_array_equal(length.step_costs(grid), length.step_costs(Schedule(grid.sigmas[:-1])))
    assert len(length.step_costs(grid)) == steps - 1


def test_one_step_that_ends_above_zero():
    length = Length([4.0, 2.0, 1.0], [1.0, 3.0], 2)
    assert equidistribute(length, 1, 4.0, 1.0, final_zero=False, name="mine") == Schedule([4.0, 1.0], "mine")


positive = st.floats(1e-100, 1e100)


@settings(deadline=None)
@given(
    costs=st.lists(st.one_of(positive, st.just(0.0)), min_size=1, max_size=30).filter(any),
    exponent=st.sampled_from([2, 4, 6]),
    steps=st.integers(1, 20),
    final_zero=st.booleans(),
    ratio=st.floats(1.001, 3.0),
    start=st.floats(0, 0.4),
    stop=st.floats(0.6, 1),
)
@example(costs=[143.0, 0.00390625], exponent=4, steps=5, final_zero=False, ratio=10.0, start=0.02, stop=0.85)
def test_grids_decrease_strictly_whatever_the_costs(costs, exponent, steps, final_zero, ratio, start, stop):
    sigmas = ratio ** -np.arange(len(costs) + 1.0)
    horizon, sigma_min = (ratio ** -(share * len(costs)) for share in (start, stop))
    grid = equidistribute(Length(sigmas, costs, exponent), steps, horizon, sigma_min, final_zero)
    assert grid.steps == steps
    assert grid.horizon == horizon
    assert (np.diff(grid.sigmas) < 0).all()
    if not (steps == 1 and final_zero):
        assert grid.sigma_min == sigma_min


@settings(deadline=None)
@given(costs=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20), scale=st.floats(1e-3, 1e3))
def test_units_do_not_matter(costs, scale):
    sigmas = dense(10.0, 0.1, len(costs) + 1)
    grid = equidistribute(Length(sigmas, costs, 4), 5, 9.0, 0.2, final_zero=False)
    dear = equidistribute(Length(sigmas, scale * np.array(costs), 4), 5, 9.0, 0.2, final_zero=False)
    large = equidistribute(Length(scale * sigmas, costs, 4), 5, 9.0 * scale, 0.2 * scale, final_zero=False)
    assert error(dear, grid.sigmas) < 1e-9
    assert error(large, scale * np.array(grid.sigmas)) < 1e-9


@pytest.mark.parametrize(
    ("sigmas", "costs", "message"),
    [
        ([3.0, 2.0, 1.0], [1.0], r"2 steps: got costs of shape \(1,\)"),
        ([3.0, 2.0, 1.0], [[1.0, 1.0]], "costs of shape"),
        ([[3.0, 2.0]], [1.0], "costs of shape"),
        ([3.0], [], "costs of shape"),
        ([3.0, 3.0, 1.0], [1.0, 1.0], "strictly decreasing"),
        ([1.0, 2.0, 3.0], [1.0, 1.0], "strictly decreasing"),
        ([3.0, 2.0, 0.0], [1.0, 1.0], "above 0"),
        ([math.nan, 2.0, 1.0], [1.0, 1.0], "finite"),
        ([math.inf, 2.0, 1.0], [1.0, 1.0], "finite"),
        ([3.0, 2.0, 1.0], [1.0, math.nan], "finite"),
        ([3.0, 2.0, 1.0], [1.0, math.inf], "finite"),
        ([3.0, 2.0, 1.0], [1.0, -1e-9], "not negative"),
        ([3.0, 2.0, 1.0], [0.0, 0.0], "not all 0"),
    ],
)
def test_lengths_are_checked(sigmas, costs, message):
    with pytest.raises(InputError, match=message):
        Length(sigmas, costs, 2)


@pytest.mark.parametrize("exponent", [0, -1, math.nan])
def test_exponents_are_checked(exponent):
    with pytest.raises(InputError, match="exponent above 0"):
        Length([3.0, 2.0], [1.0], exponent)


@pytest.mark.parametrize("sigma", [3.1, 0.9, [2.0, 5.0]])
def test_levels_outside_the_dense_grid_are_refused(sigma):
    with pytest.raises(InputError, match="measured from 3 down to 1"):
        Length([3.0, 2.0, 1.0], [1.0, 1.0], 2).at(sigma)


@pytest.mark.parametrize(
    ("steps", "horizon", "sigma_min", "message"),
    [
        (0, 3.0, 1.0, "1 step or more"),
        (2, 1.0, 3.0, "horizon above sigma_min"),
        (2, 2.0, 2.0, "horizon above sigma_min"),
        (2, 3.0, 0.0, "sigma_min above 0"),
        (2, math.nan, 1.0, "horizon above sigma_min"),
        (2, math.inf, 1.0, "horizon above sigma_min"),
        (2, 3.0, math.nan, "sigma_min above 0"),
        (2, 3.5, 1.0, "measured from 3 down to 1"),
        (2, 3.0, 0.5, "measured from 3 down to 1"),
    ],
)
def test_grids_are_checked(steps, horizon, sigma_min, message):
    with pytest.raises(InputError, match=message):
        equidistribute(Length([3.0, 2.0, 1.0], [1.0, 1.0], 2), steps, horizon, sigma_min)
