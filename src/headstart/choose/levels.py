"""The levels that are considered: horizons, and last levels above 0."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headstart.denoiser import Range
from headstart.errors import InputError
from headstart.initialization.subspace import moments
from headstart.profile import HEAVY, HIGHEST, LEVELS, LOWEST, Profile, core_deviation
from headstart.schedule import Cut, Rule, Schedule, get_rule, rule_names
from headstart.solver import Solver

__all__ = [
    "SHORTEST",
    "SIGMA_MINS",
    "build_schedule",
    "far_horizon",
    "horizon_range",
    "horizons_of",
    "measured_levels",
    "nearest_horizon",
    "one_level",
    "spread",
    "unseen_detail",
    "usual_last",
    "with_exponent",
]

#: Horizons that are looked at, in units of the data's standard deviation: from where the data are hardly hidden to far
#: out.
HORIZONS = (*np.geomspace(0.35, 25.0, 16), 190.0)

#: Last levels above 0 that are looked at, in the same units: with few evaluations, finer detail is not worth a step.
SIGMA_MINS = (0.05, 0.12, 0.2)


#: The shortest horizon that is looked at by the budget alone, in the same units: twice the lowest last level.
SHORTEST = 2 * SIGMA_MINS[0]

#: Vectors of at most so many coordinates, each of which may be a quantity of its own.
VECTOR = 256

#: The shortest horizon where data are too few to choose one, in units of their standard deviation.
FAR = 5.0

#: Samples that tell the core of the data.
CORE = 4096


def build_schedule(
    kind: str,
    profile: Profile,
    steps: int,
    horizon: float,
    sigma_min: float,
    solver: Solver | None = None,
    exponent: float | None = None,
) -> Schedule:
    """``get_rule(kind)(profile, steps, horizon, sigma_min, solver)``, for one version more."""
    warnings.warn("build_schedule() is now headstart.schedule.get_rule(kind)(...)", DeprecationWarning, stacklevel=2)
    rule = with_exponent(get_rule(kind), exponent)
    return rule(profile, steps, horizon, sigma_min, solver)


def with_exponent(rule: Rule, exponent: float | None) -> Rule:
    """The rule with this exponent of the length that it cuts, where one is given.

    Raises:
        InputError: if it cuts no length, or the exponent is not finite and above 0.
    """
    if exponent is None:
        return rule
    if not isinstance(rule, Cut):
        raise InputError(f"an exponent is for schedules cut from a measured length: not {rule}")
    return replace(rule, exponent=exponent)


def nearest_horizon(count: float, numbers: int) -> float:
    r"""The shortest horizon to look at, in standard deviations of the data.

    From so many samples of so many numbers, conditions included, a law is known down to
    :math:`n^{-1/(d + 4)}` (Silverman's rule); nearer than 0.35 only where that is less, which takes a few numbers.

    Reference:
        Silverman, *Density Estimation for Statistics and Data Analysis*, 1986, Equation 4.14.

    >>> nearest_horizon(16_000, 2), nearest_horizon(48_000, 784)
    (0.199..., 0.35)
    """
    return min(float(HORIZONS[0]), math.pow(count, -1 / (numbers + 4)))


def horizons_of(profile: Profile, sigma_min: float | None, nearest: float = HORIZONS[0]) -> list[tuple[float, float]]:
    """The horizons to look at, each with its last level above 0.

    From where the data, or the core of them if their tails are heavy, are hardly hidden.

    Arguments:
        profile: the measurements of the network.
        sigma_min: the last level, where it is asked for.
        nearest: the shortest horizon, in standard deviations of the data or of their core.

    Raises:
        InputError: if none is above sigma_min.
    """
    usual = sorted(
        {min(h, profile.sigmas[0]) for h in (*_near(profile, nearest), *(profile.sigma_data * h for h in HORIZONS))}
    )
    above = [h for h in usual if h > (profile.sigmas[-1] if sigma_min is None else sigma_min)]
    if not above:
        raise InputError(f"sigma_min is {sigma_min:.6g}: no horizon of this data ({usual[-1]:.4g} at most) is above it")
    return [(h, usual_last(profile, h) if sigma_min is None else sigma_min) for h in above]


def _near(profile: Profile, nearest: float) -> list[float]:
    """The horizons that are shorter than the usual ones, as far apart as these: at which the core of data with heavy
    tails is hardly hidden, or data of few numbers.
    """
    ratio, first = HORIZONS[1] / HORIZONS[0], nearest * profile.core
    count = math.ceil(math.log(HORIZONS[0] * profile.sigma_data / first) / math.log(ratio) - 1e-9)
    return [first * ratio**i for i in range(count)]


def far_horizon(profile: Profile, count: int, sigma_min: float) -> float:
    """A horizon at which a start that is fitted on so few samples errs little, as far as the network was measured.

    The mean of n samples of d coordinates errs by :math:`d / (2 n h^2)` nats at h standard deviations: a tenth.
    """
    far = max(FAR, math.sqrt(5 * math.prod(profile.shape) / count))
    return min(max(far * profile.sigma_data, 8 * sigma_min), float(profile.sigmas[0]))


def horizon_range(
    sigma_data: float, horizon: float | None, core: float | None = None, nearest: float = HORIZONS[0]
) -> tuple[float, float]:
    """The lowest and the highest horizon that a start has to know: farther out, any start will do."""
    low, high = nearest * (core or sigma_data), HORIZONS[-2] * sigma_data
    return (low, high) if horizon is None else (min(low, horizon), max(high, horizon))


def one_level(schedule: Schedule) -> bool:
    """Whether it has one step above 0, or none, so that all solvers and all kinds of schedule are the same."""
    return sum(b > 0 for _, b in schedule.pairs()) <= 1


def usual_last(profile: Profile, horizon: float) -> float:
    """The last level above 0 that goes with a horizon, where none is asked for."""
    return max(min(SIGMA_MINS[0] * profile.core, horizon / 8), float(profile.sigmas[-1]))


def spread(x: Tensor) -> float:
    """The standard deviation of samples (N, \\*S), the root of the mean variance of their coordinates."""
    return float(moments(x)[1].mean().sqrt())


def unseen_detail(x: Tensor, schedule: Schedule) -> tuple[str, ...]:
    """A doubt, in words, if the last level above 0 hides some coordinates of vectors (N, d); those of images are alike.

    The step to 0 answers with the mean given what is seen at that level: smaller spreads are lost.
    """
    if x.ndim != 2 or x.shape[1] > VECTOR or schedule.steps == 1:
        return ()
    deviations = moments(x)[1].sqrt()
    hidden = deviations[(deviations > 0) & (deviations < schedule.sigma_min)]
    if not len(hidden):
        return ()
    return (
        f"the last level above 0, {schedule.sigma_min:.3g}, exceeds the standard deviation of {len(hidden)} of "
        f"{x.shape[1]} coordinates ({float(hidden.min()):.3g}), whose spread is lost: give all coordinates one scale, "
        "or ask for a lower sigma_min",
    )


def measured_levels(x: Tensor, fixed: Sequence[float], known: Range) -> NDArray[np.float64]:
    """The levels to measure: the usual ones as far as the network knows them, and on to the user's own levels.

    Raises:
        InputError: if the network does not know the user's own levels.
    """
    scale = spread(x) or 1.0
    core = min(core_deviation(x[:CORE]), scale)
    core = core if 0 < core < scale / HEAVY else scale
    for level in fixed:
        known.check(level)
    highest = min(max([HIGHEST * scale, *fixed]), known.high)
    return known.grid(highest, min([LOWEST * core, highest / 10, *fixed]), LEVELS)


def __getattr__(name: str) -> tuple[str, ...]:
    """The names of the rules, for one version more."""
    if name != "SCHEDULES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("headstart.choose.SCHEDULES is now headstart.schedule.rule_names()", DeprecationWarning, stacklevel=2)
    return rule_names()
