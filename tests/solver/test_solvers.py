"""What every solver obeys: the contract of `Solver`, exact cases, seeds, dtypes and errors."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.denoiser import Counted
from headstart.errors import DenoiserError, InputError
from headstart.noise import Noise
from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.solver import (
    DDPM,
    DEIS,
    SOLVERS,
    DPMSolverPP2M,
    Euler,
    Heun,
    PredictorCorrector,
    Solver,
    UniPC,
    get_solver,
    solver_names,
)
from tests.solver import cases

MULTISTEP = [UniPC(bh=1), UniPC(points=3), DEIS(points=4, power=1)]
ODE = list(dict.fromkeys([*cases.ODE, *MULTISTEP]))
SDE = [
    *cases.SDE,
    Heun(churn=8, churn_noise=1.003),
    DPMSolverPP2M(eta=0.7),
    PredictorCorrector(corrections=3, snr=0.3),
]
EVERY = ODE + SDE
grids = st.lists(st.floats(1e-3, 100), min_size=1, max_size=8, unique=True).flatmap(
    lambda sigmas: st.sampled_from([[*sorted(sigmas, reverse=True), 0.0], [101.0, *sorted(sigmas, reverse=True)]])
)
# Neighbouring levels at least 12 % apart: what a multistep method makes of the past grows with the ratio of the steps.
apart = (
    st.lists(st.integers(0, 100), min_size=1, max_size=8, unique=True)
    .flatmap(
        lambda powers: st.sampled_from([True, False]).map(
            lambda zero: [1e-3 * 1.122**p for p in sorted(powers, reverse=True)] + [0.0] * zero
        )
    )
    .filter(lambda sigmas: len(sigmas) > 1)
)


@pytest.mark.parametrize("solver", EVERY, ids=repr)
@settings(max_examples=30, deadline=None)
@given(sigmas=grids)
def test_number_of_evaluations_is_as_announced(solver, sigmas):
    schedule, counted = Schedule(sigmas), Counted(lambda x, sigma: 0.5 * x)
    states = list(solver.trajectory(counted, torch.ones(2, 3), schedule, Noise([1, 2])))
    assert counted.calls == solver.nfe(schedule)
    assert len(states) == schedule.steps


@pytest.mark.parametrize("solver", EVERY, ids=repr)
@settings(deadline=None)
@given(nfe=st.integers(1, 50))
def test_steps_for_is_the_largest_that_the_budget_pays(solver, nfe):
    steps = solver.steps_for(nfe)
    assert solver.nfe(rho_grid(steps, 80.0, 0.002)) <= nfe < solver.nfe(rho_grid(steps + 1, 80.0, 0.002))


@pytest.mark.parametrize("solver", ODE, ids=repr)
@settings(max_examples=30, deadline=None)
@given(sigmas=apart, point=st.floats(-3, 3))
def test_ode_solvers_are_exact_on_a_point(solver, sigmas, point):
    """All data at one point: the paths are straight in sigma, at every level and on every grid."""
    x = torch.tensor([[-50.0, 2.0, 70.0]], dtype=torch.float64)
    schedule = Schedule(sigmas)
    states = solver.trajectory(lambda x, sigma: torch.full_like(x, point), x, schedule)
    for sigma, state in zip(schedule.sigmas[1:], states, strict=True):
        torch.testing.assert_close(state, point + sigma / schedule.horizon * (x - point), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", EVERY, ids=repr)
def test_a_step_to_zero_returns_the_denoised_state(solver, gaussian):
    """To the bit, also from 80 in one step: no state near the noise's size is subtracted from another."""
    seen = []

    def denoiser(x, sigma):
        seen.append(gaussian(x, sigma))
        return seen[-1]

    x = 80 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for schedule in (Schedule([80.0, 0.0]), Schedule([80.0, 3.0, 0.1, 0.0])):
        assert torch.equal(solver.solve(denoiser, x, schedule, Noise(range(4))), seen[-1])


@pytest.mark.parametrize("solver", EVERY, ids=repr)
def test_moves_with_the_data(solver, gaussian):
    """Data shifted by m and scaled by k, levels scaled by k: every state is shifted and scaled likewise."""
    shift, scale = 2.5, 3.0
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    schedule = log_linear(5, 9.0, 0.1)

    def moved(y, sigma):
        return shift + scale * gaussian((y - shift) / scale, sigma / scale)

    expected = shift + scale * solver.solve(gaussian, x, schedule, Noise(range(4)))
    grid = Schedule([scale * s for s in schedule.sigmas])
    torch.testing.assert_close(
        solver.solve(moved, shift + scale * x, grid, Noise(range(4))), expected, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("solver", EVERY, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_states_keep_their_dtype(solver, dtype, gaussian):
    """Also where the noise comes in another dtype, or the denoiser answers in float32."""
    seen = set()

    def denoiser(x, sigma):
        seen.add(x.dtype)
        assert sigma.dtype == torch.promote_types(dtype, torch.float32)  # a half type would round the noise level
        return gaussian(x.float(), sigma.float())

    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    states = list(solver.trajectory(denoiser, x, rho_grid(5, 20.0, 0.02), Noise([1, 2], dtype=torch.float64)))
    assert {state.dtype for state in states} | seen == {dtype}
    reference = solver.solve(gaussian, x.double(), rho_grid(5, 20.0, 0.02), Noise([1, 2]))
    torch.testing.assert_close(
        states[-1].double(), reference, rtol=0, atol=32 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    )


@pytest.mark.parametrize("solver", SDE, ids=repr)
@pytest.mark.parametrize("seeds", [[8], [8, 9], [3, 8], [7, 8, 2**64 - 1]])
def test_a_sample_depends_on_its_own_seed_alone(solver, seeds, gaussian):
    x, schedule = torch.full((4, 3), 2.0), rho_grid(6, 20.0, 0.02)
    alone = list(solver.trajectory(gaussian, x[:1], schedule, Noise([8])))
    among = list(solver.trajectory(gaussian, x[: len(seeds)], schedule, Noise(seeds)))
    for one, many in zip(alone, among, strict=True):
        assert torch.equal(one[0], many[seeds.index(8)])
    assert len(seeds) == 1 or not torch.equal(among[-1][0], among[-1][1])


@pytest.mark.parametrize("solver", ODE, ids=repr)
def test_ode_solvers_draw_nothing(solver, gaussian):
    noise = Noise([5])
    solver.solve(gaussian, torch.ones(1, 3), rho_grid(4, 20.0, 0.02), noise)
    assert torch.equal(noise.normal((3,)), Noise([5]).normal((3,)))
    assert not solver.stochastic


@pytest.mark.parametrize("solver", EVERY, ids=repr)
def test_start_is_not_changed_and_conditions_arrive(solver):
    x, labels = torch.ones(2, 3), set()

    def denoiser(x, sigma, label):
        labels.add(label)
        return 0.5 * x

    solver.solve(denoiser, x, rho_grid(3, 20.0, 0.02), Noise([1, 2]), label=7)
    assert labels == {7}
    assert torch.equal(x, torch.ones(2, 3))


@pytest.mark.parametrize("solver", EVERY, ids=repr)
@pytest.mark.parametrize(
    "denoiser",
    [
        lambda x, sigma: torch.where(sigma[:, None] < 1, torch.nan, x),
        lambda x, sigma: x / 0,
        lambda x, sigma: x[:, :1],
        lambda x, sigma: x.tolist(),
    ],
    ids=["NaN below 1", "Inf", "shape", "type"],
)
def test_bad_denoiser_is_named(solver, denoiser):
    with pytest.raises(DenoiserError, match="the denoiser returned"):
        solver.solve(denoiser, torch.ones(2, 3), rho_grid(4, 20.0, 0.02), Noise([1, 2]))


@pytest.mark.parametrize("solver", SDE, ids=repr)
@pytest.mark.parametrize("noise", [None, Noise([1]), Noise([1, 2, 3])], ids=str)
def test_noise_is_one_stream_a_sample(solver, noise, gaussian):
    assert solver.stochastic
    with pytest.raises(InputError, match=f"{solver.name}.*2 samples".replace("+", r"\+")):
        solver.trajectory(gaussian, torch.ones(2, 3), rho_grid(3, 20.0, 0.02), noise)


@pytest.mark.parametrize("x", [torch.tensor([[1.0, torch.nan]]), torch.tensor([[1, 2]])], ids=["NaN", "integer"])
def test_start_is_checked(x):
    with pytest.raises(InputError, match="finite floating-point"):
        Euler().trajectory(lambda x, sigma: x, x, rho_grid(3, 20.0, 0.02))


@pytest.mark.parametrize(
    "solver", [*EVERY, Heun(churn=40, churn_min=0.05, churn_max=50), DDPM(variances=(1 / 3, 0.0))], ids=repr
)
def test_a_solver_is_rebuilt_from_json(solver):
    stored = json.loads(json.dumps({"name": solver.name, "parameters": solver.parameters()}, allow_nan=False))
    rebuilt = SOLVERS[stored["name"]](**stored["parameters"])
    assert rebuilt == solver
    assert hash(rebuilt) == hash(solver)
    assert eval(repr(solver), {type(solver).__name__: type(solver)}) == solver


def test_solvers_by_name():
    named = solver_names()
    assert [type(get_solver(name)) for name in named] == [SOLVERS[name] for name in named]
    assert len({get_solver(name) for name in named}) == len(named)
    assert set(SOLVERS) - set(named) == {"distilled"}  # which has no parameters of its own: see test_distilled
    with pytest.raises(InputError, match="is its weights"):
        get_solver("distilled")
    custom = Heun(churn=3)
    assert get_solver(custom) is custom
    assert custom not in {Heun(), Heun(churn=2)}
    with pytest.raises(InputError, match=r"'rk4'.*euler, heun, dpm\+\+2m, .*ddpm"):
        get_solver("rk4")


def test_a_solver_needs_its_steps():
    with pytest.raises(TypeError, match="steps"):
        Solver()


def test_a_solver_that_calls_its_steps_by_the_old_name_still_works():
    with pytest.warns(DeprecationWarning, match="Old.walk is now called steps"):

        class Old(Solver):
            name, order = "old", 1

            def walk(self, D, x, schedule, noise):
                return Euler().steps(D, x, schedule, noise)

    x, grid = torch.ones(2, 3), Schedule([2.0, 1.0, 0.0])
    old, new = (solver.solve(lambda x, sigma: x / 2, x, grid) for solver in (Old(), Euler()))
    assert torch.equal(old, new)
