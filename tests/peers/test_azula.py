"""Equality with azula, on the one grid that its samplers can be given: same states, same levels, same final state.

Its ``zABSampler`` extrapolates in another variable than any solver here, and its ``REABSampler`` loses its order: both
are left out.
"""

import pytest
import torch

from headstart.compare.peers.azula import sample
from headstart.denoiser import expand
from headstart.noise import Noise
from headstart.schedule import rho_grid
from headstart.solver import DEIS, DPMSolverPP3M, Euler, Heun

pytest.importorskip("azula", reason="azula is not installed (extra: peers)")


def two_clusters(x, sigma):
    """The exact denoiser of N(-1, 0.04) and N(1, 0.04), each coordinate by itself."""
    variance = 0.04 + expand(torch.as_tensor(sigma, dtype=x.dtype), x) ** 2
    centre = torch.tanh(x / variance)
    return centre + 0.04 / variance * (x - centre)


@pytest.mark.parametrize("steps", [1, 2, 6, 13])
@pytest.mark.parametrize(
    ("name", "options", "solver"),
    [
        ("DDIMSampler", {}, Euler()),
        ("HeunSampler", {}, Heun()),
        ("xEABSampler", {"order": 1}, Euler()),
        ("xEABSampler", {"order": 3}, DPMSolverPP3M()),
        ("zEABSampler", {"order": 2}, DEIS(2)),
        ("zEABSampler", {"order": 3}, DEIS(3)),
    ],
)
def test_samplers_are_those_of_azula(name, options, solver, steps):
    x = 80.0 * Noise(range(4)).normal((3,)).double()
    theirs = sample(name, 80.0, 0.002, steps, two_clusters, x, dtype=torch.float64, **options)
    ours = solver.solve(two_clusters, x, rho_grid(steps, 80.0, 0.002, final_zero=False))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
