"""The mean and the scale that a denoiser's answers tell."""

from __future__ import annotations

import math

import pytest

from headstart import Noise
from headstart.denoiser import expand
from headstart.denoiser.law import learned_law
from headstart.targets import gmm25

NOISE = Noise(range(64)).normal((3,))


def gaussian(mean, deviation):
    return lambda x, sigma: mean + deviation**2 / (deviation**2 + expand(sigma, x) ** 2) * (x - mean)


@pytest.mark.parametrize("deviation", [1e-4, 0.02, 0.5, 7.0, 1e3, 1e6])
@pytest.mark.parametrize("relative", [-3.0, 0.0, 10.0])
def test_a_gaussian_tells_its_mean_and_its_deviation(deviation, relative):
    mean = relative * deviation
    law = learned_law(gaussian(mean, deviation), NOISE, 80.0, 1e-12, math.inf)
    assert law.deviation == pytest.approx(deviation, rel=0.02)
    assert law.mean == pytest.approx(abs(mean), abs=0.02 * deviation)


def test_a_mixture_tells_them_too():
    """gmm25: modes at -2.5, ..., 2.5 in each coordinate."""
    target = gmm25()
    deviation = float(target.sample(Noise(range(4000))).std())
    law = learned_law(target, Noise(range(64)).normal((2,)), 80.0, 1e-12, math.inf)
    assert law.deviation == pytest.approx(deviation, rel=0.1)
    assert law.mean < 0.3


def test_no_level_outside_of_those_it_knows_is_asked():
    asked = []

    def ask(x, sigma):
        asked.append(sigma)
        return gaussian(0.0, 100.0)(x, sigma)

    law = learned_law(ask, NOISE, 80.0, 5.0, 90.0)
    assert max(asked) <= 90
    assert law.deviation == pytest.approx(100, rel=0.02)
    low = learned_law(gaussian(0.0, 0.1), NOISE, 80.0, 5.0, 90.0)
    assert low.deviation == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("answer", [lambda x, sigma: 0 * x, lambda x, sigma: -x, lambda x, sigma: 0 * x + 3])
def test_what_is_no_denoiser_tells_nothing(answer):
    assert learned_law(answer, NOISE, 80.0, 1e-12, math.inf) is None
