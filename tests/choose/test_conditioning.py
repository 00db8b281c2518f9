"""Plans of networks that are given vectors: the start that knows them is chosen, kept and used."""

from __future__ import annotations

import pytest
import torch

from headstart import Plan, fit
from headstart.noise import Noise
from headstart.targets import JointMixture

ROOT = torch.tensor([[1.0, 0, 0], [0.3, 0.8, 0], [0.97, -0.2, 0.1]], dtype=torch.float64)
JOINT = JointMixture([1.0], torch.zeros(1, 3), (ROOT @ ROOT.mT)[None], 2)
X, C = (each.float() for each in JOINT.sample(Noise(range(1500), dtype=torch.float64)))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return fit(JOINT, X, 8, conditions={"c": C}, criterion="budget", horizon=0.5)


def test_the_start_that_knows_the_condition_is_chosen_and_says_what_that_is_worth(plan):
    s, noise = ROOT @ ROOT.mT, 0.25 * torch.eye(2, dtype=torch.float64)
    left = s[:2, :2] - s[:2, 2:] @ s[2:, :2] / s[2, 2]
    exact = 0.5 * float(torch.logdet(s[:2, :2] + noise) - torch.logdet(left + noise))
    told = plan.record.conditioning
    assert told.knows == plan.initialization.knows == ("c",)
    assert told.ignores == ()
    value, error = told.information
    assert abs(value - exact) < 3 * error + 0.05
    assert f"would pay {value:.3g}"[:15] in plan.explain()


def test_a_start_that_ignores_it_says_so(plan):
    blind = fit(JOINT, X, 8, conditions={"c": C}, criterion="budget", horizon=0.5, initialization=["gaussian"])
    assert blind.record.conditioning.knows == ()
    assert blind.record.conditioning.ignores == ("c",)
    assert blind.record.conditioning.information is None
    assert blind.budget.initialization.value - plan.budget.initialization.value > 0.4


def test_a_loaded_plan_samples_at_one_observation(plan, tmp_path):
    """The posterior at one c, from one row for all samples, by a plan from a file."""
    plan.save(tmp_path / "plan")
    loaded = Plan.load(tmp_path / "plan")
    one = torch.tensor([1.5])
    x = loaded.sample(JOINT, 2000, conditions={"c": one})
    s = ROOT @ ROOT.mT
    mean = (s[:2, 2] / s[2, 2] * 1.5).float()
    left = (s[:2, :2] - s[:2, 2:] @ s[2:, :2] / s[2, 2]).float()
    assert ((x.mean(0) - mean).abs() / left.diagonal().sqrt()).max() < 0.15
    assert float((x.mT.cov() - left).norm() / left.norm()) < 0.2
    assert torch.equal(x, plan.sample(JOINT, 2000, conditions={"c": one.expand(2000, 1)}))
