"""Constant-rate lengths against closed forms of Gaussians along the exact trajectories."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

from headstart.denoiser import Counted
from headstart.errors import DenoiserError, InputError
from headstart.noise import Noise
from headstart.schedule import Schedule, equidistribute, log_linear, rho_grid
from headstart.schedule.constant_rate import constant_rate
from headstart.solver import Heun
from headstart.targets import Gaussian, GaussianMixture

MEASURES = ["x0", "epsilon"]
HIGH, LOW = 80.0, 0.002


def exact(levels, c, count=5, dimension=3):
    """The states of the probability-flow ODE for N(0, c^2), from one start."""
    x = math.hypot(c, levels[0]) * Noise(range(count), dtype=torch.float64).normal((dimension,))
    return [x * (math.hypot(c, s) / math.hypot(c, levels[0])) for s in levels]


def measured(c, count=400, high=HIGH, low=LOW, **options):
    teacher = log_linear(count, high, low, final_zero=False)
    return constant_rate(Gaussian([0.0] * 3, c**2), exact(teacher.sigmas, c), teacher, **options)


def place(measure, sigma, c):
    """Where the estimate is on its straight way, up to a factor."""
    return 1 / np.hypot(c, sigma) if measure == "x0" else sigma / np.hypot(c, sigma)


@pytest.mark.parametrize("c", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_length_of_a_gaussian_has_a_closed_form(measure, c):
    """c^2 (c^2 + s^2)^(-1/2) and s (c^2 + s^2)^(-1/2), times the size of the first states in their own units."""
    length = measured(c, measure=measure)
    unit = float(Noise(range(5), dtype=torch.float64).normal((3,)).square().sum(1).sqrt().mean())
    factor = unit * (c**2 if measure == "x0" else 1.0)
    moved = factor * np.abs(np.diff(place(measure, length.sigmas, c)))
    np.testing.assert_allclose(length.costs, moved, rtol=1e-6)
    assert length.exponent == 1


@pytest.mark.parametrize("c", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("horizon", "steps"), [(80.0, 10), (3.0, 4)])
def test_the_grid_of_a_gaussian_has_equal_steps_of_that_function(measure, c, horizon, steps):
    """One length serves every horizon and number of steps."""
    grid = equidistribute(measured(c, measure=measure), steps, horizon, 0.02, final_zero=False)
    moves = np.abs(np.diff(place(measure, np.array(grid.sigmas), c)))
    np.testing.assert_allclose(moves, moves.mean(), rtol=1e-3)


@pytest.mark.parametrize("xi", [0.0, 0.5, 1.0, 2.0])
def test_at_unit_variance_the_estimate_of_the_data_moves_with_the_signal(xi):
    """So that its rate is constant as it is, and its power changes nothing."""
    grid = equidistribute(measured(1.0, xi=xi), 8, 80.0, 0.05, final_zero=False)
    signal = 1 / np.hypot(1, grid.sigmas)
    np.testing.assert_allclose(np.diff(signal), np.diff(signal).mean(), rtol=1e-3)


@pytest.mark.parametrize("c", [0.3, 2.5])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_power_zero_is_equal_steps_of_the_signal_whatever_is_measured(measure, c):
    grid = equidistribute(measured(c, measure=measure, xi=0.0), 8, 80.0, 0.05, final_zero=False)
    signal = 1 / np.hypot(1, grid.sigmas)
    np.testing.assert_allclose(np.diff(signal), np.diff(signal).mean(), rtol=1e-3)


@pytest.mark.parametrize("xi", [0.5, 1.0, 1.2, 2.0])
@pytest.mark.parametrize("measure", MEASURES)
def test_any_power_solves_the_differential_equation(measure, xi):
    """The time as an integral of v^xi over the signal, and its inverse, by quadrature and root finding."""
    c, high, low, steps = 0.5, 20.0, 0.05, 5

    def rate(alpha):
        h = 1e-6 * alpha
        ends = [place(measure, math.sqrt(1 / a**2 - 1), c) for a in (alpha - h, alpha + h)]
        return abs(ends[1] - ends[0]) / (2 * h)

    def time(sigma):
        return quad(lambda alpha: rate(alpha) ** xi, 1 / math.hypot(1, high), 1 / math.hypot(1, sigma))[0]

    expected = [brentq(lambda s, t=t: time(s) - t, low / 2, high) for t in np.linspace(0, time(low), steps + 1)[1:-1]]
    length = measured(c, 800, high, low, measure=measure, xi=xi)
    grid = equidistribute(length, steps, high, low, final_zero=False)
    np.testing.assert_allclose(grid.sigmas[1:-1], expected, rtol=2e-3)


def test_trajectories_of_a_solver_serve_as_well_as_exact_ones():
    c, teacher = 0.5, rho_grid(80, 80.0, 0.02, final_zero=False)
    law = Gaussian([0.0] * 3, c**2)
    x = exact(teacher.sigmas, c)[0]
    length = constant_rate(law, [x, *Heun().trajectory(law, x, teacher)], teacher)
    grid = equidistribute(length, 6, 80.0, 0.02, final_zero=False)
    moves = np.diff(place("x0", np.array(grid.sigmas), c))
    np.testing.assert_allclose(moves, moves.mean(), rtol=0.02)


MEANS = torch.tensor([[1.0, 0.2], [-0.6, 0.8], [0.1, -1.1]], dtype=torch.float64)


def mixture(means=MEANS, variance=0.01):
    return GaussianMixture([0.5, 0.2, 0.3], means, variance)


def trajectory(law, teacher):
    noise = Noise(range(20), dtype=torch.float64)
    x = law.sample(noise) + teacher.horizon * noise.normal(law.shape)
    return [x, *Heun().trajectory(law, x, teacher)]


@pytest.mark.parametrize("xi", [1.0, 1.2])
@pytest.mark.parametrize("measure", MEASURES)
def test_turned_and_shifted_data_have_the_same_length(measure, xi):
    teacher = rho_grid(30, 20.0, 0.05, final_zero=False)
    states = trajectory(mixture(), teacher)
    turn = torch.tensor([[math.cos(1.0), -math.sin(1.0)], [math.sin(1.0), math.cos(1.0)]], dtype=torch.float64)
    shift = torch.tensor([3.0, -1.0], dtype=torch.float64)
    turned = mixture(MEANS @ turn.T + shift)
    before = constant_rate(mixture(), states, teacher, measure=measure, xi=xi)
    after = constant_rate(turned, [x @ turn.T + shift for x in states], teacher, measure=measure, xi=xi)
    np.testing.assert_allclose(after.costs, before.costs, rtol=1e-6)


def test_at_the_constant_rate_the_units_of_the_data_do_not_matter():
    teacher = rho_grid(30, 20.0, 0.05, final_zero=False)
    larger = Schedule([4 * s for s in teacher.sigmas])
    states = trajectory(mixture(), teacher)
    wide = mixture(4 * MEANS, 0.16)
    before = equidistribute(constant_rate(mixture(), states, teacher), 6, 20.0, 0.05)
    after = equidistribute(constant_rate(wide, [4 * x for x in states], larger), 6, 80.0, 0.2)
    np.testing.assert_allclose(after.sigmas, 4 * np.array(before.sigmas), rtol=1e-6)


def test_a_finer_teacher_finds_the_same_grid():
    grids = []
    for count in (40, 80, 160):
        teacher = rho_grid(count, 20.0, 0.05, final_zero=False)
        length = constant_rate(mixture(), trajectory(mixture(), teacher), teacher)
        grids.append(np.array(equidistribute(length, 5, 20.0, 0.05, final_zero=False).sigmas))
    first, second = (np.abs(grid / grids[-1] - 1).max() for grid in grids[:2])
    assert second < first < 0.05
    assert second < 0.01


def test_one_evaluation_a_sample_and_level_and_none_at_zero():
    teacher = rho_grid(9, 20.0, 0.05)
    states = trajectory(mixture(), teacher)
    counted = Counted(mixture())
    length = constant_rate(counted, states, teacher)
    assert (counted.calls, counted.samples) == (9, 180)
    assert length.sigmas.tolist() == list(teacher.sigmas[:-1])
    assert (length.costs == constant_rate(mixture(), [*states[:-1], states[-1] + 5], teacher).costs).all()


def test_conditions_reach_the_denoiser():
    label = torch.arange(1.0, 4.0)
    states = [torch.full((3, 2), float(s)) for s in (5, 3, 2)]

    def denoiser(x, sigma, label):
        return x * label[:, None]

    length = constant_rate(denoiser, states, Schedule([4.0, 2.0, 1.0]), conditions={"label": label})
    np.testing.assert_allclose(length.costs, [2 * 2 * math.sqrt(2), 2 * math.sqrt(2)], rtol=1e-6)


GRID = Schedule([4.0, 2.0, 1.0, 0.0])
ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "fid"}, "unknown measure 'fid'"),
        ({"xi": -0.1}, "xi is -0.1"),
        ({"xi": math.nan}, "xi is nan"),
        ({"xi": math.inf}, "xi is inf"),
        ({"states": [ONES] * 3}, "4 levels.*got 3"),
        ({"states": [ONES, ONES * math.nan, ONES, ONES]}, "sigma = 2 are not"),
        ({"states": [ONES] * 4}, "never changes"),
        ({"teacher": Schedule([4.0, 0.0]), "states": [ONES] * 2}, "two levels above 0"),
    ],
    ids=str,
)
def test_bad_input_is_named(options, message):
    good = {"denoiser": lambda x, sigma: 0.1 * x, "states": [ONES * s for s in (5, 3, 2, 1)], "teacher": GRID}
    assert len(constant_rate(**good).costs) == 2
    with pytest.raises(InputError, match=message):
        constant_rate(**{**good, **options})


def test_a_denoiser_that_fails_is_named():
    with pytest.raises(DenoiserError, match="NaN"):
        constant_rate(lambda x, sigma: x * math.nan, [ONES * s for s in (5, 3, 2, 1)], GRID)
