r"""The schedulers of diffusers, on their own grids: Karras' and equal steps of the log signal-to-noise ratio.

``EDMDPMSolverMultistepScheduler`` works in our units, and knows EDM's networks: it takes their raw output F and makes
the denoiser of it,

.. math:: D = c_\text{skip}\, x + c_\text{out}\, F, \qquad
    c_\text{skip} = \frac{c^2}{c^2 + \sigma^2}, \quad c_\text{out} = \frac{\sigma c}{\sqrt{c^2 + \sigma^2}},

so it is handed :math:`F = (D - c_\text{skip}\, x) / c_\text{out}`. ``UniPCMultistepScheduler`` is
variance-preserving: it sees :math:`z = x / \sqrt{1 + \sigma^2}`. Its range of levels is that of a network's training,
and we put EDM's in the place of the usual one: in float64, since float32 would put its lowest level off by a percent.

Both lower their order at the end of fewer than 15 steps, as they do by default: up to four steps 3M is 2M.

References:
    Lu et al., *DPM-Solver++*, 2022, arXiv 2211.01095. Zhao et al., *UniPC*, NeurIPS 2023, arXiv 2302.04867.
    diffusers 0.42.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.compare.methods import Method, Prepared, from_noise
from headstart.compare.peers.packages import load
from headstart.compare.setting import Setting

__all__ = ["METHODS", "dpm_solver", "unipc"]

D = Callable[[Tensor, float], Tensor]

#: Levels that stand for a network's own.
TRAINED = 1000


def dpm_solver(order: int, grid: str, sigma_max: float, sigma_min: float, steps: int, denoiser: D, x: Tensor) -> Tensor:
    """DPM-Solver++ by ``EDMDPMSolverMultistepScheduler``, with its defaults.

    Arguments:
        order: 2 for 2M, 3 for 3M.
        grid: its ``sigma_schedule``: "karras" or "exponential", equal steps of ln sigma.
        sigma_max: the first level.
        sigma_min: the last level above 0.
        steps: number of steps, the last one to 0.
        denoiser: of a state and a level.
        x: states at the first level, shape (B, \\*S).
    """
    scheduler = load("diffusers").EDMDPMSolverMultistepScheduler(
        sigma_min=sigma_min, sigma_max=sigma_max, sigma_schedule=grid, solver_order=order
    )
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    c = scheduler.config.sigma_data
    for sigma, t in zip(scheduler.sigmas.tolist(), scheduler.timesteps, strict=False):
        skip, out = c**2 / (c**2 + sigma**2), sigma * c / (c**2 + sigma**2) ** 0.5
        x = scheduler.step((denoiser(x, sigma) - skip * x) / out, t, x).prev_sample
    return x


def unipc(order: int, grid: str, sigma_max: float, sigma_min: float, steps: int, denoiser: D, x: Tensor) -> Tensor:
    """UniPC by ``UniPCMultistepScheduler``, with its defaults; arguments as in :func:`dpm_solver`."""
    scheduler = load("diffusers").UniPCMultistepScheduler(
        solver_order=order, prediction_type="sample", **{f"use_{grid}_sigmas": True}, num_train_timesteps=TRAINED
    )
    trained = torch.from_numpy(np.geomspace(sigma_min, sigma_max, TRAINED))
    scheduler.alphas_cumprod = 1 / (1 + trained.square())
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    levels = scheduler.sigmas.tolist()
    z: Tensor = x / (1 + levels[0] ** 2) ** 0.5
    for sigma, t in zip(levels, scheduler.timesteps, strict=False):
        z = scheduler.step(denoiser((1 + sigma**2) ** 0.5 * z, sigma), t, z).prev_sample
    return z  # at the level 0, where both units are the same


def _prepare(
    solve: Callable[..., Tensor], solver: str, how: str, order: int, grid: str, setting: Setting, nfe: int
) -> Prepared:
    load("diffusers")
    levels, name = {"karras": ("Karras levels", "rho"), "exponential": ("log-SNR levels", "log-linear")}[grid]
    walk = partial(solve, order, grid, setting.sigma_max, setting.sigma_min, nfe)
    return from_noise(setting, walk, f"{levels} to {setting.sigma_min:g} and 0, {how}", name, solver)


def _methods() -> list[Method]:
    kinds: list[tuple[str, str, Callable[..., Any], str, int]] = [
        ("dpm++2m", "DPM-Solver++(2M)", dpm_solver, "EDMDPMSolverMultistepScheduler", 2),
        ("dpm++3m", "DPM-Solver++(3M)", dpm_solver, "EDMDPMSolverMultistepScheduler", 3),
        ("unipc", "UniPC-3", unipc, "UniPCMultistepScheduler", 3),
    ]
    return [
        Method(
            f"{name}-{short}",
            f"{label}, {said}",
            "peer",
            "diffusers",
            partial(_prepare, solve, name, f"{scheduler} of order {order} of diffusers", order, grid),
            package="diffusers",
        )
        for name, label, solve, scheduler, order in kinds
        for grid, short, said in (("karras", "karras", "Karras"), ("exponential", "logsnr", "log-SNR"))
    ]


METHODS = tuple(_methods())
