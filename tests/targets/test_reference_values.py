"""Reference values: entropy, Fisher information, mmse and corrector cost of the exact targets.

The corrector cost from a level a to b < a, with velocity b, is L_c = b^2 E||s(x, b) - s(x, a)||^2 for x at level a.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from headstart.noise import Noise
from headstart.targets import Gaussian, GaussianMixture, bimodal, cantor, gmm25

Row = tuple[float, ...]

# a, b, entropy, Fisher information, mmse, corrector cost.
BIMODAL: list[Row] = [
    (2.0, 1.5, 2.211122, 0.20543792, 0.71299329, 0.1813644),
    (1.0, 0.8, 1.7226645, 0.58438471, 0.41561529, 0.092828998),
    (0.5, 0.4, 1.3359895, 2.4305018, 0.098093635, 0.10617549),
    (0.2, 0.1, 0.76639814, 12.410471, 0.020143247, 0.045106189),
]
CANTOR: list[Row] = [
    (1.0, 0.5, 1.4778328, 0.88892978, 0.11107022, 1.2803741),
    (0.2, 0.1, 0.46661375, 9.878528, 0.024194355, 0.57661202),
    (0.05, 0.03, -0.048099235, 148.39964, 1.5725022e-3, 0.27124863),
    (0.02, 0.01, -0.37712814, 910.66664, 2.5429334e-4, 0.14327425),
]
# The same, and the Kullback-Leibler divergences to N(0, a^2 I) and to the Gaussian of the same mean and covariance.
GMM25: list[Row] = [
    (5.0, 3.0, 6.1767448, 0.07095657, 5.6521437, 1.3005202, 0.0075081192, 1.0911588e-5),
    (2.0, 1.2, 4.8068486, 0.28249112, 3.4801421, 0.54167458, 0.21419779, 3.3718301e-3),
    (1.0, 0.7, 4.2234157, 0.59828816, 1.4017118, 0.15023315, 1.8019613, 0.046565216),
    (0.5, 0.35, 3.9123073, 1.3727122, 0.41420549, 0.13663261, 10.289275, 0.1603142),
    (0.2, 0.1, 3.5635534, 10.39278, 0.063371552, 0.031940338, 75.742948, 0.4460315),
]
GAUSSIAN: list[Row] = [
    (10.0, 5.0, 5.867624981),
    (2.0, 1.5, 0.4119351375),
    (1.0, 0.6, 0.3584374321),
    (0.3, 0.1, 0.002843077562),
]


def squares(v: Tensor) -> Tensor:
    return v.square().sum(1)


def quadrature(target: GaussianMixture, a: float) -> tuple[Tensor, Callable[[Tensor], float]]:
    """Points (G, 1) and the expectation over the 1-D law at level a of a function given at them.

    The trapezoid rule: its error falls exponentially with the spacing, here far below the width of any component.
    """
    reach = 12 * float((target.variances.max() + a**2).sqrt())
    x = torch.linspace(float(target.means.min()) - reach, float(target.means.max()) + reach, 20001, dtype=torch.float64)
    mass = target.log_prob(x[:, None], a).exp() * (x[1] - x[0])
    return x[:, None], lambda values: float(mass @ values)


def measure(target: GaussianMixture, a: float, b: float) -> tuple[float, float, float, float]:
    """Entropy, Fisher information, mmse and corrector cost of a 1-D law, the mmse as E Var(x0 | x) from D's slope."""
    x, expect = quadrature(target, a)
    x.requires_grad_()
    denoised = target(x, a)
    (slope,) = torch.autograd.grad(denoised.sum(), x)
    x = x.detach()
    return (
        expect(-target.log_prob(x, a)),
        expect(squares(target.score(x, a))),
        expect(a**2 * slope[:, 0]),
        expect(b**2 * squares(target.score(x, b) - target.score(x, a))),
    )


@pytest.mark.parametrize(
    ("target", "row"), [(bimodal(), row) for row in BIMODAL] + [(cantor(level=3, tau=0.005), row) for row in CANTOR]
)
def test_one_dimensional_laws_by_quadrature(target: GaussianMixture, row: Row) -> None:
    a, b, *expected = row
    measured = measure(target, a, b)
    assert measured == pytest.approx(expected, rel=1e-7)
    assert measured[1] == pytest.approx((a**2 - measured[2]) / a**4, rel=1e-9)


@pytest.mark.parametrize("row", GMM25)
def test_gmm25_by_quadrature_in_one_coordinate(row: Row) -> None:
    """Both coordinates are the same five-mode mixture (test_presets), and every quantity adds over them."""
    a, b, *expected = row
    line = GaussianMixture(torch.ones(5), 1.25 * torch.arange(-2.0, 3.0)[:, None], 0.25**2)
    entropy, fisher, mmse, cost = measure(line, a, b)
    variance = float(line.means.square().mean()) + 0.25**2
    to_normal = -entropy + 0.5 * math.log(2 * math.pi * a**2) + 0.5 * (variance + a**2) / a**2
    to_matched = Gaussian([0.0], variance).entropy(a) - entropy
    assert [2 * v for v in (entropy, fisher, mmse, cost, to_normal)] == pytest.approx(expected[:-1], rel=1e-7)
    assert 2 * to_matched == pytest.approx(expected[-1], rel=1e-6)


@pytest.mark.parametrize("row", GMM25)
def test_gmm25_by_monte_carlo(row: Row) -> None:
    """The target itself, its samples included, within 4 standard errors."""
    a, b, entropy, fisher, mmse, cost, *_ = row
    target, n = gmm25(), 4000
    noise = Noise(range(n), dtype=torch.float64)
    clean = target.sample(noise)
    x = clean + a * noise.normal((2,))
    score = target.score(x, a)
    for values, expected in [
        (-target.log_prob(x, a), entropy),
        (squares(score), fisher),
        (squares(clean - target(x, a)), mmse),
        (b**2 * squares(target.score(x, b) - score), cost),
    ]:
        assert abs(float(values.mean()) - expected) < 4 * float(values.std()) / math.sqrt(n)


@pytest.mark.parametrize("row", GAUSSIAN)
@pytest.mark.parametrize("turned", [False, True])
def test_corrector_cost_of_a_gaussian(row: Row, turned: bool) -> None:
    """Exact: the score is affine, so the mean of its square is that over the points mean +- sqrt(d) deviations."""
    a, b, expected = row
    mean, covariance = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), torch.tensor([0.25, 1.0, 4.0]).double()
    rotation = torch.eye(3, dtype=torch.float64)
    if turned:
        g = torch.Generator().manual_seed(0)
        rotation = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    target = Gaussian(mean, rotation @ torch.diag(covariance) @ rotation.mT if turned else covariance)
    deviations = math.sqrt(3) * (rotation * (covariance + a**2).sqrt()).mT
    x = torch.cat([mean + deviations, mean - deviations])
    score = target.score(x, a)
    assert float(b**2 * squares(target.score(x, b) - score).mean()) == pytest.approx(expected, rel=1e-9)
    assert float(squares(score).mean()) == pytest.approx(target.fisher_information(a), rel=1e-12)
    assert target.mmse(a) == pytest.approx(float((covariance * a**2 / (covariance + a**2)).sum()), rel=1e-13)
