"""Choose a plan: measure the network once, fit the starts, screen in nats, and let a pilot decide.

1. A share of the data is held out. The network is measured on it in one pass (:mod:`headstart.profile`).
2. The closed-form families of starts are fitted on the rest, once for all horizons.
3. Every family at every horizon is screened by its budget in nats (:mod:`headstart.budget`), without the network.
4. A pilot draws a few hundred samples for each of a handful of combinations, all from the same seeds, and compares
them with
   the held-out data by sliced Wasserstein distance. It settles what nats cannot: one nat of discretization is
   imperceptible detail where one nat of initialization is visible structure.

Where the pilot cannot tell two combinations apart, the smaller budget decides. Without a pilot (``criterion="nats"``)
the budget decides alone, and among equals the largest horizon is taken: there the start has the least to know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.budget import Budget, discretization_error, initialization_error
from headstart.data import Dataset
from headstart.denoiser import Denoiser
from headstart.errors import DataError, InputError
from headstart.initialization import INITIALIZATIONS, Empirical, Gaussian, Initialization, Isotropic, Mixture, Subspace
from headstart.metrics import Reference, evaluate
from headstart.plan import Candidate, Plan
from headstart.profile import HIGHEST, LEVELS, LOWEST, Profile, moved, rows_of
from headstart.progress import Progress
from headstart.schedule import Schedule, equidistribute, log_linear, rho_grid, tangent
from headstart.solver import Solver, get_solver

__all__ = ["SCHEDULES", "build_schedule", "fit", "fit_starts", "hold_out"]

Starts: TypeAlias = "str | Initialization | Sequence[str | Initialization] | None"

#: The kinds of schedule that can be asked for by name.
SCHEDULES = ("defect", "corrector", "rho", "log_linear", "tangent")

#: Those that the pilot holds against the "defect" schedule.
RIVALS = ("corrector", "rho")

#: Horizons that are looked at, in units of the data's standard deviation: from where the data are hardly hidden to far
#: out.
HORIZONS = (*np.geomspace(1.0, 25.0, 13), 190.0)

#: Last levels above 0 that are looked at, in the same units: with few evaluations, finer detail is not worth a step.
SIGMA_MINS = (0.05, 0.12)

#: Leading directions whose variances a start models.
LEADING = 256

#: A start that is worse than this many nats is not piloted.
ADMISSIBLE = 4.0

#: Budgets within this ratio are equals.
NATS_TIE = 1.05

#: A pilot is also scored without each of this many groups of its samples: a jackknife tells how far two pilots can be
#: told apart.
GROUPS = 8


def hold_out(data: Tensor, seed: int = 0, most: int = 3000) -> tuple[Tensor, Tensor]:
    """Indices of what a start is fitted on, and of a fifth of the data (at most ``most``) held out from it."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    count = min(most, max(2, len(data) // 5))
    return order[count:], order[:count]


def fit_starts(
    data: Tensor, starts: Starts = None, labels: Tensor | None = None, seed: int = 0, progress: Progress | None = None
) -> list[Initialization]:
    """Starts fitted on clean data (N, \\*S), by the names of their families; those fitted already are kept.

    Raises:
        InputError: if a family is unknown, or a start is of another shape than the data.
    """
    names = _start_names(starts)
    shared: dict[str, Subspace] = {}

    def subspace() -> Subspace:
        if "subspace" not in shared:
            shared["subspace"] = Subspace.fit(data, LEADING)
        return shared["subspace"]

    families: dict[str, Callable[[], Initialization]] = {
        "isotropic": lambda: Isotropic.fit(data),
        "gaussian": lambda: Gaussian(data.shape[1:], subspace()),
        "mixture": lambda: Mixture.fit(data, *_mixture_size(len(data)), labels=labels, subspace=subspace(), seed=seed),
        "empirical": lambda: Empirical.fit(data, labels=labels),
    }
    fitted = []
    for start in (progress or Progress()).track(names, "fitting starts"):
        fitted.append(families[start]() if isinstance(start, str) else start)
    for start in fitted:
        if start.shape != tuple(data.shape[1:]):
            raise InputError(f"{start!r} does not fit samples of shape {tuple(data.shape[1:])}")
    return fitted


def _start_names(starts: Starts) -> list[str | Initialization]:
    """What was asked for, as a list of known names and fitted starts."""
    wanted = ["isotropic", "gaussian", "mixture"] if starts is None else starts
    names = [wanted] if isinstance(wanted, (str, Initialization)) else list(wanted)
    if not names:
        raise InputError("name at least one initialization")
    for name in names:
        if not isinstance(name, Initialization) and name not in INITIALIZATIONS:
            raise InputError(f"unknown initialization {name!r}: expected one of {', '.join(INITIALIZATIONS)}")
    return names


def _mixture_size(count: int) -> tuple[int, int]:
    """Components and dimensions that so many samples can support: about a hundred samples a component."""
    return max(1, min(100, count // 100)), 80


def build_schedule(kind: str, profile: Profile, steps: int, horizon: float, sigma_min: float) -> Schedule:
    """A schedule by the name of its kind, with a last step to 0.

    Raises:
        InputError: if the kind is unknown, or the levels are out of order.
    """
    _check_kind(kind)
    if not horizon > sigma_min > 0:
        raise InputError(
            f"the horizon must lie above sigma_min, and that above 0: got {horizon:.6g} and {sigma_min:.6g}"
        )
    if kind in ("defect", "corrector"):
        return equidistribute(profile.length(kind), steps, horizon, sigma_min, name=kind)
    if kind == "tangent":
        return tangent(steps, horizon, sigma_min, scale=profile.sigma_data)
    return rho_grid(steps, horizon, sigma_min) if kind == "rho" else log_linear(steps, horizon, sigma_min)


def _check_kind(kind: str) -> None:
    if kind not in SCHEDULES:
        raise InputError(f"unknown schedule {kind!r}: expected one of {', '.join(SCHEDULES)}")


@dataclass(frozen=True, eq=False)
class _Option:
    """A combination under consideration."""

    start: Initialization
    kind: str
    schedule: Schedule
    solver: Solver
    budget: Budget
    pilot: float | None = None
    without: tuple[float, ...] = ()

    def record(self) -> Candidate:
        e_init = self.budget.initialization
        return Candidate(
            initialization=self.start.name,
            horizon=self.schedule.horizon,
            schedule=self.kind,
            sigma_min=self.schedule.sigma_min,
            solver=self.solver.name,
            e_init=None if e_init is None else e_init.value,
            e_init_error=None if e_init is None else e_init.error,
            b_ode=self.budget.total,
            pilot=self.pilot,
        )


def fit(
    denoiser: Denoiser,
    data: Tensor | Dataset | NDArray[Any],
    nfe: int | None = None,
    *,
    labels: Tensor | None = None,
    conditions: Mapping[str, Any] | None = None,
    profile: Profile | None = None,
    horizon: float | None = None,
    initialization: Starts = None,
    schedule: str | Schedule | None = None,
    solver: str | Solver | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    criterion: Literal["pilot", "nats"] = "pilot",
    pilot_samples: int = 256,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Plan:
    """The plan for a number of network evaluations. Whatever is given is kept, and the rest is chosen around it.

    Arguments:
        denoiser: the network, on ``device``; it is not changed.
        data: clean samples, shape (N, \\*S), of the law that the network was trained on.
        nfe: network evaluations per sample; 4 by default, or what a given schedule costs. A solver that cannot spend
            exactly so many spends fewer (Heun spends an odd number), and the plan says how many.
        labels: classes of the data, shape (N,): the network is then called with ``label=``, and starts are fitted by
            class.
        conditions: what else the network is called with; tensors of length N go with the data.
        profile: the profile of another plan for the same network, data and seed, or one measured on :func:`hold_out`'s
            share of the data.
        horizon: sigma_T.
        initialization: "isotropic", "gaussian", "mixture" or "empirical", a fitted start, or a list of these to choose
            from; the first three by default.
        schedule: "defect", "corrector", "rho", "log_linear" or "tangent", or a schedule.
        solver: the name of a solver, or a solver; "dpm++2m" and "euler" are tried by default.
        sigma_min: the last level above 0.
        sigma_max: the highest level that the network knows; by default what an adapted network says of itself.
        criterion: "pilot" decides by the sliced Wasserstein distance of pilot samples to held-out data, "nats" by the
            budget.
        pilot_samples: samples of each pilot.
        seed: of the held-out share, of fitting, of measuring and of the pilot (whose samples are never those of
            another seed).
        device: where the network works.
        dtype: of the states that the network is called with.
        batch_size: samples per call of the network.
        progress: told of what takes time.

    Raises:
        DataError: if the data are fewer than ten, not finite, or not floating point.
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
        InputError: if an argument is out of its range, or does not fit another one.
    """
    began = time.perf_counter()
    bar = progress or Progress()
    method = get_solver(solver or "dpm++2m")
    nfe = _affordable(nfe, method, schedule, horizon)
    for name, level in (("horizon", horizon), ("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        if level is not None and not level > 0:
            raise InputError(f"{name} is {level}: it must be above 0")
    if batch_size < 1 or not 0 <= seed < 2**31:
        raise InputError(f"batch_size is at least 1 and seed from 0 to 2^31 - 1: got {batch_size} and {seed}")
    if criterion not in ("pilot", "nats"):
        raise InputError(f"unknown criterion {criterion!r}: expected 'pilot' or 'nats'")
    if criterion == "nats" and nfe == 1:
        raise InputError(
            "a budget in nats leaves out the step to 0, which is all that one evaluation does: use a pilot"
        )
    if pilot_samples < 2 * GROUPS:
        raise InputError(f"a pilot needs at least {2 * GROUPS} samples: got {pilot_samples}")
    _start_names(initialization)

    dataset = _dataset(data, labels)
    x = dataset.samples
    given = moved(conditions or {}, "cpu")
    if labels is not None:
        given["label"] = dataset.labels
    fitted_on, held_out = hold_out(x, seed)
    held_conditions = rows_of(given, held_out, len(x))

    if profile is None:
        fixed = [*(schedule.sigmas if isinstance(schedule, Schedule) else ()), horizon, sigma_min]
        known = float(getattr(denoiser, "sigma_max", math.inf)) if sigma_max is None else sigma_max
        profile = Profile.measure(
            denoiser,
            x[held_out],
            sigmas=_levels(x, [level for level in fixed if level], known),
            conditions=held_conditions,
            seed=seed,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            progress=bar,
        )
    else:
        profile = profile.with_samples(x[held_out], held_conditions)
    own_labels = rows_of(given, fitted_on, len(x)).get("label")
    by_class = isinstance(own_labels, Tensor) and own_labels.shape == fitted_on.shape
    starts = fit_starts(x[fitted_on], initialization, own_labels if by_class else None, seed, bar)
    options = _screen(profile, starts, method, nfe, horizon, schedule, sigma_min)

    own_levels = isinstance(schedule, Schedule)
    settled = {
        "initialization": len(starts) == 1,
        "horizon": own_levels or horizon is not None,
        "schedule": schedule is not None,
        "sigma_min": own_levels or sigma_min is not None,
        "solver": solver is not None,
    }
    if criterion == "nats":
        best = _smallest_budget(options)
    elif all(settled.values()):
        best = options[0]
    else:
        pilot = _Pilot(
            denoiser, x[held_out], held_conditions, profile, pilot_samples, seed, device, dtype, batch_size, bar
        )
        best, piloted = _decide(pilot, options, schedule, solver, sigma_min)
        again = {(id(o.start), id(o.schedule), id(o.solver)): o for o in piloted}
        screened = [again.pop((id(o.start), id(o.schedule), id(o.solver)), o) for o in options]
        options = [*screened, *again.values()]
    how = {"pilot": "by pilot", "nats": "by budget"}[criterion]
    by_default = {"schedule", "sigma_min", "solver"} if criterion == "nats" else set()
    return Plan(
        initialization=best.start,
        schedule=best.schedule,
        solver=best.solver,
        budget=best.budget,
        profile=profile,
        candidates=tuple(option.record() for option in options),
        criterion=criterion,
        chosen={
            part: "as asked" if asked else "by default" if part in by_default else how
            for part, asked in settled.items()
        },
        seed=seed,
        fit_seconds=time.perf_counter() - began,
    )


def _affordable(nfe: int | None, solver: Solver, schedule: str | Schedule | None, horizon: float | None) -> int:
    """The number of evaluations that will be spent, with what was asked for checked against itself."""
    if nfe is not None and nfe < 1:
        raise InputError(f"a plan needs at least one network evaluation: nfe is {nfe}")
    if isinstance(schedule, Schedule):
        cost = solver.nfe(schedule)
        if nfe is not None and cost != nfe:
            raise InputError(f"{schedule!r} costs {cost} evaluations with {solver.name}, and nfe is {nfe}")
        if horizon is not None and horizon != schedule.horizon:
            raise InputError(f"the horizon is {horizon:.6g}, and the schedule starts at {schedule.horizon:.6g}")
        return cost
    if schedule is not None:
        _check_kind(schedule)
    return solver.nfe(rho_grid(solver.steps_for(4 if nfe is None else nfe), 2.0, 1.0))


def _levels(x: Tensor, fixed: Sequence[float], sigma_max: float) -> NDArray[np.float64]:
    """The levels to measure: the usual ones as far as the network knows them, and on to the user's own levels."""
    scale = float(x.double().flatten(1).var(dim=0).mean().sqrt()) or 1.0
    highest = min(max([HIGHEST * scale, *fixed]), sigma_max)
    if max(fixed, default=0.0) > highest:
        raise InputError(f"the network knows noise up to sigma = {sigma_max:.6g}: got a level of {max(fixed):.6g}")
    lowest = min([LOWEST * scale, highest / 10, *fixed])
    return np.geomspace(highest, lowest, LEVELS)


def _dataset(data: Tensor | Dataset | NDArray[Any], labels: Tensor | None) -> Dataset:
    labels = None if labels is None else torch.as_tensor(labels)
    if isinstance(data, Dataset):
        dataset = data if labels is None else replace(data, labels=labels)
    else:
        dataset = Dataset(torch.as_tensor(data), labels)
    if len(dataset) < 10:
        raise DataError(f"a plan needs at least ten samples of the data: got {len(dataset)}")
    labels = None if dataset.labels is None else dataset.labels.cpu()
    return Dataset(dataset.samples.cpu(), labels, dataset.name)


def _screen(
    profile: Profile,
    starts: Sequence[Initialization],
    solver: Solver,
    nfe: int,
    horizon: float | None,
    schedule: str | Schedule | None,
    sigma_min: float | None,
) -> list[_Option]:
    """Every start at every horizon, with its budget; nothing here calls the network."""
    scale = profile.sigma_data
    if isinstance(schedule, Schedule):
        schedules = [("custom", schedule)]
    else:
        lowest, highest = profile.sigmas[-1], profile.sigmas[0]
        usual = sorted({min(scale * h, highest) for h in HORIZONS})
        horizons = [h for h in usual if sigma_min is None or h > sigma_min] if horizon is None else [horizon]
        if not horizons:
            raise InputError(
                f"sigma_min is {sigma_min:.6g}: no horizon of this data ({usual[-1]:.4g} at most) is above it"
            )
        kind, schedules = schedule or "defect", []
        for h in horizons:
            last = max(min(SIGMA_MINS[0] * scale, h / 8), lowest) if sigma_min is None else sigma_min
            schedules.append((kind, build_schedule(kind, profile, solver.steps_for(nfe), h, last)))
    options = []
    for start in starts:
        for kind, grid in schedules:
            e_init = None if start.oracle else initialization_error(profile, start, grid.horizon)
            options.append(_Option(start, kind, grid, solver, Budget(e_init, discretization_error(profile, grid))))
    return options


class _Pilot:
    """Draws pilot samples and holds them against the held-out data; all pilots share their seeds."""

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
        self.reference = Reference.of(held_out, directions=256, seed=seed)
        index = torch.arange(count) % len(held_out)
        self.conditions = rows_of(conditions, index, len(held_out))
        self.seeds = [2**63 + seed * 2**32 + i for i in range(count)]
        self.progress = progress

    def __call__(self, options: Iterable[_Option]) -> list[_Option]:
        options = list(options)
        return [self._score(option) for option in self.progress.track(options, "piloting")]

    def _score(self, option: _Option) -> _Option:
        plan = Plan(option.start, option.schedule, option.solver, option.budget, self.profile)
        samples = plan.sample(
            self.denoiser,
            seeds=self.seeds,
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
            **self.conditions,
        ).float()
        group = torch.arange(len(samples)) % GROUPS
        without = tuple(evaluate(samples[group != i], self.reference).swd for i in range(GROUPS))
        return replace(option, pilot=evaluate(samples, self.reference).swd, without=without)


def _decide(
    pilot: _Pilot,
    options: Sequence[_Option],
    schedule: str | Schedule | None,
    solver: str | Solver | None,
    sigma_min: float | None,
) -> tuple[_Option, list[_Option]]:
    """The best combination and all that were piloted: first the horizon, then the levels, then the solver."""
    by_horizon = _contenders(options)
    piloted = pilot(_spread(by_horizon, 4))
    place = _horizons(by_horizon).index(min(piloted, key=_pilot_score).schedule.horizon)
    around = by_horizon[max(place - 1, 0) : place + 2]
    piloted += pilot([option for option in around if option.schedule.horizon not in _horizons(piloted)])
    best = _winner(sorted(piloted, key=lambda option: option.budget.total))

    profile, steps = pilot.profile, best.schedule.steps
    if schedule is None and steps > 1:
        rivals = pilot(_with_schedule(profile, best, kind, best.schedule.sigma_min) for kind in RIVALS)
        piloted += rivals
        best = _winner([best, *rivals])
    if sigma_min is None and not isinstance(schedule, Schedule) and steps > 1:
        lasts = [profile.sigma_data * last for last in SIGMA_MINS[1:]]
        rivals = pilot(_with_schedule(profile, best, best.kind, s) for s in lasts if s < best.schedule.horizon)
        piloted += rivals
        best = _winner([best, *rivals])
    if solver is None and steps > 1:
        rivals = pilot([replace(best, solver=get_solver("euler"))])
        piloted += rivals
        best = _winner([best, *rivals])
    return best, piloted


def _horizons(options: Sequence[_Option]) -> list[float]:
    return [option.schedule.horizon for option in options]


def _contenders(options: Sequence[_Option]) -> list[_Option]:
    """At each horizon the start with the smallest error, by rising horizon; those that are admissible, if any is.

    An oracle, whose error is not known, is considered only where there is nothing else.
    """

    def error(option: _Option) -> float:
        return np.inf if option.budget.initialization is None else option.budget.initialization.value

    best: dict[float, _Option] = {}
    for option in sorted(options, key=error, reverse=True):
        best[option.schedule.horizon] = option
    ranked = sorted(best.values(), key=lambda option: option.schedule.horizon)
    limit = max(ADMISSIBLE, min(error(option) for option in ranked))
    return [option for option in ranked if error(option) <= limit]


def _spread(options: Sequence[_Option], count: int) -> list[_Option]:
    """At most ``count`` of the options, from the smallest horizon to twelve times it, evenly by rank."""
    near = [o for o in options if o.schedule.horizon <= 12 * options[0].schedule.horizon]
    places = np.unique(np.linspace(0, len(near) - 1, min(count, len(near))).round().astype(int))
    return [near[i] for i in places]


def _with_schedule(profile: Profile, option: _Option, kind: str, sigma_min: float) -> _Option:
    grid = build_schedule(kind, profile, option.schedule.steps, option.schedule.horizon, sigma_min)
    budget = Budget(option.budget.initialization, discretization_error(profile, grid))
    return replace(option, kind=kind, schedule=grid, budget=budget, pilot=None)


def _pilot_score(option: _Option) -> float:
    assert option.pilot is not None
    return option.pilot


def _smallest_budget(options: Sequence[_Option]) -> _Option:
    """The option with the smallest budget, or of its equals the one with the largest horizon."""
    limit = NATS_TIE * min(option.budget.total for option in options)
    return max((o for o in options if o.budget.total <= limit), key=lambda o: (o.schedule.horizon, -o.budget.total))


def _winner(options: Sequence[_Option]) -> _Option:
    """The option with the best pilot; of those that cannot be told from it, the one that is listed first.

    All pilots share their seeds, so their differences are paired; one below its standard error, by a delete-a-group
    jackknife, is none.
    """
    lowest = min(options, key=_pilot_score)

    def equals(option: _Option) -> bool:
        gaps = np.subtract(option.without, lowest.without)
        return _pilot_score(option) - _pilot_score(lowest) <= float(gaps.std(ddof=0)) * math.sqrt(GROUPS - 1)

    return next(option for option in options if option is lowest or equals(option))
