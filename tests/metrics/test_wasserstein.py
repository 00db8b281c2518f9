"""Sliced Wasserstein distances against closed forms, and their invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics import (
    Reference,
    bulk_sliced_wasserstein,
    evaluate,
    max_sliced_wasserstein,
    sliced,
    sliced_wasserstein,
    tail_sliced_wasserstein,
)
from headstart.metrics.wasserstein import QUANTILES, directions_of, project, quantiles


def cloud(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_directions_are_unit_vectors_of_their_seed() -> None:
    u = directions_of(7, 20, seed=3)
    torch.testing.assert_close(u.norm(dim=0), torch.ones(20, dtype=torch.float64))
    assert torch.equal(u, directions_of(7, 20, seed=3))
    assert not torch.equal(u, directions_of(7, 20, seed=4))


@pytest.mark.parametrize("d", [2, 50])
def test_a_shifted_cloud_is_as_far_as_its_shift_seen_from_a_random_direction(d: int) -> None:
    """W_2 along u is |<u, s>|, and E <u, s>^2 = |s|^2 / d, with variance |s|^4 (3 / (d (d + 2)) - 1 / d^2)."""
    a, shift = cloud(40, d, 0), cloud(1, d, 1)[0]
    found = sliced(a, a + shift, directions=2000)
    seen = shift @ directions_of(d, 2000)
    assert found.mean == pytest.approx(float(seen.square().mean().sqrt()), rel=1e-12)
    assert found.max == pytest.approx(float(seen.abs().max()), rel=1e-12)
    square = float(shift @ shift)
    error = square * math.sqrt((3 / (d * (d + 2)) - 1 / d**2) / 2000)
    assert abs(found.mean**2 - square / d) < 4 * error


def test_in_one_dimension_it_is_the_distance_of_sorted_samples() -> None:
    a, b = cloud(200, 1, 0), 2 * cloud(200, 1, 1) + 1
    exact = float((a.flatten().sort().values - b.flatten().sort().values).square().mean().sqrt())
    assert sliced(a, b, directions=5).mean == pytest.approx(exact, rel=1e-12)
    assert sliced(a, b, directions=5).max == pytest.approx(exact, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 9), m=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_unequal_counts_are_exact(n: int, m: int, seed: int) -> None:
    """Repeat every point until both sets have n m points, and solve the assignment."""
    a, b = cloud(n, 1, seed), cloud(m, 1, seed + 1)
    costs = (a.repeat_interleave(m, 0) - b.repeat_interleave(n, 0).T).square().numpy()
    exact = math.sqrt(costs[linear_sum_assignment(costs)].mean())
    assert sliced_wasserstein(a, b, directions=2) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_unequal_counts_are_close_to_equal_ones() -> None:
    a, b = cloud(3000, 5, 0), 1.5 * cloud(3000, 5, 1)
    assert sliced_wasserstein(a, b[:2000], 64) == pytest.approx(sliced_wasserstein(a, b, 64), rel=0.05)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), m=st.integers(2, 12), d=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_a_distance(n: int, m: int, d: int, seed: int) -> None:
    a, b = cloud(n, d, seed), cloud(m, d, seed + 1)
    there, back = sliced(a, b, 30), sliced(b, a, 30)
    assert there.mean == pytest.approx(back.mean, rel=1e-12)
    assert there.max == pytest.approx(back.max, rel=1e-12)
    assert there.max * (1 + 1e-12) >= there.mean > 0
    assert sliced(a, a, 30).max == 0
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    assert sliced_wasserstein(a[order], b, 30) == pytest.approx(there.mean, rel=1e-9)
    assert sliced_wasserstein(-3 * a, -3 * b, 30) == pytest.approx(3 * there.mean, rel=1e-9)


def test_images_are_vectors_and_seeds_matter() -> None:
    a, b = cloud(20, 48, 0), cloud(30, 48, 1)
    images = a.reshape(20, 3, 4, 4), b.reshape(30, 3, 4, 4)
    assert sliced(*images) == sliced(a, b) == sliced(a, b, seed=0)
    assert sliced_wasserstein(a, b) == sliced(a, b).mean != sliced_wasserstein(a, b, seed=1)
    assert max_sliced_wasserstein(a, b) == sliced(a, b).max
    assert sliced(a.float(), b.float()).mean == pytest.approx(sliced(a, b).mean, rel=1e-5)
    assert sliced(a.bfloat16(), b).mean == pytest.approx(sliced(a, b).mean, rel=1e-2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([[0.0, 1.0], [math.nan, 2.0]]), "1 NaN"),
        (torch.zeros(1, 2), "at least 2"),
        (torch.zeros(4, 3), "same shape"),
        (torch.zeros(4, 2, dtype=torch.uint8), "floating point"),
    ],
)
def test_bad_samples_are_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sliced(torch.randn(4, 2), bad)


@pytest.mark.parametrize(("directions", "seed"), [(0, 0), (5, -1), (5, 2**64), (5, 0.5)])
def test_bad_directions_are_refused(directions: int, seed: int) -> None:
    with pytest.raises(InputError, match=r"whole number from|must be from"):
        sliced(torch.randn(4, 2), torch.randn(4, 2), directions, seed)


def test_bulk_and_tails_are_parts_of_the_whole() -> None:
    """The mean squares over the levels in between and outside add up to that over all, whatever the counts."""
    a, b = cloud(301, 4, 0) ** 3, cloud(200, 4, 1)
    for low, high in ((0.1, 0.9), (0.0, 0.73), (1 / 3, 1.0)):
        bulk = bulk_sliced_wasserstein(a, b, low, high, directions=20)
        tail = tail_sliced_wasserstein(a, b, low, high, directions=20)
        whole = sliced_wasserstein(a, b, directions=20)
        assert (high - low) * bulk**2 + (1 - high + low) * tail**2 == pytest.approx(whole**2, rel=1e-9)
    assert bulk_sliced_wasserstein(a, b, 0, 1) == sliced_wasserstein(a, b)


def test_the_bulk_does_not_see_what_the_tails_do() -> None:
    a = torch.linspace(-1, 1, 1001, dtype=torch.float64)[:, None]
    b = torch.where(a.abs() > 0.9, 100 * a, a)
    assert bulk_sliced_wasserstein(a, b) == 0
    assert bulk_sliced_wasserstein(a, b + 0.5) == pytest.approx(0.5)
    assert tail_sliced_wasserstein(a, b) > 50
    assert tail_sliced_wasserstein(a, a + 0.5) == pytest.approx(0.5)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.9, 0.1), (-0.1, 0.5), (0.5, 1.1)])
def test_bad_levels_are_refused(low: float, high: float) -> None:
    for distance in (bulk_sliced_wasserstein, tail_sliced_wasserstein):
        with pytest.raises(InputError, match="0 <= p < q <= 1"):
            distance(cloud(5, 2, 0), cloud(5, 2, 1), low, high)
    with pytest.raises(InputError, match="cannot be compared"):
        tail_sliced_wasserstein(cloud(5, 2, 0), cloud(5, 2, 1), 0.0, 1.0)


def test_of_many_samples_quantiles_are_kept() -> None:
    x, u = cloud(1000, 3, 0), directions_of(3, 5)
    torch.testing.assert_close(quantiles(x, u, most=1000), project(x, u), rtol=0, atol=0)
    # The middle of every ten.
    torch.testing.assert_close(quantiles(x, u, most=100), project(x, u)[:, 5::10], rtol=0, atol=0)


def test_a_reference_does_not_grow_beyond_its_quantiles() -> None:
    """They stand for all samples: a shift is found to far less than the distance of two sets of that size."""
    x = cloud(QUANTILES + 50_000, 1, 0)
    reference = Reference.of(x, directions=1)
    assert reference.projections.shape == (1, QUANTILES)
    assert len(reference) == len(x)
    assert evaluate(x + 0.25, reference).swd == pytest.approx(0.25, abs=1e-4)
