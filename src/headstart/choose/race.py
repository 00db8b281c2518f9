"""The race: many combinations on few samples, and the best of them on more.

Combinations of one start at one horizon begin at the same states, so that a hundred samples tell which is better.
Between horizons the samples themselves differ, and a hundred of a worse law may be nearer to the data by chance. So

1. **Horizons.** At a few horizons, the kinds of levels and solvers that differ most are tried on few samples, since
   which of them is best depends on the horizon; the best of each horizon is judged by half of all samples, and so are
   the horizons next to the best one.
2. **Around the best.** There every solver is tried on every kind of levels, on few samples (one at a time gets stuck:
   what suits one solver does not suit the next), and at other last levels above 0; the best of each last level is
   judged by half of all samples. Most of these combinations take the same first steps, whose evaluations are shared.
3. **Finals.** The best few of these, and the best at other horizons, if they are not surely worse, are judged by all
   samples. Samples of one stage are the first of the next. Scores by unlike numbers of samples do not compare, so that
   only finalists have a final one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from headstart.choose.constraints import Constraints
from headstart.choose.levels import SIGMA_MINS, one_level
from headstart.choose.pilot import Pilot
from headstart.choose.screen import Option, Score, Tails, combined, contenders, varied
from headstart.schedule import Rule, Schedule, Tangent
from headstart.solver import get_solver

__all__ = ["better", "lowest", "race", "tied", "winner"]

#: Horizons that the first round looks at, from the shortest one that is admissible to this many times it.
ROUND, REACH = 5, 16.0

#: What each of them is tried with, besides the "defect" schedule with DPM-Solver++(2M): solvers that extrapolate more,
#: and a last level so high that the step to 0 is one that extrapolates, as a share of the horizon.
LEADS: tuple[tuple[Rule, str, float | None], ...] = (
    (Tangent(), "unipc", None),
    (Tangent(), "dpm++3m", None),
    (Tangent(), "unipc", 0.4),
)

#: High last levels that are looked at, as shares of the horizon, besides low ones in units of the data.
SHARES = (0.25, 0.4)

#: Finalists of the best horizon, and of others.
ALIKE, OTHERS = 3, 2

#: Standard errors of a difference up to which two scores are indistinguishable.
ERRORS = 2.0

#: Nats of a start's error that are not seen.
VISIBLE = 1.0


def race(
    pilot: Pilot, options: Sequence[Option], tails: Tails, constraints: Constraints
) -> tuple[Option, list[Option]]:
    """The best combination, and all that were piloted.

    Arguments:
        pilot: draws and scores samples.
        options: what was screened.
        tails: judges the starts' tails.
        constraints: what the user fixed.
    """
    rounds = _Rounds(pilot, options, tails, constraints)
    half = max(pilot.few, pilot.count // 2)
    judged = pilot(rounds.horizons(), half)
    judged += pilot(rounds.nearby(winner(judged)), half)
    best = winner(judged)
    here = _left(pilot(rounds.around(best), half))
    there = [option for option in _left(judged) if option.place != best.place]
    finalists = pilot([*here[:ALIKE], *there[:OTHERS]], pilot.count)
    final = {option.key: option for option in finalists}
    return winner(finalists), [final.get(option.key, option) for option in rounds.piloted]


class _Rounds:
    """The rounds of few samples."""

    def __init__(self, pilot: Pilot, options: Sequence[Option], tails: Tails, constraints: Constraints) -> None:
        self.pilot, self.options, self.constraints = pilot, options, constraints
        self.by_horizon = contenders(options, tails)
        self.piloted: list[Option] = []

    def horizons(self) -> list[Option]:
        """The best lead at each of a few horizons; and of the starts without a density at the same ones."""
        spread = _spread(self.by_horizon, ROUND)
        known = {option.schedule.horizon for option in spread}
        unknown = [o for o in self.options if not (o.start.tractable or o.start.oracle)]
        unknown = [o for o in unknown if o.schedule.horizon in known and o not in spread]
        tried = self._try(self._varied(o, **lead) for o in (*spread, *unknown) for lead in self._leads(o))
        places = dict.fromkeys(option.place for option in tried)
        return [lowest([option for option in tried if option.place == place]) for place in places]

    def nearby(self, best: Option) -> list[Option]:
        """The same at the horizons next to its own, with the same share of the horizon as its last level, if high."""
        every = self.by_horizon
        place = min(range(len(every)), key=lambda i: abs(every[i].schedule.horizon - best.schedule.horizon))
        last = best.schedule.sigma_min
        share, found = last / best.schedule.horizon, []
        for near in every[max(place - 1, 0) : place + 2]:
            horizon = near.schedule.horizon
            alike: dict[str, Any] = {"kind": best.kind, "solver": best.solver}
            if self._last_is_free(near):
                wanted = share * horizon if share >= SHARES[0] else min(last, horizon / 2)
                alike["sigma_min"] = max(wanted, near.schedule.sigma_min)
            if horizon != best.schedule.horizon:
                found.append(self._varied(near, **alike))
        return self._try(found)

    def around(self, best: Option) -> list[Option]:
        """The best of each last level, with its start and horizon."""
        self._kinds(best)
        if self._last_is_free(best):
            horizon, usual = best.schedule.horizon, [s * self.pilot.profile.core for s in SIGMA_MINS[:2]]
            lasts = [*usual, *(share * horizon for share in SHARES)]
            known = [last for last in lasts if self.pilot.profile.sigmas[-1] < last < horizon / 2]
            leads = [{}, *(self._leads(best)[1:2])]
            before = lowest(self._alike(best))
            self._try(self._varied(before, **{**lead, "sigma_min": last}) for last in known for lead in leads)
        alike = self._alike(best)
        found = dict.fromkeys(option.schedule.sigma_min for option in alike)
        return [lowest([option for option in alike if option.schedule.sigma_min == last]) for last in found]

    def _kinds(self, option: Option) -> None:
        """Every solver on every kind of levels, at its horizon and last level."""
        self._try(combined(self.pilot.profile, option, self.constraints))

    def _alike(self, option: Option) -> list[Option]:
        """All that was piloted with its start and horizon."""
        return [other for other in self.piloted if other.place == option.place]

    def _last_is_free(self, option: Option) -> bool:
        """Whether a combination has a last level above 0 below its horizon, and it may be chosen."""
        c = self.constraints
        return c.sigma_min is None and not isinstance(c.schedule, Schedule) and option.schedule.steps > 1

    def _leads(self, option: Option) -> list[dict[str, Any]]:
        """The kinds, solvers and last levels that a horizon is first tried with, where they are free."""
        leads: list[dict[str, Any]] = [{}]
        for kind, name, share in LEADS:
            lead: dict[str, Any] = {}
            if not one_level(option.schedule) and self.constraints.solver is None:
                lead["solver"] = get_solver(name)
            if not one_level(option.schedule) and not isinstance(self.constraints.schedule, (Rule, Schedule)):
                lead["kind"] = kind
            if share is not None and self._last_is_free(option):
                lead["sigma_min"] = max(share * option.schedule.horizon, option.schedule.sigma_min)
            if lead not in leads:
                leads.append(lead)
        return leads

    def _varied(self, option: Option, **changes: Any) -> Option:
        return varied(self.pilot.profile, option, **changes)

    def _try(self, options: Iterable[Option]) -> list[Option]:
        """The options with their scores by few samples, of which those are drawn that are new."""
        wanted = {option.key: option for option in options}
        seen = {option.key for option in self.piloted}
        self.piloted += self.pilot(option for key, option in wanted.items() if key not in seen)
        known = {option.key: option for option in self.piloted}
        return [known[key] for key in wanted]


def _left(options: Sequence[Option]) -> list[Option]:
    """The options that are not worse than the best of them by more than three standard errors, the best first."""
    best = _known(lowest(options))
    near = [o for o in options if _known(o).value - best.value <= 3 * best.gap(_known(o))]
    return sorted(near, key=_score)


def _known(option: Option) -> Score:
    score = option.best_known
    assert score is not None, "what is compared was piloted"
    return score


def _score(option: Option) -> float:
    return _known(option).value


def tied(option: Option, other: Option) -> bool:
    """Whether two combinations are statistically indistinguishable by the pilot, on as many samples of each."""
    if option.final is not None and other.final is not None:
        return option.final.tied(other.final, ERRORS)
    return option.pilot is not None and other.pilot is not None and option.pilot.tied(other.pilot, ERRORS)


def better(option: Option, other: Option) -> bool:
    """Whether all samples of a combination are surely nearer to the data than those of another one."""
    mine, others = option.final, other.final
    return mine is not None and others is not None and others.value - mine.value > ERRORS * mine.gap(others)


def lowest(options: Sequence[Option]) -> Option:
    """The piloted option with the smallest distance, the first of equals."""
    return min(options, key=_score)


def winner(options: Sequence[Option]) -> Option:
    """The best option.

    Of all that are statistically indistinguishable from the best score, those are kept whose start errs least: one nat
    of its error is visible structure, where tens of nats of discretization are imperceptible detail. Of these it is the
    one with the shortest horizon, since a longer way down only adds to the network's own error, and of one horizon the
    one with the highest last level.

    Errors of starts are equal up to a nat, or up to the standard error of their difference on the same data where that
    is more.
    """
    best = lowest(options)
    equals = [option for option in options if option is best or tied(option, best)]
    known = [option for option in equals if option.start.tractable] or equals
    least = min(known, key=lambda option: option.e_init)
    alike = [option for option in known if _e_init(option) <= _e_init(least) + _hidden(option, least)]
    return min(alike, key=lambda option: (option.schedule.horizon, -option.schedule.sigma_min))


def _e_init(option: Option) -> float:
    """A start's error; below 0 it is the network that errs."""
    return max(option.e_init, 0.0)


def _hidden(option: Option, least: Option) -> float:
    """The nats by which a start may err more than another and count as good."""
    if option.errors is None or least.errors is None:
        return VISIBLE
    gaps = option.errors - least.errors
    return max(VISIBLE, float(gaps.std()) / math.sqrt(len(gaps)))


def _spread(options: Sequence[Option], count: int) -> list[Option]:
    """At most ``count`` of the options, from the smallest horizon to :data:`REACH` times it, evenly by rank."""
    near = [o for o in options if o.schedule.horizon <= REACH * options[0].schedule.horizon]
    places = np.unique(np.linspace(0, len(near) - 1, min(count, len(near))).round().astype(int))
    return [near[i] for i in places]
