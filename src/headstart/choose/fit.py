"""Choose a plan: measure the network once, fit the starts, screen in nats, and let a pilot decide.

1. A share of the data is held out. The network is measured on it in one pass (:mod:`headstart.profile`).
2. The families of starts are fitted on the rest, once for all horizons.
3. Every family at every horizon is screened by its error in nats (:mod:`headstart.budget`) and by its far quantiles,
   which nats do not see, without calling the network. Where a Gaussian misses the tails of the data, a Student-t is
   fitted too.
4. A pilot draws samples of many combinations, a hundred of most and a thousand of the best, and compares them with the
   held-out data in several views, given their conditions (:mod:`headstart.choose.pilot`,
   :mod:`headstart.choose.judge`, :mod:`headstart.choose.race`). Where it cannot tell two apart, the one whose start
   errs less is taken.

Without a pilot (``criterion="budget"``) the budget decides alone, and among equals the largest horizon is taken: there
the start has the least to know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.choose.constraints import Constraints, named_criterion, named_levels
from headstart.choose.cost import cost_of
from headstart.choose.data import OWN_SAMPLES, split_of
from headstart.choose.learn import learn
from headstart.choose.levels import SIGMA_MINS, horizon_range, measured_levels, one_level, spread
from headstart.choose.pilot import Pilot, turned
from headstart.choose.race import race, tied
from headstart.choose.screen import (
    GROUPS,
    Option,
    Tails,
    admissible,
    combined,
    contenders,
    equivalent,
    largest_tied,
    least,
    reaches,
    screen,
)
from headstart.choose.starts import Starts, fit_starts, start_names
from headstart.compute import Compute
from headstart.conditions import Part, Split, to_device
from headstart.data import Dataset
from headstart.denoiser import Denoiser, Range, in_evaluation_mode
from headstart.denoiser import check as examine
from headstart.deprecation import keywords
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Initialization, Subspace, Training
from headstart.metrics import novelty
from headstart.metrics.novelty import BLOCKS
from headstart.noise import generator_of
from headstart.plan import Candidate, Plan, Record
from headstart.profile import Profile
from headstart.progress import Progress
from headstart.schedule import Distilled, Rule, Schedule
from headstart.solver import Solver, get_solver
from headstart.unimodality import unimodal_horizon

__all__ = ["fit"]

#: Samples that the cost of a start is counted on.
TIMED = 64

#: Samples of the novelty test.
NOVEL = 256

#: Training samples that the novelty test looks at: copies of others go unseen, and its time grows with their square.
TESTED = 60_000

#: In more dimensions than this, the unimodality rule looks along as many principal directions.
PRINCIPAL = 64

#: What is wrong with a single evaluation, also if it is all that a start leaves.
UNSEEN = "a budget in nats leaves out the step to 0, which is all that one evaluation does: use a pilot"


@keywords(own="n_samples")
@in_evaluation_mode
def fit(
    denoiser: Denoiser,
    data: Tensor | Dataset | ArrayLike | None,
    nfe: int | None = None,
    *,
    labels: Tensor | ArrayLike | None = None,
    conditions: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    n_samples: int = OWN_SAMPLES,
    profile: Profile | None = None,
    horizon: float | Literal["unimodal"] | None = None,
    initialization: Starts = None,
    training: Training | None = None,
    start_cost: float | None = None,
    schedule: str | Rule | Schedule | None = None,
    solver: str | Solver | None = None,
    sigma_min: float | None = None,
    exponent: float | None = None,
    sigma_max: float | None = None,
    criterion: Literal["pilot", "budget"] = "pilot",
    check: bool = True,
    pilot_samples: int = 1024,
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
            class. Without data, the classes of the samples that are drawn, shape (n_samples,). The labels of a
            :class:`~headstart.data.Dataset` are not used unless they are given here: a network must know what to do
            with them.
        conditions: what else the network is called with; tensors of length N go with the data. ``label`` here is the
            same as ``labels``, and may be one class for all.
        shape: the shape S of one sample, where there are no data.
        n_samples: how many samples of the network itself to draw then, at 35 evaluations each.
        profile: the profile of another plan for the same network, data and seed, or one measured on :func:`hold_out`'s
            share of the data.
        horizon: sigma_T, or "unimodal" for the rule of the paper's second version: the level at which the noised data
            have one mode in every direction (:mod:`headstart.unimodality`).
        initialization: the name of a family, a fitted start, or a list of these to choose from; "isotropic", "gaussian"
            and "mixture" by default, and "student-t" where a Gaussian misses the tails of the data.
        training: how "flow" and "autoregressive" are trained.
        start_cost: of a start that is not in closed form, in evaluations of the network; counted in operations by
            default (:mod:`headstart.choose.cost`).
        schedule: a schedule, or a rule of levels, as a value or by its name with its parameters, such as "rho 3":
            "defect", "corrector", "least_error" (of the solver, by :mod:`headstart.trajectory`), "rho", "log_linear",
            "cosine", "linear_vp" or "tangent", of which "defect", "corrector", "rho", "tangent" and "least_error" are
            tried by default; or "distilled", to go on from the best of these and learn levels and coefficients
            (:mod:`headstart.distill`).
        solver: the name of a solver, or a solver; "dpm++2m", "dpm++3m", "unipc", "deis" and "euler" are tried by
            default.
        sigma_min: the last level above 0.
        exponent: of the length that the levels are cut from, for "defect" and "corrector"; their orders, 4 and 2, by
            default.
        sigma_max: the highest level that the network knows; by default what an adapted network says of itself.
        criterion: "pilot" decides by the distance of pilot samples to held-out data (:mod:`headstart.choose.judge`),
            "budget" by the error budget in nats.
        check: whether to ask first if the network is a denoiser of these data, in a few hundred evaluations
            (:func:`headstart.check`): an error stops the fit, and doubts are kept in the plan's record.
        pilot_samples: samples of each combination that comes to the end of the pilot; at first all have 128 at most.
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
    began, criterion = time.perf_counter(), named_criterion(criterion)
    compute = Compute(device, dtype, batch_size, progress or Progress())
    method = None if solver is None else get_solver(solver)
    constraints = Constraints(nfe, horizon, named_levels(schedule, exponent), method, sigma_min, sigma_max)
    _check_choice(constraints, initialization, criterion, pilot_samples, seed, batch_size, start_cost)

    split, source = split_of(denoiser, data, labels, conditions, shape, n_samples, sigma_max, seed, compute)
    network, held_out = partial(denoiser, **to_device(split.shared, device)), split.held_out
    doubts = _checked(network, split, sigma_max, seed, compute) if check else ()
    by_rule = horizon == "unimodal"
    if by_rule:
        constraints = constraints.at(_unimodal(split.fitted.samples, seed, compute.progress))
    if profile is None:
        profile = _measured(network, split, constraints, Range.of(denoiser, sigma_max, compute.dtype), seed, compute)
    else:
        profile = profile.with_samples(held_out.samples, held_out.conditions)

    tails = Tails(held_out, seed, compute)
    cost = partial(_start_cost, network, held_out, profile, compute, start_cost)
    screened = partial(_screened, split, profile, constraints, training, seed, compute, cost)
    options = screened(initialization)
    if initialization is None:
        nearest = min((o for o in options if o.start.name == "gaussian"), key=lambda o: _distance(o, options))
        if not reaches(tails(nearest)):
            options += screened("student-t")
    if criterion == "budget":
        seen = [option for option in options if option.schedule.sigmas[1] > 0]
        if not seen:
            raise InputError(_costly(options, cost, constraints) + UNSEEN)
        options = seen

    fixed = {"initialization": len({id(option.start) for option in options}) == 1, **constraints.fixed}
    turning = solver is None and not constraints.distilled
    pilot = Pilot(network, held_out, profile, pilot_samples, seed, compute, turning)
    looked_at: list[Option] = []
    if criterion == "budget":
        looked_at = [least(combined(profile, option, constraints)) for option in contenders(options, tails)]
        best = largest_tied(looked_at)
    elif all(fixed.values()) and not constraints.distilled:
        best = tails(options[0])
    else:
        best, looked_at = race(pilot, options, tails, constraints)
    learned = None
    if constraints.distilled:
        best, more, learned = learn(pilot, best, options, tails, split)
        looked_at += more

    tested = None
    if len(split.fitted) >= BLOCKS and len(held_out) >= 2 * BLOCKS:
        fitted_on = split.fitted.samples[:TESTED]
        drawn = pilot.samples(best, min(NOVEL, pilot_samples))
        tested = novelty(drawn, fitted_on, held_out.samples, seed=seed, progress=compute.progress)
    chosen = _reasons(best, fixed, criterion, learned) | ({"horizon": "by the unimodality rule"} if by_rule else {})
    final = turned(profile, best)
    return Plan(
        initialization=final.start,
        schedule=final.schedule,
        solver=final.solver,
        budget=final.budget,
        profile=profile,
        record=Record(
            candidates=_records(options, looked_at, best, tails),
            criterion=criterion,
            chosen=chosen,
            seed=seed,
            fit_seconds=time.perf_counter() - began,
            source=source,
            start_cost=cost(best.start),
            novelty=tested,
            doubts=doubts,
        ),
    )


def _check_choice(
    constraints: Constraints,
    initialization: Starts,
    criterion: str,
    pilot_samples: int,
    seed: int,
    batch_size: int,
    start_cost: float | None,
) -> None:
    """Check what the choice is made by, and that it can be made."""
    fewest = 2 if constraints.distilled else 1  # which learns from pairs
    if batch_size < fewest or not 0 <= seed < 2**28:
        raise InputError(f"batch_size is at least {fewest} and seed from 0 to 2^28 - 1: got {batch_size} and {seed}")
    generator_of(seed)  # which must be a whole number
    if start_cost is not None and not 0 <= start_cost < math.inf:
        raise InputError(f"the cost of a start is finite and at least 0: got {start_cost}")
    if criterion == "budget" and constraints.evaluations == 1:
        raise InputError(UNSEEN)
    if pilot_samples < 2 * GROUPS:
        raise InputError(f"a pilot needs at least {2 * GROUPS} samples: got {pilot_samples}")
    names = start_names(initialization)
    if criterion == "budget" and not any(isinstance(start, str) or start.tractable for start in names):
        raise InputError("a start without a density has no budget in nats: use a pilot")


def _checked(network: Denoiser, split: Split, sigma_max: float | None, seed: int, compute: Compute) -> tuple[str, ...]:
    """The doubts whether it is a denoiser of these data.

    Raises:
        DenoiserError: if it fails, or is no function of its input.
        InputError: if it is not one, as it was declared.
    """
    found = examine(
        network,
        split.whole.samples,
        split.whole.conditions,
        seed=seed,
        sigma_max=sigma_max,
        device=compute.device,
        dtype=compute.dtype,
        batch_size=compute.batch_size,
        progress=compute.progress,
    )
    if found.errors:
        worst = found.errors[0]
        if worst.cause is not None:
            raise worst.cause
        kind = InputError if worst.declared else DenoiserError
        raise kind(f"{worst} (headstart.check says more; fit(check=False) goes on)")
    return tuple(map(str, found.doubts))


def _measured(
    network: Denoiser, split: Split, constraints: Constraints, known: Range, seed: int, compute: Compute
) -> Profile:
    """The profile of the network on the data that are held out, at the usual levels and at those that are fixed."""
    # Last levels are in units of the held-out data, which need not share an outlier that all of the data have.
    for level in constraints.named:
        known.check(level)
    levels = [*constraints.levels, SIGMA_MINS[0] * spread(split.held_out.samples)]
    return Profile.measure(
        network,
        split.held_out.samples,
        sigmas=measured_levels(split.whole.samples, [max(level, known.low) for level in levels if level], known),
        conditions=split.held_out.conditions,
        seed=seed,
        device=compute.device,
        dtype=compute.dtype,
        batch_size=compute.batch_size,
        progress=compute.progress,
    )


def _screened(
    split: Split,
    profile: Profile,
    constraints: Constraints,
    training: Training | None,
    seed: int,
    compute: Compute,
    cost: Callable[[Initialization], float],
    families: Starts,
) -> list[Option]:
    """The starts of these families, fitted and screened."""
    starts = fit_starts(
        split.fitted.samples,
        families,
        split.fitted.label,
        seed,
        compute.progress,
        training=training,
        sigmas=horizon_range(profile.sigma_data, constraints.sigma_T),
        device=compute.device,
    )
    return screen(profile, starts, {id(start): cost(start) for start in starts if not start.closed_form}, constraints)


def _costly(options: Sequence[Option], cost: Callable[[Initialization], float], constraints: Constraints) -> str:
    """How the cost of drawing the starts left the solver a single evaluation, in words."""
    dear = {option.start.name: f"{cost(option.start):.2g}" for option in options if not option.start.closed_form}
    costs = ", ".join(f"a {name} start costs {evaluations}" for name, evaluations in dear.items())
    asked = f"and {constraints.evaluations} are asked for (see start_cost), so that the solver has a single one"
    return f"drawing {costs} evaluations, {asked}: " if costs else ""


def _start_cost(
    network: Denoiser,
    held_out: Part,
    profile: Profile,
    compute: Compute,
    given: float | None,
    start: Initialization,
) -> float:
    """The cost of drawing a start, in evaluations of the network: as given, if it is not in closed form, or counted."""
    if given is not None and not start.closed_form:
        return given
    timed = held_out.take(slice(0, min(TIMED, compute.batch_size)))
    sigma = min(max(profile.sigma_data, start.sigmas[0]), start.sigmas[1], float(profile.sigmas[0]))
    conditions = to_device(timed.conditions, compute.device)
    return cost_of(start, network, sigma, len(timed), conditions, compute.device, compute.dtype)


def _reasons(best: Option, fixed: Mapping[str, bool], criterion: str, learned: str | None) -> dict[str, str]:
    """How each part came about, in words."""
    how = dict.fromkeys(fixed, f"by {criterion}")
    if criterion == "budget":
        how["sigma_min"] = "by default"
    if one_level(best.schedule):
        how |= dict.fromkeys(("schedule", "solver"), "one level or two leave no choice")
    if best.schedule.steps == 1:
        how["sigma_min"] = how["schedule"]
    if best.turn:
        how["solver"] = f"by pilot, which turned the last row of {best.solver.name} by {best.turn:g}"
    chosen = {part: "as asked" if known else how[part] for part, known in fixed.items()}
    if learned is not None:
        chosen["schedule"] = learned
        if isinstance(best.kind, Distilled):
            chosen |= dict.fromkeys(("sigma_min", "solver"), learned)
    return chosen


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
    level = {id(option) for option in equivalent(same, least(same))}
    return tuple(option.record(id(option) in level, tied(option, best)) for option in every)
