"""The kernel distance against its closed form for Gaussians; its bias, its error and its memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics import KernelDistance, kernel_distance
from headstart.metrics.kernel import unbiased


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E x, E x x and E x x x of a Gaussian."""
    second = covariance + torch.outer(mean, mean)
    third = torch.einsum("i,j,k->ijk", mean, mean, mean)
    for form in ("i,jk->ijk", "j,ik->ijk", "k,ij->ijk"):
        third = third + torch.einsum(form, mean, covariance)
    return mean, second, third


def exact(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Expand (x'y / F + 1)^3: the squared differences of the first three moments."""
    first, second, third = (float((p - q).square().sum()) for p, q in zip(moments(*a), moments(*b), strict=True))
    d = len(a[0])
    return 3 * first / d + 3 * second / d**2 + third / d**3


MIX = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.2, 1.2]], dtype=torch.float64)
SHIFT = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
LAWS = ((SHIFT, MIX @ MIX.T), (torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)))


def draws(n: int, m: int, seed: int) -> tuple[Tensor, Tensor]:
    return normal(n, 3, seed) @ MIX.T + SHIFT, normal(m, 3, seed + 1000)


@pytest.mark.parametrize(("n", "m"), [(20_000, 20_000), (20_000, 12_000)])
def test_within_two_standard_errors_of_the_closed_form(n: int, m: int) -> None:
    found = kernel_distance(*draws(n, m, 0), block=500)
    assert abs(found.value - exact(*LAWS)) < 2 * found.error
    assert found.error < 0.1 * found.value
    assert (found.blocks, found.n, found.n_reference) == (m // 500, n, m)


def test_it_is_unbiased_at_few_samples_and_its_error_is_its_spread() -> None:
    """Twelve samples against nine: a V-statistic would be too large by about E k(x, x) / 12."""
    found = np.array([unbiased(*draws(12, 9, seed)) for seed in range(400)])
    assert abs(found.mean() - exact(*LAWS)) < 3 * found.std() / 20
    assert (found < 0).any()
    many = [kernel_distance(*draws(200, 150, seed)) for seed in range(60)]
    spread = np.std([one.value for one in many], ddof=1)
    assert np.mean([one.error for one in many]) == pytest.approx(spread, rel=0.35)


def test_the_same_law_is_at_zero() -> None:
    x = normal(6000, 8, 0)
    found = kernel_distance(x[:3000], x[3000:])
    assert abs(found.value) < 3 * found.error
    assert found.blocks == 10
    assert repr(found).endswith("n = 3000 against 3000, 10 blocks)")


def test_a_sum_over_all_pairs() -> None:
    x, y = draws(7, 5, 3)

    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return sum((float(a[i] @ b[j]) / 3 + 1) ** 3 for i, j in pairs) / len(pairs)

    assert unbiased(x, y) == pytest.approx(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False), rel=1e-12)


def test_rows_in_parts_change_nothing_and_blocks_follow_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draws(100, 80, 0)
    whole = kernel_distance(x, y)
    assert kernel_distance(x, y) == whole != kernel_distance(x, y, seed=1)
    monkeypatch.setitem(unbiased.__globals__, "ROWS", 3)
    assert kernel_distance(x, y).value == pytest.approx(whole.value, rel=1e-10)
    assert kernel_distance(x.float(), y.float()).value == pytest.approx(whole.value, rel=1e-4)


def test_bad_features_are_refused() -> None:
    x = normal(10, 3, 0)
    for bad, message in ((x[:3], "expected 4 rows"), (x[:, :2], "same shape"), (x * math.nan, "30 NaN")):
        with pytest.raises(DataError, match=message):
            kernel_distance(x, bad)
    with pytest.raises(InputError, match="expected at least 2"):
        kernel_distance(x, x, block=1)
    with pytest.raises(InputError, match="seed"):
        kernel_distance(x, x, seed=-1)
    assert isinstance(kernel_distance(x[:4], x[:4]), KernelDistance)
