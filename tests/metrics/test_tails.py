"""Tail gaps are those of known quantiles, their errors are the spread over draws, and equal laws raise no alarm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics import Quantile, quantile_table, tail_gap

LEVELS = (0.99, 0.999, 0.9999)


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def t3(n: int, d: int, seed: int) -> Tensor:
    """Independent Student-t numbers: a normal one over the root of a third of three squares."""
    squares = normal(3 * n, d, seed + 10_000).square().reshape(3, n, d).mean(0)
    return normal(n, d, seed) / squares.sqrt()


def noised_t3_quantile(level: float, sigma: float) -> float:
    """The quantile of \\|t_3 + sigma eps\\|, by quadrature of its two tails."""

    def beyond(x: float) -> float:
        return 2 * integrate.quad(lambda e: stats.norm.pdf(e) * stats.t.sf(x - sigma * e, 3), -12, 12, limit=200)[0]

    return float(optimize.brentq(lambda x: beyond(x) - (1 - level), 0.1, 1000))


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_the_gap_between_a_gaussian_and_heavy_tails_is_that_of_their_quantiles(sigma: float) -> None:
    width = math.sqrt(3 + sigma**2)
    found = tail_gap(width * normal(20_000, 32, 0), t3(20_000, 32, 1) + sigma * normal(20_000, 32, 2))
    assert [row.level for row in found.table] == list(LEVELS)
    for row in found.table:
        start, data = width * stats.norm.ppf((1 + row.level) / 2), noised_t3_quantile(row.level, sigma)
        assert abs(row.gap - math.log(start / data)) < 4 * row.error
        assert row.start == pytest.approx(start, rel=0.02)
        assert row.data == pytest.approx(data, rel=0.15)
        assert row.error < 0.06
    assert (found.value, found.error, found.level) == (found.table[2].gap, found.table[2].error, 0.9999)
    assert found.misses()
    assert repr(found).startswith("TailGap(misses tails: -")
    assert found.to_dict()["misses"] is True


@pytest.mark.parametrize(("sigma", "misses"), [(2.0, True), (7.0, True), (80.0, False)])
def test_a_gaussian_start_misses_heavy_tails_at_a_short_horizon_and_not_at_eighty(sigma: float, misses: bool) -> None:
    """The first level whose quantile is off by a tenth is 0.99 at 2, 0.9999 at 7, and none at 80."""
    data = t3(20_000, 40, 3) + sigma * normal(20_000, 40, 4)
    assert tail_gap(sigma * normal(20_000, 40, 5), data).misses() is misses


def test_a_start_with_heavier_tails_has_a_positive_gap_and_misses_none() -> None:
    found = tail_gap(t3(2000, 20, 0), normal(2000, 20, 1))
    assert found.value > 0.3
    assert not found.misses(0)
    reverse = tail_gap(normal(2000, 20, 1), t3(2000, 20, 0))
    assert reverse.value == pytest.approx(-found.value, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(2000, 2000, 20), (6000, 2000, 5)])
@pytest.mark.parametrize("kind", ["normal", "t3", "correlated"])
def test_equal_laws_raise_no_alarm_and_the_error_is_the_spread(n: int, m: int, d: int, kind: str) -> None:
    def law(count: int, seed: int) -> Tensor:
        x = t3(count, d, seed) if kind == "t3" else normal(count, d, seed)
        return x + 3 * normal(count, 1, seed + 500) if kind == "correlated" else x

    found = [tail_gap(law(n, 2 * seed), law(m, 2 * seed + 1)) for seed in range(20)]
    assert not any(gap.misses() for gap in found)
    assert all(gap.to_dict()["misses"] is False for gap in found)
    scores = np.array([[row.gap / row.error for row in gap.table] for gap in found])
    assert scores.shape == (20, 2)
    assert 0.6 < float(np.sqrt((scores**2).mean())) < 1.5


def test_tails_ignore_location_and_follow_scale() -> None:
    x, y = normal(2000, 5, 0), normal(2000, 5, 1)
    plain, moved = tail_gap(x, y), tail_gap(2 * x + 7, y - 3)
    for row, other in zip(plain.table, moved.table, strict=True):
        assert other.gap == pytest.approx(row.gap + math.log(2), abs=1e-9)
        assert other.error == pytest.approx(row.error, rel=1e-6)


def test_only_levels_that_both_sets_resolve_count() -> None:
    """Two samples beyond a level along each direction, and ten over all of them."""

    def levels(n: int, m: int, d: int) -> list[float]:
        return [row.level for row in tail_gap(normal(n, d, 0), normal(m, d, 1)).table]

    assert levels(2000, 5000, 10) == [0.99, 0.999]
    assert levels(5000, 1999, 10) == [0.99]
    assert levels(9999, 9999, 1) == [0.99]
    assert levels(10_000, 10_000, 1) == [0.99, 0.999]
    with pytest.raises(InputError, match="at least 200 do"):
        tail_gap(normal(199, 10, 0), normal(500, 10, 1))
    with pytest.raises(InputError, match="at least 1000 do"):
        tail_gap(normal(999, 1, 0), normal(1000, 1, 1))


def test_along_a_direction_it_is_the_gap_of_the_projections() -> None:
    x, y, u = normal(1000, 4, 0), t3(1000, 4, 1), torch.tensor([[3.0, 0, 4, 0], [0, 1, 0, 0]], dtype=torch.float64)
    unit = u / torch.tensor([[5.0], [1.0]])
    assert tail_gap(x, y, directions=u) == tail_gap(x @ unit.T, y @ unit.T)


def test_of_many_coordinates_those_of_the_largest_variance_are_seen() -> None:
    scales = torch.linspace(1, 5, 200, dtype=torch.float64)
    x, y = scales * normal(1000, 200, 0), scales * normal(1000, 200, 1)
    found = tail_gap(x.reshape(1000, 10, 20), y.reshape(1000, 10, 20))
    top = y.var(0).topk(128).indices
    assert found == tail_gap(x[:, top], y[:, top])
    assert found.directions == 128


def test_one_strange_direction_does_not_move_the_mean() -> None:
    x, y = normal(2000, 12, 0), normal(2000, 12, 1)
    before = tail_gap(x, y)
    x[:40, 3] *= 1e6
    assert abs(tail_gap(x, y).value - before.value) < 0.05


def test_tails_of_hardly_any_values_are_refused_and_no_nan() -> None:
    """Twelve of a thousand values are no zero: the 0.99 quantile is one of them, that of a bootstrap need not be."""
    rare = torch.zeros(1000, 1)
    rare[:12, 0] = torch.arange(1.0, 13)
    with pytest.raises(DataError, match="nearly all equal"):
        tail_gap(rare, 1.1 * rare, levels=[0.99])


def test_quantiles_of_the_coordinates() -> None:
    x = 3 * normal(100_000, 6, 0).reshape(-1, 2, 3)
    levels = [0.1, 0.5, 0.999]
    for row, level in zip(quantile_table(x, levels), levels, strict=True):
        density = stats.norm.pdf(stats.norm.ppf(level)) / 3
        error = math.sqrt(level * (1 - level) / 100_000) / density
        assert row.level == level
        assert abs(row.mean - 3 * stats.norm.ppf(level)) < 4 * error / math.sqrt(6)
        assert 0.2 * error < row.std < 2.5 * error


def test_quantiles_beyond_the_samples_are_refused() -> None:
    assert quantile_table(torch.zeros(1000, 2), [0.001, 0.999]) == (
        Quantile(0.001, 0.0, 0.0),
        Quantile(0.999, 0.0, 0.0),
    )
    for level in (0.9999, 0.0001, 1.0, math.nan):
        with pytest.raises(InputError, match="1000 samples do not resolve"):
            quantile_table(torch.zeros(1000, 2), [level])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((500, 3), math.nan), "1500 NaN"),
        (torch.zeros(500, 4), "same shape"),
        (torch.zeros(500, 3), "nearly all equal"),
        (torch.zeros(1, 3), "at least 2"),
    ],
)
def test_bad_samples_are_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tail_gap(bad.double(), normal(500, 3, 0), levels=[0.98])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": []}, "between 0.5 and 1"),
        ({"levels": [1.0]}, "between 0.5 and 1"),
        ({"directions": torch.zeros(1, 3)}, "none of them zero"),
        ({"directions": torch.eye(2)}, r"expected \(K, 3\)"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tail_gap(normal(500, 3, 0), normal(500, 3, 1), **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="from 0"):
        tail_gap(normal(500, 3, 0), normal(500, 3, 1)).misses(-1)
