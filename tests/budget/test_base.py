"""The budget as a value: its total, its error, and how it shows itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headstart.budget import Budget, Estimate
from headstart.errors import InputError


@pytest.mark.parametrize(
    ("initialization", "steps", "total"),
    [
        (Estimate(0.25, 0.1), (0.01, 0.04), (0.5 + 0.1 + 0.2) ** 2),
        (Estimate(0.25, 0.1), (), 0.25),
        (Estimate(-3.0, 0.1), (0.01, 0.04), 0.3**2),
        (None, (0.01, 0.04), 0.3**2),
        (None, (), 0.0),
    ],
)
def test_total(initialization, steps, total):
    assert Budget(initialization, steps).total == pytest.approx(total, rel=1e-12)


def test_repr():
    assert repr(Estimate(-0.1261, 0.0338)) == "-0.126 ± 0.034"
    assert repr(Budget(Estimate(0.25, 0.1), (0.01, 0.04))) == (
        "Budget(initialization 0.25 ± 0.1; steps 0.01, 0.04; total 0.64 nats)"
    )
    assert repr(Budget(None, ())) == "Budget(initialization unknown; steps none; total 0 nats)"


@pytest.mark.parametrize(("start", "error"), [(0.25, 0.01), (2.0, 0.3), (0.05, 0.004)])
def test_error_of_the_total_is_the_spread_of_totals(start, error):
    """By simulation of the start's error; the delta method is of first order in it."""
    steps = (0.01, 0.04, 0.0025)
    draws = start + error * np.random.default_rng(0).standard_normal(20000)
    totals = [Budget(Estimate(draw, 0.0), steps).total for draw in draws]
    assert Budget(Estimate(start, error), steps).error == pytest.approx(np.std(totals), rel=0.05)


def test_error_without_steps_is_that_of_the_start():
    assert Budget(Estimate(0.5, 0.1), ()).error == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("start", [-1.0, -0.02, 0.0, 1e-9, 0.019])
def test_error_of_a_start_below_its_own_error_is_finite_and_upwards(start):
    steps = (0.01, 0.04)
    budget = Budget(Estimate(start, 0.02), steps)
    higher = Budget(Estimate(start + 0.02, 0.02), steps)
    assert budget.error == pytest.approx(higher.total - budget.total, rel=1e-12)
    assert (budget.error > 0) == (start + 0.02 > 0)


def test_an_oracle_has_no_error():
    assert Budget(None, (0.01, 0.04)).error == 0.0


def test_estimate_of_values():
    values = np.random.default_rng(1).normal(3.0, 2.0, 10000)
    estimate = Estimate.of(values)
    assert estimate.value == pytest.approx(values.mean(), rel=1e-12)
    assert estimate.error == pytest.approx(2.0 / 100, rel=0.05)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0], [3.0, 4.0]]])
def test_a_mean_needs_two_finite_values(values):
    with pytest.raises(InputError, match="two finite values or more"):
        Estimate.of(values)
