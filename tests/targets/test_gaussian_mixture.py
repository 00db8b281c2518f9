"""Gaussian mixtures: calculus, peers, extreme noise levels, seeds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from headstart.denoiser import denoise
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.targets import Gaussian, GaussianMixture, Target, bimodal, gmm25

KINDS = ("scalar", "diagonal", "full")


def random_mixture(kind: str, seed: int = 0, count: int = 3, d: int = 4) -> GaussianMixture:
    g = torch.Generator().manual_seed(seed)
    roots = torch.randn(count, d, d, generator=g, dtype=torch.float64)
    full = roots @ roots.mT + 0.05 * torch.eye(d, dtype=torch.float64)
    covariances = {"scalar": full[0, 0, 0], "diagonal": full.diagonal(dim1=1, dim2=2), "full": full}[kind]
    weights = torch.rand(count, generator=g, dtype=torch.float64) + 0.1
    return GaussianMixture(weights, 2 * torch.randn(count, d, generator=g, dtype=torch.float64), covariances)


def points(target: Target, sigma: Tensor | float = 1.0, n: int = 7, seed: int = 1) -> Tensor:
    noise = Noise(range(seed, seed + n), dtype=torch.float64)
    return target.sample(noise) + torch.as_tensor(sigma).reshape(-1, 1) * noise.normal(target.shape)


def covariances(target: GaussianMixture) -> Tensor:
    """The covariances (K, d, d), put together again."""
    d = target.shape[0]
    axes = torch.eye(d, dtype=torch.float64).expand(len(target.weights), d, d) if target.axes is None else target.axes
    return axes @ torch.diag_embed(target.variances) @ axes.mT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.0, 0.3, 5.0])
def test_log_density_equals_that_of_torch_distributions(kind: str, sigma: float) -> None:
    target = random_mixture(kind)
    x = points(target)
    noised = covariances(target) + sigma**2 * torch.eye(4, dtype=torch.float64)
    peer = MixtureSameFamily(Categorical(target.weights), MultivariateNormal(target.means, noised))
    expected = peer.log_prob(x)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(target.log_prob(x, sigma), expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6), exponent=st.floats(-3, 3))
def test_score_is_the_gradient_and_the_denoiser_follows_from_it(kind: str, seed: int, exponent: float) -> None:
    target, sigma = random_mixture(kind, seed), 10.0**exponent
    x = points(target, sigma).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(x, sigma).sum(), x)
    score, x = target.score(x, sigma).detach(), x.detach()
    torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(target(x, sigma), x + sigma**2 * score, rtol=1e-10, atol=1e-10 * (1 + sigma))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_of_copies_of_one_gaussian_is_that_gaussian(kind: str) -> None:
    one = random_mixture(kind, count=1)
    full = covariances(one)
    copies = GaussianMixture([0.2, 0.5, 0.3], one.means.expand(3, 4), full.expand(3, 4, 4))
    gaussian, x = Gaussian(one.means[0], full[0]), points(one)
    for other in (one, copies):
        torch.testing.assert_close(other.log_prob(x, 0.7), gaussian.log_prob(x, 0.7), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other(x, 0.7), gaussian(x, 0.7), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(other.score(x, 0.7), gaussian.score(x, 0.7), rtol=1e-11, atol=1e-11)


def test_a_mixture_turns_with_its_covariances() -> None:
    target = random_mixture("full")
    g = torch.Generator().manual_seed(5)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=g, dtype=torch.float64)).Q
    turned = GaussianMixture(target.weights, target.means @ rotation.mT, rotation @ covariances(target) @ rotation.mT)
    x = points(target)
    torch.testing.assert_close(turned.log_prob(x @ rotation.mT, 0.4), target.log_prob(x, 0.4), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(turned(x @ rotation.mT, 0.4), target(x, 0.4) @ rotation.mT, rtol=1e-10, atol=1e-10)


def test_no_digits_are_lost_at_extreme_noise_levels() -> None:
    target = Gaussian([0.0, 0.0], [1.0, 4.0])
    far = torch.tensor([[1e8, -2e8]], dtype=torch.float64)
    torch.testing.assert_close(
        target(far, 1e8), torch.tensor([[1e-8, -8e-8]], dtype=torch.float64), rtol=1e-13, atol=0.0
    )
    near = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(
        target.score(near, 1e-8), torch.tensor([[-1.0, 0.5]], dtype=torch.float64), rtol=1e-13, atol=0.0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_limits_of_the_denoiser(kind: str) -> None:
    target = random_mixture(kind)
    x = points(target)
    torch.testing.assert_close(target(x, 0.0), x, rtol=1e-11, atol=1e-11)
    mean = (target.weights @ target.means).expand_as(x)
    torch.testing.assert_close(target(x, 1e7), mean, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_level_per_sample_equals_one_level_at_a_time(kind: str) -> None:
    target = random_mixture(kind)
    levels = torch.tensor([0.1, 2.0, 30.0], dtype=torch.float64)
    x = points(target, levels, n=3)
    for f in (target.log_prob, target.score, target):
        alone = torch.cat([f(x[i : i + 1], float(levels[i])) for i in range(3)])
        torch.testing.assert_close(f(x, levels), alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(f(x, torch.full((3,), 0.5)), f(x, 0.5), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_in_float32(kind: str) -> None:
    target = random_mixture(kind)
    x = points(target).float()
    out = denoise(target, x, 0.5, label=torch.zeros(len(x)))
    assert out.dtype == target.score(x, 0.5).dtype == torch.float32
    assert torch.equal(out, target(x.double(), 0.5).float())
    assert target.log_prob(x, 0.5).dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_depends_on_its_own_seed_alone(kind: str, dtype: torch.dtype) -> None:
    target = random_mixture(kind, d=5)
    together = target.sample(Noise(range(33), dtype=dtype))
    assert together.dtype == dtype
    for seed in (0, 17, 32):
        assert torch.equal(target.sample(Noise([seed], dtype=dtype))[0], together[seed])
    assert torch.equal(target.sample(Noise([4, 31, 9], dtype=dtype)), together[[4, 31, 9]])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_mixtures_mean_and_covariance(kind: str) -> None:
    target, n = random_mixture(kind, d=3), 4000
    mean = target.weights @ target.means
    shift = target.means - mean
    covariance = torch.einsum("k,kij->ij", target.weights, covariances(target) + shift[:, :, None] * shift[:, None])
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, (points(target, 0.0, n) - mean).mT, upper=False).mT
    products = white[:, :, None] * white[:, None]
    assert (white.mean(0).abs() < 4.5 / math.sqrt(n)).all()
    error = (products.mean(0) - torch.eye(3, dtype=torch.float64)).abs()
    assert (error < 4.5 * products.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_its_noise_stretched_by_the_covariance(kind: str) -> None:
    """(x - mean)^T covariance^-1 (x - mean) is the squared length of the normal numbers that were drawn."""
    target = random_mixture(kind, count=1)
    shift = target.sample(Noise(range(9), dtype=torch.float64)) - target.means
    replayed = Noise(range(9), dtype=torch.float64)
    replayed.uniform()
    expected = replayed.normal((4,)).square().sum(1)
    lengths = (shift @ covariances(target)[0].inverse() * shift).sum(1)
    torch.testing.assert_close(lengths, expected, rtol=1e-10, atol=0.0)


def test_components_are_drawn_with_their_weights() -> None:
    n = 4000
    share = float((bimodal().sample(Noise(range(n))) > 0).double().mean())
    assert abs(share - 0.7) < 4.5 * math.sqrt(0.7 * 0.3 / n)
    never = GaussianMixture([0.0, 1.0, 0.0], [[-9.0], [0.0], [9.0]], 1e-4)
    assert (never.sample(Noise(range(200))).abs() < 1).all()


def test_reverse_martingale_in_one_dimension() -> None:
    """E[D(x_b, b) | x_a] = D(x_a, a), and the same for the score, by quadrature over x_b given x_a."""
    target = bimodal()
    grid = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    for a, b in [(2.0, 1.5), (0.5, 0.4), (0.2, 0.1)]:
        for x in (-1.3, 0.05, 0.9):
            posterior = (target.log_prob(grid[:, None], b) - (x - grid) ** 2 / (2 * (a**2 - b**2))).softmax(0)
            here = torch.tensor([[x]], dtype=torch.float64)
            for f in (target, target.score):
                expected = posterior @ f(grid[:, None], b)[:, 0]
                assert float(expected) == pytest.approx(float(f(here, a)), rel=1e-10, abs=1e-12)


def test_reverse_martingale_increments_by_monte_carlo() -> None:
    """E||D_b - D_a||^2 = m(a) - m(b) and E||s_b - s_a||^2 = J(b) - J(a), within 4 standard errors."""
    target, a, b, n = gmm25(weights="chi2"), 1.0, 0.6, 6000
    noise = Noise(range(n), dtype=torch.float64)
    clean = target.sample(noise)
    low = clean + b * noise.normal((2,))
    high = low + math.sqrt(a**2 - b**2) * noise.normal((2,))

    def square(v: Tensor) -> Tensor:
        return v.square().sum(1)

    denoised_low, denoised_high = target(low, b), target(high, a)
    score_low, score_high = target.score(low, b), target.score(high, a)
    loss = square(clean - denoised_high) - square(clean - denoised_low)
    for difference in (
        square(denoised_low - denoised_high) - loss,
        square(score_low - score_high) - (square(score_low) - square(score_high)),
    ):
        assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(n)


@settings(deadline=None, max_examples=25)
@given(
    spectrum=st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=5),
    sigma=st.floats(1e-3, 1e3),
)
def test_gaussian_closed_forms(spectrum: list[float], sigma: float) -> None:
    """J = (d sigma^2 - m) / sigma^4, de Bruijn's dh / d sigma^2 = J / 2, and h against torch.distributions."""
    target, d = Gaussian([0.0] * len(spectrum), spectrum), len(spectrum)
    tolerance = 1e-9 * d * sigma**2
    assert sigma**4 * target.fisher_information(sigma) + target.mmse(sigma) == pytest.approx(
        d * sigma**2, abs=tolerance
    )
    step = 1e-4 * sigma
    slope = (target.entropy(sigma + step) - target.entropy(sigma - step)) / (4 * sigma * step)
    assert slope == pytest.approx(target.fisher_information(sigma) / 2, rel=1e-4, abs=1e-8 / sigma**2)
    noised = torch.diag(torch.tensor(spectrum, dtype=torch.float64) + sigma**2)
    peer = MultivariateNormal(torch.zeros(d, dtype=torch.float64), noised)
    expected = float(peer.entropy())  # type: ignore[no-untyped-call]
    assert target.entropy(sigma) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_a_singular_covariance_has_a_law_but_no_clean_density() -> None:
    line = Gaussian([1.0, 1.0], [[2.0, 2.0], [2.0, 2.0]])
    x = line.sample(Noise(range(5), dtype=torch.float64))
    torch.testing.assert_close(x[:, 0], x[:, 1])
    off = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(line(off, 1e-6), torch.ones(1, 2, dtype=torch.float64), rtol=0.0, atol=1e-9)
    with pytest.raises(InputError, match="singular"):
        line.log_prob(x)
    with pytest.raises(InputError, match="singular"):
        line.entropy()


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        ([1.0], [0.0], 1.0, r"expected \(K, d\)"),
        ([1.0, 1.0], [[0.0]], 1.0, "one for each mean"),
        ([1.0], [[0.0, 0.0]], [1.0, 1.0], "covariances have shape"),
        ([1.0], [[math.nan]], 1.0, "finite"),
        ([-1.0, 2.0], [[0.0], [1.0]], 1.0, "weights must be at least 0"),
        ([0.0], [[0.0]], 1.0, "not all 0"),
        ([1.0], [[0.0]], -1.0, "negative eigenvalue"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]], "negative eigenvalue"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]], "symmetric"),
    ],
)
def test_bad_parameters_are_named(weights: object, means: object, covariances: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GaussianMixture(weights, means, covariances)  # type: ignore[arg-type]


def test_bad_input_is_named() -> None:
    target = Gaussian([0.0, 0.0], 1.0)
    for f in (target, target.score, target.log_prob):
        with pytest.raises(InputError, match=r"expects \(B, 2\)"):
            f(torch.zeros(3, 4), 1.0)
        with pytest.raises(InputError, match="NaN"):
            f(torch.tensor([[0.0, math.nan]]), 1.0)
        with pytest.raises(InputError, match="scalar or"):
            f(torch.zeros(3, 2), torch.ones(2))
        for sigma in (-1.0, math.nan, math.inf):
            with pytest.raises(InputError, match="at least 0"):
                f(torch.zeros(3, 2), sigma)
    with pytest.raises(InputError, match="the mean has shape"):
        Gaussian([[0.0]], 1.0)
    with pytest.raises(InputError, match="sigma is"):
        target.mmse(math.nan)


def test_repr() -> None:
    assert repr(gmm25()) == "GaussianMixture(25 components, 2 dimensions)"
    assert repr(Gaussian([0.0], 1.0)) == "Gaussian(1 dimensions)"
