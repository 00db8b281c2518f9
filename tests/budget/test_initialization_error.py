"""What the start costs, against exact divergences: by the network's loss, bracketed, in closed form and bounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from headstart.budget import (
    Bracket,
    Estimate,
    gaussian_divergence,
    initialization_bracket,
    initialization_error,
    initialization_errors,
    moment_bound,
    transport_bound,
)
from headstart.errors import DataError, DenoiserError, InputError
from headstart.initialization import Gaussian, Initialization, Isotropic, Shifted
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.targets import Gaussian as GaussianTarget
from headstart.targets import gmm25

# By quadrature, for equal weights: horizon, KL(p_T || N(0, sigma_T^2)) and KL(p_T || the Gaussian of equal moments).
GMM25 = [
    (5.0, 0.0075081192, 1.0911588e-5),
    (2.0, 0.21419779, 3.3718301e-3),
    (1.0, 1.8019613, 0.046565216),
    (0.5, 10.289275, 0.1603142),
    (0.2, 75.742948, 0.4460315),
]


def gaussian(mean, variances):
    """A Gaussian start that is not fitted, with these variances along the axes."""
    mean, variances = torch.as_tensor(mean).double(), torch.as_tensor(variances).double()
    basis = torch.eye(len(mean), dtype=torch.float64)
    return Gaussian((len(mean),), Subspace(mean, basis, variances, torch.tensor(0.0, dtype=torch.float64)))


def measured(target, n=4000, denoiser=None, **more):
    data = target.sample(Noise(range(n)))
    return Profile.measure(denoiser or target, data, samples=n, cost_samples=2, batch_size=n, **more)


@pytest.fixture(scope="module")
def gmm25_profile():
    return measured(gmm25())


@pytest.mark.parametrize(("sigma", "to_normal", "to_matched"), GMM25)
def test_initialization_error_on_gmm25_is_the_exact_divergence(gmm25_profile, sigma, to_normal, to_matched):
    """Within 4 standard errors and the quadrature's 0.3 % of the information."""
    information = float(gmm25_profile.information(sigma).mean())
    for start, exact in ((Isotropic((2,)), to_normal), (gaussian([0.0, 0.0], [3.1875, 3.1875]), to_matched)):
        estimate = initialization_error(gmm25_profile, start, sigma)
        assert abs(estimate.value - exact) < 4 * estimate.error + 0.003 * information
        assert estimate.error < 0.1 + 0.02 * exact


def test_differences_between_starts_are_sharper_than_the_errors(gmm25_profile):
    """The noise and the samples are shared, so the difference of two starts needs no network at all."""
    starts = [gaussian([0.0, 0.0], [v, v]) for v in (3.1875, 2.5)]
    first, second = (initialization_error(gmm25_profile, start, 1.0) for start in starts)
    x = gmm25_profile.samples.double() + gmm25_profile.noise.double()
    exact = starts[0].log_prob(x, 1.0) - starts[1].log_prob(x, 1.0)
    assert second.value - first.value == pytest.approx(float(exact.mean()), abs=1e-10)


@pytest.mark.parametrize("sigma", [20.0, 3.0, 1.0, 0.3, 0.1])
def test_initialization_error_on_a_gaussian_in_closed_form(sigma):
    mean, variances = torch.tensor([0.5, -1.0, 2.0]).double(), torch.tensor([0.25, 1.0, 4.0]).double()
    profile = measured(GaussianTarget(mean, variances), n=2000)
    noised = variances + sigma**2
    isotropic = 0.5 * float((variances / sigma**2 - (noised / sigma**2).log() + mean**2 / sigma**2).sum())
    quadrature = 0.003 * 0.5 * float((noised / sigma**2).log().sum())
    for start, exact in ((Isotropic((3,)), isotropic), (gaussian(mean, variances), 0.0)):
        estimate = initialization_error(profile, start, sigma)
        assert abs(estimate.value - exact) < 4 * estimate.error + quadrature


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_a_worse_network_lowers_the_estimate_by_its_own_error(sigma):
    """An error delta of the denoiser at every level adds |delta|^2 / (2 sigma^2) to the information it claims."""
    target, delta = gmm25(), torch.tensor([0.3, -0.2])
    start = gaussian([0.0, 0.0], [3.1875, 3.1875])
    exact = measured(target, 2000)
    wrong = measured(target, 2000, denoiser=lambda x, s: target(x, s) + delta)
    gap = initialization_error(exact, start, sigma).value - initialization_error(wrong, start, sigma).value
    each = wrong.information(sigma) - exact.information(sigma)
    assert gap == pytest.approx(each.mean(), rel=1e-9)
    expected = float(delta.square().sum()) / (2 * sigma**2)
    assert abs(gap - expected) < 4 * each.std() / math.sqrt(len(each)) + 0.003 * float(wrong.information(sigma).mean())


class Spy(Isotropic):
    """Remembers what it was asked."""

    def log_prob(self, x, sigma, conditions=None, *, label=None):
        self.asked = x, sigma, conditions if label is None else {"label": label}
        return super().log_prob(x, sigma, conditions, label=label)


def test_the_start_sees_the_profiles_samples_noise_and_conditions():
    labels, places = torch.arange(30), torch.arange(60.0).view(30, 2)
    target = gmm25()

    def denoiser(x, sigma, **conditions):
        return target(x, sigma)

    profile = measured(target, 30, denoiser=denoiser, conditions={"label": labels, "place": places})
    spy = Spy((2,))
    initialization_error(profile, spy, 1.5)
    x, sigma, conditions = spy.asked
    assert torch.equal(x, profile.samples.double() + 1.5 * profile.noise.double())
    assert sigma == 1.5
    assert torch.equal(conditions["label"], profile.label)
    assert sorted(conditions["label"].tolist()) == list(range(30))
    assert torch.equal(conditions["place"], places[conditions["label"]])


def test_samples_that_are_images():
    """The shape of a sample does not matter, only its coordinates."""
    target = gmm25(d=4)
    data = target.sample(Noise(range(200)))
    flat = Profile.measure(target, data)
    images = Profile.measure(lambda x, s: target(x.flatten(1), s).reshape(x.shape), data.reshape(-1, 1, 2, 2))
    as_image = initialization_error(images, Isotropic((1, 2, 2)), 1.0)
    as_row = initialization_error(flat, Isotropic((4,)), 1.0)
    assert as_image.value == pytest.approx(as_row.value, rel=1e-5)


@pytest.mark.parametrize("sigma", [1e4, 1e-4, math.nan])
def test_horizons_outside_the_levels_are_refused(gmm25_profile, sigma):
    with pytest.raises(InputError, match="the network was measured from"):
        initialization_error(gmm25_profile, Isotropic((2,)), sigma)


def test_a_start_of_another_shape_is_refused(gmm25_profile):
    with pytest.raises(InputError, match=r"start of shape \(3,\) cannot be compared with samples of \(2,\)"):
        initialization_error(gmm25_profile, Isotropic((3,)), 1.0)


def test_a_loaded_profile_has_no_samples_to_estimate_on():
    curve = np.ones((2, 2))
    loaded = Profile(np.array([3.0, 2.0, 1.0]), np.ones((2, 3)), curve, curve, 1.0, (1,), 0)
    with pytest.raises(InputError, match="see with_samples"):
        initialization_error(loaded, Isotropic((1,)), 2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_densities_must_be_finite(gmm25_profile, value):
    class Broken(Isotropic):
        def log_prob(self, x, sigma, label=None):
            return torch.full((len(x),), value, dtype=torch.float64)

    broken: Initialization = Broken((2,))
    with pytest.raises(DenoiserError, match="at horizon 1 is not finite"):
        initialization_error(gmm25_profile, broken, 1.0)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 2.0, 5.0])
def test_error_by_the_loss_is_the_exact_divergence_sample_by_sample(sigma):
    """With unequal weights, against the exact densities at the same points: within 3 standard errors of the gap."""
    law = gmm25(weights="chi2")
    profile = measured(law, 3000, seed=3)
    x = profile.samples.double() + sigma * profile.noise.double()
    exact = law.log_prob(x, sigma)
    for start in (Isotropic((2,)), gaussian([-0.22, -0.7], [2.0, 2.0])):
        each = initialization_errors(profile, start, sigma)
        assert each.shape == (3000,)
        assert initialization_error(profile, start, sigma) == Estimate.of(each)
        gap = Estimate.of(each - (exact - start.log_prob(x, sigma)).numpy())
        assert abs(gap.value) < 3 * gap.error + 0.003 * float(profile.information(sigma).mean())


LAW = GaussianTarget([0.5, -1.0], [[2.0, 0.6], [0.6, 0.5]])


@pytest.mark.parametrize("sigma", [10.0, 1.0, 0.1])
def test_gaussian_divergence_is_that_of_dense_matrices(sigma):
    start = GaussianTarget([0.1, 0.2], [[1.0, -0.3], [-0.3, 1.5]])
    eye = sigma**2 * torch.eye(2, dtype=torch.float64)

    def dense(mean, covariance):
        return MultivariateNormal(
            torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64) + eye
        )

    exact = kl_divergence(dense([0.5, -1.0], [[2.0, 0.6], [0.6, 0.5]]), dense([0.1, 0.2], [[1.0, -0.3], [-0.3, 1.5]]))
    assert gaussian_divergence(LAW, start, sigma) == pytest.approx(float(exact), rel=1e-10)


@pytest.mark.parametrize("sigma", [5.0, 0.7])
def test_divergence_from_pure_noise_is_the_moment_bound_less_the_information(sigma):
    """KL(p_T || N(m, s^2)) = E|x0 - m|^2 / (2 s^2) - I, and for Gaussian data I = 1/2 sum ln(1 + lambda / s^2)."""
    eigenvalues = torch.linalg.eigvalsh(torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64))
    information = 0.5 * float((eigenvalues / sigma**2).log1p().sum())
    for mean in ([0.0, 0.0], [0.5, -1.0]):
        shift = sum((m - n) ** 2 for m, n in zip(mean, [0.5, -1.0], strict=True))
        bound = (2.5 + shift) / (2 * sigma**2)
        divergence = gaussian_divergence(LAW, GaussianTarget(mean, 0.0), sigma)
        assert divergence == pytest.approx(bound - information, rel=1e-10)
        data = LAW.sample(Noise(range(4000)))
        estimate = moment_bound(data, sigma, torch.tensor(mean))
        assert abs(estimate.value - bound) < 4 * estimate.error < 0.3 * bound


def test_gaussian_divergence_of_a_law_with_itself():
    assert gaussian_divergence(LAW, LAW, 0.3) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_horizons_of_bounds_are_checked(sigma):
    data = torch.zeros(4, 2)
    with pytest.raises(InputError, match="horizon"):
        gaussian_divergence(LAW, LAW, sigma)
    with pytest.raises(InputError, match="horizon"):
        moment_bound(data, sigma)
    with pytest.raises(InputError, match="horizon"):
        transport_bound(data, data, sigma)


def test_the_moment_bound_is_above_the_exact_divergence():
    """GMM25 with equal weights, variance 3.1875 a coordinate; tight at a long horizon."""
    data = gmm25().sample(Noise(range(4000)))
    for sigma, exact, _ in GMM25:
        assert moment_bound(data, sigma).value > exact
    assert moment_bound(data, 20.0).value == pytest.approx(3.1875 / 400, rel=0.05)


def test_transport_bound_of_a_translation():
    """The best match of a set with a shifted copy of itself is the shift, in whatever order; for a single mode plus
    noise the divergence is as large as the bound."""
    x, shift = LAW.sample(Noise(range(200))), torch.tensor([0.3, -0.4])
    copy = (x + shift)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    assert transport_bound(x, copy, 0.5) == pytest.approx(0.25 / 0.5, rel=1e-5)
    points = GaussianTarget([0.0, 0.0], 0.0), GaussianTarget([0.3, -0.4], 0.0)
    assert gaussian_divergence(*points, 0.5) == pytest.approx(0.25 / 0.5, rel=1e-10)


def test_transport_bound_on_the_line_matches_in_order():
    noise = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 1, 1, generator=noise), 2 * torch.randn(500, 1, 1, generator=noise)
    expected = (x.flatten().sort().values - y[:300].flatten().sort().values).double().square().mean() / 2
    assert transport_bound(x, y, 1.0) == pytest.approx(float(expected), rel=1e-5)
    assert transport_bound(x, y, 1.0, samples=50) != transport_bound(x, y, 1.0)


def test_transport_bound_is_above_the_divergence_of_gaussians():
    """W2^2 of N(0, 1) and N(0.5, 4) is 0.25 + 1; empirically it is too large."""
    one, two = GaussianTarget([0.0], 1.0), GaussianTarget([0.5], 4.0)
    x, y = one.sample(Noise(range(600))), two.sample(Noise(range(600, 1200)))
    for sigma in (0.5, 1.0, 4.0):
        bound = transport_bound(x, y, sigma)
        assert bound == pytest.approx(1.25 / (2 * sigma**2), rel=0.3)
        assert bound > gaussian_divergence(one, two, sigma)


def test_bounds_check_their_data():
    good, bad = torch.zeros(4, 2), torch.tensor([[1.0, math.nan], [0.0, 0.0]])
    with pytest.raises(DataError, match="without NaN or Inf"):
        moment_bound(bad, 1.0)
    with pytest.raises(DataError, match="at least two samples"):
        moment_bound(good[:1], 1.0)
    with pytest.raises(DataError, match="without NaN or Inf"):
        transport_bound(good, bad, 1.0)
    with pytest.raises(InputError, match="cannot be matched"):
        transport_bound(good, torch.zeros(4, 3), 1.0)


def bracketed(law, start, sigma, n, **more):
    return initialization_bracket(law.sample(Noise(range(n))), start, sigma, Noise(range(n, 2 * n)), **more)


def test_bracket_is_the_two_sums_over_all_pairs():
    """Against dense densities, for images, in chunks that do not divide the number of samples."""
    law, sigma, n = gmm25(d=4), 0.8, 23
    data = law.sample(Noise(range(n))).reshape(n, 1, 2, 2)
    bracket = initialization_bracket(data, Isotropic((1, 2, 2)), sigma, Noise(range(n, 2 * n)), chunk=7)
    y, eps = data.flatten(1).double(), Noise(range(n, 2 * n)).normal((4,)).double()
    x = y + sigma * eps
    eye = sigma**2 * torch.eye(4, dtype=torch.float64)
    kernel = MultivariateNormal(y, eye).log_prob(x[:, None])
    # The mean of the noise's log density is known, and stands for its sample mean.
    shift = kernel.diagonal() + 2 * math.log(2 * math.pi * math.e * sigma**2)
    surprise = -MultivariateNormal(torch.zeros(4).double(), eye).log_prob(x) + shift
    high = surprise + kernel.logsumexp(1) - math.log(n) - shift
    others = kernel.masked_fill(torch.eye(n, dtype=torch.bool), -math.inf)
    low = surprise + others.logsumexp(1) - math.log(n - 1) - shift
    assert bracket.high.value == pytest.approx(float(high.mean()), rel=1e-10)
    assert bracket.low.value == pytest.approx(float(low.mean()), rel=1e-10)
    assert bracket.high.error == pytest.approx(float(high.std()) / math.sqrt(n), rel=1e-10)
    assert bracket.own == pytest.approx(float(kernel.softmax(1).diagonal().mean()), rel=1e-10)


@pytest.mark.parametrize(("sigma", "width"), [(0.5, 0.0016), (1.0, 0.0005), (2.0, 0.0001)])
def test_bracket_holds_the_exact_divergence(sigma, width):
    """Unequal weights, the Gaussian of the same moments: up to the fluctuation of both ends together, of some widths.
    The width is known for 8,000 samples, and falls as 1 / n."""
    law, n = gmm25(weights="chi2"), 3000
    mean = law.weights @ law.means
    second = (law.weights[:, None] * (law.means - mean)).T @ (law.means - mean) + 0.0625 * torch.eye(2)
    variances, basis = torch.linalg.eigh(second)
    start = Gaussian((2,), Subspace(mean, basis, variances, torch.tensor(0.0).double()))
    bracket = bracketed(law, start, sigma, n)
    x = law.sample(Noise(range(n))).double() + sigma * Noise(range(n, 2 * n)).normal((2,)).double()
    exact = float((law.log_prob(x, sigma) - start.log_prob(x, sigma)).mean())
    found = bracket.high.value - bracket.low.value
    assert found == pytest.approx(width * 8000 / n, rel=0.3, abs=1e-4)
    assert abs((bracket.low.value + bracket.high.value) / 2 - exact) < 3 * found
    assert bracket.own < 0.02


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_the_ends_are_below_and_above_in_the_mean(sigma):
    """Over 60 sets of 40 samples, against the exact density at the same points."""
    law, start = gmm25(), Isotropic((2,))
    data, noise = law.sample(Noise(range(2400))), Noise(range(2400, 4800)).normal((2,)).double()
    x = data.double() + sigma * noise
    exact = (law.log_prob(x, sigma) - start.log_prob(x, sigma)).reshape(60, 40).mean(1)
    sets = [
        initialization_bracket(data[i : i + 40], start, sigma, Noise(range(2400 + i, 2440 + i)))
        for i in range(0, 2400, 40)
    ]
    above = Estimate.of(np.array([bracket.high.value for bracket in sets]) - exact.numpy())
    below = Estimate.of(exact.numpy() - np.array([bracket.low.value for bracket in sets]))
    assert above.value > 3 * above.error
    assert below.value > 3 * below.error


def test_bracket_is_open_where_samples_do_not_meet():
    bracket = bracketed(gmm25(), Isotropic((2,)), 0.01, 200)
    assert bracket.own > 0.5
    assert bracket.open
    assert repr(bracket).endswith(", bracket open)")


def test_bracket_is_closed_where_they_do():
    bracket = bracketed(gmm25(), Isotropic((2,)), 1.0, 500)
    assert not bracket.open
    assert "open" not in repr(bracket)
    assert bracket.low.value < 1.80 + 4 * bracket.low.error
    assert bracket.high.value > 1.80 - 4 * bracket.high.error


@pytest.mark.parametrize(
    ("low", "high", "own", "is_open"),
    [(1.0, 1.05, 0.1, False), (1.0, 1.2, 0.1, True), (1.0, 1.05, 0.6, True), (-0.01, 0.01, 0.0, True)],
)
def test_when_a_bracket_is_open(low, high, own, is_open):
    assert Bracket(Estimate(low, 0.1), Estimate(high, 0.1), own).open == is_open


def test_bracket_is_shift_invariant_in_many_dimensions():
    """Far from the origin nothing cancels; and 784 dimensions are no more than two."""
    data = torch.randn(300, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near, far = (
        initialization_bracket(data + c, Shifted((1, 28, 28), torch.full((784,), c).double()), 40.0, Noise(range(300)))
        for c in (0.0, 1000.0)
    )
    assert near.low.value == pytest.approx(far.low.value, abs=1e-6)
    assert near.high.value == pytest.approx(far.high.value, abs=1e-6)
    # The exact divergence: 784 / 2 (t - ln(1 + t)) with t = 1 / 1600.
    exact = 392 * (1 / 1600 - math.log1p(1 / 1600))
    assert near.low.value - 4 * near.low.error < exact < near.high.value + 4 * near.high.error


def test_the_bracketed_start_sees_noised_samples_and_labels():
    data, label = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20)
    spy = Spy((2,))
    initialization_bracket(data, spy, 1.5, Noise(range(20)), label=label)
    x, sigma, seen = spy.asked
    assert torch.equal(x, data.double() + 1.5 * Noise(range(20)).normal((2,)).double())
    assert sigma == 1.5
    assert torch.equal(seen["label"], label)


@pytest.mark.parametrize(("count", "chunk"), [(9, 4), (10, 0)])
def test_bracket_checks_its_numbers(count, chunk):
    with pytest.raises(InputError, match="one stream of noise for each of the 10 samples"):
        initialization_bracket(torch.zeros(10, 2), Isotropic((2,)), 1.0, Noise(range(count)), chunk=chunk)


def test_bracket_checks_its_data():
    for data in (torch.zeros(1, 2), torch.full((4, 2), math.nan)):
        with pytest.raises(DataError, match="at least two samples"):
            initialization_bracket(data, Isotropic((2,)), 1.0, Noise(range(len(data))))
