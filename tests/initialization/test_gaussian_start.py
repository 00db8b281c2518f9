"""Gaussian starts: how far they are from the noised data, in closed form and against reference values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headstart.initialization import Gaussian, Isotropic, Subspace
from headstart.noise import Noise
from headstart.targets import Gaussian as GaussianTarget
from headstart.targets import gmm25


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def known(mean: Tensor, spectrum: Tensor, k: int | None = None) -> Gaussian:
    """The start of N(mean, diag(spectrum)), whose eigenvalues after the first k are replaced by their mean."""
    k = len(mean) if k is None else k
    rest = spectrum[k:].mean() if k < len(mean) else torch.zeros((), dtype=torch.float64)
    basis = torch.eye(len(mean), dtype=torch.float64)[:, :k]
    return Gaussian((len(mean),), Subspace(mean, basis, spectrum[:k], rest))


def quadratic_points(mean: Tensor, spectrum: Tensor, sigma: float) -> Tensor:
    """Points whose average of any quadratic is its expectation under N(mean, diag(spectrum) + sigma^2)."""
    steps = torch.diag((len(mean) * (spectrum + sigma**2)).sqrt())
    return torch.cat([mean + steps, mean - steps])


@settings(deadline=None, max_examples=30)
@given(
    spectrum=st.lists(st.floats(1e-3, 1e2), min_size=1, max_size=5),
    shift=st.floats(-3, 3),
    sigma=st.floats(0.05, 30.0),
)
def test_isotropic_start_on_gaussian_data(spectrum: list[float], shift: float, sigma: float) -> None:
    """KL(p_T || N(0, sigma^2)) = 1/2 sum [l / s^2 - ln(1 + l / s^2) + mu^2 / s^2]: log ratios are quadratic, so the
    average over a few points is exact."""
    variances = torch.tensor(spectrum, dtype=torch.float64)
    mean = shift * torch.ones_like(variances)
    target, x = GaussianTarget(mean.tolist(), spectrum), quadratic_points(mean, variances, sigma)
    kl = (target.log_prob(x, sigma) - Isotropic(mean.shape).log_prob(x, sigma)).mean()
    ratio = variances / sigma**2
    expected = 0.5 * (ratio - torch.log1p(ratio) + mean**2 / sigma**2).sum()
    torch.testing.assert_close(kl, expected, rtol=1e-8, atol=1e-10)
    exact = (target.log_prob(x, sigma) - known(mean, variances).log_prob(x, sigma)).mean()
    assert abs(float(exact)) < 1e-10


@settings(deadline=None, max_examples=30)
@given(k=st.integers(1, 4), sigma=st.floats(0.05, 30.0))
def test_what_is_lost_by_keeping_few_directions(k: int, sigma: float) -> None:
    """KL = 1/2 sum over what is left of ln (r + s^2) / (l + s^2): the mean variance keeps the trace, so no more."""
    spectrum = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    mean = random(5)
    x = quadratic_points(mean, spectrum, sigma)
    target = GaussianTarget(mean.tolist(), spectrum.tolist())
    kl = (target.log_prob(x, sigma) - known(mean, spectrum, k).log_prob(x, sigma)).mean()
    left = spectrum[k:]
    expected = 0.5 * ((left.mean() + sigma**2) / (left + sigma**2)).log().sum()
    torch.testing.assert_close(kl, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("sigma", "isotropic", "matched"),
    [(5.0, 0.0075081192, 1.0911588e-5), (2.0, 0.21419779, 3.3718301e-3), (1.0, 1.8019613, 0.046565216)],
)
def test_divergence_from_25_modes(sigma: float, isotropic: float, matched: float) -> None:
    """Against values by quadrature, within 4 standard errors; variance 3.1875 in each coordinate."""
    n, target = 4000, gmm25()
    noise = Noise(range(n), dtype=torch.float64)
    x = target.sample(noise) + sigma * noise.normal((2,))
    spectrum = torch.full((2,), 3.1875, dtype=torch.float64)
    for start, expected in (
        (Isotropic((2,)), isotropic),
        (known(torch.zeros(2, dtype=torch.float64), spectrum), matched),
    ):
        ratios = target.log_prob(x, sigma) - start.log_prob(x, sigma)
        assert abs(float(ratios.mean()) - expected) < 4 * float(ratios.std()) / math.sqrt(n)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_divergence_from_25_modes_by_quadrature(sigma: float) -> None:
    """The law is a product of two equal ones, and so are both starts: twice the divergence of one coordinate."""
    table = {0.5: (10.289275, 0.1603142), 1.0: (1.8019613, 0.046565216), 2.0: (0.21419779, 3.3718301e-3)}[sigma]
    target = gmm25()
    line = torch.linspace(-16, 16, 6401, dtype=torch.float64)
    axis = torch.stack([line, torch.zeros_like(line)], 1)
    centre = torch.zeros(1, 2, dtype=torch.float64)

    # log f(x) = log p(x, 0) - log f(0), and log p(0, 0) = 2 log f(0).
    log_p = target.log_prob(axis, sigma) - 0.5 * target.log_prob(centre, sigma)
    spectrum = torch.full((2,), 3.1875, dtype=torch.float64)
    for start, expected in zip((Isotropic((2,)), known(centre[0], spectrum)), table, strict=True):
        log_q = start.log_prob(axis, sigma) - 0.5 * start.log_prob(centre, sigma)
        assert 2 * float((log_p.exp() * (log_p - log_q)).sum() * 0.005) == pytest.approx(expected, rel=2e-7)


def test_a_fit_has_the_datas_mean_and_covariance() -> None:
    data = random(50, 2, 3) @ torch.diag(torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)) + 1.5
    start, flat = Gaussian.fit(data), data.flatten(1)
    u = start.subspace.basis
    torch.testing.assert_close(start.subspace.mean, flat.mean(0))
    torch.testing.assert_close(u @ start.subspace.variances.diag() @ u.T, torch.cov(flat.T))
    assert start.shape == (2, 3)
    assert repr(start) == "Gaussian(shape=(2, 3), components=6)"
    assert repr(Gaussian.fit(data, 2)) == "Gaussian(shape=(2, 3), components=2)"
    assert repr(Isotropic.fit(data)) == "Isotropic(shape=(2, 3))"


def test_a_fit_turns_with_the_data() -> None:
    data, rotation = random(60, 4) * torch.tensor([3.0, 1.0, 0.5, 0.1]), torch.linalg.qr(random(4, 4, seed=5)).Q
    x = random(7, 4, seed=6)
    for k in (2, 4):
        turned = Gaussian.fit(data @ rotation.T, k).log_prob(x @ rotation.T, 0.4)
        torch.testing.assert_close(turned, Gaussian.fit(data, k).log_prob(x, 0.4), rtol=1e-10, atol=1e-10)


def test_a_fit_on_gaussian_data_tends_to_their_law() -> None:
    """A fitted law of p parameters is off by p / (2 n) nats on average: here 9 / 8000, and never below 0."""
    n, target = 4000, GaussianTarget([0.3, -1.0, 2.0], [[1.0, 0.5, 0.2], [0.5, 2.0, 0.1], [0.2, 0.1, 0.5]])
    start = Gaussian.fit(target.sample(Noise(range(n), dtype=torch.float64)))
    eigenvalues, axes = torch.linalg.eigh(torch.tensor([[1.0, 0.5, 0.2], [0.5, 2.0, 0.1], [0.2, 0.1, 0.5]]).double())
    steps = (3 * eigenvalues).sqrt() * axes
    mean = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    x = torch.cat([mean + steps.T, mean - steps.T])
    kl = float((target.log_prob(x, 1e-9) - start.log_prob(x, 1e-9)).mean())
    assert 0 < kl < 4 * 9 / (2 * n)
