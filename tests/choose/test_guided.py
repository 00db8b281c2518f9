"""Plans for a guided denoiser: fitted and judged on its own samples, kept, counted, and warned about."""

from __future__ import annotations

import warnings

import pytest
import torch

from headstart import Plan, fit, guide
from headstart.denoiser import Counted, expand
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.plan import Guidance
from headstart.schedule import rho_grid
from headstart.solver import Heun

#: Two classes, N(-1, 0.25) and N(1, 0.25) in every coordinate.
CENTRES, VARIANCE = torch.tensor([-1.0, 1.0]), 0.25
LABELS = torch.arange(600) % 2
DATA = CENTRES[LABELS][:, None] + 0.5 * torch.randn(600, 2, generator=torch.Generator().manual_seed(0))


def network(x, sigma, label=None):
    """The exact denoiser of a class, or without one of the mixture of both."""
    s2 = expand(sigma, x) ** 2
    each = [(VARIANCE * x + s2 * c) / (VARIANCE + s2) for c in CENTRES]
    if label is not None:
        return torch.where((label == 1)[:, None], each[1], each[0])
    share = torch.sigmoid(2 * x.sum(1, keepdim=True) / (VARIANCE + s2))
    return share * each[1] + (1 - share) * each[0]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return fit(network, DATA, 3, labels=LABELS, guidance=3.0, n_samples=400, pilot_samples=32, initialization="mixture")


def test_the_start_is_that_of_the_guided_samples_and_so_are_the_samples(plan):
    """Guidance moves the classes apart, and a start on the data would begin between."""
    label = torch.arange(400) % 2
    x = 80 * Noise(range(400)).normal((2,))
    fine = Heun().solve(guide(network, 3.0), x, rho_grid(40, 80.0, 0.002), label=label)
    ours = plan.sample(guide(network, 3.0), 400, label=label)
    for c in (0, 1):
        guided, got = fine[label == c].mean(), ours[label == c].mean()
        assert abs(float(guided)) > 1.15
        assert float((got - guided).abs()) < 0.5 * abs(float(guided - CENTRES[c]))
        start = plan.initialization.sample(Noise(range(400)), 0.05, torch.full((400,), c))
        assert float((start.mean() - guided).abs()) < 0.5 * abs(float(guided - CENTRES[c]))


def test_the_guidance_is_kept_counted_and_shown(plan, tmp_path):
    plan.save(tmp_path / "plan")
    loaded = Plan.load(tmp_path / "plan")
    assert loaded.record.guidance == Guidance(3.0)
    counted = Counted(network)
    loaded.sample(guide(counted, 3.0), 4, label=LABELS[:4])
    assert loaded.network_calls == counted.calls == 2 * loaded.nfe
    assert f"Guidance   3: {counted.calls} calls of the network" in loaded.explain()
    assert "400 samples of the network itself" in loaded.record.source


def test_another_guidance_is_warned_about(plan):
    few = {"label": LABELS[:4]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan.sample(guide(network, 3.0), 4, conditions=few)
    for other, said in (
        (network, "is none"),
        (guide(network, 2.0), "is 2"),
        (guide(network, 3.0, interval=(0.1, 1)), "is 3 on"),
    ):
        with pytest.warns(UserWarning, match=f"fitted for guidance 3, and the denoiser's {said}"):
            plan.sample(other, 4, conditions=few)


def test_an_interval_counts_two_calls_where_it_guides():
    within = guide(network, 3.0, interval=(0.3, 1e3))
    plan = fit(
        within,
        None,
        3,
        labels=LABELS[:300],
        shape=(2,),
        n_samples=300,
        guidance=3.0,
        horizon=1.0,
        solver="dpm++2m",
        schedule="rho",
        sigma_min=0.05,
        initialization="gaussian",
        pilot_samples=16,
    )
    counted = Counted(network)
    plan.sample(guide(counted, 3.0, interval=(0.3, 1e3)), 4, label=LABELS[:4])
    assert plan.network_calls == counted.calls
    assert plan.nfe < counted.calls < 2 * plan.nfe
    assert plan.record.guidance == Guidance(3.0, 0.3, 1e3)


def test_what_does_not_go_with_guidance_is_named():
    with pytest.raises(InputError, match="no budget in nats"):
        fit(network, DATA, 3, labels=LABELS, guidance=3.0, criterion="budget")
    with pytest.raises(InputError, match="guided by 2, and the plan is asked for guidance 3"):
        fit(guide(network, 2.0), DATA, 3, labels=LABELS, guidance=3.0)
