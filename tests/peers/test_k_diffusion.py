"""Equality with k-diffusion, evaluation by evaluation: same inputs, same levels, same final state."""

import importlib
import importlib.util
import math
import sys
from types import ModuleType
from unittest import mock

import pytest
import torch

from headstart.denoiser import expand
from headstart.noise import Noise
from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.solver import DDPM, DPMSolverPP2M, Euler, Heun

SCHEDULES = [
    rho_grid(6, 80.0, 0.002),
    log_linear(5, 7.0, 0.05, final_zero=False),
    Schedule([9.0, 8.5, 1.0, 0.9, 0.03, 0.0]),
]
SEEDS = range(4)
equal = {"rtol": 1e-6, "atol": 1e-9}


@pytest.fixture(scope="module")
def peer():
    """The module of k-diffusion's samplers alone.

    The package as a whole imports torchvision, which does not load beside every build of PyTorch, for image transforms
    that no sampler uses: a stand-in takes its place here.
    """
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k-diffusion is not installed (extra: peers)")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    stand_ins = {"k_diffusion": package, "torchvision": mock.MagicMock(), "torchvision.transforms": mock.MagicMock()}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        for name in ("k_diffusion.sampling", "k_diffusion.utils"):
            patch.delitem(sys.modules, name, raising=False)
        yield importlib.import_module("k_diffusion.sampling")
        for name in ("k_diffusion.sampling", "k_diffusion.utils"):
            sys.modules.pop(name, None)


class TwoClusters:
    """The exact denoiser of N(-1, 0.04) and N(1, 0.04) by coordinate; it writes down what it is asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma):
        self.calls += [x.clone(), expand(sigma, x).expand_as(x)]
        variance = 0.04 + expand(sigma, x) ** 2
        centre = torch.tanh(x / variance)
        return centre + 0.04 / variance * (x - centre)


def start(schedule):
    return schedule.horizon * torch.randn(
        len(SEEDS), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def ours(solver, schedule):
    """All calls of the denoiser, and the final state."""
    denoiser = TwoClusters()
    return [solver.solve(denoiser, start(schedule), schedule, Noise(SEEDS)), *denoiser.calls]


def theirs(sample, schedule, **arguments):
    denoiser = TwoClusters()
    sigmas = torch.tensor(schedule.sigmas, dtype=torch.float64)
    return [sample(denoiser, start(schedule), sigmas, disable=True, **arguments), *denoiser.calls]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize(
    ("solver", "name"), [(Euler(), "sample_euler"), (Heun(), "sample_heun"), (DPMSolverPP2M(), "sample_dpmpp_2m")]
)
def test_ode_solvers(peer, solver, name, schedule):
    torch.testing.assert_close(ours(solver, schedule), theirs(getattr(peer, name), schedule), **equal)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("window", [(0.0, math.inf), (0.04, 8.6)])
@pytest.mark.parametrize("churn", [1.5, 40.0])
def test_heun_with_churn(peer, schedule, window, churn, monkeypatch):
    solver = Heun(churn=churn, churn_min=window[0], churn_max=window[1], churn_noise=1.003)
    noise, levels = Noise(SEEDS, dtype=torch.float64), iter(schedule.sigmas)

    def randn_like(x):
        """What our solver draws; k-diffusion also draws, and drops, at the levels outside the window."""
        return noise.normal((3,)) if window[0] <= next(levels) <= window[1] else torch.zeros_like(x)

    monkeypatch.setattr(torch, "randn_like", randn_like)
    arguments = {"s_churn": churn, "s_tmin": window[0], "s_tmax": window[1], "s_noise": 1.003}
    torch.testing.assert_close(ours(solver, schedule), theirs(peer.sample_heun, schedule, **arguments), **equal)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_ddpm_is_ancestral_euler(peer, schedule):
    noise = Noise(SEEDS, dtype=torch.float64)
    expected = theirs(peer.sample_euler_ancestral, schedule, noise_sampler=lambda a, b: noise.normal((3,)))
    torch.testing.assert_close(ours(DDPM(), schedule), expected, **equal)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_rho_grid(peer, rho, monkeypatch):
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        expected = peer.get_sigmas_karras(12, 0.002, 80.0, rho=rho)
    finally:
        torch.set_default_dtype(default)
    sigmas = torch.tensor(rho_grid(12, 80.0, 0.002, rho=rho).sigmas, dtype=torch.float64)
    torch.testing.assert_close(sigmas, expected, rtol=1e-10, atol=0)
