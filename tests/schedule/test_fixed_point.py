"""The paper's fixed point: where it leads, that the exponent decides whether it gets there, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headstart.errors import InputError
from headstart.schedule import Schedule, fixed_point, log_linear, rho_grid, update


def levels(grid):
    s = np.array([s for s in grid.sigmas if s > 0])
    return s[:-1], s[1:]


def predictor(grid):
    """Predictor cost of N(0, 1) with velocity sigma, of order 4."""
    a, b = levels(grid)
    return b**2 * (a - b) ** 4 / ((1 + a**2) * (1 + a * b) ** 2 * (1 + b**2) ** 2)


def logarithmic(power):
    """A cost that is the power of a step in ln sigma, whose equal steps are known."""
    return lambda grid: np.log(np.divide(*levels(grid))) ** power


FIRST = rho_grid(10, 80.0, 0.002, final_zero=False)


def test_steps_of_a_fixed_point_cost_the_same():
    found = fixed_point(predictor, FIRST, 4, iterations=80)
    assert found.converged
    costs = predictor(found.schedule)
    assert costs.max() / costs.min() < 1.02
    assert (found.schedule.horizon, found.schedule.sigma_min) == (80.0, 0.002)
    assert repr(found).startswith("FixedPoint(converged in ")


def test_the_square_root_of_a_predictor_cost_swings_where_the_fourth_root_settles():
    """Method.md 5.5: a ratio of 38 against 1.9 after 12 iterations, of a law and a grid that it does not name."""
    wrong, right = (fixed_point(predictor, FIRST, q, iterations=13) for q in (2, 4))
    assert not wrong.converged
    assert wrong.spreads[-1] > 30
    assert right.spreads[-1] < 2
    assert all(after < before for before, after in zip(right.moves, right.moves[1:], strict=False))
    assert wrong.moves[-1] > 20 * right.moves[-1]


def test_damping_helps_the_square_root():
    assert fixed_point(predictor, FIRST, 2, blending=0.5, iterations=60).spreads[-1] < 1.05


@pytest.mark.parametrize(("power", "exponent", "factor"), [(4, 4, 0.0), (4, 2, -1.0), (6, 2, -2.0), (2, 4, 0.5)])
@pytest.mark.parametrize("blending", [1.0, 0.5])
def test_a_deviation_is_multiplied_by_one_minus_the_ratio_of_the_orders(power, exponent, factor, blending):
    """Every second step a little longer: with uneven ones the interpolant has no say to first order."""
    even = np.log(log_linear(8, 100.0, 0.01, final_zero=False).sigmas)
    tilt = 1e-3 * np.sin(np.pi * np.arange(9) / 8)
    after = update(Schedule(np.exp(even + tilt)), logarithmic(power)(Schedule(np.exp(even + tilt))), exponent, blending)
    moved = np.log(after.sigmas) - even
    share = moved[2:-2] / tilt[2:-2]
    np.testing.assert_allclose(share, 1 - blending * power / exponent, atol=0.03)
    assert 1 - power / exponent == factor


def test_a_step_to_zero_and_both_ends_stay():
    grid = Schedule([8.0, 4.0, 2.0, 1.0, 0.0], "mine")
    after = update(grid, [9.0, 1.0, 1.0], 2)
    assert (after.sigmas[0], after.sigmas[-2:], after.name) == (8.0, (1.0, 0.0), "mine")
    assert after.sigmas[1] > 4
    again = update(grid, [9.0, 1.0, 1.0], 2, blending=0.25)
    np.testing.assert_allclose(np.log(again.sigmas[1] / 4), 0.25 * np.log(after.sigmas[1] / 4))


def test_costs_of_zero_leave_a_strictly_decreasing_grid():
    after = update(Schedule([8.0, 4.0, 2.0, 1.0]), [0.0, 1.0, 0.0], 4)
    assert (np.diff(after.sigmas) < 0).all()


@pytest.mark.parametrize(
    ("costs", "options", "message"),
    [
        ([1.0, 2.0], {}, "costs of shape"),
        ([1.0, 2.0, math.nan], {}, "finite"),
        ([1.0, 2.0, -1.0], {}, "not negative"),
        ([0.0, 0.0, 0.0], {}, "not all 0"),
        ([1.0, 1.0, 1.0], {"blending": 0.0}, "blending is 0"),
        ([1.0, 1.0, 1.0], {"blending": 1.5}, "blending is 1.5"),
        ([1.0, 1.0, 1.0], {"blending": math.nan}, "blending is nan"),
        ([1.0, 1.0, 1.0], {"iterations": 0}, "1 iteration or more"),
        ([1.0, 1.0, 1.0], {"tolerance": 0.0}, "tolerance above 0"),
    ],
)
def test_bad_input_is_named(costs, options, message):
    with pytest.raises(InputError, match=message):
        fixed_point(lambda grid: costs, Schedule([8.0, 4.0, 2.0, 1.0]), 4, **options)
