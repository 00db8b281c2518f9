"""The Fréchet distance against closed forms, its invariances, and covariances that are singular."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headstart.errors import DataError
from headstart.metrics import GaussianStatistics, frechet_distance


def orthogonal(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q


def cloud(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.2, 2.0, d, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scales @ orthogonal(d, seed + 1)


@settings(max_examples=25, deadline=None)
@given(d=st.integers(1, 8), seed=st.integers(0, 10_000), shift=st.floats(-5, 5))
def test_commuting_covariances_have_a_closed_form(d: int, seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    q = orthogonal(d, seed)
    p, r = (torch.rand(2, d, generator=generator, dtype=torch.float64) + 0.05).unbind()
    a = GaussianStatistics(torch.zeros(d), q @ p.diag() @ q.T, 100)
    b = GaussianStatistics(torch.full((d,), shift, dtype=torch.float64), q @ r.diag() @ q.T, 100)
    exact = d * shift**2 + float((p.sqrt() - r.sqrt()).square().sum())
    # cancellation leaves rounding of the traces, not of the distance
    assert a.distance(b) == pytest.approx(exact, rel=1e-10, abs=1e-13)


def test_covariances_that_do_not_commute_in_two_dimensions() -> None:
    """In the plane, tr (A B)^(1/2) = (tr(A B) + 2 (det A det B)^(1/2))^(1/2)."""
    s_a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    s_b = torch.tensor([[0.5, -0.3], [-0.3, 3.0]], dtype=torch.float64)
    cross = math.sqrt(float((s_a @ s_b).trace()) + 2 * math.sqrt(float(s_a.det() * s_b.det())))
    exact = float(s_a.trace() + s_b.trace()) - 2 * cross
    zero = torch.zeros(2)
    assert GaussianStatistics(zero, s_a, 9).distance(GaussianStatistics(zero, s_b, 9)) == pytest.approx(
        exact, rel=1e-10
    )


def test_statistics_are_the_mean_and_the_unbiased_covariance() -> None:
    x = cloud(30, 4, 0).float()
    statistics = GaussianStatistics.of(x)
    assert statistics.covariance.dtype == torch.float64
    np.testing.assert_allclose(statistics.mean, x.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(x.double().numpy().T), rtol=1e-10)
    assert repr(statistics) == "GaussianStatistics(4 features, n = 30)"


def test_singular_covariances() -> None:
    """On supports that meet at right angles only the traces remain; fewer samples than features are no obstacle."""
    u, v, _ = orthogonal(30, 1).split([8, 8, 14], dim=1)
    a, b = (GaussianStatistics(torch.zeros(30), 3 * w @ w.T, 10) for w in (u, v))
    assert a.distance(b) == pytest.approx(2 * 8 * 3, rel=1e-10)
    few = cloud(10, 40, 3)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(few, 3 * few + 1) == pytest.approx(
        4 * float(GaussianStatistics.of(few).covariance.trace()) + float((2 * few.mean(0) + 1).square().sum()),
        rel=1e-10,
    )


def test_moving_both_sets_changes_nothing() -> None:
    a, b, q = cloud(50, 6, 0), cloud(70, 6, 5) + 0.3, orthogonal(6, 9)
    distance = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-12)
    assert frechet_distance(a @ q + 7, b @ q + 7) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(2 * a, 2 * b) == pytest.approx(4 * distance, rel=1e-12)
    assert frechet_distance(a, a + 0.5) == pytest.approx(6 * 0.25, rel=1e-10)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([[0.0, 1.0], [math.nan, 2.0]]), "1 NaN"),
        (torch.tensor([[0.0, 1.0], [math.inf, 2.0]]), "1 NaN or infinite"),
        (torch.zeros(1, 2), "at least 2"),
        (torch.zeros(5), "at least 2"),
        (torch.zeros(5, 2, 2), r"expected \(N, F\)"),
        (torch.zeros(5, 2, dtype=torch.long), "floating point"),
        (torch.zeros(5, 3), "same shape"),
    ],
)
def test_bad_features_are_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        frechet_distance(torch.randn(5, 2), bad)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (torch.eye(3), "expected"),
        (torch.full((2, 2), math.nan), "finite"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
    ],
)
def test_bad_statistics_are_refused(covariance: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        GaussianStatistics(torch.zeros(2), covariance, 10)
