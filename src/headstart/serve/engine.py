"""The samplers of the service: plans by their evaluations, and the classic one that a page shows beside them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headstart.compute import Compute
from headstart.conditions import Conditions, own
from headstart.denoiser import Counted, Denoiser, Range, in_evaluation_mode
from headstart.errors import InputError
from headstart.initialization import Isotropic
from headstart.plan import Plan
from headstart.report.images import data_uri, image_grid, is_images, png
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.schedule.classic import EDM_MAX, EDM_MIN
from headstart.serve.batching import Task
from headstart.solver import Heun

__all__ = ["CLASSIC_NFE", "Draw", "Engine", "Race"]

#: Evaluations of the classic sampler as it is published.
CLASSIC_NFE = 35


@dataclass(frozen=True)
class Draw:
    """Samples that a request asks for.

    Attributes:
        nfe: the evaluations of the plan.
        seeds: one a sample.
        conditions: tensors with a row for each sample, by name.
    """

    nfe: int
    seeds: tuple[int, ...]
    conditions: Mapping[str, Tensor]

    @property
    def key(self) -> tuple[Any, ...]:
        """Draws of the same key may be made together."""
        shapes = [(name, value.dtype, tuple(value.shape[1:])) for name, value in sorted(self.conditions.items())]
        return ("draw", self.nfe, tuple(shapes))


@dataclass(frozen=True)
class Race:
    """A request for the way from the start to the sample, by the plan and by the classic sampler.

    Attributes:
        nfe: the evaluations of the plan.
        seeds: one a sample.
        label: the class of the samples, or None.
    """

    nfe: int
    seeds: tuple[int, ...]
    label: int | None


class Engine:
    """Plans and a network, ready to sample.

    Arguments:
        plans: of the same data.
        denoiser: the network, on the device.
        compute: where it works, and samples per call of it.
        shared: conditions that all samples share.

    Raises:
        InputError: if there is no plan, they are of samples of different shapes, or two have as many evaluations.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        denoiser: Denoiser,
        compute: Compute | None = None,
        shared: Mapping[str, Any] | None = None,
    ) -> None:
        shapes = {plan.initialization.shape for plan in plans}
        if len(shapes) != 1:
            raise InputError(f"plans of one data set are served together: got samples of shapes {sorted(shapes)}")
        self.plans = {plan.nfe: plan for plan in sorted(plans, key=lambda plan: plan.nfe)}
        if len(self.plans) < len(plans):
            raise InputError("two plans have as many evaluations: serve one of them")
        (self.shape,) = shapes
        self.denoiser, self.compute, self.shared = denoiser, compute or Compute(), dict(shared or {})

    def work(self, tasks: Sequence[Task]) -> Sequence[Any]:
        """The samples of draws, or the way of a race."""
        first = tasks[0].payload
        if isinstance(first, Race):
            return [self.race(task.payload) for task in tasks]
        return self.draw([task.payload for task in tasks])

    def draw(self, draws: Sequence[Draw]) -> list[Tensor]:
        """The samples of draws of one key, in one go."""
        seeds = [seed for draw in draws for seed in draw.seeds]
        joined = {name: torch.cat([draw.conditions[name] for draw in draws]) for name in draws[0].conditions}
        given = self.shared | {name: own(value) for name, value in joined.items()}
        samples = self.plans[draws[0].nfe].sample(
            self.denoiser,
            seeds=seeds,
            batch_size=self.compute.batch_size,
            device=self.compute.device,
            conditions=given,
        )
        return list(torch.split(samples, [len(draw.seeds) for draw in draws]))

    def race(self, race: Race) -> list[dict[str, Any]]:
        """The lanes of a race, one after the other, each with the clock of its own states."""
        plan = self.plans[race.nfe]
        lanes = [
            ("plan", f"{plan.initialization.name} start at {plan.horizon:.3g}, {plan.solver.name}", plan),
            ("equal", "noise, Heun's method, at most as many evaluations", self._classic(race.nfe)),
            ("classic", "noise, Heun's method, as published", self._classic(CLASSIC_NFE)),
        ]
        return [
            {"lane": name, "title": title, **self._follow(self.denoiser, sampler, race)}
            for name, title, sampler in lanes
        ]

    def _classic(self, nfe: int) -> Sampler:
        """The sampler of Karras et al. (2022) with at most so many evaluations, from noise."""
        known = Range.of(self.denoiser)
        high, low = min(EDM_MAX, known.high), max(EDM_MIN, known.low)
        return Sampler(Isotropic(self.shape), rho_grid(max(1, Heun().steps_for(nfe)), high, low), Heun())

    @in_evaluation_mode
    @torch.no_grad()
    def _follow(self, denoiser: Denoiser, sampler: Sampler, race: Race) -> dict[str, Any]:
        """The states of a sampler at all levels, with the time and the evaluations to each."""
        noise, counted = self.compute.noise(race.seeds), Counted(denoiser)
        label = {} if race.label is None else {"label": race.label}
        given = Conditions.of(self.shared | label, len(race.seeds)).to(self.compute.device)
        began = time.perf_counter()
        x = sampler.initialization.sample(noise, sampler.horizon, given)
        found = [(x.cpu(), time.perf_counter() - began, 0)]
        for state in sampler.solver.trajectory(partial(counted, **given), x, sampler.schedule, noise):
            found.append((state.cpu(), time.perf_counter() - began, counted.calls))
        frames = [
            {"sigma": sigma, "seconds": seconds, "evaluations": calls, **self._shown(state, sigma)}
            for sigma, (state, seconds, calls) in zip(sampler.schedule.sigmas, found, strict=True)
        ]
        return {"nfe": sampler.nfe, "frames": frames}

    def _shown(self, state: Tensor, sigma: float) -> dict[str, Any]:
        """States for a page: images as a grid, scaled to the data's range, and others by their first coordinates."""
        if is_images(state):
            scaled = state / (1 + sigma**2) ** 0.5
            grid = image_grid(scaled.float().numpy(), min(len(state), 4), (-1.0, 1.0), padding=1)
            return {"image": data_uri(png(grid))}
        return {"points": state.flatten(1)[:, :2].double().tolist()}
