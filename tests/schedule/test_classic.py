"""Hand-made grids: their formulas, their ends, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import InputError
from headstart.schedule import log_linear, rho_grid, tangent

GRIDS = [rho_grid, log_linear, tangent]
levels = st.tuples(st.floats(1e-4, 10), st.floats(1.01, 1e4)).map(lambda pair: (pair[0] * pair[1], pair[0]))


def warp(name: str, sigma: np.ndarray) -> np.ndarray:
    """The function of sigma that a grid takes equal steps of, at the default rho and scale."""
    return {"rho_grid": lambda s: s ** (1 / 7), "log_linear": np.log, "tangent": lambda s: np.arctan(s / 0.5)}[name](
        sigma
    )


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
