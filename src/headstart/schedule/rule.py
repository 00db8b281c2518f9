r"""Rules of levels as values: ``rule(profile, steps, horizon, sigma_min, solver)`` is a schedule.

A rule says how the levels between a horizon and a last level above 0 follow from the measurements of a network, or from
nothing but a formula. Its name and its parameters are written as words, and read from them in one place:

>>> get_rule("rho 3")
Rho(rho=3.0)
>>> str(get_rule("rho 3")), str(get_rule("rho"))
('rho 3', 'rho')

Schedules that take more than a profile (trajectories, or an optimisation) have a :class:`Kind` and no rule: their names
say what to cite.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from headstart.errors import InputError, unknown
from headstart.registry import Registry
from headstart.schedule.base import Schedule

if TYPE_CHECKING:
    from headstart.schedule.optimal import Length

__all__ = [
    "RULES",
    "Custom",
    "Kind",
    "Measured",
    "Rule",
    "Solved",
    "get_rule",
    "rule_names",
    "split_name",
    "usual_rules",
]


class Solved(Protocol):
    """The part of :class:`headstart.trajectory.Trajectories` that a rule uses."""

    def follows(self, solver: Any) -> bool:
        """Whether the error of this solver is known from them."""

    def least_error(self, solver: Any, steps: int, horizon: float, sigma_min: float) -> Schedule:
        """The grid on which this solver errs least."""


class Measured(Protocol):
    """The part of :class:`headstart.profile.Profile` that a rule uses."""

    @property
    def sigma_data(self) -> float:
        """The standard deviation of the data."""

    @property
    def trajectories(self) -> Solved | None:
        """Fine trajectories, if they were followed."""

    def length(self, cost: str, exponent: float | None = None) -> Length:
        """The length by a measured cost."""


class Kind:
    """A kind of schedule: how the names of its schedules begin, and what to cite for them.

    Attributes:
        name: with underscores for spaces and hyphens, in lower case; a schedule's name has parameters after it.
        cites: keys of ``references.bib``, or whole BibTeX entries.
    """

    name: ClassVar[str]
    cites: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def cited(cls, *parameters: str) -> tuple[str, ...]:
        """The references of the schedule whose name ends in these parameters."""
        return cls.cites


@dataclass(frozen=True)
class Rule(Kind, ABC):
    """A kind of schedule that follows from a profile. A subclass writes :meth:`levels`; its parameters, if it has any,
    are the fields of a frozen dataclass: numbers, or None for what the profile says.

    Attributes:
        usual: whether a fit tries it where no schedule is asked for.
        by_solver: whether its levels differ by solver.
    """

    usual: ClassVar[bool] = False
    by_solver: ClassVar[bool] = False

    def __call__(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any = None) -> Schedule:
        """The schedule, with a last step to 0.

        Arguments:
            profile: what was measured.
            steps: number of steps.
            horizon: the first level.
            sigma_min: the last level above 0.
            solver: whose error is to be least, DPM-Solver++(2M) by default; most rules do not ask.

        Raises:
            InputError: if the levels are out of order or were not measured, or steps is below 1.
        """
        if not horizon > sigma_min > 0:
            raise InputError(
                f"the horizon must lie above sigma_min, and that above 0: got {horizon:.6g} and {sigma_min:.6g}"
            )
        return self.levels(profile, steps, horizon, sigma_min, solver)

    @abstractmethod
    def levels(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any) -> Schedule:
        """The schedule, of levels that are in order. See :meth:`__call__`."""

    def fits(self, profile: Measured, solver: Any) -> bool:
        """Whether the profile holds all that it needs for this solver."""
        return True

    def __str__(self) -> str:
        """Its name and the parameters that differ from the defaults, as :func:`get_rule` reads them."""
        values = [(getattr(self, field.name), field.default) for field in fields(self)]
        return " ".join([self.name, *(f"{value:.12g}" for value, default in values if value != default)])

    @classmethod
    def read(cls, parameters: Sequence[str]) -> Rule:
        """The rule with these parameters.

        Raises:
            InputError: if they are too many or no numbers, or out of their range.
        """
        known = [field.name for field in fields(cls)]
        if len(parameters) > len(known):
            takes = f"takes {' and '.join(known)} at most" if known else "takes no parameters"
            raise InputError(f"the schedule {cls.name!r} {takes}: got {' '.join(parameters)!r}")
        try:
            values = [float(parameter) for parameter in parameters]
        except ValueError as error:
            raise InputError(f"the parameters of {cls.name!r} are numbers: got {' '.join(parameters)!r}") from error
        return cls(*values)


RULES: Registry[type[Kind]] = Registry(
    "schedule",
    "headstart.schedule",
    "headstart.schedules",
    first=("defect", "corrector", "rho", "tangent", "least_error", "log_linear", "cosine", "linear_vp"),
)
"""The kinds of schedule by name; those that can be asked for by it are :class:`Rule`."""


@RULES.register
class Custom(Kind):
    """Levels that the user gave."""

    name = "custom"


def get_rule(rule: str | Rule) -> Rule:
    """The rule of that name, with the parameters that follow it; a rule is returned as it is.

    Raises:
        InputError: if there is no rule of that name, or its parameters are not right.

    >>> get_rule("linear VP"), get_rule("tangent 0.5")
    (LinearVP(), Tangent(scale=0.5))
    """
    if isinstance(rule, Rule):
        return rule
    kind, parameters = split_name(rule)
    if kind is None or not issubclass(kind, Rule):
        raise InputError(unknown("schedule", rule, rule_names()))
    return kind.read(parameters)


def split_name(name: str) -> tuple[type[Kind] | None, tuple[str, ...]]:
    """The kind of schedule that a name stands for, or None, and the words after it, its parameters.

    >>> split_name("log-linear")
    (<class 'headstart.schedule.classic.LogLinear'>, ())
    >>> split_name("rhombic")
    (None, ('rhombic',))
    """
    words = tuple(name.split())
    known = {_plain(kind): part for kind, part in RULES.items()}
    for count in range(len(words), 0, -1):
        if (kind := known.get(_plain("_".join(words[:count])))) is not None:
            return kind, words[count:]
    return None, words


def _plain(name: str) -> str:
    """The name as it is said: the rule "log_linear" makes a schedule called "log-linear"."""
    return re.sub("[-_]", "_", name).casefold()


def rule_names() -> tuple[str, ...]:
    """The names of the rules that ``fit`` and the command line accept."""
    return tuple(name for name, kind in RULES.items() if issubclass(kind, Rule))


def usual_rules() -> tuple[Rule, ...]:
    """The rules that a fit tries where no schedule is asked for, the first one first."""
    return tuple(kind() for kind in RULES.values() if issubclass(kind, Rule) and kind.usual)
