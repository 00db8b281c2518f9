"""Learning levels and coefficients: gradients are right, errors fall, and nothing worse is ever returned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from headstart import distill as module
from headstart.compute import Compute
from headstart.denoiser import expand
from headstart.distill import Recipe, distill, energy
from headstart.errors import DataError, DenoiserError, InputError
from headstart.initialization import Diagonal, Mixture
from headstart.noise import Noise
from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.solver import DEIS, IPNDM, Distilled, DPMSolverPP2M, Euler, Heun, UniPC
from headstart.targets import Gaussian

VARIANCE = torch.tensor([4.0, 1.0, 0.25, 0.04], dtype=torch.float64)
TARGET = Gaussian([0.5, -1.0, 0.0, 0.2], VARIANCE)
START = Diagonal((4,), TARGET.sample(Noise([0])).new_tensor([0.5, -1.0, 0.0, 0.2]), VARIANCE)
DATA = TARGET.sample(Noise(range(4000))).float()
FAST = Recipe(iterations=40, batch_size=64, pairs=96, judged=400, learning_rate=0.15)
BAD = Schedule([6.0, 5.0, 4.0, 0.05, 0.0])


def flow(x, horizon):
    """The exact end of the ODE on the Gaussian."""
    mean = START.mean
    return mean + (VARIANCE / (VARIANCE + horizon**2)).sqrt() * (x.double() - mean)


def trajectory_error(schedule, solver, seed=7):
    x = START.sample(Noise(range(seed * 1000, seed * 1000 + 500)), schedule.horizon)
    return float((solver.solve(TARGET, x, schedule) - flow(x, schedule.horizon)).square().mean())


# The sampler


@pytest.mark.parametrize("solver", [Euler(), DPMSolverPP2M(), UniPC(), DEIS(points=3), IPNDM()], ids=repr)
def test_before_learning_it_is_the_solver(solver):
    x = START.sample(Noise(range(5)), BAD.horizon).double()
    sampler = module._Sampler(BAD, solver, "both")
    torch.testing.assert_close(sampler(TARGET, x), solver.solve(TARGET, x, BAD), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", [Euler(), DPMSolverPP2M(), UniPC(), DEIS(points=3)], ids=repr)
def test_gradients_are_those_of_finite_differences(solver):
    """Of a loss of the samples, by every gap and every weight, at levels and weights that are not the first ones."""
    grid = Schedule([3.0, 1.0, 0.3, 0.0])
    x = START.sample(Noise(range(6)), 3.0).double()
    sampler = module._Sampler(grid, solver, "both")
    with torch.no_grad():
        sampler.log_gaps += torch.tensor([0.1, -0.2])
        sampler.offsets += 0.05

    def loss():
        return sampler(TARGET, x).pow(3).mean()

    slopes = torch.autograd.grad(loss(), sampler.parameters)
    for parameter, slope in zip(sampler.parameters, slopes, strict=True):
        found = torch.zeros_like(slope).flatten()
        flat = parameter.data.view(-1)
        for i, kept in enumerate(flat.tolist()):
            ends = []
            for nudge in (1e-5, -1e-5):
                flat[i] = kept + nudge
                ends.append(loss().item())
            flat[i] = kept
            found[i] = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close(slope.flatten(), found, rtol=1e-5, atol=1e-7)
        assert slope.abs().max() > 1e-3


def test_what_is_sampled_is_what_was_learned():
    """The schedule and the solver that come back do what the differentiable sampler did."""
    sampler = module._Sampler(BAD, DPMSolverPP2M(), "both")
    with torch.no_grad():
        sampler.log_gaps += torch.tensor([0.3, -0.2, 0.1])
        sampler.offsets += torch.randn(4, 4, generator=torch.Generator().manual_seed(1)) * 0.1
    x = START.sample(Noise(range(5)), BAD.horizon).double()
    schedule, solver = sampler.result("x")
    assert schedule.horizon == BAD.horizon
    torch.testing.assert_close(sampler(TARGET, x), solver.solve(TARGET, x, schedule), rtol=1e-9, atol=1e-9)


def test_a_point_stays_a_point_whatever_is_learned():
    """All estimates equal: every level and every offset lead to that point, as the solver does."""
    sampler = module._Sampler(BAD, UniPC(), "both")
    with torch.no_grad():
        sampler.log_gaps += torch.tensor([0.3, -0.2, 0.1])
        sampler.offsets += torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    x = torch.tensor([[50.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(sampler(lambda x, sigma: torch.full_like(x, 2.5), x), torch.full_like(x, 2.5))


# The distances


def test_the_energy_distance_is_that_of_all_pairs():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (7, 5))
    u = torch.nn.functional.normalize(torch.randn(3, 4, generator=g, dtype=torch.float64), dim=0)
    x, y = a @ u, b @ u

    def pairs(p, q, own):
        gaps = (p[:, None] - q[None]).abs()
        return gaps.sum((0, 1)) / (len(p) * (len(p) - 1) if own else len(p) * len(q))

    expected = (2 * pairs(x, y, False) - pairs(x, x, True) - pairs(y, y, True)).mean()
    torch.testing.assert_close(energy(a, b, u), expected)


def test_the_energy_distance_is_without_bias():
    """Small batches of one law are at distance 0 on average; of another law, at the closed form of two Gaussians."""
    x = Noise(range(4000)).normal((2,)).double().reshape(500, 8, 2)
    u = torch.eye(1, dtype=torch.float64)
    same = torch.stack([energy(row[:, :1], row[:, 1:], u) for row in x])
    assert abs(float(same.mean())) < 3 * float(same.std()) / 500**0.5
    wide = torch.stack([energy(3 * row[:, :1], row[:, 1:], u) for row in x])
    exact = 2 / np.sqrt(np.pi) * (np.sqrt(2 * (9 + 1)) - 3 - 1)
    assert float(wide.mean()) == pytest.approx(exact, abs=3 * float(wide.std()) / 500**0.5)


# Learning


@pytest.mark.parametrize("learn", ["levels", "both"])
def test_the_trajectory_error_falls_several_times(learn):
    """On an anisotropic Gaussian, from levels that are badly placed; on fresh starts, against the exact flow."""
    found = distill(
        TARGET, START, BAD, DPMSolverPP2M(), DATA, recipe=replace(FAST, objectives=("trajectory",), learn=learn)
    )
    before, after = (trajectory_error(c.schedule, c.solver) for c in found.candidates)
    assert after < before / 4
    assert found.schedule.horizon == BAD.horizon
    assert found.winner.objective == "trajectory"
    assert isinstance(found.solver, DPMSolverPP2M if learn == "levels" else Distilled)


def test_coefficients_alone_keep_the_levels():
    grid = log_linear(3, 6.0, 0.1)
    found = distill(
        TARGET, START, grid, Euler(), DATA, recipe=replace(FAST, objectives=("trajectory",), learn="coefficients")
    )
    before, after = (trajectory_error(c.schedule, c.solver) for c in found.candidates)
    assert found.won == 1
    np.testing.assert_allclose(found.schedule.sigmas, grid.sigmas, rtol=1e-12)
    assert after < before / 4


def test_levels_alone_keep_the_solvers_formula():
    """LD3: the sampler that was learned is the solver itself on other levels."""
    found = distill(TARGET, START, BAD, UniPC(), DATA, recipe=replace(FAST, objectives=("trajectory",), learn="levels"))
    learned = found.candidates[1]
    assert learned.solver == UniPC()
    assert trajectory_error(learned.schedule, UniPC()) < trajectory_error(BAD, UniPC()) / 4


def test_matching_the_data_recovers_their_variance():
    """A grid on which the sampler keeps a hundredth of the variance, and a law that two steps can reproduce."""
    target = Gaussian([0.0, 0.0], 1.0)
    start = Diagonal((2,), torch.zeros(2).double(), torch.ones(2).double())
    grid, data = Schedule([3.0, 2.9, 0.0]), target.sample(Noise(range(4000))).float()
    found = distill(target, start, grid, Euler(), data, recipe=replace(FAST, objectives=("data",), iterations=80))
    x = start.sample(Noise(range(20_000, 24_000)), 3.0)
    before, after = (c.solver.solve(target, x, c.schedule).var() for c in found.candidates)
    assert found.winner.objective == "data"
    assert before < 0.15
    assert float(after) == pytest.approx(1.0, abs=0.1)


def test_two_objectives_are_compared_by_held_out_data():
    found = distill(TARGET, START, BAD, Euler(), DATA, recipe=FAST)
    assert [c.objective for c in found.candidates] == ["none", "trajectory", "data"]
    assert found.winner is min(found.candidates, key=lambda c: c.gain)
    assert found.candidates[0].gain == found.candidates[0].gain_error == 0
    assert all(len(c.losses) == FAST.iterations for c in found.candidates[1:])
    assert repr(found).startswith(f"Distillation(won: {found.winner.objective}; ")


@pytest.mark.parametrize("objective", ["trajectory", "data"])
@pytest.mark.parametrize("rate", [3.0, 1e6])
def test_a_ruined_descent_is_not_returned(objective, rate):
    recipe = replace(FAST, learning_rate=rate, iterations=8)
    good = log_linear(6, 6.0, 0.02)
    found = distill(TARGET, START, good, DPMSolverPP2M(), DATA, recipe=replace(recipe, objectives=(objective,)))
    assert found.won == 0
    assert (found.schedule, found.solver) == (good, DPMSolverPP2M())


def test_a_perfect_sampler_is_left_alone():
    """Isotropic data and the tangent of their angle: nothing is better than what is exact in law."""
    target, start = Gaussian([0.0, 0.0], 1.0), Diagonal((2,), torch.zeros(2).double(), torch.ones(2).double())
    grid = rho_grid(24, 2.0, 0.01)
    data = target.sample(Noise(range(1000))).float()
    found = distill(target, start, grid, DPMSolverPP2M(), data, recipe=replace(FAST, iterations=3, learning_rate=1e-6))
    assert found.won == 0


def test_it_is_a_function_of_its_seed():
    recipe = replace(FAST, iterations=3)
    a, b, c = (distill(TARGET, START, BAD, Euler(), DATA, seed=seed, recipe=recipe) for seed in (1, 1, 2))
    assert a.schedule == b.schedule
    assert [x.losses for x in a.candidates] == [x.losses for x in b.candidates]
    assert [x.losses for x in a.candidates] != [x.losses for x in c.candidates]


def test_conditions_go_with_their_samples():
    """A denoiser of two classes, each at its own place, told the class of every sample, and a start with labels."""
    labels = torch.arange(400) % 2
    data = 3.0 * labels[:, None].float() + 0.1 * Noise(range(400)).normal((1,))
    start = Mixture.fit(data, 2, 1, labels=labels)
    seen = []

    def denoiser(x, sigma, label, scale):
        seen.append((len(label), scale))
        centre = 3.0 * label[:, None].to(x)
        s2 = expand(sigma, x) ** 2
        return (0.01 * x + s2 * centre) / (0.01 + s2)

    recipe = replace(FAST, iterations=4, judged=80)
    conditions = {"label": labels, "scale": 7}
    found = distill(denoiser, start, Schedule([0.5, 0.1, 0.0]), Euler(), data, conditions=conditions, recipe=recipe)
    assert {scale for _, scale in seen} == {7}
    assert all(c.distances["whole"] < 0.2 for c in found.candidates)


@pytest.mark.parametrize("label", [1, torch.tensor(1), torch.tensor([1])], ids=repr)
def test_one_label_stands_for_all(label):
    def denoiser(x, sigma, label):
        assert label.tolist() == [1] * len(x)
        return TARGET(x, sigma)

    distill(denoiser, START, BAD, Euler(), DATA, conditions={"label": label}, recipe=replace(FAST, iterations=2))


def test_data_that_are_constant_in_places_can_be_judged_by():
    """The exact denoiser makes what is constant exactly: a distance of 0 there, of every candidate."""
    data = torch.full((120, 1, 32, 32), -1.0)
    data[..., :4, :4] += Noise(range(120)).normal((1, 4, 4))
    start = Diagonal.fit(data)
    variance = start.variances.reshape(data.shape[1:]).float()
    mean = start.mean.reshape(data.shape[1:]).float()

    def denoiser(x, sigma):
        s2 = expand(sigma, x) ** 2
        return mean + variance / (variance + s2) * (x - mean)

    recipe = Recipe(iterations=2, batch_size=16, pairs=16, judged=32)
    found = distill(denoiser, start, Schedule([2.0, 0.5, 0.0]), Euler(), data, recipe=recipe)
    assert all(np.isfinite(c.gain) and np.isfinite(c.gain_error) for c in found.candidates)
    assert set(found.candidates[0].distances) == {"whole", "band 1", "band 2", "band 3"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_round_states_and_neither_levels_nor_weights(dtype):
    """What training samples in a half type is what the solver that comes back samples in it."""
    seen = []

    def denoiser(x, sigma):
        seen.append((x.dtype, sigma.dtype, sigma[0].item()))
        return TARGET(x, sigma)

    grid = log_linear(6, 6.1, 0.0123)
    sampler = module._Sampler(grid, DPMSolverPP2M(), "both")
    x = START.sample(Noise(range(200)), grid.horizon).to(dtype)
    out = sampler(denoiser, x).detach()
    assert out.dtype == dtype
    assert {(state, level) for state, level, _ in seen} == {(dtype, torch.float32)}
    np.testing.assert_allclose([level for *_, level in seen], grid.sigmas[:-1], rtol=1e-6)
    fine = sampler(TARGET, x.double()).detach()
    step = torch.finfo(dtype).eps
    assert float((out.double() - fine).abs().max()) < 8 * step * float(x.abs().max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_both_objectives_learn_from_states_of_a_half_type(dtype):
    """Sums over all pairs are beyond float16, and the places of a sorted sample beyond the integers of bfloat16."""
    recipe = replace(FAST, iterations=3, batch_size=128)
    found = distill(TARGET, START, BAD, Euler(), DATA, recipe=recipe, compute=Compute(dtype=dtype))
    assert [len(candidate.losses) for candidate in found.candidates] == [0, 3, 3]


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError])
def test_a_network_that_fails_in_training_is_named(error):
    def denoiser(x, sigma):
        if torch.is_grad_enabled() and len(x) > 2:
            raise error("out of luck")
        return TARGET(x, sigma)

    with pytest.raises(DenoiserError, match=r"the denoiser failed on an input of shape \(64, 4\) .*out of luck"):
        distill(denoiser, START, BAD, Euler(), DATA, recipe=replace(FAST, objectives=("data",)))


def test_held_out_samples_are_not_learned_from():
    held = torch.arange(0, 4000, 2)
    data = DATA.clone()
    data[held] += 100.0
    found = distill(TARGET, START, BAD, Euler(), data, held_out=held, recipe=replace(FAST, iterations=3))
    again = distill(TARGET, START, BAD, Euler(), DATA, held_out=held, recipe=replace(FAST, iterations=3))
    assert [c.losses for c in found.candidates] == [c.losses for c in again.candidates]
    assert found.candidates[0].distances["whole"] > 10 * again.candidates[0].distances["whole"]


def test_no_gradient_is_left_behind():
    module_ = torch.nn.Linear(2, 2)

    def denoiser(x, sigma):
        return module_(x) / (1 + expand(sigma, x))

    data = Noise(range(100)).normal((2,))
    start = Diagonal.fit(data)
    distill(denoiser, start, Schedule([2.0, 0.5, 0.0]), Euler(), data, recipe=replace(FAST, iterations=2, judged=64))
    assert all(p.grad is None for p in module_.parameters())


# What is refused


def black_box(x, sigma):
    return torch.from_numpy(0.5 * x.detach().numpy())


def blind(x, sigma):
    return x / (1 + float(sigma.detach()[0]) ** 2)


def numpy_box(x, sigma):
    return torch.from_numpy(0.5 * x.numpy())


def value_box(x, sigma):
    if x.requires_grad:
        raise ValueError("no gradients here")
    return 0.5 * x


@pytest.mark.parametrize("denoiser", [black_box, blind, numpy_box, value_box])
def test_a_denoiser_without_gradients_is_refused(denoiser):
    with pytest.raises(InputError, match="gradients"):
        distill(denoiser, START, BAD, Euler(), DATA, recipe=FAST)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"solver": Heun()}, "one evaluation a step"),
        ({"solver": DPMSolverPP2M(eta=1)}, "one evaluation a step"),
        ({"solver": Distilled.of(Euler(), BAD), "learn": "levels"}, "do not follow the levels"),
        ({"schedule": Schedule([2.0, 1.0])}, "step to 0"),
        ({"schedule": Schedule([2.0, 0.0])}, "nothing to learn"),
        ({"teacher": log_linear(20, 5.0, 0.1)}, "same horizon"),
        ({"objectives": ("teacher",)}, "objectives must be some of trajectory, data"),
        ({"objectives": "data"}, "objectives"),
        ({"objectives": ()}, "objectives"),
        ({"learn": "all"}, "unknown parts"),
        ({"iterations": 0}, "iterations=0"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"pairs": 1}, "pairs=1"),
        ({"judged": 8}, "judged=8"),
        ({"learning_rate": float("nan")}, "learning rate"),
        ({"seed": -1}, "seed"),
        ({"held_out": torch.arange(4000)}, "held_out"),
        ({"held_out": torch.tensor([1.0, 2.0])}, "held_out"),
        ({"held_out": torch.tensor([1, 4000])}, "held_out"),
    ],
)
def test_bad_input_is_named(change, said):
    given = {"schedule": BAD, "solver": Euler(), **change}
    of_recipe = {name: given.pop(name) for name in change if hasattr(FAST, name)}
    with pytest.raises(InputError, match=said):
        distill(TARGET, START, data=DATA, recipe=replace(FAST, **of_recipe), **given)


@pytest.mark.parametrize(
    "data", [DATA[:5], DATA[:, :3], DATA.clone().index_fill_(0, torch.tensor([3]), float("nan")), torch.ones(20, 4)]
)
def test_bad_data_are_named(data):
    with pytest.raises(DataError):
        distill(TARGET, START, BAD, Euler(), data, recipe=FAST)
