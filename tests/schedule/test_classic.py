"""Hand-made grids: their formulas, their ends, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.denoiser import VariancePreserving
from headstart.errors import InputError
from headstart.schedule.classic import cosine, linear_vp, log_linear, rho_grid, tangent

GRIDS = [rho_grid, log_linear, tangent, cosine, linear_vp]
levels = st.tuples(st.floats(1e-4, 10), st.floats(1.01, 1e4)).map(lambda pair: (pair[0] * pair[1], pair[0]))


def warp(name: str, sigma: np.ndarray) -> np.ndarray:
    """The function of sigma that a grid takes equal steps of, at the default parameters."""
    warps = {
        "rho_grid": lambda s: s ** (1 / 7),
        "log_linear": np.log,
        "tangent": lambda s: np.arctan(s / 0.5),
        "cosine": np.arctan,
        "linear_vp": lambda s: VariancePreserving().time(torch.from_numpy(s)).numpy(),
    }
    return warps[name](sigma)


@pytest.mark.parametrize("grid", GRIDS)
@settings(deadline=None)
@given(ends=levels, steps=st.integers(1, 60), final_zero=st.booleans())
def test_grid_has_its_steps_and_exact_ends(grid, ends, steps, final_zero):
    schedule = grid(steps, *ends, final_zero=final_zero)
    assert schedule.steps == steps
    assert schedule.sigmas[0] == ends[0]
    assert schedule.sigmas[-1] == (0.0 if final_zero else ends[1])
    assert all(a > b for a, b in schedule.pairs())
    if final_zero and steps > 1:
        assert schedule.sigmas[-2] == ends[1]


@pytest.mark.parametrize("grid", GRIDS)
@settings(deadline=None)
@given(ends=levels, steps=st.integers(2, 60))
def test_steps_are_equal_in_the_warped_level(grid, ends, steps):
    lengths = np.diff(warp(grid.__name__, np.array(grid(steps, *ends, final_zero=False).sigmas)))
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_final_zero_appends_one_step(grid):
    assert grid(6, 80.0, 0.002).sigmas == (*grid(5, 80.0, 0.002, final_zero=False).sigmas, 0.0)
    assert grid(1, 80.0, 0.002).sigmas == (80.0, 0.0)


@pytest.mark.parametrize("i", range(1, 9))
def test_formulas_as_published(i):
    """Method.md, section 9, with 9 steps from 7 to 0.02 in plain arithmetic."""
    high, low, t = 7.0, 0.02, i / 9
    rho5 = (high ** (1 / 5) + t * (low ** (1 / 5) - high ** (1 / 5))) ** 5
    tan2 = 2 * math.tan((1 - t) * math.atan(high / 2) + t * math.atan(low / 2))
    assert rho_grid(9, high, low, rho=5, final_zero=False).sigmas[i] == pytest.approx(rho5, rel=1e-12)
    assert log_linear(9, high, low, final_zero=False).sigmas[i] == pytest.approx(high ** (1 - t) * low**t, rel=1e-12)
    assert tangent(9, high, low, scale=2, final_zero=False).sigmas[i] == pytest.approx(tan2, rel=1e-12)


@pytest.mark.parametrize("i", range(1, 9))
def test_variance_preserving_formulas_as_published(i):
    """The time of both ends by bisection of sigma(t), and sigma of the time in between, in plain arithmetic."""
    high, low, s = 7.0, 0.02, 0.008

    def cosine_sigma(t):
        return math.tan((t + s) / (1 + s) * math.pi / 2)

    def linear_sigma(t):
        return math.sqrt(math.expm1(19.9 * t**2 / 2 + 0.1 * t))

    for grid, sigma in ((cosine, cosine_sigma), (linear_vp, linear_sigma)):
        t = (1 - i / 9) * inverse(sigma, high) + i / 9 * inverse(sigma, low)
        assert grid(9, high, low, final_zero=False).sigmas[i] == pytest.approx(sigma(t), rel=1e-9)


def inverse(sigma, level, low=0.0, high=1 - 1e-9):
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma(middle) < level else (low, middle)
    return middle


def test_cosine_is_the_tangent_grid_at_scale_one():
    np.testing.assert_allclose(cosine(12, 80.0, 0.002).sigmas, tangent(12, 80.0, 0.002, scale=1).sigmas, rtol=1e-12)


@pytest.mark.parametrize(("low", "tolerance"), [(0.1, 2e-3), (0.002, 6e-2)])
def test_what_the_cosine_schedule_divides_by_moves_levels_a_little(low, tolerance):
    """Nichol and Dhariwal divide the signal's square by its value at t = 0, where the level then is 0."""
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2

    def published(t):
        return math.sqrt(start / math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 - 1)

    times = np.linspace(inverse(published, 80.0), inverse(published, low), 11)
    moves = np.abs(np.array([published(t) for t in times]) / cosine(10, 80.0, low, final_zero=False).sigmas - 1)
    assert tolerance / 2 < moves.max() < tolerance
    assert start == pytest.approx(0.99984, abs=5e-6)


def test_a_constant_rate_of_noise_is_a_uniform_log_of_one_plus_variance():
    levels = np.array(linear_vp(7, 20.0, 0.01, beta_min=3.0, beta_max=3.0, final_zero=False).sigmas)
    steps = np.diff(np.log1p(levels**2))
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-9)


def test_limits_of_one_grid_are_other_grids():
    rho = rho_grid(8, 80.0, 0.002, rho=1e5, final_zero=False)
    np.testing.assert_allclose(rho.sigmas, log_linear(8, 80.0, 0.002, final_zero=False).sigmas, rtol=1e-3)
    wide = tangent(8, 80.0, 0.002, scale=1e5, final_zero=False)
    np.testing.assert_allclose(wide.sigmas, np.linspace(80.0, 0.002, 9), rtol=1e-6)


def test_small_rho_does_not_overflow():
    assert rho_grid(4, 80.0, 0.002, rho=1e-3).sigmas[0] == 80.0


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [0, -1, 2.5, math.nan])
def test_number_of_steps_is_checked(grid, steps):
    with pytest.raises(InputError, match="steps"):
        grid(steps, 80.0, 0.002)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    "ends", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.0), (1.0, -0.1), (math.inf, 0.1), (math.nan, 0.1), (1.0, math.nan)]
)
def test_ends_are_checked(grid, ends):
    with pytest.raises(InputError, match="sigma_max"):
        grid(4, *ends)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_shape_parameters_are_checked(value):
    with pytest.raises(InputError, match="rho"):
        rho_grid(4, 80.0, 0.002, rho=value)
    with pytest.raises(InputError, match="scale"):
        tangent(4, 80.0, 0.002, scale=value)
    with pytest.raises(InputError, match="rate of noise"):
        linear_vp(4, 80.0, 0.002, beta_max=value)


def test_rates_of_noise_are_checked():
    for low, high in ((-0.1, 20.0), (0.2, 0.1), (0.0, 0.0), (math.nan, 20.0)):
        with pytest.raises(InputError, match="rate of noise"):
            linear_vp(4, 80.0, 0.002, beta_min=low, beta_max=high)
    assert linear_vp(4, 80.0, 0.002, beta_min=0.0).steps == 4
