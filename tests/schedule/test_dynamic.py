"""Dynamic programming against closed forms of the isotropic Gaussian, every path there is, and the budget."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from headstart.budget import step_terms
from headstart.errors import InputError
from headstart.profile import Profile
from headstart.schedule import Schedule, ShortestPaths, path_terms

SIGMAS = np.geomspace(20.0, 0.05, 60)
VARIANCES = ["ddpm", "em", "opt"]


def loss(sigma, c=1.0):
    """That of the exact denoiser of N(0, c^2)."""
    return c**2 * sigma**2 / (c**2 + sigma**2)


def paths(variance="ddpm", steps=8, nodes=400, **more):
    return ShortestPaths.of(SIGMAS, loss(SIGMAS), 1, steps, variance, nodes=nodes, **more)


def total(grid: Schedule, variance, dimension=1):
    a, b = np.array([pair for pair in grid.pairs() if pair[1] > 0]).T
    return path_terms(a, b, loss(a), dimension, variance).sum()


def test_ddpm_makes_one_plus_signal_to_noise_geometric():
    """Method.md 11.5: six equal ratios, 2.71442 in the limit of a fine grid."""
    levels = np.array(paths(nodes=1500).schedule(6, 20.0, final_zero=False).sigmas)
    signal = 1 + levels**-2.0
    np.testing.assert_allclose(signal[1:] / signal[:-1], 2.71442, atol=0.02)
    assert (signal[-1] / signal[0]) ** (1 / 6) == pytest.approx(2.71442, abs=1e-5)


def test_em_makes_the_variances_of_the_noised_data_geometric():
    """Nearly all of whose range lies at the top, so that it is held against the steps that a fine grid has there."""
    levels = np.array(paths("em", nodes=1500).schedule(6, 20.0, final_zero=False).sigmas)
    ratios = (1 + levels[:-1] ** 2) / (1 + levels[1:] ** 2)
    np.testing.assert_allclose(ratios, (401 / 1.0025) ** (1 / 6), rtol=0.01)


def test_the_best_variance_leaves_nothing_to_choose():
    """For an isotropic Gaussian it is exact: the terms of any grid sum to half of ln((1 + c^2 u) / ...)."""
    programme = paths("opt")
    exact = 0.5 * math.log((1 + 0.05**-2) / (1 + 20.0**-2))
    assert [programme.cost(n, 20.0) for n in (1, 3, 8)] == pytest.approx([exact] * 3, rel=1e-4)


@pytest.mark.parametrize(("variance", "steps"), [("ddpm", 6), ("ddpm", 8), ("em", 6)])
def test_values_are_close_to_the_optimum_in_closed_form(variance, steps):
    if variance == "ddpm":
        levels = (np.geomspace(1 + 20.0**-2, 1 + 0.05**-2, steps + 1) - 1) ** -0.5
    else:
        levels = np.sqrt(np.geomspace(401, 1.0025, steps + 1) - 1)
    best = total(Schedule(levels), variance)
    assert best * (1 - 1e-6) < paths(variance).cost(steps, 20.0) < best * 1.001


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("seed", range(3))
def test_no_path_is_cheaper(variance, seed):
    """Every way through nine levels, with any rising loss."""
    sigmas = np.geomspace(5.0, 0.1, 9)
    losses = np.sort(np.random.default_rng(seed).uniform(0.1, 3, 9))[::-1]
    programme = ShortestPaths.of(sigmas, losses, 3, 5, variance, nodes=9)
    np.testing.assert_allclose(programme.loss, losses, rtol=1e-9)
    for steps, start in itertools.product((1, 2, 4), (0, 3)):

        def cost(way):
            a, b = np.array(way[:-1]), np.array(way[1:])
            return path_terms(sigmas[a], sigmas[b], losses[a], 3, variance).sum()

        ways = [(start, *inner, 8) for inner in itertools.combinations(range(start + 1, 8), steps - 1)]
        best = min(ways, key=cost)
        assert programme.cost(steps, sigmas[start]) == pytest.approx(cost(best), rel=1e-9)
        grid = programme.schedule(steps, sigmas[start], final_zero=False)
        np.testing.assert_allclose(grid.sigmas, sigmas[list(best)], rtol=1e-9)
        assert programme.values[steps, start] == pytest.approx(cost(best), rel=1e-9)


@pytest.mark.parametrize("variance", VARIANCES)
def test_terms_are_those_of_the_budget(variance):
    losses = np.random.default_rng(0).uniform(0.5, 1.5, (50, 1)) * loss(SIGMAS) * 4
    none = np.zeros((2, len(SIGMAS) - 1))
    profile = Profile(SIGMAS, losses, none, none, 1.0, (4,), 0, samples=torch.zeros(50, 4))
    grid = Schedule(SIGMAS[[0, 20, 40, 59]])
    a, b = np.array(list(grid.pairs())).T
    terms = path_terms(a, b, profile.loss[[0, 20, 40]], 4, variance)
    np.testing.assert_allclose(terms, step_terms(profile, grid, variance).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("horizon", [20.0, 7.3, 0.9])
def test_one_programme_serves_every_horizon_and_number_of_steps(variance, horizon):
    """A horizon between levels is taken exactly, and the value is that of the grid that is returned."""
    programme = paths(variance)
    for steps in (1, 2, 5):
        grid = programme.schedule(steps, horizon, final_zero=False)
        assert (grid.steps, grid.horizon) == (steps, horizon)
        assert grid.sigma_min == pytest.approx(0.05, rel=1e-12)
        assert programme.cost(steps, horizon) == pytest.approx(total(grid, variance), rel=2e-3)
    costs = [programme.cost(n, horizon) for n in range(1, 9)]
    assert all(after <= before * (1 + 2e-4) for before, after in itertools.pairwise(costs))


def test_a_last_step_to_zero_is_added():
    programme = paths()
    assert programme.schedule(4, 9.0).sigmas == (*programme.schedule(3, 9.0, final_zero=False).sigmas, 0.0)
    assert programme.schedule(1, 9.0) == Schedule([9.0, 0.0], "dynamic ddpm")


def test_noise_in_the_loss_is_smoothed():
    bumpy = loss(SIGMAS) * np.exp(0.05 * np.random.default_rng(0).standard_normal(len(SIGMAS)))
    assert (np.diff(bumpy) > 0).any()
    assert (np.diff(ShortestPaths.of(SIGMAS, bumpy, 1, 2).loss) <= 1e-12).all()


def test_the_last_level_can_be_chosen():
    programme = paths(sigma_min=0.3)
    assert programme.schedule(3, 20.0, final_zero=False).sigma_min == 0.3
    assert repr(programme) == "ShortestPaths(ddpm: up to 8 steps, 400 levels from 20 to 0.3)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": [1.0, 0.5]}, "each level has one loss"),
        ({"sigmas": [1.0, 2.0, 3.0]}, "strictly decreasing"),
        ({"sigmas": [2.0, 1.0, 0.0]}, "above 0"),
        ({"sigmas": [math.inf, 1.0, 0.5]}, "finite"),
        ({"loss": [1.0, 0.5, math.nan]}, "loss must be finite"),
        ({"loss": [1.0, 0.5, 0.0]}, "loss must be finite and above 0"),
        ({"sigma_min": 0.1}, "sigma_min is 0.1"),
        ({"sigma_min": 3.0}, "sigma_min is 3"),
        ({"dimension": 0}, "dimension and steps"),
        ({"steps": 0}, "dimension and steps"),
        ({"nodes": 2}, "nodes more than steps"),
        ({"variance": "best"}, "unknown variance 'best'"),
    ],
    ids=str,
)
def test_bad_input_is_named(options, message):
    good = {"sigmas": [3.0, 1.0, 0.5], "loss": [1.0, 0.5, 0.2], "dimension": 2, "steps": 2, "nodes": 10}
    with pytest.raises(InputError, match=message):
        ShortestPaths.of(**{**good, **options})


@pytest.mark.parametrize(("steps", "horizon"), [(0, 20.0), (9, 20.0), (2, 21.0), (2, 0.05), (8, 0.051), (2, math.nan)])
def test_what_was_not_computed_is_refused(steps, horizon):
    with pytest.raises(InputError, match=r"steps|horizon"):
        paths().schedule(steps, horizon, final_zero=False)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("horizon", [1000.0, 0.05, 0.05 * (1 + 1e-10), 0.01, -1.0, math.nan])
def test_a_horizon_outside_the_dense_grid_is_refused_with_any_number_of_steps(steps, horizon):
    with pytest.raises(InputError, match=r"the horizon must lie above 0\.05 and at most at 20"):
        paths().schedule(steps, horizon)
