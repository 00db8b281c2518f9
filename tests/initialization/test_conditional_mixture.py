"""The conditional mixture against joint mixtures, whose conditional laws are exact."""

from __future__ import annotations

import json

import pytest
import torch

from headstart.budget import initialization_error
from headstart.errors import InputError
from headstart.initialization import INITIALIZATIONS, ConditionalMixture, Features, Mixture, Regression, Subspace
from headstart.initialization.features import Numbers
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.targets import JointMixture

D, Q, K = 2, 2, 3
DOUBLE = torch.float64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def law() -> JointMixture:
    """Three components in two dimensions, given two numbers."""
    roots = 0.5 * random(K, D + Q, D + Q, seed=1) + 0.3 * torch.eye(D + Q, dtype=DOUBLE)
    return JointMixture([0.2, 0.3, 0.5], 1.5 * random(K, D + Q, seed=2), roots @ roots.mT, D)


def true_start(joint: JointMixture) -> ConditionalMixture:
    """The start with the parameters of the law itself."""
    swap = torch.cat([torch.arange(D, D + Q), torch.arange(D)])
    covariances = joint.law.axes @ torch.diag_embed(joint.law.variances) @ joint.law.axes.mT
    zero, eye = torch.zeros(D, dtype=DOUBLE), torch.eye(D, dtype=DOUBLE)
    features = Features((Numbers(("c",), (Q,), torch.zeros(Q, dtype=DOUBLE), torch.ones(Q, dtype=DOUBLE)),))
    parameters = joint.law.weights, joint.law.means[:, swap], covariances[:, swap][:, :, swap]
    space = Subspace(zero, eye, zero + 1, zero.sum())
    return ConditionalMixture.of((D,), space, features, torch.eye(Q, dtype=DOUBLE), parameters)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_with_the_true_parameters_it_is_the_law_at_every_horizon(sigma):
    """E_init = 0: the densities are equal, point by point."""
    joint = law()
    x0, c = joint.sample(Noise(range(200), dtype=DOUBLE))
    x = x0 + sigma * random(200, D, seed=3)
    torch.testing.assert_close(true_start(joint).log_prob(x, sigma, {"c": c}), joint.log_prob(x, sigma, c))


def test_its_error_by_the_loss_of_the_exact_denoiser_is_zero():
    """And what the true unconditional start pays more is the mutual information, within three standard errors."""
    joint = law()
    x0, c = joint.sample(Noise(range(1500), dtype=DOUBLE))
    sigmas = torch.logspace(2.3, -1, 60).double().numpy()
    profile = Profile.measure(joint, x0, sigmas=sigmas, samples=1500, conditions={"c": c}, dtype=DOUBLE)
    for sigma in (0.5, 2.0):
        found = initialization_error(profile, true_start(joint), sigma)
        assert abs(found.value) < 3 * found.error + 0.01


def test_its_samples_follow_the_condition():
    joint, n, sigma = law(), 4000, 0.3
    start = true_start(joint)
    for c in (torch.tensor([0.5, -1.0], dtype=DOUBLE), torch.tensor([-2.0, 1.0], dtype=DOUBLE)):
        x = start.sample(Noise(range(n), dtype=DOUBLE), sigma, {"c": c})
        frequencies = random(8, D, seed=5)
        # Against samples of the law itself: its density weighs a grid.
        line = torch.linspace(-12, 12, 241, dtype=DOUBLE)
        grid = torch.cartesian_prod(line, line)
        mass = joint.log_prob(grid, sigma, c).exp() * 0.01
        assert float(mass.sum()) == pytest.approx(1, abs=1e-3)
        waves = torch.exp(1j * (x @ frequencies.T))
        exact = mass.to(torch.complex128) @ torch.exp(1j * (grid @ frequencies.T))
        for part, of in ((waves.real, exact.real), (waves.imag, exact.imag)):
            assert ((part.mean(0) - of).abs() < 4.5 * part.std(0) / n**0.5 + 2e-3).all()


def test_a_fit_comes_near_the_law_and_beats_what_knows_less():
    joint, sigma = law(), 0.5
    x0, c = joint.sample(Noise(range(6000), dtype=DOUBLE))
    fresh, given = joint.sample(Noise(range(10_000, 14_000), dtype=DOUBLE))
    x = fresh + sigma * random(4000, D, seed=3)
    exact = joint.log_prob(x, sigma, given)
    start = ConditionalMixture.fit(x0, conditions={"c": c})

    def error(start) -> float:
        return float((exact - start.log_prob(x, sigma, {"c": given})).mean())

    assert error(start) < 0.08
    assert error(start) < error(Regression.fit(x0, conditions={"c": c})) < error(Mixture.fit(x0))


def test_many_features_are_reduced_to_those_that_explain():
    """Of 60 numbers two matter: reduced-rank regression finds them."""
    n, p = 3000, 60
    c = random(n, p, seed=4)
    x0 = c[:, :2] @ (2 * random(2, 5, seed=6)) + 0.3 * random(n, 5, seed=7)
    start = ConditionalMixture.fit(x0, 1, conditions={"c": c})
    assert start.centres.shape[1] <= 5
    fresh = random(2000, p, seed=8)
    y = fresh[:, :2] @ (2 * random(2, 5, seed=6)) + 0.3 * random(2000, 5, seed=9)
    noised = y + 0.4 * random(2000, 5, seed=10)
    exact = torch.distributions.Normal(0.0, 0.5).log_prob(noised - fresh[:, :2] @ (2 * random(2, 5, seed=6))).sum(1)
    assert float((exact - start.log_prob(noised, 0.4, {"c": fresh})).mean()) < 0.1


def test_a_saved_start_is_the_same_start():
    joint = law()
    x0, c = joint.sample(Noise(range(400), dtype=DOUBLE))
    start = ConditionalMixture.fit(x0, 4, conditions={"c": c, "label": torch.arange(400) % 3})
    assert start.knows == ("c", "label")
    values, tensors = start.state()
    again = INITIALIZATIONS["conditional-mixture"].from_state(json.loads(json.dumps(values)), tensors)
    some = {"c": c[:4], "label": torch.tensor([0, 1, 2, 0])}
    x = start.sample(Noise(range(4)), 0.5, some)
    assert torch.equal(again.sample(Noise(range(4)), 0.5, some), x)
    assert torch.equal(again.log_prob(x, 0.5, some), start.log_prob(x, 0.5, some))
    assert repr(again) == repr(start)
    with pytest.raises(InputError, match="precisions"):
        ConditionalMixture.from_state(values, tensors | {"precisions": -tensors["precisions"]})


@pytest.mark.parametrize("n", [2, 3, 10])
def test_few_samples_make_one_component(n):
    start = ConditionalMixture.fit(random(n, 2), conditions={"c": random(n, 2, seed=1)})
    assert len(start.weights) == 1
    assert bool(torch.isfinite(start.sample(Noise(range(n)), 1.0, {"c": random(n, 2, seed=1)})).all())


def test_what_it_cannot_be_fitted_on_is_named():
    with pytest.raises(InputError, match="there are none it knows"):
        ConditionalMixture.fit(random(20, 2))
    with pytest.raises(InputError, match="at least 1 component"):
        ConditionalMixture.fit(random(20, 2), 0, conditions={"c": random(20, 2)})
    start = true_start(law())
    with pytest.raises(InputError, match="needs the condition c"):
        start.sample(Noise(range(2)), 1.0)
