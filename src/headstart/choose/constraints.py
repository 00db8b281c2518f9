"""The constraints of a fit: what the user fixed of a plan, checked against itself, and what is left to choose."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal, TypeAlias

from headstart.choose.levels import far_horizon, usual_last, with_exponent
from headstart.deprecation import renamed
from headstart.errors import InputError, unknown
from headstart.profile import Profile
from headstart.schedule import Rho, Rule, Schedule, get_rule, rho_grid, usual_rules
from headstart.solver import USUAL_SOLVERS, Solver, get_solver, is_linear

__all__ = ["DISTILLED", "MOST_NFE", "Constraints", "Levels", "named_criterion", "named_levels"]

#: A name of an earlier version.
__getattr__ = renamed(__name__, {"asked_levels": "headstart.choose.constraints:named_levels"})

#: In place of a schedule or a rule: learn levels and coefficients, from the best of the usual ones.
DISTILLED: Literal["distilled"] = "distilled"

Levels: TypeAlias = "Rule | Schedule | Literal['distilled'] | None"

#: Evaluations of a plan where none are asked for, and the most that can be.
USUAL_NFE, MOST_NFE = 4, 1000


def named_levels(schedule: str | Rule | Schedule | None, exponent: float | None) -> Levels:
    """The levels that are asked for, a rule that is named as its value.

    Arguments:
        schedule: a schedule, a rule or its name, "distilled", or None.
        exponent: of the length that a rule cuts, in place of its own.

    Raises:
        InputError: if there is no rule of that name, or an exponent is given and it is no rule that cuts a length.
    """
    if not isinstance(schedule, str | Rule | Schedule | None):
        raise InputError(
            f"a schedule is one of headstart.schedule, a rule or its name: not of type {type(schedule).__name__}"
        )
    levels: Levels = get_rule(schedule) if isinstance(schedule, str) and schedule != DISTILLED else schedule
    if exponent is None:
        return levels
    if not isinstance(levels, Rule):
        raise InputError(f"an exponent is for a schedule cut from a measured length: not {levels or 'for any one'}")
    return with_exponent(levels, exponent)


def named_criterion(criterion: str) -> Literal["pilot", "budget"]:
    """The criterion that is named, "pilot" or "budget"; "nats" is an old name of the latter.

    Raises:
        InputError: if it is neither.
    """
    if not isinstance(criterion, str):
        raise InputError(f"a criterion is named, pilot or budget: it is not of type {type(criterion).__name__}")
    if criterion == "nats":
        warnings.warn('criterion="nats" is now criterion="budget"', DeprecationWarning, stacklevel=5)  # past fit
        return "budget"
    if criterion not in ("pilot", "budget"):
        raise InputError(unknown("criterion", criterion, ("pilot", "budget")))
    return "pilot" if criterion == "pilot" else "budget"


@dataclass(frozen=True)
class Constraints:
    """The parts of a plan that the user fixed; None is chosen.

    Attributes:
        nfe: network evaluations per sample.
        horizon: sigma_T, or "unimodal" for the level that the unimodality rule finds.
        schedule: a schedule, the rule of its levels, or "distilled".
        solver: the solver.
        sigma_min: the last level above 0.
        sigma_max: the highest level that the network knows.

    Raises:
        InputError: if a number is out of its range, a name is unknown, or two of them do not fit each other.
    """

    nfe: int | None = None
    horizon: float | Literal["unimodal"] | None = None
    schedule: Levels = None
    solver: Solver | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.horizon, str) and self.horizon != "unimodal":
            raise InputError(f"unknown horizon {self.horizon!r}: expected a number above 0, or 'unimodal'")
        if self.nfe is not None and not (isinstance(self.nfe, Integral) and 1 <= self.nfe <= MOST_NFE):
            raise InputError(f"a plan needs a whole number of network evaluations, 1 to {MOST_NFE}: nfe is {self.nfe}")
        if isinstance(self.schedule, Schedule):
            self._check_levels(self.schedule)
        for name, level in (("horizon", self.sigma_T), ("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)):
            if level is not None and not isinstance(level, Real):
                raise InputError(f"{name} is of type {type(level).__name__}: expected a number above 0")
            if level is not None and not (0 < level < math.inf or (name == "sigma_max" and level > 0)):
                raise InputError(f"{name} is {level}: it must be above 0 and finite")
        if self.distilled and not all(is_linear(each) for each in self.solvers()):
            raise InputError(
                f"a distilled schedule needs a solver of the ODE with one evaluation a step: not {self.solvers()[0]!r}"
            )

    def _check_levels(self, schedule: Schedule) -> None:
        """Check that nothing else says what a given schedule says."""
        solver = self.solvers()[0]
        cost = solver.nfe(schedule)
        if self.nfe is not None and cost != self.nfe:
            raise InputError(f"{schedule!r} costs {cost} evaluations with {solver.name}, and nfe is {self.nfe}")
        if self.sigma_T is not None and self.sigma_T != schedule.horizon:
            raise InputError(f"the horizon is {self.sigma_T:.6g}, and the schedule starts at {schedule.horizon:.6g}")
        if self.horizon == "unimodal" or self.sigma_min is not None:
            raise InputError(f"{schedule!r} has its horizon and its last level: neither can be asked for beside it")

    @property
    def distilled(self) -> bool:
        """Whether levels and coefficients are to be learned."""
        return self.schedule == DISTILLED

    @property
    def sigma_T(self) -> float | None:  # noqa: N802 - the symbol of the papers
        """The horizon, where it is fixed as a number."""
        if self.horizon is None and isinstance(self.schedule, Schedule):
            return self.schedule.horizon
        return None if isinstance(self.horizon, str) else self.horizon

    @property
    def evaluations(self) -> int:
        """The evaluations that are spent: those asked for, or the most below them that the solver can spend."""
        solver = self.solvers()[0]
        if isinstance(self.schedule, Schedule):
            return solver.nfe(self.schedule)
        return solver.nfe(rho_grid(solver.steps_for(USUAL_NFE if self.nfe is None else self.nfe), 2.0, 1.0))

    @property
    def fixed(self) -> Mapping[str, bool]:
        """Whether each part but the start is fixed, by its name in a plan's record."""
        own_levels = isinstance(self.schedule, Schedule)
        return {
            "horizon": own_levels or self.horizon is not None,
            "schedule": self.schedule is not None,
            "sigma_min": own_levels or self.sigma_min is not None,
            "solver": self.solver is not None,
        }

    @property
    def named(self) -> list[float]:
        """The levels above 0 that the user named."""
        levels = self.schedule.sigmas if isinstance(self.schedule, Schedule) else (self.sigma_T, self.sigma_min)
        return [level for level in levels if level]

    @property
    def levels(self) -> list[float]:
        """The levels that a profile must hold for them."""
        own = list(self.named)
        if isinstance(self.schedule, Schedule):
            return own
        if self.sigma_T is not None and self.sigma_min is None:
            own.append(self.sigma_T / 8)
        if self.sigma_min is not None and self.distilled:
            own.append(self.sigma_min / 4)  # it moves while it is learned
        return own

    def without_choice(self, profile: Profile, count: int) -> Constraints:
        """The same with whatever is free fixed at what is safe, where the data are too few to choose by.

        Arguments:
            profile: the measurements of the network.
            count: samples that the start is fitted on.
        """
        if isinstance(self.schedule, Schedule) or self.distilled:
            return self if self.solver or self.distilled else replace(self, solver=get_solver(USUAL_SOLVERS[0]))
        horizon = self.sigma_T or far_horizon(profile, count, self.sigma_min or 0.0)
        return replace(
            self,
            horizon=horizon,
            schedule=self.schedule or Rho(),
            solver=self.solver or get_solver(USUAL_SOLVERS[0]),
            sigma_min=self.sigma_min or usual_last(profile, horizon),
        )

    def at(self, horizon: float) -> Constraints:
        """The same at this horizon."""
        return replace(self, horizon=horizon)

    def rules(self, solver: Solver, profile: Profile) -> tuple[Rule, ...]:
        """The rules of levels to look at with a solver, the first one first; a distilled schedule begins with any."""
        if isinstance(self.schedule, Schedule):
            return ()
        if isinstance(self.schedule, Rule):
            return (self.schedule,)
        return tuple(rule for rule in usual_rules() if rule.fits(profile, solver))

    def solvers(self) -> tuple[Solver, ...]:
        """The solvers to look at, the first one first."""
        return tuple(map(get_solver, USUAL_SOLVERS)) if self.solver is None else (self.solver,)
