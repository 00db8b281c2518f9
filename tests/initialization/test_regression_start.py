"""The regression start on joint Gaussians, where the mean, the law and the information of the condition are exact."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from headstart.choose import fit_starts
from headstart.conditions import Conditions
from headstart.errors import ArtefactError, DataError, InputError
from headstart.initialization import INITIALIZATIONS, Gaussian, Isotropic, LinearMean, Mixture, Regression
from headstart.initialization.regression import Ridge
from headstart.noise import Noise

D, Q = 4, 3
DOUBLE = torch.float64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


SLOPE = 0.8 * random(Q, D, seed=100)
LEFT = torch.linalg.qr(random(D, D, seed=101)).Q @ torch.diag(torch.tensor([1.0, 0.5, 0.3, 0.2], dtype=DOUBLE))


def joint(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples and conditions of a joint Gaussian: x = 1 + c A + L e."""
    c = random(n, Q, seed=seed)
    return 1 + c @ SLOPE + random(n, D, seed=seed + 1) @ LEFT.mT, c


def laws(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The covariance of noised samples, and the same given the condition."""
    given = LEFT @ LEFT.mT + sigma**2 * torch.eye(D, dtype=DOUBLE)
    return SLOPE.mT @ SLOPE + given, given


def test_a_start_that_ignores_the_condition_pays_the_mutual_information():
    """E_init of the unconditional start less that of the conditional one is I(X_T; C), on held-out samples."""
    data, c = joint(20_000, seed=1)
    fresh, given = joint(20_000, seed=11)
    blind, seeing = Gaussian.fit(data), Regression.fit(data, "gaussian", conditions={"c": c})
    for sigma in (0.2, 1.0, 5.0):
        x = fresh + sigma * random(*fresh.shape, seed=21)
        gaps = seeing.log_prob(x, sigma, {"c": given}) - blind.log_prob(x, sigma)
        noised, left = laws(sigma)
        information = 0.5 * (torch.linalg.slogdet(noised)[1] - torch.linalg.slogdet(left)[1])
        assert float((gaps.mean() - information).abs()) < 3 * float(gaps.std()) / len(x) ** 0.5


@pytest.mark.parametrize("law", ["gaussian", "mixture", "diagonal", "student-t"])
def test_its_samples_have_the_conditional_mean_and_covariance(law):
    data, c = joint(5000, seed=1)
    start = Regression.fit(data, law, conditions={"c": c})
    one, n, sigma = torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE), 4000, 0.7
    x = start.sample(Noise(range(n), dtype=DOUBLE), sigma, {"c": one})
    _, left = laws(sigma)
    off = (x.mean(0) - 1 - one @ SLOPE).abs() / left.diagonal().sqrt()
    assert float(off.max()) < 0.1
    if law in ("gaussian", "mixture"):  # the others are products of coordinates
        assert float((x.mT.cov() - left).norm() / left.norm()) < 0.15
    # One sample's condition is its own: a batch of two conditions gives each of them its own mean.
    both = torch.stack([one, -one])
    y = start.sample(Noise([0, 1], dtype=DOUBLE), sigma, {"c": both})
    torch.testing.assert_close(y[0], x[0])
    assert not torch.allclose(y[1], x[1])


def test_its_density_is_that_of_the_exact_law():
    data, c = joint(50_000, seed=1)
    start = Regression.fit(data, "gaussian", conditions={"c": c})
    x, given = joint(200, seed=11)
    exact = MultivariateNormal(torch.zeros(D, dtype=DOUBLE), laws(0.5)[1]).log_prob(x - 1 - given @ SLOPE)
    assert float((start.log_prob(x, 0.5, {"c": given}) - exact).abs().mean()) < 0.02
    assert start.explained == pytest.approx(float(1 - laws(0)[1].trace() / laws(0)[0].trace()), abs=0.01)


def test_left_out_residuals_are_those_of_a_fit_without_the_sample():
    """r_i / (1 - H_ii) with the intercept's share, against n fits that each leave one sample out."""
    c, z = random(12, 3, seed=5), random(12, 2, seed=6)
    ridge = Ridge.fit(c, z)
    closed = (z - ridge(c)) / (1 - ridge.leverage)[:, None]
    for i in range(12):
        kept = torch.arange(12) != i
        centre, mean = c[kept].mean(0), z[kept].mean(0)
        a = c[kept] - centre
        solved = torch.linalg.solve(a.mT @ a + ridge.penalty * torch.eye(3, dtype=DOUBLE), a.mT @ (z[kept] - mean))
        torch.testing.assert_close(z[i] - mean - (c[i] - centre) @ solved, closed[i])


def test_residuals_of_the_fit_itself_are_too_small_and_left_out_ones_are_not():
    """200 samples and 150 features: variances in the fit are short by about p / n; those that are left out are right.

    With these the held-out likelihood is within two standard errors of the best that any scale of the law has.
    """
    n, p, d, sigma = 200, 150, 4, 0.5
    slope = 0.3 * random(p, d, seed=3)

    def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        c = random(count, p, seed=seed)
        return c @ slope + random(count, d, seed=seed + 1), c

    (data, c), (fresh, given) = drawn(n, 1), drawn(4000, 11)
    x = fresh + sigma * random(*fresh.shape, seed=21)
    start = Regression.fit(data, "gaussian", conditions={"c": c})
    inside = data - start.means(Conditions.of({"c": c}, n))
    left_out = float(start.law.subspace.total_variance)
    outside = float((fresh - start.means(Conditions.of({"c": given}, len(fresh)))).square().sum(1).mean())
    assert float(inside.var(0).sum()) < (1 - 0.5 * p / n) * outside
    assert left_out == pytest.approx(outside, rel=0.15)

    def nll(scale: float, residuals: torch.Tensor) -> torch.Tensor:
        law = Gaussian.fit(scale * (residuals - residuals.mean(0)) + residuals.mean(0))
        return -Regression((d,), start.mean, law).log_prob(x, sigma, {"c": given})

    ours = -start.log_prob(x, sigma, {"c": given})
    assert isinstance(start.mean, LinearMean)
    ridge = Ridge.fit(start.mean.features(Conditions.of({"c": c}, n)), data)
    outer = (data - ridge(start.mean.features(Conditions.of({"c": c}, n)))) / (1 - ridge.leverage)[:, None]
    scales = [nll(s, outer) for s in (0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)]
    best = min(scales, key=lambda each: float(each.mean()))
    error = float((ours - best).std()) / len(x) ** 0.5
    assert float((ours - best).mean()) < max(2 * error, 0.02)
    narrow = nll(1.0, inside)
    assert float((narrow - ours).mean()) > 2 * float((narrow - ours).std()) / len(x) ** 0.5 > 0


def test_conditions_that_say_nothing_cost_nothing():
    """The penalty goes to where the mean is all there is, and the start is the unconditional one."""
    data, _ = joint(2000, seed=1)
    start = Regression.fit(data, "gaussian", conditions={"c": random(2000, 20, seed=99)})
    assert start.explained < 0.01
    fresh, _ = joint(5000, seed=11)
    gap = Gaussian.fit(data).log_prob(fresh, 1.0) - start.log_prob(fresh, 1.0, {"c": random(5000, 20, seed=98)})
    assert abs(float(gap.mean())) < 0.02


def test_a_mean_of_ones_own_is_used_and_is_not_saved():
    data, c = joint(3000, seed=1)
    truth = lambda given: 1 + given["c"] @ SLOPE  # noqa: E731
    start = Regression.fit(data, "gaussian", conditions={"c": c}, mean=truth)
    assert torch.equal(start.means(Conditions.of({"c": c[:3]}, 3)), 1 + c[:3] @ SLOPE)
    torch.testing.assert_close(start.law.subspace.total_variance, (LEFT @ LEFT.mT).trace(), rtol=0.05, atol=0)
    # What it says of a sample that it has seen is told by folds, and then the residuals are the larger ones.
    wider = Regression.fit(data, "gaussian", conditions={"c": c}, mean=truth, left_out=torch.ones_like(data))
    assert wider.law.subspace.total_variance > start.law.subspace.total_variance
    with pytest.raises(ArtefactError, match="code"):
        start.state()
    wrong = Regression((D,), lambda given: torch.ones(2, 2), Gaussian.fit(data))
    with pytest.raises(InputError, match=r"has shape \(2, 2\): expected finite numbers of shape \(3, 4\)"):
        wrong.sample(Noise(range(3)), 1.0)


@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_a_saved_start_is_the_same_start(law):
    data, c = joint(500, seed=1)
    given = {"c": c, "label": torch.arange(500) % 2}
    start = Regression.fit(data, law, conditions=given)
    values, tensors = start.state()
    again = INITIALIZATIONS["regression"].from_state(json.loads(json.dumps(values)), tensors)
    some = {"c": c[:4], "label": torch.tensor([0, 1, 1, 0])}
    x = start.sample(Noise(range(4)), 0.5, some)
    assert torch.equal(again.sample(Noise(range(4)), 0.5, some), x)
    assert torch.equal(again.log_prob(x, 0.5, some), start.log_prob(x, 0.5, some))
    assert (repr(again), again.knows) == (repr(start), ("c", "label"))
    for name in ("mixture", "generated", "regression", "nonsense"):
        with pytest.raises(InputError):
            Regression.from_state(
                values | {"law": values["law"] | {"name": name}}, {} if name == "mixture" else tensors
            )


def test_classes_are_means_of_their_own():
    """One-hot columns: each class has its own mean, and the law its own components."""
    number = torch.arange(600) % 3
    data = torch.tensor([[4.0, 0], [-4, 1], [0, -4]], dtype=DOUBLE)[number] + 0.3 * random(600, 2)
    (start,) = fit_starts(data, "regression", labels=number, conditions={"label": number})
    for label in range(3):
        x = start.sample(Noise(range(500)), 0.1, torch.full((500,), label))
        torch.testing.assert_close(x.mean(0).double(), data[number == label].mean(0), rtol=0, atol=0.1)


def test_it_is_considered_where_there_are_conditions_other_than_classes():
    data, c = joint(500, seed=1)
    number = torch.arange(500) % 2
    assert "regression" not in {s.name for s in fit_starts(data, None, number, conditions={"label": number})}
    starts = fit_starts(data, None, conditions={"c": c, "words": [f"text {i}" for i in range(500)]})
    assert [start.name for start in starts] == ["isotropic", "gaussian", "mixture", "regression", "conditional-mixture"]
    assert starts[3].knows == starts[4].knows == ("c",)


def test_what_cannot_be_regressed_is_named():
    data, c = joint(50, seed=1)
    with pytest.raises(InputError, match="needs conditions that go with the samples: there are none"):
        fit_starts(data, "regression")
    with pytest.raises(InputError, match=r"there are none \(words cannot be described\)"):
        Regression.fit(data, conditions={"words": [str(i) for i in range(50)]})
    for law in ("flow", "empirical", "regression", "generator"):
        with pytest.raises(InputError, match="is no law of residuals"):
            Regression.fit(data, law, conditions={"c": c})
    with pytest.raises(InputError, match="expected one of"):
        Regression.fit(data, "nonsense", conditions={"c": c})
    with pytest.raises(InputError, match="need a closed-form start"):
        Regression((D,), lambda given: data, Isotropic((2,)))
    start = Regression.fit(data, Mixture.fit(data, 1), conditions={"c": c})
    with pytest.raises(InputError, match="needs the condition c, which is missing"):
        start.sample(Noise(range(3)), 1.0)


def test_means_that_are_not_finite_are_refused_whoever_fitted_the_law():
    data, c = joint(50, seed=1)
    law = Mixture.fit(data, 1)
    with pytest.raises(DataError, match="means given the conditions, hold NaN"):
        Regression.fit(data, law, conditions={"c": c}, mean=lambda given: math.nan * data[: given.count])
    with pytest.raises(DataError, match="hold NaN"):
        Regression.fit(data, law, conditions={"c": c}, mean=lambda given: data, left_out=math.nan * data)
    with pytest.raises(DataError, match="at least two samples"):
        Regression.fit(data[:0], law, conditions={"c": c[:0]}, mean=lambda given: data[:0])
