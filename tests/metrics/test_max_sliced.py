"""The max-sliced distance finds planted directions in a hundred dimensions, and says whether its search converged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics import MaxSliced, max_sliced, max_sliced_wasserstein
from headstart.metrics.wasserstein import compare

D = 100
SHIFT = torch.tensor([1.0, 0.0, 0.0, 0.0])


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(kind: str, n: int, d: int = D, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Two normal clouds of which the first differs along one direction only, in scale or in shape."""
    a, b, u = (
        normal(n, d, seed),
        normal(n, d, seed + 1),
        torch.nn.functional.normalize(normal(1, d, seed + 2)[0], dim=0),
    )
    along = a @ u
    if kind == "shift":
        new = along + 0.7
    elif kind == "scale":
        new = 1.8 * along
    elif kind == "outlying mode":  # a tenth of the mass, standardised: mean and variance do not tell
        mode = along + 5 * (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.1)
        new = (mode - mode.mean()) / mode.std()
    elif kind == "two modes":  # no odd moment tells either
        new = along.sign() * math.sqrt(0.96) + 0.2 * normal(n, 1, seed + 3)[:, 0]
    return a + (new - along)[:, None] * u, b, u


def along(a: Tensor, b: Tensor, u: Tensor) -> float:
    return compare((a @ u).sort().values[None], (b @ u).sort().values[None]).mean


@pytest.mark.parametrize(
    ("kind", "n", "d"), [("shift", 2000, D), ("scale", 2000, D), ("outlying mode", 4000, D), ("two modes", 4000, 20)]
)
def test_a_planted_worst_direction_in_many_dimensions(kind: str, n: int, d: int) -> None:
    a, b, u = planted(kind, n, d)
    found = max_sliced(a, b, searched=n, random=16, ascents=1, steps=40)
    assert abs(float(found.direction @ u)) > 0.93
    assert found.value >= along(a, b, u)
    assert found.converged
    assert found.value == pytest.approx(along(a, b, found.direction), rel=1e-6)
    assert max_sliced_wasserstein(a, b, directions=256) < 0.6 * found.value


def test_axes_of_very_different_scales_hide_nothing() -> None:
    """Variances from 10^-4 to 10^4, and a shift along the largest of them."""
    scales = torch.logspace(-2, 2, 9, dtype=torch.float64)
    a, b = normal(3000, 9, 0) * scales, normal(3000, 9, 1) * scales
    shifted = a.clone()
    shifted[:, -1] += 200
    found = max_sliced(shifted, b)
    assert abs(float(found.direction[-1])) > 0.99
    assert found.value == pytest.approx(200, rel=0.05)


def test_unequal_counts_and_images() -> None:
    a, b, u = planted("scale", 2000)
    found = max_sliced(a[:1500].reshape(-1, 4, 5, 5), b.reshape(-1, 4, 5, 5), random=32, ascents=2)
    assert abs(float(found.direction @ u)) > 0.9
    assert (found.n, found.n_reference) == (1500, 2000)


def test_one_dimension_and_no_difference() -> None:
    a, b = normal(300, 1, 0), normal(200, 1, 1) + 1
    assert max_sliced(a, b).value == pytest.approx(compare(a.T.sort().values, b.T.sort().values).mean, rel=1e-9)
    same = max_sliced(a, a)
    assert (same.value, same.converged) == (0, True)
    constant = torch.ones(20, 3)
    assert max_sliced(constant, constant + torch.tensor([0.0, 2.0, 0.0])).value == pytest.approx(2, rel=1e-6)


def test_a_search_that_is_cut_short_says_so() -> None:
    a, b, _ = planted("two modes", 1500)
    found = max_sliced(a, b, steps=2, rounds=1, by_moments=False)
    assert not found.converged
    assert "not converged" in repr(found)
    longer = max_sliced(a, b, by_moments=False)
    assert longer.converged
    assert longer.value > found.value
    assert 1 <= longer.agreeing <= longer.starts == 4


def test_the_bulk_alone_does_not_see_tails() -> None:
    a = normal(2000, 5, 0)
    b = a.clone()
    b[:100, 2] *= 50
    whole, bulk = max_sliced(a, b), max_sliced(a, b, levels=(0.1, 0.9))
    assert abs(float(whole.direction[2])) > 0.99
    assert bulk.value < 0.05 * whole.value


def test_the_standard_error_is_the_spread_of_draws() -> None:
    reference = normal(1000, 4, 0)
    found = [
        max_sliced(normal(300, 4, seed) + SHIFT, reference, random=4, ascents=1, steps=20, rounds=1, by_moments=False)
        for seed in range(1, 31)
    ]
    spread = float(np.std([one.value for one in found], ddof=1))
    assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.4)


def test_what_is_sorted_is_searched_evenly() -> None:
    """Half of the samples are far off along the first axis, and come last."""
    x, y = normal(2000, 5, 0), normal(2000, 5, 1)
    x[1000:, 0] += 3
    found = max_sliced(x, y, searched=200)
    assert abs(float(found.direction[0])) > 0.95
    assert found.value == pytest.approx(max_sliced(x, y).value, rel=0.05)


def test_the_same_seed_gives_the_same_search() -> None:
    a, b = normal(200, 6, 0), 1.1 * normal(200, 6, 1)
    first, again = (max_sliced(a, b, random=8, rounds=1) for _ in range(2))
    assert first.value == again.value
    assert torch.equal(first.direction, again.direction)
    assert isinstance(first, MaxSliced)
    assert float(first.direction.norm()) == pytest.approx(1, rel=1e-12)


def test_bad_input_is_refused() -> None:
    x = normal(10, 3, 0)
    for bad, message in ((x[:1], "at least 2"), (x[:, :2], "same shape"), (x * math.nan, "30 NaN")):
        with pytest.raises(DataError, match=message):
            max_sliced(x, bad)
    for options in ({"searched": 1}, {"random": 0}, {"ascents": 0}, {"steps": 0}, {"rounds": 0}):
        with pytest.raises(InputError, match="expected at least 2 samples"):
            max_sliced(x, x, **options)
    with pytest.raises(InputError, match="0 <= p < q <= 1"):
        max_sliced(x, x, levels=(0.9, 0.1))
