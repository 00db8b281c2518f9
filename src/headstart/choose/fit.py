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
5. Where a tenth of the data or more was held out, the start that was chosen is fitted again on all of them, in the size
   that it has. What is said of it, its error in nats and the novelty test, is of the one before, which has not seen
   the held-out data.

Without a pilot (``criterion="budget"``) the budget decides alone, among shorter horizons too, and of equals the largest
is taken: there the start has the least to know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, overload

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.choose.choice import UNSEEN, Choice
from headstart.choose.constraints import DISTILLED, Constraints, named_criterion, named_levels
from headstart.choose.data import split_of
from headstart.choose.guided import asked_of, guided_by, recorded
from headstart.choose.levels import SIGMA_MINS, horizon_range, measured_levels, spread
from headstart.choose.pilot import Pilot
from headstart.choose.screen import GROUPS, Tails
from headstart.choose.starts import Starts, start_names
from headstart.choose.work import Work, identity_of
from headstart.compute import Compute
from headstart.conditions import Split, to_device
from headstart.data import Dataset
from headstart.denoiser import Denoiser, Range, in_evaluation_mode
from headstart.denoiser import check as examine
from headstart.deprecation import keywords
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Subspace, Training
from headstart.noise import generator_of
from headstart.plan import Plan, Record
from headstart.profile import Profile
from headstart.progress import Progress
from headstart.schedule import Rule, Schedule
from headstart.solver import Solver, get_solver
from headstart.unimodality import unimodal_horizon

__all__ = ["fit"]

#: Samples of a pilot at most.
MOST_PILOTED = 1_000_000

#: With fewer samples held out, which are a fifth, they decide nothing.
ENOUGH = 8
FEW = "{} samples could be held out, too few to choose a plan by: what is free is as usual, from a far horizon"

#: In more dimensions than this, the unimodality rule looks along as many principal directions.
PRINCIPAL = 64


@overload
def fit(
    denoiser: Denoiser, data: Tensor | Dataset | ArrayLike | None, nfe: int | None = None, **options: Any
) -> Plan: ...


@overload
def fit(
    denoiser: Denoiser, data: Tensor | Dataset | ArrayLike | None, nfe: Iterable[int], **options: Any
) -> dict[int, Plan]: ...


@keywords(own="n_samples")  # type: ignore[misc]  # the overloads leave the options to this signature
@in_evaluation_mode
def fit(
    denoiser: Denoiser,
    data: Tensor | Dataset | ArrayLike | None,
    nfe: int | Iterable[int] | None = None,
    *,
    labels: Tensor | ArrayLike | None = None,
    conditions: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    n_samples: int | None = None,
    guidance: float | None = None,
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
    novelty: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 256,
    progress: Progress | None = None,
    work: Work | None = None,
) -> Plan | dict[int, Plan]:
    """The plan for a number of network evaluations. Whatever is given is kept, and the rest is chosen around it.

    For several numbers, the plans by their numbers: the network is measured once, starts are fitted once, and no plan
    is worse than a cheaper one of them, which takes its place otherwise.

    Arguments:
        denoiser: the network, on ``device``; it is not changed.
        data: clean samples, shape (N, \\*S), of the law that the network was trained on; or None, to fit on samples of
            the network itself.
        nfe: network evaluations per sample, or several numbers of them; 4 by default, or what a given schedule costs. A
            solver that cannot spend exactly so many spends fewer (Heun spends an odd number), and the plan says how
            many.
        labels: classes of the data, shape (N,): the network is then called with ``label=``, and starts are fitted by
            class. Without data, the classes of the samples that are drawn, shape (n_samples,). The labels of a
            :class:`~headstart.data.Dataset` are not used unless they are given here: a network must know what to do
            with them.
        conditions: what else the network is called with; tensors of length N go with the data. ``label`` here is the
            same as ``labels``, and may be one class for all.
        shape: the shape S of one sample, where there are no data.
        n_samples: how many samples of the network itself to draw then, at 35 evaluations each; 2,000 by default, or
            10,000 where they are of at most 256 numbers each and nothing is asked for.
        guidance: the scale of classifier-free guidance that the plan is for. It is then fitted and judged on samples of
            the guided sampler itself, ``n_samples`` of them at most, drawn with the conditions of the data. The
            denoiser is guided by :func:`headstart.guide`, unless it is already, as it must be for an interval of levels
            or other conditions than ``{"label": None}``.
        profile: the profile of another plan for the same network, data and seed, or one measured on :func:`hold_out`'s
            share of the data. The network is asked again about a few of its samples.
        horizon: sigma_T, or "unimodal" for the rule of the paper's second version: the level at which the noised data
            have one mode in every direction (:mod:`headstart.unimodality`).
        initialization: the name of a family, a fitted start, or a list of these to choose from; "isotropic", "gaussian"
            and "mixture" by default, "regression" and "conditional-mixture" where there are conditions other than
            classes, and "student-t" where a Gaussian misses the tails of the data. The one that is chosen is fitted
            again on all data, if a tenth or more was held out; a fitted start that is given stays as it is.
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
            "budget" by the error budget in nats, which sees fine detail as well as the whole: for vectors, and above
            all for posteriors that are far narrower than their prior. Give a low ``sigma_min`` with it.
        check: whether to ask first if the network is a denoiser of these data, in a few hundred evaluations
            (:func:`headstart.check`): an error stops the fit, and doubts are kept in the plan's record.
        pilot_samples: samples of each combination that comes to the end of the pilot; at first all have 128 at most.
        novelty: whether to test in the end if samples of the plan are copies of the data.
        seed: of the held-out share, of fitting, of measuring and of the pilot (whose samples are never those of
            another seed).
        device: where the network works.
        dtype: of the states that the network is called with; see :meth:`headstart.profile.Profile.measure` for half
            types.
        batch_size: samples per call of the network.
        progress: told of what takes time.
        work: where the profile, each start and the pilot's samples are kept as soon as they are there, so that a fit
            that was cut off goes on (:mod:`headstart.choose.work`).

    Raises:
        DataError: if the data are fewer than ten, not finite, or not floating point, or their labels leave fewer than
            two to hold out.
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
        InputError: if an argument is out of its range, or does not fit another one.
    """
    began, criterion = time.perf_counter(), named_criterion(criterion)
    if not callable(denoiser) or not isinstance(profile, Profile | None) or not isinstance(training, Training | None):
        raise InputError("a denoiser is called, a profile is a headstart.Profile, and training a headstart Training")
    compute = Compute(device, dtype, batch_size, progress or Progress())
    method = None if solver is None else get_solver(solver)
    levels, budgets = named_levels(schedule, exponent), _budgets(nfe)
    every = [Constraints(budget, horizon, levels, method, sigma_min, sigma_max) for budget in budgets]
    for constraints in every:
        _check_choice(constraints, initialization, criterion, pilot_samples, seed, batch_size, start_cost)

    if guidance is not None and guidance != 1:
        denoiser, check = guided_by(denoiser, guidance, criterion), False
        if data is not None:
            shape, n_samples, labels, conditions = asked_of(data, labels, conditions, n_samples, seed)
            data = None
    split, source = split_of(denoiser, data, labels, conditions, shape, n_samples, sigma_max, seed, compute)
    network, held_out = partial(denoiser, **to_device(split.shared, device)), split.held_out
    keep = work or Work()
    if keep.keeps:
        given = None if profile is None else (profile.digest, profile.sigmas.tolist())
        decides = (every, initialization, training, start_cost, criterion, pilot_samples, seed, given)
        keep.begin(identity_of(network, split.whole, device, {"all": decides, "compute": (device, dtype, batch_size)}))
    doubts = _checked(network, split, sigma_max, seed, compute) if check else ()
    if horizon == "unimodal":
        sigma = _unimodal(split.fitted.samples, seed, compute.progress)
        every = [constraints.at(sigma) for constraints in every]
    if profile is None:
        known = Range.of(denoiser, sigma_max, compute.dtype)
        measure = partial(_measured, network, split, every[0], known, seed, compute)
        profile = keep.kept("profile", measure, Profile.save, Profile.load)
        profile = profile.with_samples(held_out.samples, held_out.conditions)
    else:
        profile = profile.with_samples(held_out.samples, held_out.conditions)
        profile.check_network(network, compute)
    unchosen: tuple[str, ...] = ()
    if len(held_out) < ENOUGH:
        free, count = [part for part, fixed in every[0].fixed.items() if not fixed], len(split.fitted)
        every = [constraints.without_choice(profile, count) for constraints in every]
        unchosen = tuple(part for part in free if every[0].fixed[part])
        initialization = "gaussian" if initialization is None else initialization
        doubts += (FEW.format(len(held_out)),)

    turning = method is None and levels != DISTILLED
    guides = None if guidance is None else recorded(denoiser)
    choice = Choice(
        split=split,
        initialization=initialization,
        training=training,
        start_cost=start_cost,
        by_rule=horizon == "unimodal",
        unchosen=unchosen,
        test_novelty=novelty,
        pilot=Pilot(network, held_out, profile, pilot_samples, seed, compute, turning, keep),
        tails=Tails(held_out, seed, compute),
        record=Record(criterion=criterion, seed=seed, source=source, doubts=doubts, guidance=guides),
    )
    plans = choice.plans(every, began)
    return {n: plan for n, plan in zip(budgets, plans, strict=True) if n} if isinstance(nfe, Iterable) else plans[0]


def _budgets(nfe: int | Iterable[int] | None) -> list[int | None]:
    """The numbers of evaluations that are asked for.

    Raises:
        InputError: if there is none, or one is named twice.
    """
    budgets: list[int | None] = [*nfe] if isinstance(nfe, Iterable) else [nfe]
    if not budgets or len({*budgets}) < len(budgets):
        raise InputError(f"nfe is {nfe!r}: expected a number of evaluations, or several that differ")
    return budgets


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
    generator_of(seed)  # which must be a whole number
    if batch_size < fewest or not 0 <= seed < 2**28:
        raise InputError(f"batch_size is at least {fewest} and seed from 0 to 2^28 - 1: got {batch_size} and {seed}")
    if start_cost is not None and not (isinstance(start_cost, Real) and 0 <= start_cost < math.inf):
        raise InputError(f"the cost of a start is finite and at least 0: got {start_cost}")
    if criterion == "budget" and constraints.evaluations == 1:
        raise InputError(UNSEEN)
    if not isinstance(pilot_samples, Integral) or not 2 * GROUPS <= pilot_samples <= MOST_PILOTED:
        raise InputError(f"a pilot has {2 * GROUPS} to {MOST_PILOTED:,} samples, a whole number: got {pilot_samples!r}")
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


def _unimodal(x: Tensor, seed: int, progress: Progress) -> float:
    """The horizon by the unimodality rule.

    In many dimensions along the leading principal directions and not, as in the paper, along random ones: those add up
    so many coordinates that every projection is near a Gaussian, whatever the modes (on Fashion-MNIST 0.2 against 1.2).
    """
    space = Subspace.fit(x, PRINCIPAL)
    directions = space.basis.T if x[0].numel() > PRINCIPAL else 200
    found = unimodal_horizon(x, directions=directions, seed=seed, progress=progress).sigma
    return max(found, horizon_range(math.sqrt(float(space.total_variance) / space.dimension), None)[0])
