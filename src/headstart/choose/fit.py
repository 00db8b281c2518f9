"""Choose a plan: measure the network once, fit the starts, screen in nats, and let a pilot decide.

1. A share of the data is held out. The network is measured on it in one pass (:mod:`headstart.profile`).
2. The families of starts are fitted on the rest, once for all horizons.
3. Every family at every horizon is screened by its error in nats (:mod:`headstart.budget`) and by its far quantiles,
   which nats do not see, without calling the network. Where a Gaussian misses the tails of the data, a Student-t is
   fitted too.
4. A pilot draws a few hundred samples for each of a handful of combinations and compares them with the held-out data
   in several views (:mod:`headstart.choose.pilot`). Where it cannot tell two apart, the one whose start errs less is
   taken.

Without a pilot (``criterion="nats"``) the budget decides alone, and among equals the largest horizon is taken: there
the start has the least to know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.choose.data import OWN_SAMPLES, OWN_SIGMA_MAX, dataset_of, own_samples
from headstart.choose.learn import learn
from headstart.choose.levels import (
    DISTILLED,
    MEASURED,
    SIGMA_MINS,
    Asked,
    check_kind,
    horizon_range,
    measured_levels,
    one_level,
    spread,
)
from headstart.choose.pilot import Pilot, decide, even
from headstart.choose.screen import (
    GROUPS,
    Option,
    Tails,
    admissible,
    combined,
    contenders,
    flat,
    least,
    reaches,
    screen,
    smallest,
)
from headstart.choose.starts import Starts, cost_of, fit_starts, start_names
from headstart.conditions import hold_out, labelled, split_conditions, take, to_device
from headstart.data import Dataset
from headstart.denoiser import Denoiser
from headstart.errors import DataError, InputError
from headstart.initialization import Initialization, Subspace, Training
from headstart.metrics import novelty
from headstart.metrics.novelty import BLOCKS
from headstart.plan import Candidate, Plan, Record
from headstart.profile import Profile
from headstart.progress import Progress
from headstart.schedule import Schedule, rho_grid
from headstart.solver import Solver, get_solver, is_linear
from headstart.unimodality import unimodal_horizon

__all__ = ["fit"]

#: Samples that the cost of a start is measured on.
TIMED = 64

#: Training samples that the novelty test looks at: copies of others go unseen, and its time grows with their square.
TESTED = 60_000

#: In more dimensions than this, the unimodality rule looks along as many principal directions.
PRINCIPAL = 64

#: What is wrong with a single evaluation, also if it is all that a start leaves.
UNSEEN = "a budget in nats leaves out the step to 0, which is all that one evaluation does: use a pilot"


def fit(
    denoiser: Denoiser,
    data: Tensor | Dataset | NDArray[Any] | None,
    nfe: int | None = None,
    *,
    labels: Tensor | None = None,
    conditions: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    own: int = OWN_SAMPLES,
    profile: Profile | None = None,
    horizon: float | Literal["unimodal"] | None = None,
    initialization: Starts = None,
    training: Training | None = None,
    schedule: str | Schedule | None = None,
    solver: str | Solver | None = None,
    sigma_min: float | None = None,
    exponent: float | None = None,
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
        data: clean samples, shape (N, \\*S), of the law that the network was trained on; or None, to fit on samples of
            the network itself.
        nfe: network evaluations per sample; 4 by default, or what a given schedule costs. A solver that cannot spend
            exactly so many spends fewer (Heun spends an odd number), and the plan says how many.
        labels: classes of the data, shape (N,): the network is then called with ``label=``, and starts are fitted by
            class. Without data, the classes of the samples that are drawn, shape (own,). The labels of a
            :class:`~headstart.data.Dataset` are not used unless they are given here: a network must know what to do
            with them.
        conditions: what else the network is called with; tensors of length N go with the data. ``label`` here is the
            same as ``labels``, and may be one class for all.
        shape: the shape S of one sample, where there are no data.
        own: how many samples of the network itself to draw then, at 35 evaluations each.
        profile: the profile of another plan for the same network, data and seed, or one measured on :func:`hold_out`'s
            share of the data.
        horizon: sigma_T, or "unimodal" for the rule of the paper's second version: the level at which the noised data
            have one mode in every direction (:mod:`headstart.unimodality`).
        initialization: the name of a family, a fitted start, or a list of these to choose from; "isotropic", "gaussian"
            and "mixture" by default, and "student-t" where a Gaussian misses the tails of the data.
        training: how "flow" and "autoregressive" are trained.
        schedule: a schedule, or the name of a kind: "defect", "corrector", "least_error" (of the solver, by
            :mod:`headstart.trajectory`), "rho", "log_linear", "cosine", "linear_vp" or "tangent", of which "defect",
            "corrector", "rho", "tangent" and "least_error" are tried by default; or "distilled", to go on from the best
            of these and learn levels and coefficients (:mod:`headstart.distill`).
        solver: the name of a solver, or a solver; "dpm++2m", "dpm++3m", "unipc", "deis" and "euler" are tried by
            default.
        sigma_min: the last level above 0.
        exponent: of the length that the levels are cut from, for "defect" and "corrector"; their orders, 4 and 2, by
            default.
        sigma_max: the highest level that the network knows; by default what an adapted network says of itself. Samples
            of the network itself begin there, or at 80 if that is lower.
        criterion: "pilot" decides by the distance of pilot samples to held-out data
            (:class:`headstart.metrics.ViewReference`), "nats" by the budget.
        pilot_samples: samples of each pilot, and of the novelty test.
        seed: of the held-out share, of fitting, of measuring and of the pilot (whose samples are never those of
            another seed).
        device: where the network works.
        dtype: of the states that the network is called with; see :meth:`headstart.profile.Profile.measure` for half
            types.
        batch_size: samples per call of the network.
        progress: told of what takes time.

    Raises:
        DataError: if the data are fewer than ten, not finite, or not floating point, or their labels leave fewer than
            two to hold out.
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
        InputError: if an argument is out of its range, or does not fit another one.
    """
    began = time.perf_counter()
    bar = progress or Progress()
    asked = Asked(
        schedule=None if schedule == DISTILLED else schedule,
        solver=None if solver is None else get_solver(solver),
        sigma_min=sigma_min,
        exponent=exponent,
    )
    method = asked.solvers()[0]
    if isinstance(horizon, str) and horizon != "unimodal":
        raise InputError(f"unknown horizon {horizon!r}: expected a number above 0, or 'unimodal'")
    nfe = _affordable(nfe, method, schedule, None if isinstance(horizon, str) else horizon)
    for name, level in (("horizon", horizon), ("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        if isinstance(level, (int, float)) and not (0 < level < math.inf or (name == "sigma_max" and level > 0)):
            raise InputError(f"{name} is {level}: it must be above 0 and finite")
    if exponent is not None and (schedule not in MEASURED or not 0 < exponent < math.inf):
        raise InputError(
            f"an exponent is finite, above 0 and for a schedule cut from a measured length ({', '.join(MEASURED)}): "
            f"got {exponent} for {schedule or 'no schedule in particular'}"
        )
    if schedule == DISTILLED and not all(is_linear(each) for each in asked.solvers()):
        raise InputError(f"a distilled schedule needs a solver of the ODE with one evaluation a step: not {method!r}")
    if isinstance(schedule, Schedule) and (horizon == "unimodal" or sigma_min is not None):
        raise InputError(f"{schedule!r} has its horizon and its last level: neither can be asked for beside it")
    fewest = 2 if schedule == DISTILLED else 1  # which learns from pairs
    if batch_size < fewest or not 0 <= seed < 2**28:
        raise InputError(f"batch_size is at least {fewest} and seed from 0 to 2^28 - 1: got {batch_size} and {seed}")
    if criterion not in ("pilot", "nats"):
        raise InputError(f"unknown criterion {criterion!r}: expected 'pilot' or 'nats'")
    if criterion == "nats" and nfe == 1:
        raise InputError(UNSEEN)
    if pilot_samples < 2 * GROUPS:
        raise InputError(f"a pilot needs at least {2 * GROUPS} samples: got {pilot_samples}")
    names = start_names(initialization)
    if criterion == "nats" and not any(isinstance(start, str) or start.tractable for start in names):
        raise InputError("a start without a density has no budget in nats: use a pilot")

    given = to_device(conditions or {}, "cpu")
    source = "data"
    if data is None:
        data, source = _own(denoiser, shape, own, sigma_max, given, labels, seed, device, dtype, batch_size, bar)
    dataset = dataset_of(data, labels)
    x = dataset.samples
    if labels is not None:
        given["label"] = dataset.labels
    given, shared = split_conditions(labelled(given, len(x)), len(x))
    network = partial(denoiser, **to_device(shared, device))
    classes = given.get("label")
    fitted_on, held_out = hold_out(x, seed, labels=classes)
    if len(held_out) < 2:
        raise DataError(
            f"{len(held_out)} of {len(x)} samples could be held out, and at least 2 are needed: by these labels nearly "
            "every class has a single sample, which its start is fitted on; leave them out, or give more of a class"
        )
    training_data, held_data = x[fitted_on], x[held_out]
    held_conditions = take(given, held_out, len(x))
    by_rule = horizon == "unimodal"
    if isinstance(horizon, str):
        horizon = _unimodal(training_data, seed, bar)
    asked = replace(asked, horizon=horizon)

    if profile is None:
        fixed = [*(schedule.sigmas if isinstance(schedule, Schedule) else ()), horizon, sigma_min]
        if horizon is not None and sigma_min is None and not isinstance(schedule, Schedule):
            fixed.append(horizon / 8)
        if sigma_min is not None and schedule == DISTILLED:
            fixed.append(sigma_min / 4)  # it moves while it is learned
        # Last levels are in units of the held-out data, which need not share an outlier that all of the data have.
        fixed.append(SIGMA_MINS[0] * spread(held_data))
        known = float(getattr(denoiser, "sigma_max", math.inf)) if sigma_max is None else sigma_max
        profile = Profile.measure(
            network,
            held_data,
            sigmas=measured_levels(x, [level for level in fixed if level], known),
            conditions=held_conditions,
            seed=seed,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            progress=bar,
        )
    else:
        profile = profile.with_samples(held_data, held_conditions)

    def cost(start: Initialization) -> float:
        count = min(TIMED, len(held_out), batch_size)
        sigma = min(max(profile.sigma_data, start.sigmas[0]), start.sigmas[1], float(profile.sigmas[0]))
        conditions = to_device(take(held_conditions, slice(0, count), len(held_out)), device)
        return cost_of(start, network, sigma, count, conditions, device, dtype)

    def screened(families: Starts) -> list[Option]:
        starts = fit_starts(
            training_data,
            families,
            None if classes is None else classes[fitted_on],
            seed,
            bar,
            training=training,
            sigmas=horizon_range(profile.sigma_data, schedule.horizon if isinstance(schedule, Schedule) else horizon),
            device=device,
        )
        costs = {id(start): cost(start) for start in starts if not start.closed_form}
        return screen(profile, starts, costs, nfe, asked)

    tails = Tails(held_data, None if classes is None else classes[held_out], seed, device, batch_size)
    options = screened(initialization)
    if initialization is None:
        nearest = min((o for o in options if o.start.name == "gaussian"), key=lambda o: _distance(o, options))
        if not reaches(tails(nearest)):
            options += screened("student-t")
    if criterion == "nats":
        options = [option for option in options if option.schedule.sigmas[1] > 0]
        if not options:
            raise InputError(UNSEEN)

    own_levels = isinstance(schedule, Schedule)
    settled = {
        "initialization": len({id(option.start) for option in options}) == 1,
        "horizon": own_levels or horizon is not None,
        "schedule": schedule is not None,
        "sigma_min": own_levels or sigma_min is not None,
        "solver": solver is not None,
    }
    pilot = Pilot(network, held_data, held_conditions, profile, pilot_samples, seed, device, dtype, batch_size, bar)
    looked_at: list[Option] = []
    if criterion == "nats":
        looked_at = [least(combined(profile, option, asked)) for option in contenders(options, tails)]
        best = smallest(looked_at)
    elif all(settled.values()) and schedule != DISTILLED:
        best = tails(options[0])
    else:
        best, looked_at = decide(pilot, options, tails, asked)
    learned = None
    if schedule == DISTILLED:
        best, more, learned = learn(pilot, best, options, tails, asked, x, held_out, given)
        looked_at += more
    start_cost = cost(best.start)
    tested = None
    if len(training_data) >= BLOCKS and len(held_data) >= 2 * BLOCKS:
        tested = novelty(pilot.samples(best), training_data[:TESTED], held_data, seed=seed, progress=bar)
    how = dict.fromkeys(settled, {"pilot": "by pilot", "nats": "by budget"}[criterion])
    if criterion == "nats":
        how["sigma_min"] = "by default"
    if one_level(best.schedule):
        how |= dict.fromkeys(("schedule", "solver"), "one level or two leave no choice")
    if best.schedule.steps == 1:
        how["sigma_min"] = how["schedule"]
    chosen = {part: "as asked" if fixed else how[part] for part, fixed in settled.items()}
    if learned is not None:
        chosen["schedule"] = learned
    if best.kind == DISTILLED and learned is not None:
        chosen |= dict.fromkeys(("sigma_min", "solver"), learned)
    return Plan(
        initialization=best.start,
        schedule=best.schedule,
        solver=best.solver,
        budget=best.budget,
        profile=profile,
        record=Record(
            candidates=_records(options, looked_at, best, tails),
            criterion=criterion,
            chosen=chosen | ({"horizon": "by the unimodality rule"} if by_rule else {}),
            seed=seed,
            fit_seconds=time.perf_counter() - began,
            source=source,
            start_cost=start_cost,
            novelty=tested,
        ),
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
    if schedule is not None and schedule != DISTILLED:
        check_kind(schedule)
    return solver.nfe(rho_grid(solver.steps_for(4 if nfe is None else nfe), 2.0, 1.0))


def _own(
    denoiser: Denoiser,
    shape: Sequence[int] | None,
    count: int,
    sigma_max: float | None,
    conditions: Mapping[str, Any],
    labels: Tensor | None,
    seed: int,
    device: torch.device | str,
    dtype: torch.dtype,
    batch_size: int,
    progress: Progress,
) -> tuple[Tensor, str]:
    """Samples of the network itself, and what they cost."""
    if shape is None:
        raise InputError("without data, say the shape of one sample: shape=(channels, height, width), for example")
    if labels is not None:
        classes = torch.as_tensor(labels)
        if classes.shape != (count,):
            raise InputError(
                f"labels have shape {tuple(classes.shape)}: expected ({count},), one for each sample to draw"
            )
        conditions = {**conditions, "label": classes}
    began = time.perf_counter()
    samples = own_samples(
        denoiser,
        shape,
        count,
        sigma_max=None if sigma_max is None else min(sigma_max, OWN_SIGMA_MAX),
        conditions=conditions,
        seed=seed,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        progress=progress,
    )
    seconds = time.perf_counter() - began
    return samples, f"{count} samples of the network itself, drawn with 35 evaluations each in {seconds:.0f} s"


def _unimodal(x: Tensor, seed: int, progress: Progress) -> float:
    """The horizon by the unimodality rule.

    In many dimensions along the leading principal directions and not, as in the paper, along random ones: those add up
    so many coordinates that every projection is near a Gaussian, whatever the modes (on Fashion-MNIST 0.2 against 1.2).
    """
    space = Subspace.fit(x, PRINCIPAL)
    directions = space.basis.T if x[0].numel() > PRINCIPAL else 200
    found = unimodal_horizon(x, directions=directions, seed=seed, progress=progress).sigma
    return max(found, horizon_range(math.sqrt(float(space.total_variance) / space.dimension), None)[0])


def _distance(option: Option, options: Sequence[Option]) -> float:
    """How far its horizon is from the shortest one that is admissible, in logarithms."""
    shortest = min(o.schedule.horizon for o in admissible(options))
    return abs(math.log(option.schedule.horizon / shortest))


def _records(
    options: Sequence[Option], looked_at: Sequence[Option], best: Option, tails: Tails
) -> tuple[Candidate, ...]:
    """All that was looked at, screened first, with what cannot be told from the best of it."""
    again = {(id(o.start), o.schedule, o.solver): o for o in looked_at}
    screened = [again.pop((id(o.start), o.schedule, o.solver), o) for o in options]
    every = [replace(o, tail=tails.known.get((id(o.start), o.schedule.horizon))) for o in (*screened, *again.values())]
    same = [option for option in every if option.start is best.start]
    level = {id(option) for option in flat(same, least(same))}
    return tuple(option.record(id(option) in level, even(option, best)) for option in every)
