"""The network's own mean on joint laws: it is the regression mean, costs one evaluation, and is checked first."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import torch

from headstart import Plan, fit
from headstart.choose import fit_starts
from headstart.choose.work import Work
from headstart.conditions import Conditions
from headstart.denoiser import Counted
from headstart.errors import DataError, InputError
from headstart.initialization import Gaussian, NetworkMean
from headstart.noise import Noise
from headstart.targets import JointMixture

DOUBLE = torch.float64
ROOTS = torch.tensor([[[1.0, 0, 0], [0.3, 0.8, 0], [0.97, -0.2, 0.1]], [[0.5, 0, 0], [-0.2, 0.4, 0], [-0.8, 0.1, 0.2]]])
JOINT = JointMixture([0.4, 0.6], [[1.0, 0.0, 1.0], [-1.0, 0.5, -1.0]], ROOTS @ ROOTS.mT, 2)
X, C = (each.float() for each in JOINT.sample(Noise(range(600), dtype=DOUBLE)))


def means(c: torch.Tensor) -> torch.Tensor:
    """E[x0 | c] of the mixture."""
    gates = JOINT.condition._components(c.double(), 0.0)[2].softmax(1)
    local = JOINT.marginal.means + torch.einsum(
        "bkq,kqd->bkd", c.double()[:, None] - JOINT.condition.means, JOINT.slopes
    )
    return torch.einsum("bk,bkd->bd", gates, local)


def test_its_mean_is_the_regression_mean_up_to_the_inverse_of_the_level():
    errors = []
    for level in (50.0, 500.0, 5000.0):
        start = NetworkMean.fit(X.double(), "gaussian", conditions={"c": C.double()}, denoiser=JOINT, sigma_max=level)
        got = start.means(Conditions.of({"c": C[:50].double()}, 50))
        errors.append(float((got - means(C[:50])).abs().max()))
    assert errors[0] < 0.2
    assert errors[1] / errors[0] == pytest.approx(0.1, rel=0.3)
    assert errors[2] / errors[1] == pytest.approx(0.1, rel=0.3)


def test_it_costs_one_evaluation_which_the_plan_counts(tmp_path):
    """One of those that are asked for; a plan that was loaded asks the network that it samples."""
    plan = fit(JOINT, X, 4, conditions={"c": C}, initialization="network-mean", start_cost=1.0, horizon=0.5)
    assert plan.nfe == 4 == plan.schedule.steps + 1
    plan.save(tmp_path / "plan")
    loaded = Plan.load(tmp_path / "plan")
    counted = Counted(JOINT)
    x = loaded.sample(counted, 20, conditions={"c": C[:20]})
    assert counted.calls == loaded.nfe == 4
    assert torch.equal(x, plan.sample(JOINT, 20, conditions={"c": C[:20]}))
    assert repr(loaded.initialization) == repr(plan.initialization)
    with pytest.raises(InputError, match="needs its network"):
        loaded.initialization.sample(Noise(range(2)), 0.5, {"c": C[:2]})


@pytest.mark.filterwarnings("ignore:going on with")
def test_a_fit_that_goes_on_hands_it_its_network_again(tmp_path):
    fitted, given = [], {"conditions": {"c": C[:50]}, "denoiser": JOINT}
    for _ in range(2):
        with suppress(KeyboardInterrupt), Work(tmp_path / "units") as work:
            work.begin({"job": 1})
            fitted += fit_starts(X[:50], "network-mean", work=work, **given)
            raise KeyboardInterrupt
    assert (tmp_path / "units" / "start-network-mean.unit").exists()
    first, second = (start.log_prob(X[:5], 1.0, {"c": C[:5]}) for start in fitted)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_network_that_is_no_regression_far_out_is_refused():
    """It was never trained on pure noise, and its answers there follow the noise."""

    def untrained(x, sigma, c):
        return torch.where(torch.as_tensor(sigma).reshape(-1, 1) > 5, x / 50, JOINT(x, sigma, c=c))

    with pytest.raises(InputError, match="it is no regression there"):
        NetworkMean.fit(X, "gaussian", conditions={"c": C}, denoiser=untrained)
    with pytest.raises(InputError, match="hand in denoiser="):
        NetworkMean.fit(X, "gaussian", conditions={"c": C})


def test_what_it_cannot_be_fitted_on_is_named():
    law, given = Gaussian.fit(X), {"conditions": {"c": C}, "denoiser": JOINT}
    with pytest.raises(DataError, match="hold NaN"):
        NetworkMean.fit(X * math.nan, law, **given)
    with pytest.raises(DataError, match="at least two samples"):
        NetworkMean.fit(X[:0], law, conditions={"c": C[:0]}, denoiser=JOINT)
    with pytest.raises(InputError, match=r"residuals of shape \(2,\) need a start for them"):
        NetworkMean.fit(X, Gaussian.fit(X[:, :1]), **given)
    for level in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="above 0 and finite: got sigma_max"):
            NetworkMean.fit(X, law, sigma_max=level, **given)
