"""The error budget against exact divergences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstart.budget import Budget, Estimate, discretization_error, initialization_error
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Gaussian, Initialization, Isotropic
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import Schedule, equidistribute, log_linear, rho_grid, tangent
from headstart.targets import Gaussian as GaussianTarget
from headstart.targets import gmm25

# Method.md 6.2, table C: horizon, KL(p_T || N(0, sigma_T^2)) and KL(p_T || the Gaussian of its mean and covariance).
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

    def log_prob(self, x, sigma, label=None):
        self.asked = x, sigma, label
        return super().log_prob(x, sigma, label)


def test_the_start_sees_the_profiles_samples_noise_and_labels():
    labels = torch.arange(30)
    target = gmm25()
    profile = measured(target, 30, conditions={"label": labels})
    spy = Spy((2,))
    initialization_error(profile, spy, 1.5)
    x, sigma, label = spy.asked
    assert torch.equal(x, profile.samples.double() + 1.5 * profile.noise.double())
    assert sigma == 1.5
    assert torch.equal(label, profile.label)
    assert sorted(label.tolist()) == list(range(30))


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
    with pytest.raises(InputError, match=r"start of shape \(3,\) cannot be held against samples of \(2,\)"):
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


def defect_profile(c=1.0, count=2000):
    """N(0, c^2) on the line, its defect cost in closed form."""
    sigmas = np.geomspace(100.0, 0.001, count)
    a, b = sigmas[:-1], sigmas[1:]
    slope = a / (c**2 + a**2)
    bend = b / (c**2 + b**2) * (1 + (b - a) * slope) - slope
    costs = ((b - a) / 2 * bend) ** 2 * (c**2 + a**2) / (c**2 + b**2)
    two = np.tile(costs, (2, 1))
    return Profile(sigmas, np.ones((2, count)), two, two, c, (1,), 0)


@pytest.mark.parametrize("grid", [tangent(40, 80.0, 0.002, 1.0, False), log_linear(100, 80.0, 0.002, False)], ids=repr)
def test_the_budget_of_an_exact_start_is_eulers_divergence(grid):
    """For an isotropic Gaussian the square of the sum of the roots is exact to leading order (method.md 8.1)."""
    gain = math.prod((1 + a * b) / (1 + a**2) for a, b in grid.pairs())
    w = (1 + grid.sigma_min**2) / ((1 + grid.horizon**2) * gain**2)
    exact = (w - 1 - math.log(w)) / 2
    budget = Budget(Estimate(0.0, 0.0), discretization_error(defect_profile(), grid))
    assert len(budget.discretization) == grid.steps
    assert budget.total == pytest.approx(exact, rel=0.1)


def test_discretization_error_is_of_fourth_order_in_each_step():
    profile = defect_profile()
    coarse, fine = (discretization_error(profile, log_linear(n, 10.0, 0.1, False)) for n in (20, 40))
    assert sum(k**0.25 for k in coarse) == pytest.approx(sum(k**0.25 for k in fine), rel=1e-9)
    assert sum(coarse) / sum(fine) == pytest.approx(8, rel=0.05)


def test_equidistributed_steps_have_equal_budgets_and_the_smallest_sum():
    profile = defect_profile()
    best = discretization_error(profile, equidistribute(profile.length("defect"), 6, 50.0, 0.01))
    assert len(best) == 5
    np.testing.assert_allclose(best, best[0], rtol=0.01)
    for other in (rho_grid(6, 50.0, 0.01), log_linear(6, 50.0, 0.01)):
        assert sum(discretization_error(profile, other)) > sum(best)


def test_a_step_to_zero_is_left_out():
    profile = defect_profile()
    levels = [10.0, 1.0, 0.1]
    with_zero = discretization_error(profile, Schedule([*levels, 0.0]))
    assert with_zero == discretization_error(profile, Schedule(levels))
    assert discretization_error(profile, Schedule([10.0, 0.0])) == ()


@pytest.mark.parametrize("levels", [[101.0, 1.0], [10.0, 0.0009]])
def test_schedules_outside_the_levels_are_refused(levels):
    with pytest.raises(InputError, match=r"levels were measured from 100 down to 0\.001"):
        discretization_error(defect_profile(), Schedule(levels))


@pytest.mark.parametrize(
    ("initialization", "steps", "total"),
    [
        (Estimate(0.25, 0.1), (0.01, 0.04), (0.5 + 0.1 + 0.2) ** 2),
        (Estimate(0.25, 0.1), (), 0.25),
        (Estimate(-3.0, 0.1), (0.01, 0.04), 0.3**2),
        (None, (0.01, 0.04), 0.3**2),
        (None, (), 0.0),
    ],
)
def test_total(initialization, steps, total):
    assert Budget(initialization, steps).total == pytest.approx(total, rel=1e-12)


def test_repr():
    assert repr(Estimate(-0.1261, 0.0338)) == "-0.126 ± 0.034"
    assert repr(Budget(Estimate(0.25, 0.1), (0.01, 0.04))) == (
        "Budget(initialization 0.25 ± 0.1; steps 0.01, 0.04; total 0.64 nats)"
    )
    assert repr(Budget(None, ())) == "Budget(initialization unknown; steps none; total 0 nats)"
