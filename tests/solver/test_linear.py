"""Solvers of the ODE as matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.schedule import Schedule, rho_grid
from headstart.solver import DEIS, DPMSolverPP2M, Heun, UniPC, get_solver, linear_weights
from headstart.targets import gmm25
from tests.solver.cases import LINEAR, SDE


@pytest.mark.parametrize("solver", [*map(get_solver, LINEAR), DEIS(points=4, power=1), UniPC(points=2)], ids=repr)
@pytest.mark.parametrize("grid", [rho_grid(6, 20.0, 0.05), rho_grid(5, 3.0, 0.1, final_zero=False)], ids=repr)
def test_the_weights_make_the_samples_of_the_solver(solver, grid: Schedule) -> None:
    law = gmm25()
    start = grid.horizon * Noise(range(50)).normal((2,)).double()
    weights, estimates, x = linear_weights(solver, grid), [], start
    for i, (a, b) in enumerate(grid.pairs()):
        estimates.append(law(x, a))
        x = (b / a) * x + sum(weights[i, j] * estimate for j, estimate in enumerate(estimates))
    torch.testing.assert_close(x, solver.solve(law, start, grid), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LINEAR)
def test_they_are_triangular_and_keep_what_does_not_change(name: str) -> None:
    """Where all estimates are the same D, the ODE's solution is b/a x + (1 - b/a) D: a row adds up to 1 - b/a."""
    grid = rho_grid(7, 40.0, 0.02)
    weights = linear_weights(get_solver(name), grid)
    assert np.array_equal(weights, np.tril(weights))
    np.testing.assert_allclose(weights.sum(axis=1), [1 - b / a for a, b in grid.pairs()], rtol=1e-9, atol=1e-9)


def test_other_solvers_have_none() -> None:
    assert not {"heun", *(solver.name for solver in SDE)} & set(LINEAR)
    for solver in (Heun(), DPMSolverPP2M(eta=1), *SDE):
        with pytest.raises(InputError, match="one evaluation a step"):
            linear_weights(solver, rho_grid(4, 5.0, 0.1))
