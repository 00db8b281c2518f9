"""The starts of a plan: by name, where they know, and what they cost."""

from __future__ import annotations

import sys

import pytest
import torch

from headstart import fit
from headstart.choose import fit_starts, hold_out
from headstart.errors import InputError
from headstart.initialization import Gaussian, Isotropic
from headstart.schedule import rho_grid
from tests.choose.cases import DATA, TARGET


def test_starts_by_name():
    starts = fit_starts(DATA)
    assert [start.name for start in starts] == ["isotropic", "gaussian", "mixture"]
    assert fit_starts(DATA, starts[1])[0] is starts[1]
    assert 10 <= len(starts[2].weights) <= 50


def test_starts_are_fitted_on_what_is_not_held_out(profile):
    fitted, out = hold_out(DATA, 0)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization="empirical", criterion="nats")
    assert torch.equal(plan.initialization.data, DATA[fitted])
    assert {tuple(x) for x in fit(TARGET, DATA, 3, criterion="nats").profile.samples.tolist()} <= {
        tuple(x) for x in DATA[out].tolist()
    }


@pytest.mark.parametrize(("scale", "highest"), [(0.01, 80.0), (100.0, 200.0 * 100.0)])
def test_teleportation_begins_beyond_data_of_any_scale(scale, highest):
    data = scale * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    (start,) = fit_starts(data, "teleportation")
    assert start.sigma_max == pytest.approx(highest, rel=0.05)


def test_a_horizon_that_no_start_knows_is_named(profile):
    start = Gaussian.fit(DATA)
    start.sigmas = (2.0, 9.0)
    with pytest.raises(InputError, match=r"no start knows the horizon .* gaussian from 2 to 9"):
        fit(TARGET, DATA, 3, profile=profile, initialization=start, horizon=1.0)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization=[start, "isotropic"], horizon=1.0, pilot_samples=16)
    assert plan.initialization.name == "isotropic"


# What they cost


class Clock:
    """What the costs of starts are timed by: it stands still but for what is said to take time."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def network(self, x, sigma):
        """A network whose evaluation takes 0.025 s."""
        self.now += 0.025
        return TARGET(x, sigma)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("headstart.choose.starts.time", clock)
    return clock


class Slow(Gaussian):
    """A start that takes 0.05 s, as long as two evaluations of the network, and is not in closed form."""

    closed_form = False

    def __init__(self, clock):
        super().__init__((2,), Gaussian.fit(DATA).subspace)
        self.clock = clock

    def _sample(self, noise, sigma, label):
        self.clock.now += 0.05
        return super()._sample(noise, sigma, label)


def test_a_costly_start_leaves_fewer_evaluations_to_the_solver(profile, clock):
    """One evaluation of this network takes 0.025 s and a start 0.05 s: of 5 evaluations, 3 are left."""
    start = Slow(clock)
    plan = fit(clock.network, DATA, 5, profile=profile, initialization=start, criterion="nats", pilot_samples=16)
    assert plan.nfe == 3
    assert 1.5 < plan.record.start_cost < 2.5
    assert "drawing a start costs" in plan.explain()


@pytest.mark.parametrize(("solver", "nfe"), [("dpm++2m", 3), ("heun", 4)])
def test_nats_do_not_choose_a_start_that_leaves_a_single_step(solver, nfe, profile, clock):
    """A start of two evaluations leaves one, or two of which Heun's method makes one step: a step to 0 has no nats."""
    arguments = {"profile": profile, "solver": solver, "criterion": "nats", "pilot_samples": 16}
    with pytest.raises(InputError, match="which is all that one evaluation does: use a pilot"):
        fit(clock.network, DATA, nfe, initialization=Slow(clock), **arguments)
    plan = fit(clock.network, DATA, nfe, initialization=[Slow(clock), "isotropic"], **arguments)
    assert plan.initialization.name == "isotropic"
    assert plan.schedule.steps > 1


def test_a_start_too_costly_for_the_evaluations_is_left_out(profile, clock):
    """A start of two evaluations leaves one of three: the other one is taken, with all three."""
    starts = [Slow(clock), "gaussian"]
    plan = fit(clock.network, DATA, 3, profile=profile, initialization=starts, criterion="nats", pilot_samples=16)
    assert (type(plan.initialization), plan.nfe) == (Gaussian, 3)


def test_a_trained_start_learns_the_horizon_of_a_schedule(monkeypatch, profile):
    seen = {}
    fitted = lambda *_, **given: seen.update(given) or [Isotropic((2,))]  # noqa: E731
    monkeypatch.setattr(sys.modules["headstart.choose.fit"], "fit_starts", fitted)
    far = 75 * float(DATA.std())
    fit(TARGET, DATA, profile=profile, schedule=rho_grid(3, far, 0.1), solver="euler", initialization="flow")
    assert seen["sigmas"][0] < seen["sigmas"][1] == far
