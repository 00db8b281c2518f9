"""The levels that are considered: kinds of schedule, horizons, and last levels above 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headstart.errors import InputError
from headstart.initialization.subspace import moments
from headstart.profile import FINE, HIGHEST, LEVELS, LOWEST, Profile
from headstart.schedule import Schedule, cosine, equidistribute, linear_vp, log_linear, rho_grid, tangent
from headstart.solver import USUAL_SOLVERS, DPMSolverPP2M, Solver

__all__ = [
    "DISTILLED",
    "MEASURED",
    "RIVALS",
    "SCHEDULES",
    "SIGMA_MINS",
    "SOLVERS",
    "build_schedule",
    "check_kind",
    "horizon_range",
    "horizons_of",
    "measured_levels",
    "one_level",
    "spread",
    "usual_last",
]

#: The kinds of schedule that can be asked for by name, and what is one of them with levels and coefficients learned.
SCHEDULES = ("defect", "corrector", "least_error", "rho", "log_linear", "cosine", "linear_vp", "tangent")
DISTILLED = "distilled"

#: Those that are cut from a measured length.
MEASURED = ("defect", "corrector")

#: Those made by hand.
CLASSIC: Mapping[str, Callable[[int, float, float], Schedule]] = {
    "rho": rho_grid,
    "log_linear": log_linear,
    "cosine": cosine,
    "linear_vp": linear_vp,
}

#: The kinds that are held against the "defect" schedule, and the solvers against DPM-Solver++(2M).
RIVALS = ("corrector", "rho", "tangent", "least_error")
SOLVERS = USUAL_SOLVERS[1:]

#: Horizons that are looked at, in units of the data's standard deviation: from where the data are hardly hidden to far
#: out.
HORIZONS = (*np.geomspace(0.35, 25.0, 16), 190.0)

#: Last levels above 0 that are looked at, in the same units: with few evaluations, finer detail is not worth a step.
SIGMA_MINS = (0.05, 0.12, 0.2)


def build_schedule(
    kind: str,
    profile: Profile,
    steps: int,
    horizon: float,
    sigma_min: float,
    solver: Solver | None = None,
    exponent: float | None = None,
) -> Schedule:
    """A schedule by the name of its kind, with a last step to 0.

    Arguments:
        kind: one of :data:`SCHEDULES`.
        profile: what was measured.
        steps: number of steps.
        horizon: the first level.
        sigma_min: the last level above 0.
        solver: whose error is to be least, DPM-Solver++(2M) by default; for "least_error" alone.
        exponent: of the length, for measured kinds alone.

    Raises:
        InputError: if the kind is unknown, or the levels are out of order.
    """
    check_kind(kind)
    if not horizon > sigma_min > 0:
        raise InputError(
            f"the horizon must lie above sigma_min, and that above 0: got {horizon:.6g} and {sigma_min:.6g}"
        )
    if kind in MEASURED:
        return equidistribute(profile.length(kind, exponent), steps, horizon, sigma_min, name=kind)
    if exponent is not None:
        raise InputError(f"an exponent is for schedules cut from a measured length ({', '.join(MEASURED)}): not {kind}")
    if kind in CLASSIC:
        return CLASSIC[kind](steps, horizon, sigma_min)
    if kind == "tangent":
        return tangent(steps, horizon, sigma_min, scale=profile.sigma_data)
    if profile.trajectories is None:
        raise InputError(
            f"the profile has no trajectories, which {kind!r} needs: measure it on levels within {FINE:g} of each other"
        )
    return profile.trajectories.least_error(solver or DPMSolverPP2M(), steps, horizon, sigma_min)


def check_kind(kind: str) -> None:
    """Raise :class:`InputError` if there is no schedule of that name."""
    if kind not in SCHEDULES:
        raise InputError(f"unknown schedule {kind!r}: expected one of {', '.join(SCHEDULES)}")


def horizons_of(profile: Profile, sigma_min: float | None) -> list[tuple[float, float]]:
    """The horizons to look at, each with its last level above 0.

    Raises:
        InputError: if none is above sigma_min.
    """
    usual = sorted({min(profile.sigma_data * h, profile.sigmas[0]) for h in HORIZONS})
    above = [h for h in usual if sigma_min is None or h > sigma_min]
    if not above:
        raise InputError(f"sigma_min is {sigma_min:.6g}: no horizon of this data ({usual[-1]:.4g} at most) is above it")
    return [(h, usual_last(profile, h) if sigma_min is None else sigma_min) for h in above]


def horizon_range(sigma_data: float, horizon: float | None) -> tuple[float, float]:
    """The lowest and the highest horizon that a start has to know: farther out, any start will do."""
    low, high = HORIZONS[0] * sigma_data, HORIZONS[-2] * sigma_data
    return (low, high) if horizon is None else (min(low, horizon), max(high, horizon))


def one_level(schedule: Schedule) -> bool:
    """Whether it has one step above 0, or none, so that all solvers and all kinds of schedule are the same."""
    return sum(b > 0 for _, b in schedule.pairs()) <= 1


def usual_last(profile: Profile, horizon: float) -> float:
    """The last level above 0 that goes with a horizon, where none is asked for."""
    return max(min(SIGMA_MINS[0] * profile.sigma_data, horizon / 8), float(profile.sigmas[-1]))


def spread(x: Tensor) -> float:
    """The standard deviation of samples (N, \\*S), the root of the mean variance of their coordinates."""
    return float(moments(x)[1].mean().sqrt())


def measured_levels(x: Tensor, fixed: Sequence[float], sigma_max: float) -> NDArray[np.float64]:
    """The levels to measure: the usual ones as far as the network knows them, and on to the user's own levels.

    Raises:
        InputError: if the network does not know the user's own levels.
    """
    scale = spread(x) or 1.0
    highest = min(max([HIGHEST * scale, *fixed]), sigma_max)
    if max(fixed, default=0.0) > highest:
        raise InputError(f"the network knows noise up to sigma = {sigma_max:.6g}: got a level of {max(fixed):.6g}")
    lowest = min([LOWEST * scale, highest / 10, *fixed])
    return np.geomspace(highest, lowest, LEVELS)
