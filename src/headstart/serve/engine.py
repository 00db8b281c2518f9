"""The samplers of the service: plans by their evaluations, and the classic one that a page shows beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart.compute import Compute
from headstart.conditions import own
from headstart.denoiser import Denoiser
from headstart.errors import InputError
from headstart.plan import Plan
from headstart.report.lanes import beside_classic, lanes
from headstart.serve.batching import Task

__all__ = ["Draw", "Engine", "Race"]


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
        InputError: if there is no plan, they are of samples of different shapes, two have as many evaluations, or
            one decodes latents.
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
        if any(plan.record.latents for plan in plans):
            raise InputError(
                "the service decodes no latents: save plan.with_latents(None), and serve that for latents as they are"
            )
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
        label = {} if race.label is None else {"label": race.label}
        entries = beside_classic(self.plans[race.nfe], self.denoiser)
        return lanes(entries, self.denoiser, race.seeds, self.shared | label, self.compute)
