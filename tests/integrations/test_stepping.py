"""A solver one evaluation at a time gives what it gives at once, and asks at the levels that it says."""

import pytest
import torch

from headstart.denoiser import denoise
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Isotropic
from headstart.integrations.stepping import Stepping, evaluation_levels
from headstart.noise import Noise
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.solver import SOLVERS, DPMSolverPP2M, Heun
from headstart.targets import gmm25

LAW = gmm25()
GRID = rho_grid(5, 8.0, 0.05)


def solvers():
    made = [kind() for name, kind in SOLVERS.items() if name not in ("distilled",)]
    return [*made, Heun(churn=10), DPMSolverPP2M(eta=1)]


def stepped(solver, x, noise):
    walk, levels = Stepping(solver, GRID, x, noise), []
    while walk.sigma is not None:
        levels.append(walk.sigma)
        walk.tell(denoise(LAW, walk.x, walk.sigma))
    return walk.x, levels


@pytest.mark.parametrize("solver", solvers(), ids=repr)
def test_it_is_the_solver(solver):
    x = 8 * Noise(range(4)).normal((2,))
    end, levels = stepped(solver, x, Noise(range(10, 14)))
    assert torch.equal(end, solver.solve(LAW, x, GRID, Noise(range(10, 14))))
    assert len(levels) == solver.nfe(GRID)
    assert levels == evaluation_levels(Sampler(Isotropic((2,)), GRID, solver))


def test_what_does_not_fit_is_named():
    walk = Stepping(Heun(), GRID, torch.ones(2, 2))
    with pytest.raises(DenoiserError, match=r"shape \(3, 2\): expected \(2, 2\)"):
        walk.tell(torch.ones(3, 2))
    with pytest.raises(DenoiserError, match="sigma = 8"):
        walk.tell(torch.full((2, 2), torch.nan))
    with pytest.raises(InputError, match="draws noise"):
        Stepping(Heun(churn=10), GRID, torch.ones(2, 2))
    while walk.sigma is not None:
        walk.tell(walk.x)
    with pytest.raises(InputError, match="all 9 evaluations"):
        walk.tell(walk.x)
