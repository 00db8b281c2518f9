"""The levels on which a solver errs least, by fine trajectories: :mod:`headstart.trajectory` finds them."""

from __future__ import annotations

from typing import Any

from headstart.errors import InputError
from headstart.schedule.base import Schedule
from headstart.schedule.rule import RULES, Measured, Rule

__all__ = ["LeastError"]


@RULES.register
class LeastError(Rule):
    """The levels on which the solver errs least, by the fine trajectories of a profile."""

    name = "least_error"
    cites = ("williams2024score",)
    usual = True
    by_solver = True

    def fits(self, profile: Measured, solver: Any) -> bool:
        return profile.trajectories is not None and profile.trajectories.follows(solver)

    def levels(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any) -> Schedule:
        if profile.trajectories is None:
            raise InputError(
                f"the profile has no trajectories, which {self.name!r} needs: measure it on levels closer to each other"
            )
        return profile.trajectories.least_error(solver, steps, horizon, sigma_min)
