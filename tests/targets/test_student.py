"""Student-t laws: adaptive quadrature, calculus, closed forms, reference values, seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special, stats
from torch import Tensor

from headstart.denoiser import denoise
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.targets import GaussianMixture, ProductT, StudentTMixture
from headstart.targets.student import scale_nodes

Double = torch.float64
Curve = NDArray[np.float64]


def random_mixture(kind: str = "full", nu: float = 3.0, count: int = 3, d: int = 4, seed: int = 0) -> StudentTMixture:
    g = torch.Generator().manual_seed(seed)
    roots = torch.randn(count, d, d, generator=g, dtype=Double)
    full = roots @ roots.mT + 0.05 * torch.eye(d, dtype=Double)
    scales = {"scalar": full[0, 0, 0], "diagonal": full.diagonal(dim1=1, dim2=2), "full": full}[kind]
    weights = torch.rand(count, generator=g, dtype=Double) + 0.1
    return StudentTMixture(weights, 2 * torch.randn(count, d, generator=g, dtype=Double), scales, nu)


def product() -> ProductT:
    return ProductT([1.5, 3.0, 30.0], [0.3, 1.0, 4.0], [0.0, -2.0, 5.0])


def points(law: StudentTMixture | ProductT, n: int = 7, seed: int = 1) -> Tensor:
    return law.sample(Noise(range(seed, seed + n), dtype=Double))


KINDS = {
    "product": product,
    "scalar": lambda: random_mixture("scalar"),
    "diagonal": lambda: random_mixture("diagonal"),
    "full": lambda: random_mixture("full"),
}


@pytest.fixture(params=KINDS)
def law(request: pytest.FixtureRequest) -> StudentTMixture | ProductT:
    return KINDS[request.param]()


def adaptive(x: float, nu: float, scale: float, sigma: float) -> tuple[float, float]:
    """Log density and score of a noised coordinate, by adaptive quadrature around the integrand's peak."""
    a = nu / 2

    def log_integrand(t: Curve | float) -> Curve:
        v = scale**2 * np.exp(-np.asarray(t)) + sigma**2
        log_gamma = a * np.log(a) - special.gammaln(a) + a * t - a * np.exp(t)
        return np.asarray(log_gamma - 0.5 * x**2 / v - 0.5 * np.log(2 * np.pi * v))

    grid = np.linspace(-110, 8, 12001)
    values = log_integrand(grid)
    peak, kept = grid[values.argmax()], grid[values > values.max() - 42]
    ends, top = (kept[0], kept[-1]), values.max()
    inner = sorted({(kept[0] + peak) / 2, peak, (kept[-1] + peak) / 2} - set(ends))

    def integral(slope: bool) -> float:
        def f(t: float) -> float:
            factor = -x / (scale**2 * np.exp(-t) + sigma**2) if slope else 1.0
            return float(factor * np.exp(log_integrand(t) - top))

        value, _ = integrate.quad(f, *ends, points=inner, limit=500, epsabs=0, epsrel=1e-13)
        return float(value)

    total = integral(False)
    return float(top + math.log(total)), integral(True) / total


@pytest.mark.parametrize("sigma", [0.01, 0.5, 2.0, 80.0])
@pytest.mark.parametrize("nu", [0.5, 1.0, 3.0, 20.0, 300.0])
def test_log_density_score_and_denoiser_equal_adaptive_quadrature(nu: float, sigma: float) -> None:
    """In the middle and in the tail, to ten thousand scales and beyond."""
    one = ProductT(nu, 0.8, 0.0)
    both = StudentTMixture([1.0], [[0.0]], 0.64, nu)
    for x in (0.0, 1e-3, 0.7, 30.0, 1e3, 1e5):
        log_density, score = adaptive(x, nu, 0.8, sigma)
        z = torch.tensor([[x]], dtype=Double)
        for law in (one, both):
            assert float(law.log_prob(z, sigma)) == pytest.approx(log_density, rel=1e-13, abs=1e-10)
            assert float(law.score(z, sigma)) == pytest.approx(score, rel=1e-10, abs=1e-10)
            assert float(law(z, sigma)) == pytest.approx(x + sigma**2 * score, rel=1e-9, abs=1e-9 * (1 + abs(x)))


@pytest.mark.parametrize("nu", [0.5, 3.0, 50.0])
@pytest.mark.parametrize("d", [1, 2, 10, 300])
def test_without_noise_it_is_the_closed_form(d: int, nu: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, d, generator=g, dtype=Double) * torch.tensor([0.0, 1e-2, 1.0, 10.0, 1e3, 1e5])[:, None]
    root = torch.eye(d, dtype=Double) + torch.randn(d, d, generator=g, dtype=Double).tril(-1) / d
    shape, location = root @ root.mT, torch.ones(1, d, dtype=Double)
    law = StudentTMixture([1.0], location, shape[None], nu)
    peer = stats.multivariate_t(np.ones(d), shape.numpy(), nu)
    expected = torch.from_numpy(np.atleast_1d(peer.logpdf(x.numpy())))
    torch.testing.assert_close(law.log_prob(x), expected, rtol=1e-12, atol=1e-11)
    separate = ProductT(nu, 0.5, torch.zeros(d)).log_prob(x)
    expected = torch.from_numpy(stats.t.logpdf(x.numpy(), nu, scale=0.5).sum(1))
    torch.testing.assert_close(separate, expected, rtol=1e-12, atol=1e-11)


@settings(deadline=None, max_examples=25)
@given(kind=st.sampled_from(list(KINDS)), seed=st.integers(0, 10**6), exponent=st.floats(-2, 3))
def test_score_is_the_gradient_and_the_denoiser_follows_from_it(kind: str, seed: int, exponent: float) -> None:
    law, sigma = KINDS[kind](), 10.0**exponent
    x = points(law, seed=seed).requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_prob(x, sigma).sum(), x)
    score, x = law.score(x, sigma).detach(), x.detach()
    torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(law(x, sigma), x + sigma**2 * score, rtol=1e-9, atol=1e-9 * (1 + sigma))


@pytest.mark.parametrize("sigma", [0.05, 0.6])
def test_densities_integrate_to_one(sigma: float) -> None:
    """In one dimension over x = sinh s, whose trapezoid rule reaches far into the tail."""
    s = torch.linspace(-42, 42, 20001, dtype=Double)
    x, step = s.sinh()[:, None], float(s[1] - s[0])
    for law in (ProductT(1.5, 0.3, 0.4), StudentTMixture([1.0, 2.0], [[-1.0], [1.0]], [[0.01], [0.2]], 1.5)):
        assert float((law.log_prob(x, sigma).exp() * s.cosh()).sum() * step) == pytest.approx(1, abs=1e-10)


def test_the_density_widens_by_the_heat_equation(law: StudentTMixture | ProductT) -> None:
    """dp / d(sigma^2) = Laplacian(p) / 2, in every dimension at once: the noised law is the clean one's convolution."""
    sigma, step = 0.9, 1e-4

    def density(x: Tensor, level: float = sigma) -> Tensor:
        return law.log_prob(x[None], level).exp()[0]

    for x in points(law, 3):
        laplacian = torch.autograd.functional.hessian(density, x).trace()  # type: ignore[no-untyped-call]
        up, down = (density(x, math.sqrt(sigma**2 + s)) for s in (step, -step))
        torch.testing.assert_close((up - down) / (2 * step), 0.5 * laplacian, rtol=1e-5, atol=1e-16)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 5.0])
def test_with_many_degrees_of_freedom_it_is_the_gaussian_mixture(sigma: float) -> None:
    heavy = random_mixture(nu=1e6)
    full = heavy.normal.axes @ torch.diag_embed(heavy.normal.variances) @ heavy.normal.axes.mT  # type: ignore[operator]
    light = GaussianMixture(heavy.normal.weights, heavy.normal.means, full)
    x = points(heavy)
    torch.testing.assert_close(heavy.log_prob(x, sigma), light.log_prob(x, sigma), rtol=0.0, atol=1e-4)
    torch.testing.assert_close(heavy(x, sigma), light(x, sigma), rtol=1e-4, atol=1e-4)


def test_a_product_is_the_sum_of_its_coordinates() -> None:
    law, x = product(), points(product())
    alone = [ProductT(float(law.nu[j]), float(law.scales[j]), float(law.locations[j])) for j in range(3)]
    for sigma in (0.0, 0.7):
        expected = sum(one.log_prob(x[:, j : j + 1], sigma) for j, one in enumerate(alone))
        assert isinstance(expected, Tensor)
        torch.testing.assert_close(law.log_prob(x, sigma), expected, rtol=1e-12, atol=1e-12)
    scores = torch.cat([one.score(x[:, j : j + 1], 0.7) for j, one in enumerate(alone)], dim=1)
    torch.testing.assert_close(law.score(x, 0.7), scores, rtol=1e-11, atol=1e-12)


def test_the_score_of_a_heavy_tail_falls_as_one_over_the_distance() -> None:
    """(nu + 1) / |x| with one coordinate, (nu + d) / |x| with a tail that all share: the noise no longer matters."""
    far = torch.tensor([[3e7, 4e7]], dtype=Double)
    expected = -(3.0 + 2) * far / 25e14
    torch.testing.assert_close(
        StudentTMixture([1.0], [[0.0, 0.0]], 1.0, 3.0).score(far, 2.0), expected, rtol=1e-9, atol=0.0
    )
    torch.testing.assert_close(ProductT(3.0, 1.0, 0.0).score(far[:, :1], 2.0), -4 / far[:, :1], rtol=1e-9, atol=0.0)


def test_one_level_per_sample_equals_one_level_at_a_time(law: StudentTMixture | ProductT) -> None:
    levels = torch.tensor([0.1, 30.0, 2.0, 0.1], dtype=Double)
    x = points(law, n=4)
    for f in (law.log_prob, law.score, law):
        alone = torch.cat([f(x[i : i + 1], float(levels[i])) for i in range(4)])
        torch.testing.assert_close(f(x, levels), alone, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(f(x, torch.full((4,), 0.5)), f(x, 0.5), rtol=1e-13, atol=1e-13)
        assert f(x[:0], 0.5).shape == f(x, 0.5)[:0].shape


def test_rows_are_computed_a_few_at_a_time_and_differ_in_rounding_only(
    law: StudentTMixture | ProductT, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = points(law, n=9)
    whole = law.log_prob(x, 0.5), law.score(x, 0.5), law(x, 0.5)
    monkeypatch.setattr("headstart.targets.student.NUMBERS", 1)
    for rows, expected in zip((law.log_prob(x, 0.5), law.score(x, 0.5), law(x, 0.5)), whole, strict=True):
        torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-13)


def test_the_contract_in_float32(law: StudentTMixture | ProductT) -> None:
    x = points(law).float()
    out = denoise(law, x, 0.5, label=torch.zeros(len(x)))
    assert out.dtype == law.score(x, 0.5).dtype == torch.float32
    assert torch.equal(out, law(x.double(), 0.5).float())
    assert law.log_prob(x, 0.5).dtype == Double


# The quadrature.


def test_nodes_are_a_probability_law_of_kappa_with_mean_one() -> None:
    for nu in (0.5, 3.0, 400.0):
        t, log_weights = scale_nodes(nu, 0)
        assert float(log_weights.exp().sum()) == pytest.approx(1, abs=1e-13)
        assert float(log_weights.exp() @ t.exp()) == pytest.approx(1, abs=1e-13)


def test_a_farther_reach_adds_nodes_and_moves_none() -> None:
    near, weights = scale_nodes(3.0, 1, 10.0)
    far, more = scale_nodes(3.0, 1, 1e10)
    assert torch.equal(far[-len(near) :], near)
    assert torch.equal(more[-len(near) :], weights)
    assert len(far) > len(near) > 30
    assert float(far[0]) <= math.log(3.0 / 1e10) - 12


# Quantiles and reference values.


@pytest.mark.parametrize("q", [1e-12, 1e-3, 0.3, 0.5, 0.9999])
def test_quantiles_without_noise_are_those_of_the_closed_form(q: float) -> None:
    law = ProductT([1.2, 3.0], [2.0, 0.5], [0.0, 7.0])
    for j, (nu, scale, location) in enumerate([(1.2, 2.0, 0.0), (3.0, 0.5, 7.0)]):
        expected = stats.t.ppf(q, nu) * scale
        assert law.quantile(q, coordinate=j) - location == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("sigma", "expected"), [(2.0, 103.3), (7.0, 104.3), (80.0, 380.7)])
def test_far_quantiles_of_noised_t3(sigma: float, expected: float) -> None:
    """Reference values at 1 - 1e-6; and the quantile inverts the integral of the density."""
    law = ProductT(3.0, 1.0, 0.0)
    y = law.quantile(1 - 1e-6, sigma)
    assert y == pytest.approx(expected, rel=1e-3)
    assert law.quantile(1e-6, sigma) == pytest.approx(-y, rel=1e-9)
    s = torch.linspace(0, 25, 8001, dtype=Double)  # x = y e^s
    x = y * s.exp()
    f = law.log_prob(x[:, None], sigma).exp() * x
    assert float(integrate.simpson(f.numpy(), x=s.numpy())) == pytest.approx(1e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("sigma", "to_normal", "to_matched"),
    [(0.5, 4.878, 0.1606), (1.0, 0.911, 0.1040), (2.0, 0.1331, 0.0379), (7.0, 0.00230, 0.00140)],
)
def test_divergence_of_t3_from_gaussians(sigma: float, to_normal: float, to_matched: float) -> None:
    """KL(p || N(0, v)) = -h(p) + log(2 pi v) / 2 + (3 + sigma^2) / (2 v), for v = sigma^2 and v = 3 + sigma^2."""
    s = torch.linspace(-30, 30, 6001, dtype=Double)
    log_p = ProductT(3.0, 1.0, 0.0).log_prob(s.sinh()[:, None], sigma)
    entropy = -float(torch.trapezoid(log_p.exp() * log_p * s.cosh(), s))
    for v, expected in ((sigma**2, to_normal), (3 + sigma**2, to_matched)):
        kl = -entropy + 0.5 * math.log(2 * math.pi * v) + (3 + sigma**2) / (2 * v)
        assert kl == pytest.approx(expected, rel=4e-3)


# Samples.


def test_samples_have_the_laws_characteristic_function(law: StudentTMixture | ProductT) -> None:
    """Against the Gaussians of the quadrature, over their kappa."""
    n = 4000
    x = law.sample(Noise(range(n), dtype=Double))
    g = torch.Generator().manual_seed(0)
    for frequency in torch.randn(6, law.shape[0], generator=g, dtype=Double) * 0.3:
        wave = torch.exp(1j * (x @ frequency))
        error = wave.mean() - characteristic(law, frequency)
        assert abs(float(error.real)) < 4.5 * float(wave.real.std()) / math.sqrt(n)
        assert abs(float(error.imag)) < 4.5 * float(wave.imag.std()) / math.sqrt(n)


def characteristic(law: StudentTMixture | ProductT, frequency: Tensor) -> Tensor:
    t, log_weights = scale_nodes(law.nu, 0, 1e4)
    if isinstance(law, ProductT):
        widths = (law.scales * frequency).square()[:, None] * (-t).exp()
        centred = (log_weights.exp() * (-0.5 * widths).exp()).sum(1)
        return torch.exp(1j * (law.locations @ frequency)) * centred.prod()
    axes = torch.eye(law.shape[0], dtype=Double) if law.normal.axes is None else law.normal.axes
    widths = ((frequency @ axes).square() * law.normal.variances).sum(-1)
    centred = (log_weights.exp() * (-0.5 * widths[:, None] * (-t).exp()).exp()).sum(1)
    waves = torch.exp(1j * (law.normal.means @ frequency))
    return (law.normal.weights * centred * waves).sum()


@pytest.mark.parametrize("nu", [1.0, 3.0])
def test_samples_reach_into_the_tail_as_often_as_they_should(nu: float) -> None:
    """Both laws, beyond the 0.9 and 0.99 quantiles on both sides, within 4.5 standard errors."""
    n, d = 2000, 3
    both = ProductT(nu, 2.0, torch.zeros(d)), StudentTMixture([1.0], torch.zeros(1, d), 4.0, nu)
    for law in both:
        x = law.sample(Noise(range(n), dtype=Double))
        for p in (0.2, 0.02):
            shares = (x.abs() > 2.0 * stats.t.isf(p / 2, nu)).double().mean(0)
            assert (shares - p).abs().max() < 4.5 * math.sqrt(p * (1 - p) / n)
    distant = (both[1].sample(Noise(range(n), dtype=Double)).abs() > 2.0 * stats.t.isf(0.01, nu)).double()
    assert float((distant[:, 0] * distant[:, 1]).mean()) > 3 * 0.02**2  # one kappa for all: they go far together


@pytest.mark.parametrize("dtype", [torch.float32, Double])
def test_a_sample_depends_on_its_own_seed_alone(law: StudentTMixture | ProductT, dtype: torch.dtype) -> None:
    together = law.sample(Noise(range(33), dtype=dtype))
    assert together.dtype == dtype
    for seed in (0, 17, 32):
        assert torch.equal(law.sample(Noise([seed], dtype=dtype))[0], together[seed])
    assert torch.equal(law.sample(Noise([4, 31, 9], dtype=dtype)), together[[4, 31, 9]])


# Bad input.


@pytest.mark.parametrize(
    ("weights", "locations", "scales", "nu", "message"),
    [
        ([1.0], [0.0], 1.0, 3.0, r"the means are the locations"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]], 3.0, "negative eigenvalue"),
        ([1.0], [[0.0, 0.0]], [[1.0, 0.0]], 3.0, "positive definite"),
        ([1.0], [[0.0]], 1.0, 0.4, "from 0.5 to 1e"),
        ([1.0], [[0.0]], 1.0, math.nan, "from 0.5 to 1e"),
        ([1.0], [[0.0]], 1.0, [3.0], "one number of degrees"),
    ],
)
def test_bad_mixtures_are_named(weights: object, locations: object, scales: object, nu: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudentTMixture(weights, locations, scales, nu)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nu", "scales", "locations", "message"),
    [
        ([1.0, 2.0], 1.0, [0.0, 0.0, 0.0], r"expected scalars or \(d,\)"),
        (3.0, [[1.0]], 0.0, r"expected scalars or \(d,\)"),
        (3.0, 1.0, [], r"expected scalars or \(d,\)"),
        (3.0, 0.0, 0.0, "above 0"),
        (3.0, 1.0, math.inf, "finite"),
        (math.inf, 1.0, 0.0, "from 0.5 to 1e"),
    ],
)
def test_bad_products_are_named(nu: object, scales: object, locations: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProductT(nu, scales, locations)  # type: ignore[arg-type]


def test_bad_input_is_named(law: StudentTMixture | ProductT) -> None:
    d = law.shape[0]
    for f in (law, law.score, law.log_prob):
        with pytest.raises(InputError, match=rf"expects \(B, {d}\)"):
            f(torch.zeros(3, d + 1), 1.0)
        with pytest.raises(InputError, match="NaN"):
            f(torch.full((1, d), math.nan), 1.0)
        with pytest.raises(InputError, match="at least 0"):
            f(torch.zeros(3, d), -1.0)
    one = ProductT(3.0, 1.0, 0.0)
    for q, sigma, coordinate in ((0.0, 1.0, 0), (1.0, 1.0, 0), (0.5, -1.0, 0), (0.5, math.inf, 0), (0.5, 1.0, 1)):
        with pytest.raises(InputError, match="expected q between 0 and 1"):
            one.quantile(q, sigma, coordinate)


def test_repr() -> None:
    assert repr(product()) == "ProductT(3 dimensions, nu=1.5 to 30)"
    assert repr(random_mixture()) == "StudentTMixture(3 components, 4 dimensions, nu=3)"
