"""The exact divergence of Euler's method, against closed forms and conservation of mass."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from headstart.budget import Estimate, euler_divergence, euler_log_ratios, invert_euler
from headstart.denoiser import expand
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Isotropic
from headstart.noise import Noise
from headstart.schedule import Schedule, log_linear, rho_grid, tangent
from headstart.targets import Gaussian, bimodal, cantor, gmm25

GRID = log_linear(6, 20.0, 0.1, final_zero=False)


def forward(denoiser, x, grid):
    for a, b in grid.pairs():
        x = (b / a) * x + (1 - b / a) * denoiser(x, a)
    return x


def line(law, sigma, n=1601, reach=9.0):
    """Points (n, 1) of the trapezoid rule on the line, and their masses under the law at a level."""
    wide = reach * float((law.variances.max() + sigma**2).sqrt())
    x = torch.linspace(float(law.means.min()) - wide, float(law.means.max()) + wide, n, dtype=torch.float64)[:, None]
    return x, law.log_prob(x, sigma).exp() * (x[1, 0] - x[0, 0])


@pytest.mark.parametrize("sigma_t", [20.0, 1.0])
def test_a_correlated_gaussian_point_by_point(sigma_t):
    """All maps are linear, so the samples are Gaussian with a covariance that is known."""
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    mean, eye = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    law, grid = Gaussian(mean, covariance), log_linear(6, sigma_t, 0.1, final_zero=False)
    gain = eye
    for a, b in grid.pairs():
        shrink = covariance @ torch.linalg.inv(covariance + a**2 * eye)
        gain = ((b / a) * eye + (1 - b / a) * shrink) @ gain
    samples = MultivariateNormal(mean - gain @ mean, sigma_t**2 * gain @ gain.mT)
    x = law.sample(Noise(range(100))).double()
    expected = law.log_prob(x, 0.1) - samples.log_prob(x)
    torch.testing.assert_close(euler_log_ratios(law, law, Isotropic((2,)), grid, x), expected, rtol=0, atol=1e-8)


def test_divergence_of_an_isotropic_gaussian():
    """d/2 (w - 1 - ln w) with w the variance over that of the samples, from the perfect start."""
    law, grid = Gaussian([0.0, 0.0, 0.0], 1.0), tangent(8, 80.0, 0.02, 1.0, final_zero=False)
    gain = math.prod((1 + a * b) / (1 + a**2) for a, b in grid.pairs())
    w = (1 + 0.02**2) / ((1 + 80.0**2) * gain**2)
    estimate = euler_divergence(law, law, law, grid, Noise(range(4000)))
    assert abs(estimate.value - 1.5 * (w - 1 - math.log(w))) < 3 * estimate.error < 0.04


@pytest.mark.parametrize("law", [bimodal(), cantor(2, 0.05)], ids=repr)
@pytest.mark.parametrize("grid", [GRID, Schedule([80.0, 2.0, 0.1]), rho_grid(12, 3.0, 0.1, final_zero=False)], ids=repr)
def test_the_samples_density_has_mass_one(law, grid):
    """It holds only if every inverse and every determinant is right. The maps are monotone, and cover the line."""
    x, mass = line(law, 0.1)
    sampled = (-euler_log_ratios(law, law, law, grid, x)).exp()
    assert float(mass @ sampled) == pytest.approx(1.0, abs=1e-4)


def test_expectations_under_the_samples_density_are_those_of_samples():
    """E cos(w x) by quadrature of the density, and by running Euler's method."""
    law, grid = bimodal(), Schedule([2.0, 0.7, 0.3, 0.1])
    x, mass = line(law, 0.1)
    density = mass * (-euler_log_ratios(law, law, Isotropic((1,)), grid, x)).exp()
    samples = forward(law, 2.0 * Noise(range(6000)).normal((1,)).double(), grid)
    for w in (0.5, 2.0, 5.0):
        simulated = Estimate.of(torch.cos(w * samples[:, 0]).numpy())
        assert abs(float(density @ torch.cos(w * x[:, 0])) - simulated.value) < 3.5 * simulated.error


@pytest.mark.parametrize("law", [gmm25(weights="chi2"), gmm25(d=4)], ids=repr)
@pytest.mark.parametrize("grid", [GRID, Schedule([80.0, 1.0, 0.02])], ids=repr)
def test_inversion_goes_back_where_euler_comes_from(law, grid):
    x = (law.sample(Noise(range(200))) + 0.1 * Noise(range(200, 400)).normal(law.shape)).double()
    before, log_det = invert_euler(law, grid, x)
    torch.testing.assert_close(forward(law, before, grid), x, rtol=0, atol=1e-8)
    assert log_det.shape == (200,)


def test_determinant_is_that_of_the_whole_way():
    """Against the Jacobian of all steps at once, one point at a time."""
    law = gmm25(d=4)
    x = law.sample(Noise(range(5))).double()
    before, log_det = invert_euler(law, GRID, x)
    for point, expected in zip(before, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda z: forward(law, z[None], GRID)[0], point)
        assert float(jacobian.logdet()) == pytest.approx(float(expected), abs=1e-8)


def test_divergence_falls_with_the_square_of_the_steps():
    """From the perfect start, by quadrature."""
    law = bimodal()
    x, mass = line(law, 0.1, 801)
    divergences = []
    for steps in (40, 80):
        grid = log_linear(steps, 5.0, 0.1, final_zero=False)
        divergences.append(float(mass @ euler_log_ratios(law, law, law, grid, x)))
    assert divergences[0] / divergences[1] == pytest.approx(4, rel=0.2)


def test_without_steps_it_is_the_error_of_the_start():
    """A step to 0 is left out."""
    law, x = gmm25(), gmm25().sample(Noise(range(50))).double()
    ratios = euler_log_ratios(law, law, Isotropic((2,)), Schedule([1.0, 0.0]), x)
    assert torch.equal(ratios, law.log_prob(x, 1.0) - Isotropic((2,)).log_prob(x, 1.0))


def test_samples_that_are_images():
    law = gmm25(d=4)
    image = lambda x, s: law(x.flatten(1), s).reshape(x.shape)  # noqa: E731
    x = law.sample(Noise(range(20))).double()
    flat, shaped = invert_euler(law, GRID, x), invert_euler(image, GRID, x.reshape(-1, 1, 2, 2))
    torch.testing.assert_close(shaped[0].flatten(1), flat[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(shaped[1], flat[1], rtol=0, atol=1e-9)


def test_conditions_reach_the_denoiser():
    law = bimodal()

    def denoiser(x, sigma, label):
        assert label == 3
        return law(x, sigma)

    one = euler_divergence(denoiser, law, law, GRID, Noise(range(20)), label=3)
    assert one == euler_divergence(law, law, law, GRID, Noise(range(20)))


def test_maps_that_fold_are_refused():
    def folding(x, sigma):
        return 4 * torch.sin(8 * x) / (1 + expand(sigma, x))

    with pytest.raises(DenoiserError, match=r"the Euler step from 1 to 0\.2 cannot be inverted"):
        euler_divergence(folding, bimodal(), bimodal(), Schedule([1.0, 0.2]), Noise(range(50)))


def test_maps_without_a_solution_are_refused():
    def bounded(x, sigma):
        """The image of the step is below 1 in size."""
        return (torch.tanh(x) - 0.2 * x) / 0.8

    with pytest.raises(DenoiserError, match="the residual stays at"):
        invert_euler(bounded, Schedule([1.0, 0.2]), torch.tensor([[0.5], [3.0]]).double())


def test_what_cannot_be_differentiated_is_refused():
    law = bimodal()
    with pytest.raises(InputError, match="can be differentiated in x"):
        euler_divergence(lambda x, s: law(x.detach(), s), law, law, GRID, Noise(range(5)))


def test_equal_seeds_give_equal_samples_of_the_data():
    law = bimodal()
    one, two = (euler_divergence(law, law, law, GRID, Noise(range(30))) for _ in range(2))
    assert one == two
    assert one != euler_divergence(law, law, law, GRID, Noise(range(30, 60)))
