"""Equality with the schedulers of diffusers that can be given a grid, step for step."""

import pytest
import torch

from headstart.noise import Noise
from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.solver import DEIS, IPNDM, DPMSolverPP2M, Euler, EulerMaruyama, Solver, UniPC

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: peers)")


def two_clusters(x, sigma):
    """The exact denoiser of N(-1, 0.04) and N(1, 0.04) in equal parts, by coordinate."""
    variance = 0.04 + torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1) ** 2
    centre = torch.tanh(x / variance)
    return centre + 0.04 / variance * (x - centre)


def start(schedule, dtype):
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (schedule.horizon * x).to(dtype)


def ours(solver: Solver, schedule: Schedule, dtype):
    return list(solver.trajectory(two_clusters, start(schedule, dtype), schedule))


@pytest.mark.parametrize(
    "schedule", [rho_grid(8, 12.0, 0.05, rho=5), log_linear(6, 7.0, 0.05, final_zero=False)], ids=repr
)
def test_euler_discrete_scheduler(schedule):
    """Diffusers computes its steps, and keeps its grid, in float32."""
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(sigmas=list(schedule.sigmas))
    x = start(schedule, torch.float32)
    for t, sigma, expected in zip(
        scheduler.timesteps, scheduler.sigmas, ours(Euler(), schedule, x.dtype), strict=False
    ):
        scheduler.scale_model_input(x, t)
        x = scheduler.step(two_clusters(x, sigma), t, x).prev_sample
        torch.testing.assert_close(expected, x, rtol=2e-5, atol=2e-5)
    assert scheduler.step_index == schedule.steps


@pytest.mark.parametrize("final_zero", [True, False])
def test_edm_dpm_solver_multistep_scheduler(final_zero):
    """Its grid cannot be given and is float32, so the same grid is put in its place in float64 after it is made."""
    schedule = rho_grid(7, 40.0, 0.01, rho=5, final_zero=final_zero)
    final = "zero" if final_zero else "sigma_min"
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(lower_order_final=False, final_sigmas_type=final)
    scheduler.set_timesteps(schedule.steps)
    scheduler.sigmas = torch.tensor(schedule.sigmas, dtype=torch.float64)
    x, c = start(schedule, torch.float64), scheduler.config.sigma_data
    states = ours(DPMSolverPP2M(), schedule, x.dtype)
    for t, sigma, expected in zip(scheduler.timesteps, scheduler.sigmas, states, strict=False):
        denoised = two_clusters(x, sigma)
        skip, out = c**2 / (c**2 + sigma**2), sigma * c / (c**2 + sigma**2).sqrt()
        x = scheduler.step((denoised - skip * x) / out, t, x).prev_sample
        torch.testing.assert_close(expected, x, rtol=1e-6, atol=1e-9)
    assert scheduler.step_index == schedule.steps


GRIDS = [
    rho_grid(8, 12.0, 0.05, rho=5, final_zero=False),
    log_linear(6, 7.0, 0.05, final_zero=False),
    Schedule([9.0, 8.5, 1.0, 0.9, 0.03]),
]


def variance_preserving(scheduler, schedule):
    """Its states at the levels 1, 2, ..., taken to our units, on a grid that is put in the place of its float32 one.

    It cannot be given levels, only a number of steps; what it computes from them is float64 then.
    """
    scheduler.set_timesteps(schedule.steps)
    scheduler.sigmas = sigmas = torch.tensor(schedule.sigmas, dtype=torch.float64)
    scale = (1 + sigmas**2).sqrt()
    z, states = start(schedule, torch.float64) / scale[0], []
    for i, t in enumerate(scheduler.timesteps):
        z = scheduler.step(two_clusters(scale[i] * z, sigmas[i]), t, z).prev_sample
        states.append(scale[i + 1] * z)
    return states


@pytest.mark.parametrize("schedule", GRIDS, ids=repr)
@pytest.mark.parametrize("bh", [1, 2])
@pytest.mark.parametrize("points", [1, 2, 3])
def test_unipc_multistep_scheduler(schedule, points, bh):
    """Its states are the predictions, which it corrects at the next step; ours are corrected, but for the last."""
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=points, solver_type=f"bh{bh}", prediction_type="sample", lower_order_final=False
    )
    evaluated = []

    def watched(x, sigma):
        evaluated.append(x)
        return two_clusters(x, sigma)

    x = start(schedule, torch.float64)
    end = UniPC(points=points, bh=bh).solve(watched, x, schedule)
    expected = variance_preserving(scheduler, schedule)
    torch.testing.assert_close([*evaluated[1:], end], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", GRIDS, ids=repr)
@pytest.mark.parametrize("points", [1, 2, 3])
def test_deis_multistep_scheduler(schedule, points):
    """Which has the log-rho form alone, and whose NumPy logarithms take a float64 grid as well."""
    scheduler = diffusers.DEISMultistepScheduler(solver_order=points, prediction_type="sample", lower_order_final=False)
    states = ours(DEIS(points=points), schedule, torch.float64)
    torch.testing.assert_close(states, variance_preserving(scheduler, schedule), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", GRIDS, ids=repr)
def test_ipndm_scheduler(schedule):
    """It knows levels as (alpha, beta), of which ours are (1, sigma), and wants what gives the noise with them."""
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(schedule.steps)
    scheduler.betas = sigmas = torch.tensor(schedule.sigmas, dtype=torch.float64)
    scheduler.alphas = torch.ones_like(sigmas)
    x = start(schedule, torch.float64)
    states = ours(IPNDM(), schedule, x.dtype)
    for t, sigma, expected in zip(scheduler.timesteps, sigmas, states, strict=False):
        output = (x - two_clusters(x, sigma)) / sigma - sigma * x
        x = scheduler.step(output, t, x).prev_sample
        torch.testing.assert_close(expected, x, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", GRIDS, ids=repr)
def test_euler_maruyama_is_the_predictor_of_score_sde_ve(schedule, monkeypatch):
    """Its corrector takes its step from norms over the batch, which ours does not: it is left out."""
    from diffusers.schedulers import scheduling_sde_ve

    noise = Noise(range(4), dtype=torch.float64)
    monkeypatch.setattr(scheduling_sde_ve, "randn_tensor", lambda *_, **__: noise.normal((3,)))
    scheduler, last = diffusers.ScoreSdeVeScheduler(), schedule.steps
    scheduler.timesteps = torch.linspace(1, 0, last + 1)
    scheduler.discrete_sigmas = torch.tensor(schedule.sigmas[::-1], dtype=torch.float64)
    x = start(schedule, torch.float64)
    states = EulerMaruyama().trajectory(two_clusters, x, schedule, Noise(range(4)))
    for i, expected in enumerate(states):
        score = (two_clusters(x, schedule.sigmas[i]) - x) / schedule.sigmas[i] ** 2
        x = scheduler.step_pred(score, (last - i + 0.25) / last, x).prev_sample
        torch.testing.assert_close(expected, x, rtol=1e-6, atol=1e-9)
