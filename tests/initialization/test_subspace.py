"""Principal components: known covariances, splitting and composing, few samples in many dimensions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headstart.initialization import Subspace
from headstart.initialization.subspace import moments
from headstart.noise import Noise


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data_of(mean: Tensor, axes: Tensor, spectrum: Tensor, n: int = 60) -> Tensor:
    """Samples whose empirical mean and covariance are exactly these: orthonormal columns, orthogonal to constants."""
    raw = random(n, len(spectrum), seed=7)
    white: Tensor = torch.linalg.qr(raw - raw.mean(0)).Q * math.sqrt(n - 1)
    return mean + (white * spectrum.sqrt()) @ axes.T


@pytest.mark.parametrize("k", [1, 3, 5, 6, 99])
def test_the_components_of_a_known_covariance(k: int) -> None:
    d, spectrum = 6, torch.tensor([9.0, 4.0, 2.0, 1.0, 0.25, 0.01], dtype=torch.float64)
    mean, axes = random(d, seed=1), torch.linalg.qr(random(d, d, seed=2)).Q
    found = Subspace.fit(data_of(mean, axes, spectrum), k)
    k = min(k, d)
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.variances, spectrum[:k], rtol=1e-10, atol=0.0)
    torch.testing.assert_close((found.basis.T @ axes[:, :k]).abs(), torch.eye(k, dtype=torch.float64))
    residual = spectrum[k:].mean() if k < d else torch.tensor(0.0, dtype=torch.float64)
    torch.testing.assert_close(found.residual, residual, rtol=1e-10, atol=0.0)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 40), d=st.integers(1, 40), k=st.integers(1, 50), seed=st.integers(0, 100))
def test_the_total_variance_is_the_datas_whatever_the_sizes(n: int, d: int, k: int, seed: int) -> None:
    """Also with fewer samples than dimensions; the basis is orthonormal, the variances in order."""
    data = random(n, d, seed=seed) * torch.linspace(0.1, 3.0, d, dtype=torch.float64)
    found = Subspace.fit(data, k)
    kept = len(found.variances)
    assert (found.dimension, kept) == (d, max(1, min(k, d, n - 1)))
    total = float(found.variances.sum() + (d - kept) * found.residual)
    assert total == pytest.approx(float(data.var(0).sum()), rel=1e-10)
    torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(kept, dtype=torch.float64))
    assert (found.variances.diff() <= 0).all()
    assert found.variances.min() >= 0
    assert found.residual >= 0


def test_of_many_data_in_many_dimensions_a_share_finds_the_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their variances are those of all data along them, and the total is the data's."""
    monkeypatch.setattr("headstart.initialization.subspace.EXACT", 50)
    axes, spectrum = torch.linalg.qr(random(60, 60, seed=2)).Q, torch.arange(1, 61, dtype=torch.float64) ** -2.0
    data = data_of(random(60, seed=1), axes, spectrum, 3000)
    found = Subspace.fit(data, 3)
    torch.testing.assert_close(found.variances, ((data - data.mean(0)) @ found.basis).var(0))
    assert float(found.total_variance) == pytest.approx(float(spectrum.sum()), rel=1e-10)
    torch.testing.assert_close(found.variances, spectrum[:3], rtol=0.05, atol=0)
    assert (found.basis.T @ axes[:, :3]).abs().diagonal().min() > 0.95


def test_the_residual_of_few_samples_in_many_dimensions_is_spread_over_all_that_is_left() -> None:
    """White data, 40 samples in 400 dimensions: the 395 directions left share what variance is left."""
    data = random(40, 400)
    found = Subspace.fit(data, 5)
    left = float(data.var(0).sum()) - float(found.variances.sum())
    assert float(found.residual) == pytest.approx(left / 395, rel=1e-10)


@settings(deadline=None, max_examples=30)
@given(d=st.integers(1, 9), k=st.integers(1, 9), sigma=st.floats(0.0, 50.0))
def test_splitting_undoes_composing(d: int, k: int, sigma: float) -> None:
    """The leading coordinates come back; the rest is the noise off the basis, at its standard deviation."""
    space = Subspace.fit(random(20, d, seed=3), k)
    normal, coordinates = Noise(range(6), dtype=torch.float64).normal((d,)), random(6, len(space.variances), seed=4)
    z, rest = space.split(space.compose(normal, space.leading(normal), coordinates, sigma))
    torch.testing.assert_close(z, coordinates, rtol=1e-10, atol=1e-10 * (1 + sigma))
    off = normal - normal @ space.basis @ space.basis.T
    expected = (space.residual + sigma**2) * off.square().sum(1)
    torch.testing.assert_close(rest, expected, rtol=1e-9, atol=1e-10 * (1 + sigma**2))


def test_splitting_keeps_lengths_and_takes_any_shape() -> None:
    data = random(30, 2, 3)
    space = Subspace.fit(data, 4)
    z, rest = space.split(data.float())
    assert z.dtype == rest.dtype == torch.float64
    centred = data.float().double().flatten(1) - space.mean
    torch.testing.assert_close(z.square().sum(1) + rest, centred.square().sum(1))
    assert Subspace.fit(data, 6).split(data)[1].max() < 1e-12


def test_what_saves_it_restores_it() -> None:
    space = Subspace.fit(random(30, 5), 2)
    again = Subspace.from_tensors(space.tensors())
    for name, tensor in space.tensors().items():
        assert torch.equal(again.tensors()[name], tensor)


def test_fitting_is_repeatable() -> None:
    """Also where the solver is a randomised one: many dimensions, few components."""
    data = random(550, 520)
    one, two = Subspace.fit(data, 5), Subspace.fit(data, 5)
    assert all(torch.equal(one.tensors()[name], two.tensors()[name]) for name in one.tensors())


def test_power_iteration_finds_the_same_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the matrix is still at hand: variances to three digits, and the same span for the leading half."""
    data = random(400, 60, seed=3) * torch.arange(1, 61, dtype=torch.float64) ** -0.5
    exact = Subspace.fit(data, 20)
    monkeypatch.setattr("headstart.initialization.subspace.EXACT", 10)
    found = Subspace.fit(data, 20)
    torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(20, dtype=torch.float64))
    torch.testing.assert_close(found.variances[:10], exact.variances[:10], rtol=1e-3, atol=0.0)
    torch.testing.assert_close(found.total_variance, exact.total_variance)
    overlap = torch.linalg.svdvals(found.basis.T @ exact.basis[:, :10])
    assert overlap.min() > 0.99


def test_chunks_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random(50, 2, 3, seed=4)
    whole = Subspace.fit(data, 4)
    monkeypatch.setattr("headstart.initialization.subspace.CHUNK", 12)
    parts = Subspace.fit(data, 4)
    torch.testing.assert_close(parts.variances, whole.variances)
    mean, variances = moments(data)
    torch.testing.assert_close(mean, data.flatten(1).mean(0))
    torch.testing.assert_close(variances, data.flatten(1).var(0))
