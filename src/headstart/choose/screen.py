"""Screening: every start at every horizon with its error in nats and its tails, without calling the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.budget import Budget, Estimate, discretization_error, initialization_errors, path_objectives
from headstart.choose.constraints import Constraints
from headstart.choose.levels import HORIZONS, horizons_of, one_level, usual_last
from headstart.compute import Compute
from headstart.conditions import Part
from headstart.errors import InputError
from headstart.initialization import Initialization
from headstart.metrics import TailGap, tail_gap
from headstart.noise import Noise, Stream, generator_of
from headstart.plan import Candidate
from headstart.profile import Profile
from headstart.schedule import Custom, Kind, Rule, Schedule
from headstart.solver import Solver

__all__ = [
    "Option",
    "Score",
    "Tails",
    "admissible",
    "combined",
    "contenders",
    "equivalent",
    "largest_tied",
    "least",
    "reaches",
    "resampled",
    "screen",
    "varied",
]

#: A start that is worse than this many nats is not piloted, unless every plan as a whole is worse.
ADMISSIBLE = 4.0

#: Budgets within this ratio are equals.
NATS_TIE = 1.05

#: A score is also taken without each of this many groups of its samples: a jackknife tells how far two scores can be
#: told apart.
GROUPS = 8

#: Samples of a start that its tails are judged by, and up to how many times the shortest horizon.
TAIL_SAMPLES, TAIL_REACH = 2000, 16.0

#: With fewer held-out samples nothing is said of tails: those of one coordinate do not resolve a level of 0.99.
FEWEST = 1000


@dataclass(frozen=True)
class Score:
    """A score to minimise, with its jackknife replicates: its value without each group of the samples."""

    value: float
    without: tuple[float, ...]

    @classmethod
    def of(cls, count: int, score: Callable[[NDArray[np.bool_]], float]) -> Score:
        """The score of ``count`` samples, as a function of which of them to take."""
        group = np.arange(count) % GROUPS
        return cls(score(group >= 0), tuple(score(group != i) for i in range(GROUPS)))

    def tied(self, other: Score, errors: float = 1.0) -> bool:
        """Whether it is within so many standard errors of another one on the same samples."""
        return abs(self.value - other.value) <= errors * self.gap(other)

    def gap(self, other: Score) -> float:
        """The standard error of the difference to another one on the same samples, by a delete-a-group jackknife."""
        return float(np.subtract(self.without, other.without).std(ddof=0)) * math.sqrt(GROUPS - 1)


@dataclass(frozen=True, eq=False)
class Option:
    """A combination under consideration.

    Attributes:
        start: where it starts.
        kind: the rule of its levels, or their kind.
        schedule: its levels.
        solver: how it moves between them.
        budget: its error in nats.
        nats: what the budget alone decides by: the whole budget of the ODE, or J of a stochastic solver.
        errors: the start's error in nats on each sample of the profile, or None if it has no density.
        tail: how far the start's far quantiles are from those of the noised data, or None if it was not looked at.
        pilot: distance to held-out data of the first samples that were drawn of it.
        final: the same of more samples, where it came far.
        turn: by how much the last row of its solver is turned (:mod:`headstart.choose.pilot`).
    """

    start: Initialization
    kind: Kind
    schedule: Schedule
    solver: Solver
    budget: Budget
    nats: Score
    errors: NDArray[np.float64] | None = None
    tail: TailGap | None = None
    pilot: Score | None = None
    final: Score | None = None
    turn: float = 0.0

    @property
    def best_known(self) -> Score | None:
        """The score by most samples."""
        return self.pilot if self.final is None else self.final

    @property
    def key(self) -> tuple[int, Schedule, Solver]:
        """Tells its combination from others."""
        return id(self.start), self.schedule, self.solver

    @property
    def place(self) -> tuple[int, float]:
        """Tells its start and horizon, and so the states that it begins with, from others."""
        return id(self.start), self.schedule.horizon

    @property
    def e_init(self) -> float:
        """The start's error in nats, infinite if it is not known."""
        return math.inf if self.budget.initialization is None else self.budget.initialization.value

    def record(self, in_flat: bool, in_pilot_flat: bool) -> Candidate:
        """The candidate that a plan keeps of it."""
        e_init = self.budget.initialization
        return Candidate(
            initialization=self.start.name,
            horizon=self.schedule.horizon,
            schedule=self.kind.name,
            sigma_min=self.schedule.sigma_min,
            solver=self.solver.name,
            e_init=None if e_init is None else e_init.value,
            e_init_error=None if e_init is None else e_init.error,
            nats=self.nats.value,
            tail=None if self.tail is None else self.tail.value,
            pilot=None if self.pilot is None else self.pilot.value,
            final=None if self.final is None else self.final.value,
            turn=self.turn,
            flat=in_flat,
            pilot_flat=in_pilot_flat,
        )


def screen(
    profile: Profile,
    starts: Sequence[Initialization],
    costs: Mapping[int, float],
    constraints: Constraints,
    nearest: float = HORIZONS[0],
) -> list[Option]:
    """Every start at every horizon that it knows, with its budget, by the first rule of levels and the first solver.

    A start that costs c evaluations of the network, to the nearest whole number, leaves nfe - c of them to the solver.
    One that leaves fewer than two is left out where there is another.

    Arguments:
        profile: what was measured.
        starts: the fitted starts.
        costs: of those that are not in closed form, in evaluations of the network, by their ids.
        constraints: what the user fixed.
        nearest: the shortest horizon, in standard deviations of the data or of their core.

    Raises:
        InputError: if no start knows a horizon that is looked at.
    """
    nfe = constraints.evaluations
    left = {id(start): nfe - round(costs.get(id(start), 0.0)) for start in starts}
    affordable = [start for start in starts if left[id(start)] >= min(2, nfe)] or list(starts)
    solver, options = constraints.solvers()[0], []
    for start in affordable:
        grids = _grids(profile, solver.steps_for(max(1, left[id(start)])), solver, constraints, nearest)
        low, high = start.sigmas
        known = [(kind, grid) for kind, grid in grids if low <= grid.horizon <= high]
        options += [_option(profile, start, kind, grid, solver) for kind, grid in known]
    if not options:
        ranges = ", ".join(f"{start.name} from {start.sigmas[0]:.6g} to {start.sigmas[1]:.6g}" for start in affordable)
        raise InputError(f"no start knows the horizon that is asked for: {ranges}")
    return options


def _grids(
    profile: Profile, steps: int, solver: Solver, constraints: Constraints, nearest: float
) -> list[tuple[Kind, Schedule]]:
    """The schedules to look at, with their rules."""
    if isinstance(constraints.schedule, Schedule):
        return [(Custom(), constraints.schedule)]
    rule = constraints.rules(solver, profile)[0]
    horizon, last = constraints.sigma_T, constraints.sigma_min
    if horizon is None:
        pairs = horizons_of(profile, last, nearest)
    else:
        pairs = [(horizon, usual_last(profile, horizon) if last is None else last)]
    return [(rule, rule(profile, steps, h, last, solver)) for h, last in pairs]


def admissible(options: Sequence[Option]) -> list[Option]:
    """The options whose start's error alone is not above a few nats or the smallest whole budget; or the best of them.

    A start of unknown error, as every oracle, is considered only where there is nothing else.
    """
    limit = max(ADMISSIBLE, min(option.budget.total for option in options), min(option.e_init for option in options))
    return [option for option in options if option.e_init <= limit]


def contenders(options: Sequence[Option], tails: Tails) -> list[Option]:
    """The best start at each horizon that is admissible, by rising horizon, with its tails.

    The best is the one with the smallest budget whose tails reach, or the smallest if none do: budgets, and not errors
    of the start alone, since a start may leave fewer evaluations than another. At large horizons noise hides the tails,
    and none is looked at.
    """
    left = sorted(admissible(options), key=lambda option: option.schedule.horizon)
    near = TAIL_REACH * left[0].schedule.horizon
    found = []
    for horizon in dict.fromkeys(option.schedule.horizon for option in left):
        own = [option for option in left if option.schedule.horizon == horizon]
        own.sort(key=lambda option: (not option.start.tractable, option.nats.value, option.e_init))
        judged = (tails(option) for option in own) if horizon <= near else iter(own)
        first = next(judged)
        found.append(first if reaches(first) else next(filter(reaches, judged), first))
    return found


def reaches(option: Option) -> bool:
    """Whether its start does not miss the tails of the noised data, as far as was looked and can be told."""
    return option.tail is None or not option.tail.misses()


def largest_tied(options: Sequence[Option]) -> Option:
    """The option with the largest horizon of those whose budgets tie with the smallest one.

    There the start has the least to know.
    """
    return max(equivalent(options, least(options)), key=lambda option: (option.schedule.horizon, -option.nats.value))


def least(options: Iterable[Option]) -> Option:
    """The option with the smallest budget."""
    return min(options, key=lambda option: option.nats.value)


def equivalent(options: Iterable[Option], best: Option) -> list[Option]:
    """The options whose budget is that of the smallest one, up to 5 % or the Monte-Carlo error of the difference."""
    limit = best.nats.value + (NATS_TIE - 1) * abs(best.nats.value)
    return [option for option in options if option.nats.value <= limit or option.nats.tied(best.nats)]


def varied(profile: Profile, option: Option, **changes: Any) -> Option:
    """The same start at the same horizon with another rule as its ``kind``, ``sigma_min`` or ``solver``."""
    kind, solver = changes.get("kind", option.kind), changes.get("solver", option.solver)
    grid = option.schedule
    if isinstance(kind, Rule) and (kind != option.kind or "sigma_min" in changes or kind.by_solver):
        grid = kind(profile, grid.steps, grid.horizon, changes.get("sigma_min", grid.sigma_min), solver)
    return resampled(profile, option, kind, grid, solver)


def resampled(profile: Profile, option: Option, kind: Kind, schedule: Schedule, solver: Solver) -> Option:
    """The same start at the same horizon, on other levels or with another solver."""
    return replace(_option(profile, option.start, kind, schedule, solver, option), tail=option.tail)


def combined(profile: Profile, option: Option, constraints: Constraints) -> list[Option]:
    """The option with every solver on every rule of levels that may be chosen, the option itself first."""
    if one_level(option.schedule):
        return [option]
    found = [option]
    for solver in constraints.solvers():
        for kind in constraints.rules(solver, profile) or (option.kind,):
            if (kind, solver) != (option.kind, option.solver):
                found.append(varied(profile, option, kind=kind, solver=solver))
    return found


def _option(
    profile: Profile,
    start: Initialization,
    kind: Kind,
    schedule: Schedule,
    solver: Solver,
    like: Option | None = None,
) -> Option:
    """The combination with its budget; ``like`` has the same start and horizon."""
    steps = discretization_error(profile, schedule, solver)
    if not start.tractable:
        budget = Budget(None, steps)
        return Option(start, kind, schedule, solver, budget, Score(budget.total, (budget.total,) * GROUPS), None)
    errors = initialization_errors(profile, start, schedule.horizon) if like is None else like.errors
    assert errors is not None, "a start with a density has errors"
    variance = solver.reverse_variance
    if variance is not None and not solver.parameters() and steps:
        path = path_objectives(profile, start, schedule, variance)
        nats = Score.of(len(path), lambda kept: float(path[kept].mean()))
    else:
        nats = Score.of(len(errors), lambda kept: Budget(Estimate(float(errors[kept].mean()), 0.0), steps).total)
    return Option(start, kind, schedule, solver, Budget(Estimate.of(errors), steps), nats, errors)


class Tails:
    """Judges how far the tails of a start reach, against noised held-out data, where these are enough to tell.

    Arguments:
        held_out: clean data with their conditions.
        seed: of the noise and the samples.
        compute: where and how many at a time the starts draw.
    """

    def __init__(self, held_out: Part, seed: int, compute: Compute) -> None:
        judged = held_out.take(slice(0, TAIL_SAMPLES))
        self.clean, self.conditions = judged.samples.float(), judged.conditions
        self.noise = torch.randn(self.clean.shape, generator=generator_of(seed + 1))
        self.seeds = Stream.TAILS.seeds(seed, len(self.clean))
        self.compute = compute
        self.known: dict[tuple[int, float], TailGap] = {}

    def __call__(self, option: Option) -> Option:
        """The option with its tail. Where the data are too few, or the start costly to draw, none is looked at."""
        start, sigma = option.start, option.schedule.horizon
        if len(self.clean) < FEWEST or not start.closed_form:
            return option
        if (key := option.place) not in self.known:
            self.known[key] = tail_gap(self._drawn(start, sigma), self.clean + sigma * self.noise)
        return replace(option, tail=self.known[key])

    def _drawn(self, start: Initialization, sigma: float) -> Tensor:
        parts = []
        for rows in self.compute.batches(len(self.seeds)):
            given = self.conditions.take(rows).to(self.compute.device)
            parts.append(start.sample(Noise(self.seeds[rows], self.compute.device), sigma, given).cpu())
        return torch.cat(parts)
