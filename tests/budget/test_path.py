"""What a stochastic sampler costs: the divergence of its path, against closed forms, quadrature and simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from headstart.budget import (
    Estimate,
    path_bound,
    path_log_ratios,
    path_objective,
    path_objectives,
    reverse_variances,
    step_terms,
)
from headstart.budget.path import losses_at
from headstart.errors import InputError
from headstart.initialization import Isotropic
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.targets import Gaussian, gmm25

VARIANCES = ("ddpm", "em", "opt")
LAW = gmm25(weights="chi2")
# From 2 to 0.02 in 10 steps, with the perfect start: by quadrature of the least loss and of the entropies.
GRID = rho_grid(10, 2.0, 0.02, final_zero=False)
EXACT = {"ddpm": 4.5326, "em": 0.5255, "opt": 0.2800}


def measured(law, n, levels=80, seed=0, denoiser=None):
    data = law.sample(Noise(range(n)))
    sigmas = np.geomspace(100.0, 0.02, levels)
    return Profile.measure(
        denoiser or law, data, sigmas=sigmas, samples=n, cost_samples=2, batch_size=n, dtype=torch.float64, seed=seed
    )


@pytest.fixture(scope="module")
def profile():
    return measured(LAW, 3000)


def exact_profile(variance=1.0, d=2):
    """N(0, variance I): the least loss, the same for every sample, so that nothing is random."""
    sigmas = np.geomspace(100.0, 0.01, 300)
    loss = d * variance * sigmas**2 / (variance + sigmas**2)
    none = np.zeros((2, 299))
    return Profile(sigmas, np.tile(loss, (2, 1)), none, none, math.sqrt(variance), (d,), 0)


@pytest.mark.parametrize("variance", VARIANCES)
def test_formula_quadrature_and_simulation_agree(profile, variance):
    formula = path_bound(profile, LAW, GRID, LAW, variance)
    variances = reverse_variances(profile, GRID, variance)
    ratios = path_log_ratios(LAW, LAW, LAW, GRID, variances, Noise(range(10000, 13000)))
    simulated = Estimate.of(ratios.numpy())
    for estimate in (formula, simulated):
        assert abs(estimate.value - EXACT[variance]) < 3 * estimate.error
        assert estimate.error < 0.1
    assert abs(formula.value - simulated.value) < 3 * math.hypot(formula.error, simulated.error)


def test_formula_and_simulation_agree_for_a_start_that_is_wrong(profile):
    """From pure noise at 6: 7.097 by quadrature, and KL(p_6 || N(0, 36 I)) more."""
    grid, start = rho_grid(10, 6.0, 0.02, final_zero=False), Isotropic((2,))
    formula = path_bound(profile, start, grid, LAW)
    ratios = path_log_ratios(LAW, LAW, start, grid, reverse_variances(profile, grid), Noise(range(10000, 12000)))
    simulated = Estimate.of(ratios.numpy())
    assert abs(formula.value - 7.0973) < 3 * formula.error + 0.01
    assert abs(formula.value - simulated.value) < 3 * math.hypot(formula.error, simulated.error)


@pytest.mark.parametrize("variance", VARIANCES)
def test_terms_are_those_of_a_general_variance(profile, variance):
    """T = 1/2 [d beta^2/tau^2 - d + (1 - r)^2 l/tau^2 + d ln(tau^2/beta^2)], for each of the three."""
    terms = step_terms(profile, GRID, variance)
    assert terms.shape == (3000, 10)
    for i, ((a, b), tau2) in enumerate(zip(GRID.pairs(), reverse_variances(profile, GRID, variance), strict=True)):
        r, loss = b**2 / a**2, losses_at(profile, a).mean()
        beta2 = b**2 * (1 - r)
        expected = (2 * beta2 / tau2 - 2 + (1 - r) ** 2 * loss / tau2 + 2 * math.log(tau2 / beta2)) / 2
        assert terms[:, i].mean() == pytest.approx(expected, rel=1e-9)


def test_the_best_variance_has_the_smallest_terms(profile):
    ddpm, em, opt = (step_terms(profile, GRID, variance).mean(axis=0) for variance in VARIANCES)
    assert (opt < ddpm).all()
    assert (opt < em).all()


def test_spread_of_the_best_variances_terms_is_that_of_a_function_of_the_mean(profile):
    """The delta method against the values of T at the means of two hundred parts of the samples."""
    grid = Schedule([2.0, 0.5])
    error = Estimate.of(step_terms(profile, grid, "opt")[:, 0]).error
    parts = [replace(profile, losses=profile.losses[i::200]) for i in range(200)]
    values = [step_terms(part, grid, "opt").mean() for part in parts]
    assert error == pytest.approx(np.std(values, ddof=1) / math.sqrt(200), rel=0.15)


@pytest.mark.parametrize("c2", [1.0, 0.3])
def test_paths_of_an_isotropic_gaussian_in_closed_form(c2):
    """The terms less the information gained, step by step: nothing with the best variance."""
    d, grid = 2, log_linear(7, 20.0, 0.05, final_zero=False)
    profile = exact_profile(c2, d)
    for i, (a, b) in enumerate(grid.pairs()):
        gained = 0.5 * d * math.log((1 + c2 / b**2) / (1 + c2 / a**2))
        ddpm, em, opt = (step_terms(profile, grid, variance)[0, i] - gained for variance in VARIANCES)
        rho = c2 * (b**-2 - a**-2) / (1 + c2 / a**2)
        assert ddpm == pytest.approx(d / 2 * (rho - math.log1p(rho)), rel=1e-3)
        rho = (a**2 - b**2) / (c2 + a**2)
        assert em == pytest.approx(d / 2 * (-math.log1p(-rho) - rho), rel=1e-3)
        assert opt == pytest.approx(0.0, abs=1e-4)


def test_objective_and_bound_differ_by_the_entropy(profile):
    """J - h(p_min) for the same plan, with h(p_min) = 2.3418 by quadrature, whatever the variance."""
    for variance in VARIANCES:
        gap = Estimate.of(
            path_objectives(profile, LAW, GRID, variance) - path_objectives(profile, LAW, GRID, variance, LAW)
        )
        assert abs(gap.value - 2.3418) < 3 * gap.error < 0.2


def test_starts_differ_by_their_divergence(profile):
    """The steps are common, so the paired difference is E_init: KL(p_2 || N(0, 4 I)) is 0.1689 by quadrature."""
    gap = Estimate.of(path_objectives(profile, Isotropic((2,)), GRID) - path_objectives(profile, LAW, GRID))
    assert abs(gap.value - 0.16886) < 3 * gap.error < 0.1


def test_the_known_mean_of_the_noise_sharpens_the_estimate(profile):
    """Against the plain sum: the same mean within its error, and much of the spread gone."""
    plain = step_terms(profile, GRID).sum(axis=1)
    raw = Estimate.of(plain)
    estimate = path_objective(profile, LAW, GRID)
    assert estimate.error < 0.5 * raw.error


def test_losses_between_levels():
    """Exact at the levels and for power laws between them; each sample keeps its share."""
    sigmas = np.geomspace(10.0, 0.1, 9)
    losses = np.stack([sigmas, 3 * sigmas])
    none = np.zeros((2, 8))
    profile = Profile(sigmas, losses, none, none, 1.0, (1,), 0)
    for i, sigma in enumerate(sigmas):
        np.testing.assert_allclose(losses_at(profile, sigma), losses[:, i], rtol=1e-9)
    np.testing.assert_allclose(losses_at(profile, 0.77), [0.77, 3 * 0.77], rtol=1e-9)


def test_interpolated_losses_are_those_that_would_be_measured(profile):
    x0, eps = profile.samples.double(), profile.noise.double()
    for sigma in (3.3, 0.71, 0.043):
        loss = (x0 - LAW(x0 + sigma * eps, sigma)).square().sum(1).numpy()
        assert losses_at(profile, sigma).mean() == pytest.approx(loss.mean(), rel=2e-3)
        assert np.corrcoef(losses_at(profile, sigma), loss)[0, 1] > 0.98


def test_a_step_to_zero_is_left_out(profile):
    levels = [2.0, 0.5, 0.1]
    with_zero, without = (path_objective(profile, LAW, Schedule(s)) for s in ([*levels, 0.0], levels))
    assert with_zero == without
    assert reverse_variances(profile, Schedule([2.0, 0.0])) == ()
    only_start = path_bound(profile, LAW, Schedule([2.0, 0.0]), LAW)
    assert only_start.value == pytest.approx(0.0, abs=1e-12)


def test_the_last_level_may_lie_below_the_profile(profile):
    assert math.isfinite(path_objective(profile, LAW, Schedule([2.0, 0.5, 0.001])).value)


@pytest.mark.parametrize("levels", [[101.0, 1.0], [10.0, 0.019, 0.01]])
def test_schedules_outside_the_levels_are_refused(profile, levels):
    with pytest.raises(InputError, match="the network was measured from"):
        path_objective(profile, LAW, Schedule(levels))


@pytest.mark.parametrize("function", [path_objective, lambda p, s, g, v: reverse_variances(p, g, v)])
def test_unknown_variances_are_refused(profile, function):
    with pytest.raises(InputError, match="unknown variance 'best': expected ddpm, em or opt"):
        function(profile, LAW, GRID, "best")


@pytest.mark.parametrize("variances", [(), (1.0,) * 9, (1.0,) * 9 + (0.0,), (1.0,) * 9 + (math.nan,)])
def test_simulated_paths_need_a_variance_for_each_step(variances):
    with pytest.raises(InputError, match="10 steps need as many variances"):
        path_log_ratios(LAW, LAW, LAW, GRID, variances, Noise(range(3)))


def test_a_start_of_another_shape_is_refused(profile):
    with pytest.raises(InputError, match="cannot be compared with"):
        path_objective(profile, Gaussian([0.0], 1.0), GRID)
