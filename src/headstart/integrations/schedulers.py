r"""A plan's levels for the stock schedulers of diffusers, which do something else to what they are given.

=========================  =============================================  ==================  ========================
scheduler                  ``set_timesteps`` is given                     ends                latents are
=========================  =============================================  ==================  ========================
EulerDiscrete              the levels, with the last one                  as given            :math:`x_T / s_0`
EDMEuler                   the ramp that Karras' map takes to them,       a 0 is appended     :math:`x_T /` its
                           :math:`(s^{1/\rho} - s_{\max}^{1/\rho}) /                          ``init_noise_sigma``
                           (s_{\min}^{1/\rho} - s_{\max}^{1/\rho})`
FlowMatchEuler             :math:`t / (k - (k - 1) t)` of                 a 0 is appended     :math:`x_T / (1 + s_0)`
                           :math:`t = s / (1 + s)`, which its shift k
                           takes to t
DPMSolverMultistep         the nearest whole timesteps                    a 0 is appended     :math:`x_T /
                                                                                              \sqrt{1 + s_0^2}`
=========================  =============================================  ==================  ========================

To visit the levels exactly with the plan's own solver, whatever the scheduler is, use
:func:`headstart.integrations.pipeline.apply`.

References:
    diffusers 0.42.1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.errors import HeadstartError, InputError
from headstart.integrations.diffusers import read_scheduler
from headstart.integrations.export import EXPORTERS, Export, Exporter, counterpart, ending, starts
from headstart.sampler import Sampler

__all__ = ["ForScheduler", "to_scheduler"]


@dataclass(frozen=True, eq=False)
class ForScheduler:
    """A plan for a stock scheduler. Made by :func:`to_scheduler`.

    Attributes:
        arguments: of ``scheduler.set_timesteps(**arguments)``.
        sigmas: the levels that the scheduler then visits, in our units.
        evaluations: how often it calls the network.
        scale: what the states at the first level are multiplied by to be the ``latents`` of a pipeline.
        notes: how it ends, and what was transformed.
    """

    arguments: dict[str, Any]
    sigmas: tuple[float, ...]
    evaluations: int
    scale: float
    notes: tuple[str, ...] = field(default_factory=tuple)

    def latents(self, x: Tensor) -> Tensor:
        """The ``latents`` of a pipeline that begin at the states x; the pipeline scales them on its part."""
        return self.scale * x


def to_scheduler(sampler: Sampler, scheduler: Any) -> ForScheduler:
    """A plan's levels in the form that a stock scheduler of diffusers takes to them. The scheduler is not changed.

    Arguments:
        sampler: the plan; its solver is euler, or dpm++2m for DPMSolverMultistepScheduler.
        scheduler: of diffusers.

    Raises:
        InputError: if the scheduler takes no levels, its settings change them for good, or it moves otherwise.
    """
    name = type(scheduler).__name__.removesuffix("Scheduler")
    if name not in TAKEN:
        raise InputError(
            f"{name}Scheduler takes no levels: expected {', '.join(f'{known}Scheduler' for known in TAKEN)}; or let "
            "headstart.integrations.pipeline.apply give the pipeline a scheduler that does"
        )
    counterpart(sampler, {"dpm++2m" if name == "DPMSolverMultistep" else "euler": name}, f"{name}Scheduler")
    config = scheduler.config
    for setting in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"):
        if config.get(setting, False):
            raise InputError(f"{name}Scheduler with {setting} makes its own levels: set it to False")
    settled = copy.deepcopy(scheduler)
    try:
        found = TAKEN[name](sampler, settled)
    except HeadstartError:
        raise
    except Exception as error:  # settings that make no table of levels fail in many ways
        raise InputError(
            f"{name}Scheduler with these settings takes no levels: {type(error).__name__}: {error}"
        ) from error
    expected = [level for level in sampler.schedule.sigmas if level > 0]
    off = max(abs(there / here - 1) for here, there in zip(expected, found.sigmas, strict=False))
    if off > 1e-3 and name != "DPMSolverMultistep":
        raise InputError(f"{name}Scheduler would visit levels that are up to {off:.1%} off: {found.sigmas}")
    return found


def _appended(sampler: Sampler) -> str:
    """How a scheduler ends that appends a 0."""
    last = sampler.schedule.sigmas[-1]
    if last == 0:
        return "the last 0 is left out here, since the scheduler appends it"
    return f"the scheduler goes on from the last level, {last:.6g}, to a 0 that it appends, by one more evaluation"


def _positive(sampler: Sampler) -> list[float]:
    return [level for level in sampler.schedule.sigmas if level > 0]


def _euler(sampler: Sampler, scheduler: Any) -> ForScheduler:
    scheduler.set_timesteps(sigmas=list(sampler.schedule.sigmas))
    visited = tuple(scheduler.sigmas.tolist())
    notes = (ending(sampler), "the levels are not transformed; latents are the states over init_noise_sigma")
    scale = 1 / float(scheduler.init_noise_sigma)
    arguments = {"sigmas": list(sampler.schedule.sigmas)}
    return ForScheduler(arguments, visited, sampler.schedule.steps, scale, notes)


def _edm(sampler: Sampler, scheduler: Any) -> ForScheduler:
    config = scheduler.config
    if config.sigma_schedule != "karras":
        raise InputError("this EDMEulerScheduler makes its own levels: expected sigma_schedule=karras")
    low, high = (float(value) ** (1 / config.rho) for value in (config.sigma_min, config.sigma_max))
    levels = torch.tensor(_positive(sampler), dtype=torch.float64)
    ramp = (levels ** (1 / config.rho) - high) / (low - high)
    scheduler.set_timesteps(sigmas=ramp)
    notes = (
        _appended(sampler),
        f"the levels are given as the ramp of Karras' map between {config.sigma_max:g} and {config.sigma_min:g}, in a "
        "tensor; latents are the states over init_noise_sigma, which stays that of sigma_max",
    )
    visited = tuple(scheduler.sigmas.double().tolist())
    return ForScheduler({"sigmas": ramp}, visited, len(levels), 1 / float(scheduler.init_noise_sigma), notes)


def _flow(sampler: Sampler, scheduler: Any) -> ForScheduler:
    config = scheduler.config
    if config.use_dynamic_shifting or config.shift_terminal or config.invert_sigmas or config.stochastic_sampling:
        raise InputError(
            "this FlowMatchEulerDiscreteScheduler shifts by the size of the image, stretches, inverts or draws noise: "
            "set use_dynamic_shifting, shift_terminal, invert_sigmas and stochastic_sampling off"
        )
    shift, levels = float(scheduler.shift), torch.tensor(_positive(sampler), dtype=torch.float64)
    times = levels / (1 + levels)
    given = (times / (shift - (shift - 1) * times)).tolist()
    scheduler.set_timesteps(sigmas=given)
    there = scheduler.sigmas.double()
    notes = (
        _appended(sampler),
        f"the levels are given as times s / (1 + s), before the shift of {shift:g} that the scheduler applies; latents "
        "are the states times 1 - t",
    )
    visited = tuple((there / (1 - there)).tolist())
    return ForScheduler({"sigmas": given}, visited, len(levels), 1 / (1 + sampler.horizon), notes)


def _dpm(sampler: Sampler, scheduler: Any) -> ForScheduler:
    if scheduler.config.get("use_flow_sigmas", False) or scheduler.config.algorithm_type != "dpmsolver++":
        raise InputError("expected a DPMSolverMultistepScheduler with algorithm_type=dpmsolver++ and no flow sigmas")
    if scheduler.config.solver_order != 2 or scheduler.config.solver_type != "midpoint":
        raise InputError("expected a DPMSolverMultistepScheduler with solver_order=2 and solver_type=midpoint")
    table = torch.as_tensor(scheduler.alphas_cumprod).double()
    known = 0.5 * ((1 - table) / table).log()
    levels = _positive(sampler)
    times = [int((known - torch.tensor(level, dtype=torch.float64).log()).abs().argmin()) for level in levels]
    if len(set(times)) < len(times):
        raise InputError(f"two levels are nearest to one timestep, {times}: this plan is too fine for whole timesteps")
    if levels[0] > float(known[-1].exp()) * (1 + 1e-3):
        raise InputError(f"the plan starts at {levels[0]:.6g}, and the scheduler's table ends at {known[-1].exp():.6g}")
    scheduler.set_timesteps(timesteps=times)
    visited = tuple(scheduler.sigmas.double().tolist())
    rounded = ", ".join(f"{a:.4g} to {b:.4g}" for a, b in zip(levels, visited, strict=False))
    notes = (_appended(sampler), f"the levels are rounded to whole timesteps: {rounded}", "latents are what it sees")
    scale = (1 + visited[0] ** 2) ** -0.5
    return ForScheduler({"timesteps": times}, visited, len(times), scale, notes)


#: The schedulers that take levels, by the names of their classes.
TAKEN = {
    "EulerDiscrete": _euler,
    "EDMEuler": _edm,
    "FlowMatchEulerDiscrete": _flow,
    "DPMSolverMultistep": _dpm,
}


def _diffusers(
    sampler: Sampler, seeds: Iterable[int] | None, label: Tensor | None = None, scheduler: Any = None
) -> Export:
    if scheduler is None:
        raise InputError("which scheduler of diffusers? Give it, or the folder that it was saved to (--scheduler)")
    scheduler = read_scheduler(Path(scheduler)) if isinstance(scheduler, str | Path) else scheduler
    found = to_scheduler(sampler, scheduler)
    given = {key: torch.as_tensor(value).tolist() for key, value in found.arguments.items()}
    tensors = starts(sampler, seeds, label)
    if "x" in tensors:
        tensors["latents"] = found.latents(tensors["x"])
    values = {"set_timesteps": given, "sigmas": list(found.sigmas), "latents_are_x_times": found.scale}
    return Export("diffusers", type(scheduler).__name__, found.evaluations, values, tensors, found.notes)


EXPORTERS.register(Exporter("diffusers", _diffusers, "what a stock scheduler of diffusers takes to the levels"))
