"""The pilot: a few hundred samples for each of a handful of combinations, held against held-out data.

It settles what nats cannot: one nat of discretization is imperceptible detail where one nat of initialization is
visible structure. All pilots share their seeds, so that their differences are paired. Where it cannot tell two
combinations apart, the smaller budget decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.choose.levels import RIVALS, SIGMA_MINS
from headstart.choose.screen import Option, Score, Tails, contenders, rescheduled, resolved
from headstart.denoiser import Denoiser
from headstart.metrics import Reference, evaluate
from headstart.plan import Plan
from headstart.profile import Profile, rows_of
from headstart.progress import Progress
from headstart.schedule import Schedule
from headstart.solver import Solver, get_solver

__all__ = ["Pilot", "decide", "even"]

#: Horizons that the first round looks at, from the shortest one that is admissible to this many times it.
ROUND, REACH = 5, 16.0


class Pilot:
    """Draws pilot samples and scores them by their sliced Wasserstein distance to the held-out data.

    Arguments:
        denoiser: the network, on ``device``.
        held_out: data that neither starts nor, if possible, the network were fitted on, shape (N, \\*S).
        conditions: of the held-out data, which the pilot samples take over.
        profile: of the plans.
        count: samples of each pilot.
        seed: of the directions, and of the samples, whose own seeds are those of no other samples.
        device: where the network works.
        dtype: of the states.
        batch_size: samples per call of the network.
        progress: told of the pilots.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        held_out: Tensor,
        conditions: Mapping[str, Any],
        profile: Profile,
        count: int,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype,
        batch_size: int,
        progress: Progress,
    ) -> None:
        self.denoiser, self.profile = denoiser, profile
        self.device, self.dtype, self.batch_size = device, dtype, batch_size
        self.held_out, self.seed = held_out, seed
        index = torch.arange(count) % len(held_out)
        self.conditions = rows_of(conditions, index, len(held_out))
        self.seeds = [2**63 + seed * 2**32 + i for i in range(count)]
        self.progress = progress
        self.drawn: dict[tuple[int, Schedule, Solver], Tensor] = {}

    def __call__(self, options: Iterable[Option]) -> list[Option]:
        """The options with their scores."""
        options = list(options)
        return [self._scored(option) for option in self.progress.track(options, "piloting")]

    @cached_property
    def reference(self) -> Reference:
        """What pilots are held against."""
        return Reference.of(self.held_out, directions=256, seed=self.seed)

    def samples(self, option: Option) -> Tensor:
        """The pilot samples of a combination, of shape (count, \\*S)."""
        if (found := self.drawn.get((id(option.start), option.schedule, option.solver))) is not None:
            return found
        plan = Plan(option.start, option.schedule, option.solver, option.budget, self.profile)
        return plan.sample(
            self.denoiser,
            seeds=self.seeds,
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
            **self.conditions,
        ).float()

    def _scored(self, option: Option) -> Option:
        samples = self.samples(option)
        self.drawn[id(option.start), option.schedule, option.solver] = samples
        score = Score.of(len(samples), lambda kept: evaluate(samples[torch.from_numpy(kept)], self.reference).swd)
        return replace(option, pilot=score)


def decide(
    pilot: Pilot,
    options: Sequence[Option],
    tails: Tails,
    schedule: str | Schedule | None,
    solver: str | Solver | None,
    sigma_min: float | None,
) -> tuple[Option, list[Option]]:
    """The best combination and all that were piloted: first the horizon, then the levels, then the solver."""
    by_horizon = contenders(options, tails)
    first = _spread(by_horizon, ROUND)
    horizons = _horizons(first)
    unknown = [o for o in options if not (o.start.tractable or o.start.oracle) and o.schedule.horizon in horizons]
    piloted = pilot([*first, *(option for option in unknown if option not in first)])
    place = _horizons(by_horizon).index(_lowest(piloted).schedule.horizon)
    around = by_horizon[max(place - 1, 0) : place + 2]
    piloted += pilot([option for option in around if option.schedule.horizon not in _horizons(piloted)])
    best = _winner(sorted(piloted, key=lambda option: (not option.start.tractable, option.nats.value)))

    profile, steps = pilot.profile, best.schedule.steps
    if schedule is None and steps > 1:
        rivals = pilot(rescheduled(profile, best, kind, best.schedule.sigma_min) for kind in RIVALS)
        piloted += rivals
        best = _winner([best, *rivals])
    if sigma_min is None and not isinstance(schedule, Schedule) and steps > 1:
        lasts = [profile.sigma_data * last for last in SIGMA_MINS[1:]]
        rivals = pilot(rescheduled(profile, best, best.kind, s) for s in lasts if s < best.schedule.horizon)
        piloted += rivals
        best = _winner([best, *rivals])
    if solver is None and steps > 1:
        rivals = pilot([resolved(profile, best, get_solver("euler"))])
        piloted += rivals
        best = _winner([best, *rivals])
    return best, piloted


def even(option: Option, other: Option) -> bool:
    """Whether the pilot cannot tell two combinations apart."""
    return option.pilot is not None and other.pilot is not None and option.pilot.tied(other.pilot)


def _horizons(options: Sequence[Option]) -> list[float]:
    return [option.schedule.horizon for option in options]


def _spread(options: Sequence[Option], count: int) -> list[Option]:
    """At most ``count`` of the options, from the smallest horizon to :data:`REACH` times it, evenly by rank."""
    near = [o for o in options if o.schedule.horizon <= REACH * options[0].schedule.horizon]
    places = np.unique(np.linspace(0, len(near) - 1, min(count, len(near))).round().astype(int))
    return [near[i] for i in places]


def _lowest(options: Sequence[Option]) -> Option:
    def score(option: Option) -> float:
        assert option.pilot is not None
        return option.pilot.value

    return min(options, key=score)


def _winner(options: Sequence[Option]) -> Option:
    """The option with the best pilot; of those that cannot be told from it, the one that is listed first."""
    lowest = _lowest(options)
    return next(option for option in options if option is lowest or even(option, lowest))
