"""The law of a data set, against a mixture of nearly Dirac components and by brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headstart.denoiser import denoise
from headstart.errors import DataError, InputError
from headstart.noise import Noise
from headstart.targets import Empirical, GaussianMixture


def images(n: int = 20, shape: tuple[int, ...] = (1, 2, 3), dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


def noisy(data: Tensor, sigma: float, n: int = 6) -> Tensor:
    return data[:n] + sigma * Noise(range(n), dtype=data.dtype).normal(tuple(data.shape[1:]))


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0, 40.0])
def test_it_is_a_mixture_of_diracs(sigma: float) -> None:
    data = images()
    target, diracs = Empirical(data), GaussianMixture(torch.ones(20), data.flatten(1), 0.0)
    x = noisy(data, sigma)
    flat = x.flatten(1)
    torch.testing.assert_close(target.log_prob(x, sigma), diracs.log_prob(flat, sigma), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(target(x, sigma).flatten(1), diracs(flat, sigma), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(target.score(x, sigma).flatten(1), diracs.score(flat, sigma), rtol=1e-9, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(chunk=st.integers(1, 25), exponent=st.floats(-2, 2))
def test_the_chunk_changes_nothing(chunk: int, exponent: float) -> None:
    data, sigma = images(), 10.0**exponent
    whole, parts, x = Empirical(data), Empirical(data, chunk=chunk), noisy(data, sigma)
    torch.testing.assert_close(parts.log_prob(x, sigma), whole.log_prob(x, sigma), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts(x, sigma), whole(x, sigma), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_score_is_the_gradient_of_the_log_density(sigma: float) -> None:
    target = Empirical(images(), chunk=7)
    x = noisy(images(), sigma).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(x, sigma).sum(), x)
    torch.testing.assert_close(target.score(x, sigma).detach(), gradient, rtol=1e-9, atol=1e-10)


def test_distances_keep_their_digits_far_from_the_origin() -> None:
    """Two samples 1e-3 apart, 1e4 away from 0: halfway between them the posterior is even."""
    data = torch.tensor([[1e4, 1e4], [1e4 + 1e-3, 1e4]], dtype=torch.float64)
    middle = data.mean(0, keepdim=True)
    torch.testing.assert_close(Empirical(data)(middle, 1e-4), middle, rtol=0.0, atol=1e-9)


def test_limits_of_the_denoiser() -> None:
    data = images()
    target = Empirical(data)
    torch.testing.assert_close(target(data, 1e-4), data, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(target(data, 1e8), data.mean(0).expand_as(data), rtol=0.0, atol=1e-9)


def test_one_level_per_sample_equals_one_level_at_a_time() -> None:
    target, levels = Empirical(images()), torch.tensor([0.1, 2.0, 30.0], dtype=torch.float64)
    x = noisy(images(), 1.0, 3)
    for f in (target.log_prob, target.score, target):
        alone = torch.cat([f(x[i : i + 1], float(levels[i])) for i in range(3)])
        torch.testing.assert_close(f(x, levels), alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(f(x, torch.full((3,), 0.5)), f(x, 0.5), rtol=1e-13, atol=1e-13)


def test_the_contract_in_float32() -> None:
    target, x = Empirical(images(dtype=torch.float32)), images(dtype=torch.float32)[:4]
    out = denoise(target, x, 0.5, label=torch.zeros(4))
    assert out.dtype == target.score(x, 0.5).dtype == torch.float32
    assert torch.equal(out, target(x.double(), 0.5).float())
    assert target.log_prob(x, 0.5).dtype == torch.float64


def test_samples_are_the_data_each_as_often_and_by_seed() -> None:
    data = torch.arange(5.0).reshape(5, 1)
    target, n = Empirical(data), 4000
    x = target.sample(Noise(range(n), dtype=torch.float64))
    assert x.dtype == torch.float64
    counts = torch.bincount(x.flatten().long(), minlength=5).double()
    assert (counts / n - 0.2).abs().max() < 4.5 * math.sqrt(0.2 * 0.8 / n)
    assert torch.equal(target.sample(Noise([41, 7], dtype=torch.float64)), x[[41, 7]])


def test_bad_input_is_named() -> None:
    target = Empirical(images())
    for f in (target, target.score, target.log_prob):
        with pytest.raises(InputError, match="sigma above 0"):
            f(images(), 0.0)
        with pytest.raises(InputError, match=r"expects \(B, 1, 2, 3\)"):
            f(images(shape=(6,)), 1.0)
    with pytest.raises(InputError, match="sigma above 0"):
        target.log_prob(images())
    with pytest.raises(InputError, match="chunk"):
        Empirical(images(), chunk=0)
    with pytest.raises(DataError, match="NaN"):
        Empirical(torch.full((3, 2), math.nan))
    with pytest.raises(DataError, match="floating point"):
        Empirical(torch.zeros(3, 2, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"expected \(N"):
        Empirical(torch.zeros(0, 2))
