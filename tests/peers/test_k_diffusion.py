"""Equality with k-diffusion, evaluation by evaluation: same inputs, same levels, same final state."""

import importlib
import importlib.util
import itertools
import math
import sys
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch

from headstart.denoiser import expand
from headstart.noise import Noise
from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.solver import DDPM, DEIS, DPMSolverPP2M, DPMSolverPP3M, Euler, Heun
from headstart.solver.polynomial import combine, data_weights
from headstart.targets import Gaussian

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


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_dpmpp_2m_with_noise(peer, schedule, eta):
    noise = Noise(SEEDS, dtype=torch.float64)
    expected = theirs(peer.sample_dpmpp_2m_sde, schedule, eta=eta, noise_sampler=lambda a, b: noise.normal((3,)))
    torch.testing.assert_close(ours(DPMSolverPP2M(eta=eta), schedule), expected, **equal)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_deis_in_sigma_is_the_linear_multistep_method(peer, schedule, order):
    """Evaluation by evaluation. A last step to 0, where k-diffusion extrapolates and we return D, is left out."""
    found = ours(DEIS(points=order, power=1), schedule)
    expected = theirs(peer.sample_lms, schedule, order=order)
    last = 1 if schedule.sigmas[-1] == 0 else 0
    torch.testing.assert_close(found[last:], expected[last:], **equal)


def three_m(peer, denoiser, x, schedule):
    """The end of k-diffusion's DPM-Solver++(3M), and every (x, D) that it saw."""
    seen = []

    def watched(y, sigma):
        seen.append((y, denoiser(y, sigma)))
        return seen[-1][1]

    sigmas = torch.tensor(schedule.sigmas, dtype=torch.float64)
    return peer.sample_dpmpp_3m_sde(watched, x, sigmas, eta=0, disable=True, noise_sampler=lambda a, b: 0.0), seen


@pytest.mark.parametrize("schedule", [*SCHEDULES, log_linear(30, 20.0, 0.05, final_zero=False)], ids=repr)
def test_dpmpp_3m_but_for_half_of_the_curvature(peer, schedule):
    """Step for step from k-diffusion's own past: its weight of the second difference lacks (1 - 2 phi / h) / 2."""
    end, seen = three_m(peer, TwoClusters(), start(schedule), schedule)
    states = [*(x for x, _ in seen[1:]), end]
    for i, (a, b) in enumerate(schedule.pairs()):
        if b == 0:
            assert torch.equal(states[i], seen[i][1])
            continue
        levels, denoised = schedule.sigmas[i::-1][:3], [d for _, d in seen[i::-1][:3]]
        expected = b / a * seen[i][0] + combine(data_weights(levels, a, b), denoised)
        if len(levels) == 3:
            h, h0, h1 = (math.log(t / s) for s, t in itertools.pairwise((b, *levels)))
            first, second = (denoised[0] - denoised[1]) / h0, (denoised[1] - denoised[2]) / h1
            curvature = h**2 * (first - second) / (h0 + h1)
            expected = expected - (1 - 2 * (1 + math.expm1(-h) / h) / h) / 2 * curvature
        torch.testing.assert_close(states[i], expected, **equal)


def test_half_of_the_curvature_is_of_second_order(peer):
    """From 2 to 0.05 on N(0, 1), after a run-up of short steps, so that neither order is that of the first step."""
    law, x, counts, orders = Gaussian([0.0], [1.0]), torch.ones(1, 1, dtype=torch.float64), (40, 80, 160), []
    for run in (lambda s: DPMSolverPP3M().solve(law, x, s), lambda s: three_m(peer, law, x, s)[0]):
        errors = []
        for n in counts:
            first, second, *rest = log_linear(n, 2.0, 0.05, final_zero=False).sigmas
            run_up = [first * (second / first) ** (2.0**-k) for k in range(14, -1, -1)]
            exact = math.sqrt((1 + 0.05**2) / (1 + 2.0**2))
            errors.append(abs(run(Schedule([first, *run_up, *rest])).item() - exact))
        orders.append(-np.polyfit(np.log(counts), np.log(errors), 1)[0])
    assert orders[0] > 2.85
    assert orders[1] == pytest.approx(2, abs=0.15)


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
