"""The dip is the distance from the unimodal laws, by linear programs and published figures; the horizon hides modes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.unimodality import dip, unimodal_horizon

Array = NDArray[np.float64]


def closest_unimodal(x: Array) -> float:
    """The dip as linear programs, one for each place of the mode: the definition, and nothing else.

    The unknowns are a convex function at the points up to the mode, a concave one from the mode on, and their largest
    distance from the empirical distribution function, of which both limits count at a point without an atom.
    """
    points, counts = np.unique(x, return_counts=True)
    above = np.cumsum(counts) / len(x)
    below, k = above - counts / len(x), len(points)

    def rows(values: Array, low: Array, high: Array, bend: int) -> list[tuple[Array, float]]:
        """low - e <= g <= high + e, g increasing, and convex (bend 1) or concave (bend -1), for unknowns (g, e)."""
        m, found = len(values), []
        unit = np.eye(m + 1)
        for i in range(m):
            found += [(unit[i] - unit[m], high[i]), (-unit[i] - unit[m], -low[i])]
        for i in range(m - 1):
            found.append((unit[i] - unit[i + 1], 0.0))
        for i in range(1, m - 1):
            before, after = np.diff(values)[i - 1 : i + 1]
            found.append((bend * ((unit[i] - unit[i - 1]) / before - (unit[i + 1] - unit[i]) / after), 0.0))
        return found

    best = 1.0
    for mode in range(k):
        low, high = above.copy(), below.copy()
        low[mode], high[mode] = below[mode], below[mode]
        left = rows(points[: mode + 1], low[: mode + 1], high[: mode + 1], 1)
        low[mode], high[mode] = above[mode], above[mode]
        right = rows(points[mode:], low[mode:], high[mode:], -1)
        n, m = mode + 1, k - mode
        matrix = [np.concatenate([row[:n], np.zeros(m), row[n:]]) for row, _ in left]
        matrix += [np.concatenate([np.zeros(n), row]) for row, _ in right]
        joined = np.eye(n + m + 1)[mode] - np.eye(n + m + 1)[mode + 1]
        limits = [limit for _, limit in (*left, *right)] + [0.0]
        cost = np.eye(n + m + 1)[-1]
        best = min(best, linprog(cost, np.array([*matrix, joined]), limits, bounds=[(0, 1)] * (n + m) + [(0, 1)]).fun)
    return best


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 10), seed=st.integers(0, 10_000), kind=st.sampled_from(["one", "two", "ties"]))
def test_the_dip_is_the_least_distance_from_a_unimodal_law(n: int, seed: int, kind: str) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n) + 6.0 * (np.arange(n) % 2) * (kind == "two")
    x = np.round(2 * x) if kind == "ties" else x
    if len(np.unique(x)) > 1:
        assert dip(x) == pytest.approx(closest_unimodal(x), abs=1e-7)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([3.0], 0.0),
        ([3.0, 3.0], 0.0),
        ([0.0, 1.0], 1 / 4),
        (range(20), 1 / 40),  # no law of n points without ties is closer
        ([0, 0, 1, 1], 1 / 4),  # two equal atoms are furthest from one mode
        ([0, 1, 1, 1, 1, 2], 1 / 12),  # the atom is the mode
        ([0] * 30 + [1] * 70, 0.15),  # the lesser atom is spread by half
        ([0.0, 1e-300, 1.0], 1 / 6),
    ],
)
def test_small_cases_are_exact(x: list[float], expected: float) -> None:
    assert dip(x) == pytest.approx(expected, abs=1e-12)


def test_the_dip_does_not_depend_on_units_order_or_orientation() -> None:
    x = np.random.default_rng(0).normal(size=300) + np.repeat([0.0, 4.0], 150)
    assert dip(x) > 0.03
    for other in (1e9 * x - 5e9, -x, x[::-1], np.concatenate([x, x, x])):
        assert dip(other) == pytest.approx(dip(x), rel=1e-6)


def test_the_dip_of_uniform_numbers_is_the_published_one() -> None:
    """Hartigan and Hartigan 1985, Table 1: the 5 % point for n = 50 is 0.0702. To three errors of 1,500 draws."""
    generator = np.random.default_rng(0)
    dips = np.array([dip(generator.random(50)) for _ in range(1500)])
    assert (dips > 0.0702).mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 1500))
    large = np.array([dip(generator.random(1000)) for _ in range(300)]) * math.sqrt(1000)
    assert 0.37 < large.mean() < 0.395  # to about 0.39 or 0.4 as n grows


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [1.0, math.nan], [0.0, math.inf]])
def test_a_dip_of_anything_else_is_refused(bad: list[float]) -> None:
    with pytest.raises(DataError, match="at least one finite number"):
        dip(bad)


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_atoms(n: int, d: int, scale: float = 1.0) -> Tensor:
    """Atoms at plus and minus ``scale`` along the first coordinate."""
    x = torch.zeros(n, d, dtype=torch.float64)
    x[:, 0] = scale * (2.0 * (torch.arange(n) % 2) - 1)
    return x


def test_the_horizon_of_two_atoms_is_near_the_noise_that_merges_them() -> None:
    """N(-1, s^2) and N(1, s^2), half and half, have one mode from s = 1 on; the rule misses the last trace of two."""
    found = [unimodal_horizon(two_atoms(4000, 1), directions=1, seed=seed).sigma for seed in range(2)]
    assert all(0.7 < sigma < 1.1 for sigma in found), found


def test_the_horizon_scales_with_the_data() -> None:
    one, ten = (unimodal_horizon(two_atoms(1000, 2, scale), directions=10) for scale in (1.0, 10.0))
    assert ten.sigma == pytest.approx(10 * one.sigma, rel=1e-6)
    assert (ten.worst, ten.verified) == (one.worst, one.verified)


def test_the_worst_direction_is_the_one_that_separates() -> None:
    u = torch.eye(3) * 5.0
    found = unimodal_horizon(two_atoms(2000, 3) + 0.05 * normal(2000, 3, 0), directions=u, samples=1000)
    assert found.worst == 0
    assert found.direction is not None
    assert torch.equal(found.direction, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert 0.6 < found.sigma < 1.2


def test_a_direction_given_finds_what_random_ones_do_not_see() -> None:
    """In 300 dimensions a random projection of two clusters is nearly Gaussian; the line between them is not."""
    x = two_atoms(1000, 300, 4.0) + normal(1000, 300, 1)
    unseen = unimodal_horizon(x, directions=20)
    seen = unimodal_horizon(x, directions=torch.eye(300)[:1])
    assert unseen.sigma < 0.5 < 2.5 < seen.sigma


def test_unimodal_data_need_no_noise() -> None:
    found = unimodal_horizon(normal(1000, 2, 0), directions=5)
    assert found.sigma == found.low == pytest.approx(0.01, rel=0.1)
    assert found.worst is None
    assert found.direction is None
    assert repr(found).startswith("UnimodalHorizon(sigma <= 0.01")


def test_noise_alone_is_never_taken_for_modes() -> None:
    """Of one draw of 2,000 Gaussian numbers in 200, the dip is above the uniform mean: no horizon would do."""
    found = unimodal_horizon(0.1 * normal(4000, 1, 0), directions=torch.ones(200, 1), low=10.0, high=11.0)
    assert (found.sigma, found.worst, found.verified) == (10.0, None, 1.0)


def test_the_horizon_is_verified_on_fresh_data_and_directions() -> None:
    found = unimodal_horizon(two_atoms(1000, 2), directions=60)
    early = unimodal_horizon(two_atoms(1000, 2), directions=1)  # one direction, which may see nothing
    assert 0.8 < found.verified <= 1
    assert early.sigma <= found.sigma
    assert found.to_dict()["samples"] == found.samples == 500
    assert "direction" not in found.to_dict()


def test_the_horizon_is_a_function_of_its_seed() -> None:
    x = two_atoms(400, 2)
    again = [unimodal_horizon(x, directions=5, seed=seed).sigma for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"high": 0.5, "low": 0.1}, "several modes even at noise 0.5"),
        ({"low": 2.0, "high": 1.0}, "0 < low < high"),
        ({"low": 0.0}, "0 < low < high"),
        ({"directions": 0}, "expected at least 1"),
        ({"directions": torch.eye(2)}, r"expected \(K, 1\)"),
        ({"directions": torch.zeros(1, 1)}, "none of them zero"),
        ({"samples": 10}, "expected at least 50"),
        ({"seed": -1}, "a seed from 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        unimodal_horizon(two_atoms(200, 1), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(200, 2), "all equal"),
        (torch.full((200, 2), math.nan), "finite"),
        (torch.zeros(99, 2), "at least 100"),
        (torch.zeros(200), "at least 100"),
        (torch.zeros(200, 2, dtype=torch.long), "floating-point"),
    ],
)
def test_bad_data_are_refused(data: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        unimodal_horizon(data)
