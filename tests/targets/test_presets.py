"""The shared mixtures: moments, symmetries, reproducible weights."""

from __future__ import annotations

import json
import math
from importlib.resources import files

import pytest
import torch

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.targets import (
    GaussianMixture,
    StudentTMixture,
    bimodal,
    cantor,
    gmm25,
    gmm_paper,
    t_mix2,
    t_mix10,
    t_prod,
)
from headstart.targets.presets import draw_parameters


def moments(target: GaussianMixture) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of every coordinate."""
    mean = target.weights @ target.means
    return mean, target.weights @ (target.variances + (target.means - mean) ** 2)


@pytest.mark.parametrize(("spacing", "std"), [(1.25, 0.25), (5.0, 1.0)])
@pytest.mark.parametrize("d", [2, 10])
def test_gmm25_repeats_a_square_grid(d: int, spacing: float, std: float) -> None:
    target = gmm25(d, spacing, std)
    mean, variance = moments(target)
    torch.testing.assert_close(mean, torch.zeros(d, dtype=torch.float64), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(variance, torch.full((d,), 2 * spacing**2 + std**2, dtype=torch.float64))
    pairs = target.means.reshape(25, d // 2, 2)
    assert torch.equal(pairs, pairs[:, :1].expand_as(pairs))
    assert sorted(pairs[:, 0].tolist()) == [[i * spacing, j * spacing] for i in range(-2, 3) for j in range(-2, 3)]


def test_uniform_gmm25_is_a_product() -> None:
    """Each of two coordinates is a five-mode mixture: densities multiply, scores stand side by side."""
    line = GaussianMixture(torch.ones(5), 1.25 * torch.arange(-2.0, 3.0)[:, None], 0.25**2)
    x = gmm25().sample(Noise(range(9), dtype=torch.float64)) + 0.1
    for sigma in (0.0, 0.2, 2.0):
        product = line.log_prob(x[:, :1], sigma) + line.log_prob(x[:, 1:], sigma)
        torch.testing.assert_close(gmm25().log_prob(x, sigma), product, rtol=1e-12, atol=1e-12)
    both = torch.cat([line.score(x[:, :1], 0.2), line.score(x[:, 1:], 0.2)], dim=1)
    torch.testing.assert_close(gmm25().score(x, 0.2), both, rtol=1e-10, atol=1e-10)


def test_chi2_weights_are_those_of_their_seed_whatever_was_drawn_before() -> None:
    first = gmm25(weights="chi2").weights
    torch.manual_seed(1)
    torch.randn(5)
    assert torch.equal(gmm25(d=10, spacing=5.0, std=1.0, weights="chi2").weights, first)
    assert float(first.sum()) == pytest.approx(1)
    # Seed 42 in float64, as the reference values that use these weights were computed.
    assert first[:3].tolist() == pytest.approx([0.005628824395, 0.003685076139, 0.005031181640], rel=1e-9)


def test_bimodal_moments() -> None:
    mean, variance = moments(bimodal())
    assert float(mean) == pytest.approx(0.4)
    assert float(variance) == pytest.approx(0.04 + 1 - 0.4**2)


@pytest.mark.parametrize("level", [1, 2, 3, 6])
def test_cantor_has_the_first_two_moments_of_the_cantor_measure(level: int) -> None:
    """Mean 1/2 and variance 1/8 at every level, and symmetry about 1/2."""
    target = cantor(level, tau=0.01)
    mean, variance = moments(target)
    assert len(target.weights) == 2**level
    assert float(mean) == pytest.approx(0.5, abs=1e-14)
    assert float(variance) == pytest.approx(1 / 8 + 0.01**2, rel=1e-13)
    x = torch.linspace(-0.2, 1.2, 15, dtype=torch.float64)[:, None]
    torch.testing.assert_close(target.log_prob(x, 0.1), target.log_prob(1 - x, 0.1), rtol=1e-12, atol=1e-12)


def test_cantor_centres_lie_in_the_intervals_left() -> None:
    """Scaled by 3^K, a centre is an integer plus 1/2 whose base-3 digits are all 0 or 2."""
    for centre in cantor(4).means.flatten().tolist():
        interval = centre * 3**4 - 0.5
        assert interval == pytest.approx(round(interval), abs=1e-9)
        assert all(round(interval) // 3**k % 3 != 1 for k in range(4))


def test_bad_presets_are_named() -> None:
    for d in (0, 3):
        with pytest.raises(InputError, match="even"):
            gmm25(d)
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="positive"):
            gmm25(spacing=value)
        with pytest.raises(InputError, match="positive"):
            gmm25(std=value)
    with pytest.raises(InputError, match="uniform or chi2"):
        gmm25(weights="other")  # type: ignore[arg-type]
    for level, tau in ((0, 0.1), (3, -0.1), (3, math.nan)):
        with pytest.raises(InputError, match="level must be"):
            cantor(level, tau)


@pytest.mark.parametrize("d", [2, 10])
def test_the_papers_mixture_is_standardised(d: int) -> None:
    target = gmm_paper(d)
    mean = target.weights @ target.means
    variances = target.weights @ (covariances(target).diagonal(dim1=1, dim2=2) + (target.means - mean) ** 2)
    assert mean.abs().max() < 1e-12
    assert float(variances.mean()) == pytest.approx(1, rel=1e-12)
    assert target.means.shape == (25, d)
    gaps = target.means[:, 1].sort().values.diff()
    assert gaps[gaps > 1e-9].tolist() == pytest.approx([float(gaps.max())] * 4)  # still an even grid
    assert torch.equal(target.means, target.means[:, :2].repeat(1, d // 2))


def covariances(target: GaussianMixture) -> torch.Tensor:
    assert target.axes is not None
    return target.axes @ torch.diag_embed(target.variances) @ target.axes.mT


@pytest.mark.parametrize(("target", "count", "d"), [(t_mix2(), 4, 2), (t_mix10(), 20, 10)])
def test_student_mixtures_are_standardised_by_their_exact_moments(target: StudentTMixture, count: int, d: int) -> None:
    """nu / (nu - 2) = 3 times the scale matrices, and the spread of the locations."""
    normal = target.normal
    assert normal.means.shape == (count, d)
    assert float(target.nu) == 3
    mean = normal.weights @ normal.means
    variances = normal.weights @ (3 * covariances(normal).diagonal(dim1=1, dim2=2) + (normal.means - mean) ** 2)
    assert mean.abs().max() < 1e-12
    assert float(variances.mean()) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("nu", [2.5, 3.0, 10.0])
def test_student_products_have_variance_one(nu: float) -> None:
    """That of a Student-t is its squared scale times nu / (nu - 2)."""
    target = t_prod(7, nu)
    assert target.shape == (7,)
    assert (target.scales.square() * nu / (nu - 2)).tolist() == pytest.approx([1.0] * 7)


def test_the_kept_parameters_are_those_that_were_drawn() -> None:
    kept = json.loads(files("headstart.targets").joinpath("parameters.json").read_text(encoding="utf-8"))
    drawn = draw_parameters()
    assert kept.keys() == drawn.keys()
    for name, law in drawn.items():
        for key, values in law.items():
            expected, got = (torch.tensor(v, dtype=torch.float64) for v in (values, kept[name][key]))
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        assert sum(law["weights"]) == pytest.approx(1, abs=1e-8)  # type: ignore[arg-type]


def test_bad_student_presets_are_named() -> None:
    for d, nu in ((0, 3.0), (5, 2.0), (5, math.nan)):
        with pytest.raises(InputError, match="nu above 2"):
            t_prod(d, nu)
    with pytest.raises(InputError, match="2 and 10"):
        gmm_paper(3)
