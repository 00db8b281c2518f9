"""The starts of a plan: by name, where they know, and what they cost."""

from __future__ import annotations

import sys

import pytest
import torch

from headstart import Noise, fit
from headstart.choose import fit_starts, hold_out
from headstart.choose.cost import operations
from headstart.choose.starts import refitted
from headstart.errors import InputError
from headstart.initialization import Gaussian, Isotropic, Mixture
from headstart.schedule import rho_grid
from tests.choose.cases import DATA, FAST, TARGET


def test_starts_by_name():
    starts = fit_starts(DATA)
    assert [start.name for start in starts] == ["isotropic", "gaussian", "mixture"]
    assert fit_starts(DATA, starts[1])[0] is starts[1]
    assert 10 <= len(starts[2].weights) <= 50


def test_starts_are_fitted_on_what_is_not_held_out(profile):
    fitted, out = hold_out(DATA, 0)
    plan = fit(TARGET, DATA, 3, profile=profile, initialization="empirical", criterion="budget")
    assert torch.equal(plan.initialization.data, DATA[fitted])
    assert {tuple(x) for x in fit(TARGET, DATA, 3, criterion="budget").profile.samples.tolist()} <= {
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


MATRIX = torch.rand(500, 500)


def network(x, sigma):
    """A network whose evaluation takes a product of two matrices: 0.25 10^9 operations."""
    MATRIX @ MATRIX
    return TARGET(x, sigma)


class Slow(Gaussian):
    """A start that takes two such products, as long as two evaluations, and is not in closed form."""

    closed_form = False

    def __init__(self):
        super().__init__((2,), Gaussian.fit(DATA).subspace)

    def _sample(self, noise, sigma, given):
        MATRIX @ MATRIX @ MATRIX
        return super()._sample(noise, sigma, given)


def test_operations_are_counted_by_their_size():
    """2 n^3 for a product, 40 for each number that is written, and 200,000 for a call."""
    assert operations(lambda: MATRIX @ MATRIX) == 2 * 500**3 + 40 * 500**2 + 200_000
    assert operations(lambda: MATRIX + 1) == 40 * 500**2 + 200_000
    assert operations(lambda: None) == 0


def test_the_cost_of_a_start_is_the_same_every_time_and_where_it_is_given_it_stands(profile):
    arguments = {"profile": profile, "criterion": "budget", "pilot_samples": 16}
    plans = [fit(network, DATA, 5, initialization=Slow(), **arguments) for _ in range(2)]
    assert plans[0].record.start_cost == plans[1].record.start_cost
    asked = fit(network, DATA, 5, initialization=Slow(), start_cost=1.2, **arguments)
    assert (asked.nfe, asked.record.start_cost) == (4, 1.2)
    closed = fit(network, DATA, 5, initialization="gaussian", start_cost=1.2, **arguments)
    assert closed.nfe == 5
    with pytest.raises(InputError, match="at least 0: got -1"):
        fit(network, DATA, 5, initialization=Slow(), start_cost=-1, **arguments)


def test_a_costly_start_leaves_fewer_evaluations_to_the_solver(profile):
    """A start is worth two evaluations of this network: of 5, 3 are left."""
    start = Slow()
    plan = fit(network, DATA, 5, profile=profile, initialization=start, criterion="budget", pilot_samples=16)
    assert plan.nfe == 3
    assert 1.5 < plan.record.start_cost < 2.5
    assert "drawing a start costs" in plan.explain()


@pytest.mark.parametrize(("solver", "nfe"), [("dpm++2m", 3), ("heun", 4)])
def test_nats_do_not_choose_a_start_that_leaves_a_single_step(solver, nfe, profile):
    """A start of two evaluations leaves one, or two of which Heun's method makes one step: a step to 0 has no nats."""
    arguments = {"profile": profile, "solver": solver, "criterion": "budget", "pilot_samples": 16}
    with pytest.raises(InputError, match=r"a gaussian start costs 1\.[89] evaluations.*: use a pilot"):
        fit(network, DATA, nfe, initialization=Slow(), **arguments)
    plan = fit(network, DATA, nfe, initialization=[Slow(), "isotropic"], **arguments)
    assert plan.initialization.name == "isotropic"
    assert plan.schedule.steps > 1


def test_a_start_too_costly_for_the_evaluations_is_left_out(profile):
    """A start of two evaluations leaves one of three: the other one is taken, with all three."""
    starts = [Slow(), "gaussian"]
    plan = fit(network, DATA, 3, profile=profile, initialization=starts, criterion="budget", pilot_samples=16)
    assert (type(plan.initialization), plan.nfe) == (Gaussian, 3)


def test_a_trained_start_learns_the_horizon_of_a_schedule(monkeypatch, profile):
    seen = {}
    fitted = lambda *_, **given: seen.update(given) or [Isotropic((2,))]  # noqa: E731
    monkeypatch.setattr(sys.modules["headstart.choose.choice"], "fit_starts", fitted)
    far = 75 * float(DATA.std())
    fit(TARGET, DATA, profile=profile, schedule=rho_grid(3, far, 0.1), solver="euler", initialization="flow")
    assert seen["sigmas"][0] < seen["sigmas"][1] == far


# On all data


def test_the_chosen_start_is_fitted_on_all_data(profile):
    """What is said of it is of the one before; one that was fitted already, or that hands data back, stays."""
    fitted, _ = hold_out(DATA, 0)
    plan = fit(TARGET, DATA, 3, profile=profile, **FAST)
    torch.testing.assert_close(plan.initialization.subspace.mean, DATA.double().mean(0))
    given = Gaussian.fit(DATA[fitted])
    kept = fit(TARGET, DATA, 3, profile=profile, initialization=given, pilot_samples=16)
    assert kept.initialization is given
    assert kept.budget == plan.budget


def test_a_mixture_that_is_fitted_again_has_its_size():
    start = Mixture.fit(DATA[:700], 7, 2, seed=1)
    again = refitted(start, DATA, seed=1)
    assert again.means.shape == (7, 2)
    torch.testing.assert_close(again.means, Mixture.fit(DATA, 7, 2, seed=1).means)


def test_few_held_out_data_are_not_worth_another_fit():
    """At most 3,000 are held out: of 40,000 they would add next to nothing."""
    data = TARGET.sample(Noise(range(1000))).repeat(40, 1)
    data = data + 0.01 * torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    plan = fit(TARGET, data, 3, check=False, novelty=False, **FAST)
    fitted, _ = hold_out(data, 0)
    torch.testing.assert_close(plan.initialization.subspace.mean, data[fitted].double().mean(0))
