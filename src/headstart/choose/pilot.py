"""The pilot: a few hundred samples for each of a handful of combinations, held against held-out data.

It settles what nats cannot: one nat of discretization is imperceptible detail where one nat of initialization is
visible structure; and at a few steps a solver that errs more in nats, since it extrapolates further, often makes the
better samples. The distance is that of :mod:`headstart.metrics.views`. All pilots share their seeds, so that their
differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.choose.constraints import Constraints
from headstart.choose.levels import SIGMA_MINS, one_level
from headstart.choose.screen import Option, Score, Tails, combined, contenders, varied
from headstart.compute import Compute
from headstart.conditions import Part
from headstart.denoiser import Denoiser
from headstart.metrics import ViewReference
from headstart.noise import Stream
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import Rule, Schedule, Tangent
from headstart.solver import get_solver

__all__ = ["Pilot", "decide", "tied", "winner"]

#: Horizons that the first round looks at, from the shortest one that is admissible to this many times it.
ROUND, REACH = 5, 16.0

#: Nats of a start's error that are not seen.
VISIBLE = 1.0

#: What each of them is tried with, besides the "defect" schedule with DPM-Solver++(2M): solvers that extrapolate more.
LEADS = ((Tangent(), "unipc"), (Tangent(), "dpm++3m"))


class Pilot:
    """Draws pilot samples and scores them by their distance to the held-out data.

    Arguments:
        denoiser: the network, its shared conditions fixed, on the device.
        held_out: data that neither starts nor, if possible, the network were fitted on, with their conditions, which
            the pilot samples take over.
        profile: the measurements of the network.
        count: samples of each pilot.
        seed: of the views, and of the samples, whose own seeds are those of no other samples.
        compute: how samples are drawn.
    """

    def __init__(
        self, denoiser: Denoiser, held_out: Part, profile: Profile, count: int, seed: int, compute: Compute
    ) -> None:
        self.denoiser, self.profile, self.compute, self.seed = denoiser, profile, compute, seed
        self.held_out = held_out.samples
        self.conditions = held_out.take(torch.arange(count) % len(held_out)).conditions
        self.seeds = Stream.PILOT.seeds(seed, count)

    def __call__(self, options: Iterable[Option]) -> list[Option]:
        """The options with their scores."""
        options = list(options)
        return [self._scored(option) for option in self.compute.progress.track(options, "piloting")]

    @cached_property
    def reference(self) -> ViewReference:
        """The held-out data that pilots are compared with."""
        return ViewReference.of(self.held_out, seed=self.seed)

    def samples(self, option: Option) -> Tensor:
        """The pilot samples of a combination, of shape (count, \\*S)."""
        return (
            Sampler(option.start, option.schedule, option.solver)
            .sample(
                self.denoiser,
                seeds=self.seeds,
                batch_size=self.compute.batch_size,
                device=self.compute.device,
                dtype=self.compute.dtype,
                conditions=self.conditions,
            )
            .float()
        )

    def _scored(self, option: Option) -> Option:
        samples = self.samples(option)
        score = Score.of(len(samples), lambda kept: self.reference.distance(samples[torch.from_numpy(kept)]))
        return replace(option, pilot=score)


def decide(
    pilot: Pilot, options: Sequence[Option], tails: Tails, constraints: Constraints
) -> tuple[Option, list[Option]]:
    """The best combination and all that were piloted.

    First the horizon, with each of a few solvers and grids that differ most: what is the best of them depends on it.
    Then the horizons next to it, every solver on every kind of schedule (one at a time can get stuck: what suits one
    solver does not suit the next), the last levels, if another one wins all pairs with it, and the horizons again.
    """
    profile = pilot.profile
    free = constraints.sigma_min is None and not isinstance(constraints.schedule, Schedule)
    lasts = [last for s in SIGMA_MINS[1:] if (last := s * profile.sigma_data) > profile.sigmas[-1]] if free else []
    by_horizon = contenders(options, tails)
    spread = _spread(by_horizon, ROUND)
    known = {option.schedule.horizon for option in spread}
    unknown = [o for o in options if not (o.start.tractable or o.start.oracle) and o.schedule.horizon in known]
    first = [*spread, *(option for option in unknown if option not in spread)]
    piloted = pilot(varied(profile, option, **lead) for option in first for lead in _leads(option, constraints))
    best = winner(sorted(piloted, key=lambda option: (not option.start.tractable, option.nats.value)))

    def against(best: Option, rivals: Iterable[Option]) -> Option:
        """The better of the best so far and its rivals."""
        seen = {(id(o.start), o.schedule, o.solver) for o in piloted}
        new = pilot([o for o in rivals if (id(o.start), o.schedule, o.solver) not in seen])
        piloted.extend(new)
        return winner([best, *new])

    def nearby(best: Option) -> list[Option]:
        """The same at the horizons next to it."""
        place = min(range(len(by_horizon)), key=lambda i: abs(by_horizon[i].schedule.horizon - best.schedule.horizon))
        near = [o for o in by_horizon[max(place - 1, 0) : place + 2] if o.schedule.horizon != best.schedule.horizon]
        alike: dict[str, Any] = {"kind": best.kind, "solver": best.solver}
        if (last := best.schedule.sigma_min) in lasts:
            alike["sigma_min"] = last
        return [varied(profile, o, **alike) for o in near if o.schedule.horizon > 2 * last]

    best = against(best, nearby(best))
    best = against(best, combined(profile, best, constraints))
    if best.schedule.steps > 1:
        below = [last for last in lasts if last < best.schedule.horizon / 2]
        other = against(best, [varied(profile, best, sigma_min=last) for last in below])
        if other is not best:
            best = against(other, combined(profile, other, constraints))
        best = against(best, nearby(best))
    return best, piloted


def _leads(option: Option, constraints: Constraints) -> list[dict[str, Any]]:
    """The kinds and solvers that a horizon is first tried with, where they are free."""
    leads: list[dict[str, Any]] = [{}]
    for kind, name in () if one_level(option.schedule) else LEADS:
        lead: dict[str, Any] = {}
        if constraints.solver is None:
            lead["solver"] = get_solver(name)
        if not isinstance(constraints.schedule, (Rule, Schedule)):
            lead["kind"] = kind
        if lead not in leads:
            leads.append(lead)
    return leads


def tied(option: Option, other: Option) -> bool:
    """Whether two combinations are statistically indistinguishable by the pilot."""
    return option.pilot is not None and other.pilot is not None and option.pilot.tied(other.pilot)


def _spread(options: Sequence[Option], count: int) -> list[Option]:
    """At most ``count`` of the options, from the smallest horizon to :data:`REACH` times it, evenly by rank."""
    near = [o for o in options if o.schedule.horizon <= REACH * options[0].schedule.horizon]
    places = np.unique(np.linspace(0, len(near) - 1, min(count, len(near))).round().astype(int))
    return [near[i] for i in places]


def _lowest(options: Sequence[Option]) -> Option:
    """The piloted option with the smallest distance."""

    def score(option: Option) -> float:
        assert option.pilot is not None
        return option.pilot.value

    return min(options, key=score)


def winner(options: Sequence[Option]) -> Option:
    """The option with the best pilot, or of those that cannot be told from it and whose start errs least, the one with
    the shortest horizon.

    One nat of the start's error is visible structure, where tens of nats of discretization are imperceptible detail.
    And where starts err alike, a longer way down only adds to the network's own error. Of one horizon it is the first.
    """
    best = _lowest(options)
    equals = [option for option in options if option is best or tied(option, best)]
    known = [option for option in equals if option.start.tractable] or equals
    least = min(max(option.e_init, 0.0) for option in known)
    visible = [option for option in known if max(option.e_init, 0.0) <= least + VISIBLE]
    return min(visible, key=lambda option: option.schedule.horizon)
