"""Equality with the schedulers of diffusers that can be given a grid, step for step."""

import pytest
import torch

from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.solver import DPMSolverPP2M, Euler, Solver

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
