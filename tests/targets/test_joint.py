"""Joint mixtures: their conditional laws by Bayes' rule and by quadrature."""

from __future__ import annotations

import pytest
import torch

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.targets import GaussianMixture, JointMixture

DOUBLE = torch.float64
ROOTS = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
MEANS = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
JOINT = JointMixture([0.5, 0.2, 0.3], MEANS, ROOTS @ ROOTS.mT + 0.1 * torch.eye(3, dtype=DOUBLE), 1)


def test_the_conditional_density_is_the_joint_one_over_the_marginal():
    """Noise is added to x alone: the joint law of (x + sigma eps, c) over that of c."""
    sigma, c = 0.6, torch.tensor([0.3, -0.8], dtype=DOUBLE)
    wide = ROOTS @ ROOTS.mT + 0.1 * torch.eye(3, dtype=DOUBLE)
    wide[:, 0, 0] += sigma**2
    noised = GaussianMixture([0.5, 0.2, 0.3], MEANS, wide)
    x = torch.linspace(-4, 4, 9, dtype=DOUBLE)[:, None]
    both = torch.cat([x, c.expand(9, 2)], 1)
    bayes = noised.log_prob(both) - JOINT.condition.log_prob(c.expand(9, 2))
    torch.testing.assert_close(JOINT.log_prob(x, sigma, c), bayes)


def test_the_denoiser_is_the_conditional_mean_by_quadrature():
    sigma, c = 0.6, torch.tensor([0.3, -0.8], dtype=DOUBLE)
    line = torch.linspace(-20, 20, 8001, dtype=DOUBLE)[:, None]
    prior = JOINT.log_prob(line, 1e-4, c)
    for x in (-1.5, 0.2, 3.0):
        weights = torch.softmax(prior - 0.5 * ((x - line[:, 0]) / sigma).square(), 0)
        got = JOINT(torch.tensor([[x]], dtype=DOUBLE), sigma, c=c)
        torch.testing.assert_close(got[0], weights @ line, rtol=1e-5, atol=1e-6)


def test_the_score_is_the_gradient_of_the_log_density():
    x = torch.linspace(-2, 2, 5, dtype=DOUBLE)[:, None].requires_grad_()
    c = torch.tensor([0.3, -0.8], dtype=DOUBLE)
    JOINT.log_prob(x, 0.5, c).sum().backward()
    torch.testing.assert_close(JOINT.score(x.detach(), 0.5, c), x.grad)


def test_samples_and_conditions_are_those_of_the_joint_law():
    x, c = JOINT.sample(Noise(range(50), dtype=DOUBLE))
    assert torch.equal(torch.cat([x, c], 1), JOINT.law.sample(Noise(range(50), dtype=DOUBLE)))
    single = JOINT(x.float(), torch.full((50,), 0.5), c=c.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), JOINT(x, 0.5, c=c), rtol=1e-5, atol=1e-5)


def test_far_out_the_denoiser_is_the_regression_mean():
    """D(sigma eps, sigma, c) = E[x0 | c] up to O(1 / sigma)."""
    c = torch.tensor([0.3, -0.8], dtype=DOUBLE)
    line = torch.linspace(-20, 20, 4001, dtype=DOUBLE)[:, None]
    mean = torch.softmax(JOINT.log_prob(line, 1e-4, c), 0) @ line
    errors = [float((JOINT(torch.full((1, 1), s, dtype=DOUBLE), s, c=c) - mean).abs()) for s in (1e2, 1e3, 1e4)]
    assert errors[0] < 0.1
    assert errors[1] / errors[0] == pytest.approx(0.1, rel=0.2)
    assert errors[2] < 1e-3


def test_what_is_no_joint_law_is_named():
    with pytest.raises(InputError, match="expected full covariances"):
        JointMixture([1.0], [[0.0, 0.0]], [[1.0, 1.0]], 1)
    with pytest.raises(InputError, match="0 < d < 2"):
        JointMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]], 2)
