"""Samplers: samples that belong to their seeds, drawn by a start and a solver, on checked arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart import own, shared
from headstart.citation import citations
from headstart.denoiser import Counted
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Isotropic
from headstart.noise import Noise
from headstart.sampler import Sampler, classic
from headstart.schedule import Schedule, rho_grid
from headstart.solver import DDPM, DPMSolverPP2M, Heun
from tests.cases import SOLVERS, STARTS, TARGET


def make(start="gaussian", solver=None, schedule=None):
    return Sampler(STARTS[start], schedule or rho_grid(3, 3.0, 0.1), solver or DPMSolverPP2M())


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("start", STARTS)
def test_a_sample_depends_on_its_own_seed_alone(start, solver):
    sampler, seeds = make(start, solver), [11, 5, 2**64 - 1, 0, 8, 3, 2]
    label = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    together = sampler.sample(TARGET, seeds=seeds, label=label)
    assert together.shape == (7, 2)
    assert len(together.unique(dim=0)) == 7
    for batch_size in (1, 2, 5):
        torch.testing.assert_close(
            sampler.sample(TARGET, seeds=seeds, batch_size=batch_size, label=label), together, rtol=0, atol=1e-4
        )
    among = [4, 1, 6]
    others = sampler.sample(TARGET, seeds=[seeds[i] for i in among], label=label[among])
    torch.testing.assert_close(others, together[among], rtol=0, atol=1e-4)


class Listening:
    """The exact denoiser, and what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma, **conditions):
        self.calls.append((x, sigma, conditions))
        return TARGET(x, sigma)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_noise_is_the_same_to_the_bit(solver):
    """Seen through the isotropic start, which only scales it, whatever the batch size and the neighbours."""
    sampler = make("isotropic", solver)
    seen = {}
    for seeds, batch_size in ([8, 9, 10, 11], 4), ([8, 9, 10, 11], 3), ([11, 8], 2), ([8], 1):
        listening = Listening()
        sampler.sample(listening, seeds=seeds, batch_size=batch_size)
        x, sigma, _ = listening.calls[0]
        seen[len(seeds), batch_size] = x[seeds[:batch_size].index(8)]
        if not solver.stochastic:
            assert torch.equal(x, 3.0 * Noise(seeds[:batch_size]).normal((2,)))
            assert (sigma == 3.0).all()
    assert all(torch.equal(x, seen[1, 1]) for x in seen.values())


def test_n_is_the_first_n_seeds():
    sampler = make()
    assert torch.equal(sampler.sample(TARGET, 5), sampler.sample(TARGET, seeds=range(5)))
    assert torch.equal(sampler.sample(TARGET, 5), sampler.sample(TARGET, seeds=iter([0, 1, 2, 3, 4])))


@pytest.mark.parametrize("seeds", [np.array([7, 3, 0]), torch.tensor([7, 3, 0]), iter([7, 3, 0])], ids=["a", "t", "i"])
def test_seeds_come_in_any_row_of_integers(seeds):
    sampler = make()
    assert torch.equal(sampler.sample(TARGET, seeds=seeds), sampler.sample(TARGET, seeds=[7, 3, 0]))


def test_the_global_generator_does_not_matter_and_is_left_alone():
    sampler = make(solver=DDPM())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sampler.sample(TARGET, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(sampler.sample(TARGET, 3), first)


def test_it_is_start_then_solver():
    sampler = make(solver=DDPM())
    noise = Noise(range(4))
    x = sampler.initialization.sample(noise, sampler.horizon)
    assert torch.equal(sampler.sample(TARGET, 4), DDPM().solve(TARGET, x, sampler.schedule, noise))


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_evaluations_are_those_it_says(solver):
    counted = Counted(TARGET)
    sampler = make(solver=solver)
    sampler.sample(counted, 7, batch_size=3)
    assert counted.samples == 7 * sampler.nfe
    assert counted.calls == 3 * sampler.nfe


def test_states_have_the_dtype_that_is_asked_for_and_no_gradient():
    sampler, weight = make(), torch.tensor(0.5, requires_grad=True)
    single, double = (sampler.sample(lambda x, sigma: weight * x, 3, dtype=t) for t in (torch.float32, torch.float64))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert not single.requires_grad
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label", [1, torch.tensor(1), torch.tensor([1])], ids=repr)
def test_one_label_stands_for_all(label):
    sampler, listening = make("by class"), Listening()
    out = sampler.sample(listening, 5, batch_size=2, label=label)
    assert all(torch.equal(c["label"], torch.ones(len(x), dtype=torch.long)) for x, _, c in listening.calls)
    assert torch.equal(out, sampler.sample(TARGET, 5, batch_size=2, label=torch.ones(5, dtype=torch.long)))


def test_labels_reach_the_start():
    sampler = make("by class", schedule=Schedule([0.2, 0.0]))
    label = torch.arange(20) % 2
    starts = []
    sampler.sample(lambda x, sigma, label: starts.append(x) or x, 20, label=label)
    side = starts[0][:, 0]
    assert side[label == 1].min() > side[label == 0].max() - 1
    assert side[label == 1].mean() > 1 > -1 > side[label == 0].mean()


def test_conditions_go_with_their_samples():
    sampler, listening = make(), Listening()
    label, table = torch.arange(7), torch.arange(4)
    sampler.sample(listening, 7, batch_size=3, label=label, table=table, scale=2.5, none=None)
    first = [conditions for x, sigma, conditions in listening.calls if sigma[0] == sampler.horizon]
    assert [c["label"].tolist() for c in first] == [[0, 1, 2], [3, 4, 5], [6]]
    assert all(torch.equal(c["table"], table) and c["scale"] == 2.5 and c["none"] is None for c in first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "and not both"),
        ({"n": 3, "seeds": [1, 2, 3]}, "and not both"),
        ({"n": 0}, "at least one sample"),
        ({"n": -2}, "at least one sample"),
        ({"n": 10**12}, "draw them in several runs"),
        ({"n": 3, "device": f"cuda:{torch.cuda.device_count()}"}, "cannot be used here"),
        ({"n": 3, "dtype": torch.int32}, "floating-point"),
        ({"seeds": []}, "at least one sample"),
        ({"n": 3, "batch_size": 0}, "batch_size=0"),
        ({"seeds": [-1]}, "from 0 to 2"),
        ({"seeds": torch.tensor([0.5, 1.0])}, "seeds must be integers"),
        ({"seeds": 5}, "seeds must be integers"),
        ({"seeds": np.array([], dtype=int)}, "at least one sample"),
        ({"n": 3, "label": "cat"}, "label is 'cat': expected a class"),
        ({"seeds": [2**64]}, "from 0 to 2"),
        ({"n": 3, "label": torch.tensor([0, 1])}, r"label has shape \(2,\)"),
        ({"n": 3, "label": torch.zeros(3, 2)}, r"label has shape \(3, 2\)"),
    ],
    ids=str,
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(InputError, match=message):
        make().sample(TARGET, **arguments)


@pytest.mark.parametrize(
    "denoiser",
    [lambda x, sigma: x / 0, lambda x, sigma: x[:, :1], lambda x, sigma: x.numpy()],
    ids=["Inf", "shape", "type"],
)
def test_denoisers_are_checked(denoiser):
    with pytest.raises(DenoiserError, match="the denoiser returned"):
        make().sample(denoiser, 3)


def test_what_to_cite_is_that_of_its_parts():
    sampler = make(solver=Heun())
    assert sampler.cited == citations("gaussian", "rho 7", "heun")
    assert sampler.citation().count("@") >= len(sampler.cited) > 0


def test_repr_names_the_three_parts():
    assert repr(make()) == "Sampler(3 evaluations: gaussian start at 3, rho 7 levels, dpm++2m)"
    assert repr(make(schedule=Schedule([3.0, 0.0]))).startswith("Sampler(1 evaluation: gaussian start at 3, custom")


# Conditions


def posterior(x, sigma, /, **given):
    """The exact denoiser of N(m, 1) in every coordinate, where m is made of every kind of condition."""
    own = given["x"] + given["sigma"]["deep"][0].sum((1, 2)) + torch.tensor([len(word) for word in given["seeds"]])
    mean = own[:, None].to(x.dtype) + given["n"].mean() + given["dtype"]["table"][3]
    return mean + (x - mean) / (1 + torch.as_tensor(sigma).reshape(-1, 1) ** 2)


def everything(count):
    return {
        "x": torch.arange(float(count)),
        "sigma": {"deep": (np.ones((count, 2, 2)) * np.arange(count)[:, None, None], "a word")},
        "seeds": ["a" * i for i in range(count)],
        "n": torch.linspace(0, 1, 11),
        "dtype": shared({"table": torch.arange(float(count))}),
    }


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8, 256])
def test_conditions_of_any_kind_and_name_follow_their_samples_in_every_batch(batch_size):
    sampler = Sampler(Isotropic((3,)), rho_grid(20, 80.0, 0.002), Heun())
    whole = sampler.sample(posterior, 8, conditions=everything(8))
    assert torch.allclose(
        sampler.sample(posterior, 8, conditions=everything(8), batch_size=batch_size), whole, atol=1e-5
    )
    expected = 6.0 * torch.arange(8.0) + 0.5 + 3
    assert ((whole.mean(1) - expected).abs() < 3).all()
    alone = {"x": torch.tensor([5.0]), "sigma": {"deep": (torch.full((1, 2, 2), 5.0), "")}, "seeds": ["aaaaa"]}
    others = {"n": torch.linspace(0, 1, 11), "dtype": {"table": torch.arange(8.0)}}
    one = sampler.sample(posterior, seeds=[5], conditions=alone | others)
    assert torch.allclose(one[0], whole[5], atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 256])
def test_an_observation_as_long_as_the_samples_is_shared_in_every_batch(batch_size):
    def network(x, sigma, observed, shift):
        mean = observed.mean() + torch.as_tensor(shift, dtype=x.dtype).reshape(-1, 1)
        return mean + (x - mean) / (1 + torch.as_tensor(sigma).reshape(-1, 1) ** 2)

    sampler = Sampler(Isotropic((2,)), rho_grid(6, 20.0, 0.01), Heun())
    shift = torch.linspace(-1, 1, 10)
    observed = torch.arange(10.0)
    right = sampler.sample(network, 10, observed=shared(observed), shift=own(shift))
    for kind in (shift, shift.numpy(), shift.tolist()):
        found = sampler.sample(network, 10, batch_size=batch_size, observed=observed, shift=kind)
        assert torch.allclose(found, right, atol=1e-5)


def test_a_condition_that_is_given_twice_is_named():
    with pytest.raises(InputError, match="scale is given twice"):
        make().sample(TARGET, 2, conditions={"scale": 1}, scale=2)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_trajectory_ends_at_the_samples_and_counts_its_evaluations(solver):
    sampler, seeds, label = (
        make("mixture" if "mixture" in STARTS else "gaussian", solver),
        [3, 2**40],
        torch.tensor([1, 0]),
    )
    states = sampler.trajectory(TARGET, seeds, {"label": label})
    assert [state.sigma for state in states] == list(sampler.schedule.sigmas)
    assert [states[0].evaluations, states[-1].evaluations] == [0, sampler.nfe]
    assert sorted(state.seconds for state in states) == [state.seconds for state in states]
    assert torch.equal(states[-1].x, sampler.sample(TARGET, seeds=seeds, label=label))


def test_a_trajectory_of_no_samples_is_refused():
    with pytest.raises(InputError, match="at least one"):
        make().trajectory(TARGET, [])


@pytest.mark.parametrize(("nfe", "spent"), [(1, 1), (2, 1), (4, 3), (35, 35)])
def test_the_classic_sampler_spends_no_more_than_it_may(nfe, spent):
    assert classic((2,), nfe).nfe == spent


def test_the_classic_sampler_stays_where_the_network_knows_noise():
    class Narrow:
        sigma_min, sigma_max = 0.1, 20.0

    levels = classic((2,), 9, Narrow()).schedule.sigmas
    assert (levels[0], levels[-2], levels[-1]) == (20.0, pytest.approx(0.1), 0.0)
