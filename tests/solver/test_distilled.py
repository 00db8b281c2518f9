"""A solver that is its weights: the same as the one that it was written down from, and for one number of steps."""

import json
import math

import numpy as np
import pytest
import torch

from headstart.denoiser import Counted
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.schedule import Schedule, rho_grid
from headstart.solver import (
    DEIS,
    IPNDM,
    SOLVERS,
    Distilled,
    DPMSolverPP2M,
    DPMSolverPP3M,
    Euler,
    Heun,
    UniPC,
    get_solver,
)
from headstart.solver.linear import linear_weights

GRID = Schedule([3.0, 1.1, 0.4, 0.05, 0.0])


@pytest.mark.parametrize(
    "solver", [Euler(), DPMSolverPP2M(), DPMSolverPP3M(), UniPC(), DEIS(points=3), IPNDM()], ids=repr
)
@pytest.mark.parametrize("grid", [GRID, rho_grid(7, 80.0, 0.002), Schedule([2.0, 0.7, 0.1])], ids=repr)
def test_it_samples_as_the_solver_that_it_was_written_down_from(solver, grid, gaussian):
    x = grid.horizon * Noise(range(5)).normal((3,)).double()
    distilled = Distilled.of(solver, grid)
    torch.testing.assert_close(
        distilled.solve(gaussian, x, grid), solver.solve(gaussian, x, grid), rtol=1e-11, atol=1e-11
    )
    np.testing.assert_allclose(linear_weights(distilled, grid), linear_weights(solver, grid), rtol=1e-12, atol=1e-12)


def test_one_step_by_hand(gaussian):
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    states = list(Distilled(((0.3,), (0.2, 0.9))).trajectory(gaussian, x, Schedule([2.0, 0.5, 0.0])))
    first = gaussian(x, torch.tensor(2.0))
    middle = 0.25 * x + 0.3 * first
    torch.testing.assert_close(states[0], middle)
    torch.testing.assert_close(states[1], 0.2 * first + 0.9 * gaussian(middle, torch.tensor(0.5)))


def test_it_evaluates_once_a_step_and_keeps_the_dtype():
    counted = Counted(lambda x, sigma: 0.5 * x)
    out = Distilled.of(DPMSolverPP2M(), GRID).solve(counted, torch.ones(2, 3), GRID)
    assert counted.calls == GRID.steps
    assert out.dtype == torch.float32


def test_it_survives_json():
    solver = Distilled.of(UniPC(), GRID)
    stored = json.loads(json.dumps({"name": solver.name, "parameters": solver.parameters()}))
    again = SOLVERS[stored["name"]](**stored["parameters"])
    assert again == solver
    assert hash(again) == hash(solver)
    assert again.weights == solver.weights
    assert again != Distilled.of(Euler(), GRID)


def test_its_repr_shows_the_weights():
    assert repr(Distilled(((0.75,), (-0.25, 1.25)))) == "Distilled(weights=((0.75,), (-0.25, 1.25)))"


def test_a_name_alone_is_no_distilled_solver():
    with pytest.raises(InputError, match=r"learned.*headstart\.distill"):
        get_solver("distilled")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((), "learned"),
        (((1.0, 2.0),), "rows of 1 to 1"),
        (((1.0,), (2.0,)), "rows of 1 to 2.*1, 1"),
        (((math.nan,),), "finite"),
        (((1.0,), (math.inf, 0.0)), "finite"),
        ((1.0, 2.0), "rows of numbers"),
        ((("one",),), "rows of numbers"),
    ],
)
def test_weights_are_checked(weights, said):
    with pytest.raises(InputError, match=said):
        Distilled(weights)


def test_another_number_of_steps_is_refused(gaussian):
    with pytest.raises(InputError, match=r"3 steps.*learned for 4"):
        Distilled.of(Euler(), GRID).solve(gaussian, torch.ones(1, 3), Schedule([3.0, 1.0, 0.1, 0.0]))


@pytest.mark.parametrize("solver", [Heun(), DPMSolverPP2M(eta=1)], ids=repr)
def test_only_a_linear_solver_is_written_down(solver):
    with pytest.raises(InputError, match="no solver of the ODE with one evaluation a step"):
        Distilled.of(solver, GRID)
