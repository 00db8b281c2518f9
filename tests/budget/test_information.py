"""What ignoring a condition costs, against the mutual information of joint Gaussians in closed form."""

from __future__ import annotations

import pytest
import torch

from headstart.budget import condition_information, initialization_error
from headstart.initialization import Gaussian, Mixture, Regression
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.targets import JointMixture

DOUBLE = torch.float64
ROOT = torch.tensor([[1.0, 0, 0, 0], [0.3, 0.8, 0, 0], [0.9, -0.5, 0.4, 0], [0.2, 0.7, 0.1, 0.3]], dtype=DOUBLE)
JOINT = JointMixture([1.0], torch.zeros(1, 4), (ROOT @ ROOT.mT)[None], 2)


def information(sigma: float) -> float:
    """I(X_T; C) = (log det of the covariance less log det of that given C) / 2."""
    s, noise = ROOT @ ROOT.mT, sigma**2 * torch.eye(2, dtype=DOUBLE)
    left = s[:2, :2] - s[:2, 2:] @ torch.linalg.solve(s[2:, 2:], s[2:, :2])
    return 0.5 * float(torch.logdet(s[:2, :2] + noise) - torch.logdet(left + noise))


@pytest.fixture(scope="module")
def measured() -> tuple[Profile, torch.Tensor, torch.Tensor]:
    x, c = JOINT.sample(Noise(range(22_000), dtype=DOUBLE))
    held = slice(20_000, None)
    sigmas = torch.logspace(2.5, -1.2, 60).double().numpy()
    profile = Profile.measure(JOINT, x[held], sigmas=sigmas, samples=2000, conditions={"c": c[held]}, dtype=DOUBLE)
    return profile, x[:20_000], c[:20_000]


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0, 10.0])
def test_it_is_the_mutual_information_within_three_standard_errors(measured, sigma):
    """And E_init of the two starts differs by it, both estimated by the loss of the conditional denoiser."""
    profile, x, c = measured
    starts = [Gaussian.fit(x), Regression.fit(x, "gaussian", conditions={"c": c})]
    found = condition_information(profile, starts, sigma)
    assert abs(found.value - information(sigma)) < 3 * found.error
    blind, looking = (initialization_error(profile, start, sigma) for start in starts)
    assert blind.value - looking.value == pytest.approx(found.value)
    assert abs(looking.value) < 3 * looking.error + 0.01


def test_classes_count_on_both_sides():
    """A mixture by class without a class is the law of all of them: two classes far apart are ln 2 nats."""
    number = torch.arange(2000) % 2
    x = torch.tensor([[-20.0], [20.0]], dtype=DOUBLE)[number] + torch.randn(
        2000, 1, generator=torch.Generator().manual_seed(0), dtype=DOUBLE
    )
    centres = torch.tensor([[-20.0], [20.0]], dtype=DOUBLE)

    def denoiser(y, sigma, label):
        s = torch.as_tensor(sigma, dtype=y.dtype).reshape(-1, 1) ** 2
        return (y + s * centres.to(y)[label]) / (1 + s)

    profile = Profile.measure(denoiser, x, sigmas=[400.0, 20.0, 1.0, 0.1], conditions={"label": number}, dtype=DOUBLE)
    found = condition_information(profile, [Mixture.fit(x, 2, labels=number)], 1.0)
    assert found.value == pytest.approx(0.6931, abs=1e-3)


def test_where_nothing_is_known_or_nothing_ignored_it_is_not_told(measured):
    profile, x, c = measured
    assert condition_information(profile, [Gaussian.fit(x)], 1.0) is None
    assert condition_information(profile, [Regression.fit(x, "gaussian", conditions={"c": c})], 1.0) is None
