"""Precision, recall, density and coverage: by hand, against published means, their errors, and their memory."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from headstart import arrays
from headstart.errors import DataError, InputError
from headstart.metrics import manifold
from headstart.metrics.jackknife import groups_of, jackknife, others

MODULE = sys.modules["headstart.metrics.manifold"]
NAMES = ("precision", "recall", "density", "coverage")


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(samples: Tensor, real: Tensor, k: int, k_density: int) -> dict[str, float]:
    """The definitions, with all distances in one matrix."""
    across = torch.cdist(real, samples, compute_mode="donot_use_mm_for_euclid_dist")

    def radius(x: Tensor, k: int) -> Tensor:
        return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values[:, k]

    wide = across <= radius(real, k_density)[:, None]
    return {
        "precision": float((across <= radius(real, k)[:, None]).any(0).double().mean()),
        "recall": float((across <= radius(samples, k)[None]).any(1).double().mean()),
        "density": float(wide.sum()) / (k_density * len(samples)),
        "coverage": float(wide.any(1).double().mean()),
    }


@pytest.mark.parametrize(("n", "m", "k", "k_density"), [(150, 90, 3, 5), (40, 130, 1, 2), (25, 25, 5, 1)])
def test_the_definitions(n: int, m: int, k: int, k_density: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, real = 0.8 * normal(n, 4, 0) + 0.3, normal(m, 4, 1)
    expected = by_hand(samples, real, k, k_density)
    for block in (4096, 16):
        monkeypatch.setattr(MODULE, "BLOCK", block)
        found = manifold(samples, real, k=k, k_density=k_density)
        assert {name: getattr(found, name) for name in NAMES} == pytest.approx(expected, abs=1e-12)
    far = manifold(samples + 1e5, real + 1e5, k=k, k_density=k_density)
    assert {name: getattr(far, name) for name in NAMES} == pytest.approx(expected, abs=1e-12)


def test_errors_are_those_of_leaving_groups_out() -> None:
    """Recall and coverage without each group, from the whole matrix of distances."""
    samples, real = normal(83, 3, 0), 1.2 * normal(70, 3, 1)
    groups = groups_of(83, 4)
    rest = [by_hand(samples[others(groups, g)], real, 3, 5) for g in range(10)]
    found = manifold(samples, real, seed=4)
    for name in ("recall", "coverage"):
        assert found.errors[name] == pytest.approx(jackknife([one[name] for one in rest]), rel=1e-9)
    hits = found.precision * (1 - found.precision) / 82
    assert found.errors["precision"] == pytest.approx(math.sqrt(hits), rel=1e-9)


def test_the_published_means_of_density_and_coverage() -> None:
    """Naeem et al. 2020: for one law, 1 and 1 - (N - 1) ... (N - k) / ((N + M - 1) ... (N + M - k)), whatever it is."""
    n, m, k = 60, 40, 5
    found = [manifold(normal(m, 3, 2 * s).exp(), normal(n, 3, 2 * s + 1).exp(), k_density=k) for s in range(150)]
    coverage = 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    for name, mean in (("density", 1.0), ("coverage", coverage)):
        values = np.array([getattr(one, name) for one in found])
        assert abs(values.mean() - mean) < 3 * values.std() / math.sqrt(150)
        assert values.std() / math.sqrt(150) < 0.01


def test_errors_tell_the_spread_of_draws_with_the_data_held_fixed() -> None:
    """Those of means are the spread; the jackknife of recall and coverage, which are not smooth, is up to twice it."""
    real = normal(200, 3, 0)
    found = [manifold(0.9 * normal(150, 3, seed), real) for seed in range(1, 61)]
    for name, low, high in (
        ("precision", 0.7, 1.4),
        ("density", 0.7, 1.4),
        ("recall", 0.8, 2.2),
        ("coverage", 0.8, 2.2),
    ):
        spread = np.std([getattr(one, name) for one in found], ddof=1)
        assert low < np.mean([one.errors[name] for one in found]) / spread < high


def test_what_each_of_them_sees() -> None:
    real = torch.cat([normal(200, 2, 0), normal(200, 2, 1) + 20])
    dropped, blurred = manifold(normal(300, 2, 2), real), manifold(8 * normal(300, 2, 3) + 10, real)
    assert dropped.precision > 0.9
    assert dropped.density > 0.85
    assert 0.4 < dropped.recall < 0.55
    assert 0.4 < dropped.coverage < 0.52
    assert blurred.precision < 0.3
    assert blurred.density < 0.2
    assert blurred.coverage < 0.3
    copies = manifold(real, real)
    assert (copies.precision, copies.recall, copies.coverage) == (1, 1, 1)
    apart = manifold(real + 100, real)
    assert [getattr(apart, name) for name in NAMES] == [0, 0, 0, 0]
    assert set(apart.errors.values()) == {0.0}
    assert repr(apart).endswith("n = 400 against 400, k = 3 and 5)")


def test_single_precision_and_seeds_change_little() -> None:
    samples, real = normal(300, 6, 0), normal(200, 6, 1)
    found, single = manifold(samples, real), manifold(samples.float(), real.float())
    other = manifold(samples, real, seed=1)
    for name in NAMES:
        assert getattr(single, name) == pytest.approx(getattr(found, name), abs=0.01)
        assert getattr(other, name) == getattr(found, name)
    assert other.errors["recall"] != found.errors["recall"]


class Largest(TorchDispatchMode):
    """Keeps the number of bytes of the largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, Tensor):
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("block", [64, 128])
def test_no_tensor_is_larger_than_a_block_of_distances(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data are 2,000 x 16 and their distances 2,000 x 2,000; the work is on block x block numbers of 4 bytes."""
    samples, real = normal(2000, 16, 0).float(), normal(2000, 16, 1).float()
    monkeypatch.setattr(MODULE, "BLOCK", block)
    monkeypatch.setattr(arrays, "ROWS", block)
    with Largest() as largest:
        manifold(samples, real)
    lists = 2000 * (2 * 3 + 10) * 8  # the indices of the neighbours that are kept of each sample
    assert largest.bytes <= max(8 * block**2, lists) < 2000 * 2000 * 4 / 30


def test_bad_features_are_refused() -> None:
    x = normal(30, 3, 0)
    for bad, message in ((x[:11], "at least 12 rows"), (x[:, :2], "same shape"), (x * math.nan, "90 NaN")):
        with pytest.raises(DataError, match=message):
            manifold(x, bad)
    with pytest.raises(InputError, match="expected at least 1"):
        manifold(x, x, k=0)
    with pytest.raises(InputError, match="seed"):
        manifold(x, x, seed=-1)


def test_features_with_a_gradient_leave_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    squares, seen = MODULE._Space.squares, []

    def watched(self: Any, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = squares(self, x, y)
        seen.append(out.requires_grad)
        return out

    monkeypatch.setattr(MODULE._Space, "squares", watched)
    manifold(normal(60, 3, 0).requires_grad_(), normal(60, 3, 1))
    assert seen
    assert not any(seen)
