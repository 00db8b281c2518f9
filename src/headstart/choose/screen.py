"""Screening: every start at every horizon with its error in nats and its tails, without calling the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.budget import Budget, Estimate, discretization_error, initialization_errors, path_objectives
from headstart.choose.levels import build_schedule, horizons_of, usual_last
from headstart.initialization import Initialization
from headstart.metrics import TailGap, tail_gap
from headstart.noise import Noise
from headstart.plan import Candidate
from headstart.profile import Profile
from headstart.schedule import Schedule
from headstart.solver import Solver

__all__ = [
    "Option",
    "Score",
    "contenders",
    "flat",
    "judged_by_tails",
    "reaches",
    "rescheduled",
    "resolved",
    "screen",
    "smallest",
]

#: A start that is worse than this many nats is not piloted, unless every plan as a whole is worse.
ADMISSIBLE = 4.0

#: Budgets within this ratio are equals.
NATS_TIE = 1.05

#: A score is also taken without each of this many groups of its samples: a jackknife tells how far two scores can be
#: told apart.
GROUPS = 8

#: Samples of a start that its tails are judged by.
TAIL_SAMPLES = 2000

#: With fewer held-out samples nothing is said of tails: those of one coordinate do not resolve a level of 0.99.
FEWEST = 1000


@dataclass(frozen=True)
class Score:
    """A number to be made small, and what it is without each group of the samples that it was measured on."""

    value: float
    without: tuple[float, ...]

    @classmethod
    def of(cls, count: int, score: Callable[[NDArray[np.bool_]], float]) -> Score:
        """The score of ``count`` samples, as a function of which of them to take."""
        group = np.arange(count) % GROUPS
        return cls(score(group >= 0), tuple(score(group != i) for i in range(GROUPS)))

    def tied(self, other: Score) -> bool:
        """Whether it is within one standard error of another one on the same samples, by a delete-a-group jackknife."""
        gaps = np.subtract(self.without, other.without)
        return abs(self.value - other.value) <= float(gaps.std(ddof=0)) * math.sqrt(GROUPS - 1)


@dataclass(frozen=True, eq=False)
class Option:
    """A combination under consideration.

    Attributes:
        start: where it starts.
        kind: the name of the kind of schedule.
        schedule: its levels.
        solver: how it moves between them.
        budget: its error in nats.
        nats: what the budget alone decides by: the whole budget of the ODE, or J of a stochastic solver.
        tail: how far the start's far quantiles are from those of the noised data, or None if it was not looked at.
        pilot: sliced Wasserstein distance of pilot samples to held-out data.
    """

    start: Initialization
    kind: str
    schedule: Schedule
    solver: Solver
    budget: Budget
    nats: Score
    tail: TailGap | None = None
    pilot: Score | None = None

    @property
    def e_init(self) -> float:
        """The start's error in nats, infinite if it is not known."""
        return math.inf if self.budget.initialization is None else self.budget.initialization.value

    def record(self, in_flat: bool, in_pilot_flat: bool) -> Candidate:
        """What the plan remembers of it."""
        e_init = self.budget.initialization
        return Candidate(
            initialization=self.start.name,
            horizon=self.schedule.horizon,
            schedule=self.kind,
            sigma_min=self.schedule.sigma_min,
            solver=self.solver.name,
            e_init=None if e_init is None else e_init.value,
            e_init_error=None if e_init is None else e_init.error,
            nats=self.nats.value,
            tail=None if self.tail is None else self.tail.value,
            pilot=None if self.pilot is None else self.pilot.value,
            flat=in_flat,
            pilot_flat=in_pilot_flat,
        )


def screen(
    profile: Profile,
    starts: Sequence[Initialization],
    costs: Mapping[int, float],
    solver: Solver,
    nfe: int,
    horizon: float | None,
    schedule: str | Schedule | None,
    sigma_min: float | None,
) -> list[Option]:
    """Every start at every horizon that it knows, with its budget.

    A start that costs c evaluations of the network leaves nfe - c of them to the solver, and 1 at least.

    Arguments:
        profile: what was measured.
        starts: the fitted starts.
        costs: of those that are not in closed form, in evaluations of the network, by their ids.
        solver: the first solver to try.
        nfe: evaluations to spend.
        horizon: the only horizon to look at, or None.
        schedule: the only schedule or kind of schedule to look at, or None.
        sigma_min: the last level above 0, or None.
    """
    options = []
    for start in starts:
        left = max(1, nfe - round(costs.get(id(start), 0.0)))
        grids = _grids(profile, solver.steps_for(left), start.sigmas, horizon, schedule, sigma_min)
        options += [_option(profile, start, kind, grid, solver) for kind, grid in grids]
    return options


def _grids(
    profile: Profile,
    steps: int,
    known: tuple[float, float],
    horizon: float | None,
    schedule: str | Schedule | None,
    sigma_min: float | None,
) -> list[tuple[str, Schedule]]:
    """The schedules to look at with a start that knows the horizons from one level to another."""
    if isinstance(schedule, Schedule):
        return [("custom", schedule)]
    kind = schedule or "defect"
    if horizon is None:
        pairs = horizons_of(profile, sigma_min)
        pairs = [pair for pair in pairs if known[0] <= pair[0] <= known[1]] or pairs
    else:
        pairs = [(horizon, usual_last(profile, horizon) if sigma_min is None else sigma_min)]
    return [(kind, build_schedule(kind, profile, steps, h, last)) for h, last in pairs]


def admissible(options: Sequence[Option]) -> list[Option]:
    """The options whose start's error alone is not above a few nats or the smallest whole budget; or the best of them.

    A start of unknown error, as every oracle, is considered only where there is nothing else.
    """
    limit = max(ADMISSIBLE, min(option.budget.total for option in options), min(option.e_init for option in options))
    return [option for option in options if option.e_init <= limit]


def contenders(options: Sequence[Option]) -> list[Option]:
    """The best start at each horizon, by rising horizon, of those that are admissible and whose tails reach, if any."""
    left = admissible(options)
    left = [option for option in left if reaches(option)] or left
    best: dict[float, Option] = {}
    for option in sorted(left, key=lambda option: option.e_init, reverse=True):
        best[option.schedule.horizon] = option
    return sorted(best.values(), key=lambda option: option.schedule.horizon)


def reaches(option: Option) -> bool:
    """Whether its start does not miss the tails of the noised data, as far as can be told."""
    return option.tail is None or not option.tail.misses()


def smallest(options: Sequence[Option]) -> Option:
    """The option with the smallest budget, or of its equals the one with the largest horizon.

    There the start has the least to know.
    """
    least = min(options, key=lambda option: option.nats.value)
    return max(flat(options, least), key=lambda option: (option.schedule.horizon, -option.nats.value))


def flat(options: Iterable[Option], least: Option) -> list[Option]:
    """The options whose budget is that of the smallest one, up to 5 % or the Monte-Carlo error of the difference."""
    limit = least.nats.value + (NATS_TIE - 1) * abs(least.nats.value)
    return [option for option in options if option.nats.value <= limit or option.nats.tied(least.nats)]


def rescheduled(profile: Profile, option: Option, kind: str, sigma_min: float) -> Option:
    """The same start at the same horizon, on other levels."""
    grid = build_schedule(kind, profile, option.schedule.steps, option.schedule.horizon, sigma_min)
    return replace(_option(profile, option.start, kind, grid, option.solver), tail=option.tail)


def resolved(profile: Profile, option: Option, solver: Solver) -> Option:
    """The same start on the same levels, with another solver."""
    other = _option(profile, option.start, option.kind, option.schedule, solver)
    return replace(other, tail=option.tail)


def _option(profile: Profile, start: Initialization, kind: str, schedule: Schedule, solver: Solver) -> Option:
    steps = discretization_error(profile, schedule)
    if not start.tractable:
        budget = Budget(None, steps)
        return Option(start, kind, schedule, solver, budget, Score(budget.total, (budget.total,) * GROUPS))
    errors = initialization_errors(profile, start, schedule.horizon)
    if solver.name == "ddpm" and schedule.sigma_min < schedule.horizon:
        path = path_objectives(profile, start, schedule, "ddpm")
        nats = Score.of(len(path), lambda kept: float(path[kept].mean()))
    else:
        nats = Score.of(len(errors), lambda kept: Budget(Estimate(float(errors[kept].mean()), 0.0), steps).total)
    return Option(start, kind, schedule, solver, Budget(Estimate.of(errors), steps), nats)


def judged_by_tails(
    options: Sequence[Option], profile: Profile, held_out: Tensor, labels: Tensor | None
) -> list[Option]:
    """The options, those that are admissible with how far their start's tails reach, if the data are enough to tell."""
    x0 = held_out[:TAIL_SAMPLES].float()
    if len(x0) < FEWEST:
        return list(options)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(profile.seed + 1))
    seeds = [2**61 + profile.seed * 2**32 + i for i in range(len(x0))]
    given = None if labels is None else labels[: len(x0)]
    known: dict[tuple[int, float], TailGap] = {}

    def judged(option: Option) -> Option:
        start, sigma = option.start, option.schedule.horizon
        if (key := (id(start), sigma)) not in known:
            known[key] = tail_gap(start.sample(Noise(seeds), sigma, given), x0 + sigma * noise)
        return replace(option, tail=known[key])

    left = {id(option) for option in admissible(options)}
    return [judged(option) if id(option) in left else option for option in options]
