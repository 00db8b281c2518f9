"""What the network's own error costs, against closed forms and the losses of a wrong network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.budget import Estimate, path_objectives, score_error
from headstart.denoiser import expand
from headstart.errors import DenoiserError, InputError
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import Schedule, log_linear
from headstart.targets import Gaussian, gmm25

LAW, GRID = gmm25(), log_linear(6, 5.0, 0.05, final_zero=False)
SHIFT = torch.tensor([0.03, -0.04], dtype=torch.float64)


def shifted(x, sigma):
    return LAW(x, sigma) + expand(sigma, x) * SHIFT


def weights(variance, grid=GRID):
    if variance == "ddpm":
        return [b**-2 - a**-2 for a, b in grid.pairs()]
    return [(a**2 - b**2) / a**4 for a, b in grid.pairs()]


@pytest.mark.parametrize("variance", ["ddpm", "em"])
def test_a_known_error_in_closed_form(variance):
    expected = sum(0.5 * w * a**2 * 0.05**2 for w, (a, _) in zip(weights(variance), GRID.pairs(), strict=True))
    estimate = score_error(shifted, LAW, GRID, Noise(range(20)), variance)
    assert estimate.value == pytest.approx(expected, rel=1e-9)
    assert estimate.error == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("variance", ["ddpm", "em"])
def test_a_wrong_variance_of_a_gaussian_in_closed_form(variance):
    """D is linear: E|D - D_theta|^2 = (w - w_theta)^2 (1 + a^2), with the shrinkages w."""
    law, wrong = Gaussian([0.0], 1.0), Gaussian([0.0], 1.5)
    grid = Schedule([3.0, 1.0, 0.4, 0.0])
    expected = sum(
        0.5 * w * (1 / (1 + a**2) - 1.5 / (1.5 + a**2)) ** 2 * (1 + a**2)
        for w, (a, _) in zip(weights(variance, Schedule([3.0, 1.0, 0.4])), grid.pairs(), strict=False)
    )
    estimate = score_error(wrong, law, grid, Noise(range(4000)), variance)
    assert abs(estimate.value - expected) < 3 * estimate.error < 0.2 * expected


def test_the_form_by_scores_is_the_same():
    """em: half the sum of (a^2 - b^2) E|s - s_theta|^2."""
    wrong = gmm25(std=0.4)
    x0, eps = LAW.sample(Noise(range(50))).double(), Noise(range(50))
    eps.uniform()
    eps.normal((2,))
    z = eps.normal((2,)).double()
    total = 0.0
    for a, b in GRID.pairs():
        x = x0 + a * z
        total += 0.5 * (a**2 - b**2) * float((LAW.score(x, a) - wrong.score(x, a)).square().sum(1).mean())
    assert score_error(wrong, LAW, GRID, Noise(range(50)), "em").value == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("variance", ["ddpm", "em"])
def test_it_is_what_a_wrong_network_adds_to_the_path(variance):
    """The exact network's error is orthogonal to it, so that the divergences differ by E_score alone."""
    wrong, n = gmm25(std=0.35), 3000
    data = LAW.sample(Noise(range(n)))
    more = {"sigmas": np.array(GRID.sigmas), "samples": n, "cost_samples": 2, "batch_size": n, "dtype": torch.float64}
    profiles = [Profile.measure(denoiser, data, **more) for denoiser in (wrong, LAW)]
    bad, good = (path_objectives(profile, LAW, GRID, variance) for profile in profiles)
    gap, score = Estimate.of(bad - good), score_error(wrong, LAW, GRID, Noise(range(10**5, 10**5 + n)), variance)
    assert abs(gap.value - score.value) < 3 * (gap.error**2 + score.error**2) ** 0.5
    assert score.error < 0.3 * score.value


def test_the_exact_denoiser_has_none():
    assert score_error(LAW, LAW, GRID, Noise(range(10))) == Estimate(0.0, 0.0)


def test_conditions_reach_the_network():
    def denoiser(x, sigma, label):
        assert label == 3
        return LAW(x, sigma)

    assert score_error(denoiser, LAW, GRID, Noise(range(5)), label=3).value == 0.0


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="unknown variance 'opt'"):
        score_error(LAW, LAW, GRID, Noise(range(5)), "opt")
    with pytest.raises(DenoiserError, match="NaN or Inf"):
        score_error(lambda x, sigma: x * float("nan"), LAW, GRID, Noise(range(5)))
