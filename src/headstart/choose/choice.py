"""The choice of the plans of one fit, for each number of evaluations: what they share, and what decides."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from torch import Tensor

from headstart.choose.conditioning import conditioning
from headstart.choose.constraints import Constraints
from headstart.choose.cost import cost_of
from headstart.choose.learn import learn
from headstart.choose.levels import SHORTEST, horizon_range, nearest_horizon, one_level, unseen_detail
from headstart.choose.pilot import Pilot, turned
from headstart.choose.race import better, race, tied
from headstart.choose.screen import (
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
from headstart.choose.starts import Starts, fit_starts, refitted
from headstart.compute import Compute
from headstart.conditions import Split, leaves, to_device
from headstart.errors import InputError
from headstart.initialization import Initialization, Training
from headstart.metrics import Novelty, novelty
from headstart.metrics.novelty import BLOCKS
from headstart.plan import Candidate, Plan, Record
from headstart.profile import Profile
from headstart.schedule import Distilled

__all__ = ["UNSEEN", "Choice"]

#: Samples that the cost of a start is counted on.
TIMED = 64

#: Share of the data that is held out from a start at least, for the start to be fitted again with it.
WORTH = 0.1

#: Samples of the novelty test.
NOVEL = 256

#: Training samples that the novelty test looks at: copies of others go unseen, and its time grows with their square.
TESTED = 60_000

#: And the numbers in them, where each has many.
TESTED_NUMBERS = 2**26

#: Why a part is as usual.
TOO_FEW = "too few data to choose by"

#: What is wrong with a single evaluation, also if it is all that a start leaves.
UNSEEN = "a budget in nats leaves out the step to 0, which is all that one evaluation does: use a pilot"


@dataclass(frozen=True, eq=False)
class Choice:
    """All that the plans of one fit share: the data, the measurements, the fitted starts and the pilot's samples.

    Attributes:
        split: the data.
        initialization: the starts to choose from, as :func:`headstart.fit` takes them.
        training: how those are trained that are.
        start_cost: of a start that is not in closed form, in evaluations, or None to count it.
        by_rule: whether the horizon was found by the unimodality rule.
        pilot: draws and scores samples; it has the network and its profile.
        tails: judges the starts' tails.
        record: what the records of all plans say.
        unchosen: the parts that are as usual since the data are too few to choose them by.
        test_novelty: whether samples are tested for copies of the data.
    """

    split: Split
    initialization: Starts
    training: Training | None
    start_cost: float | None
    by_rule: bool
    pilot: Pilot
    tails: Tails
    record: Record
    unchosen: tuple[str, ...] = ()
    test_novelty: bool = True
    _fitted: dict[str | None, list[Initialization]] = field(default_factory=dict)
    _costs: dict[int, float] = field(default_factory=dict)
    _whole: dict[int, Initialization] = field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        """The measurements of the network."""
        return self.pilot.profile

    @property
    def compute(self) -> Compute:
        """How the work is done."""
        return self.pilot.compute

    def plans(self, every: Sequence[Constraints], began: float) -> list[Plan]:
        """A plan for each of the constraints, in their order; those that cost less are chosen first.

        Where the pilot finds a cheaper one of them better, it takes the other's place.

        Arguments:
            every: the constraints, which differ in their evaluations alone.
            began: when fitting began, by :func:`time.perf_counter`.
        """
        shared = time.perf_counter() - began
        found: dict[int, Plan] = {}
        best: Option | None = None
        for place in sorted(range(len(every)), key=lambda i: every[i].evaluations):
            began = time.perf_counter() - shared
            found[place], best = self._plan(every[place], began, best)
        return [found[place] for place in range(len(every))]

    def _plan(self, constraints: Constraints, began: float, cheaper: Option | None) -> tuple[Plan, Option]:
        """The plan, and the option that it was made of."""
        options = self._screened(constraints)
        fixed = {"initialization": len({id(option.start) for option in options}) == 1, **constraints.fixed}
        best, looked_at, learned = self._decided(constraints, options, all(fixed.values()))
        if cheaper is not None and better(cheaper, best):
            best, looked_at = cheaper, [*looked_at, cheaper]
        chosen = _reasons(best, fixed, self.record.criterion, learned)
        if self.by_rule:
            chosen["horizon"] = "by the unimodality rule"
        chosen |= dict.fromkeys(self.unchosen, TOO_FEW)
        final = turned(self.profile, best)
        record = replace(
            self.record,
            candidates=_records(options, looked_at, best, self.tails),
            chosen=chosen,
            start_cost=self._cost(best.start),
            novelty=self._novelty(best),
            fit_seconds=time.perf_counter() - began,
            conditioning=conditioning(self.split, self.profile, [option.start for option in options], best),
            doubts=self.record.doubts + unseen_detail(self.split.whole.samples, final.schedule),
        )
        start = self._on_all_data(final.start)
        return Plan(start, final.schedule, final.solver, final.budget, self.profile, record), best

    def _screened(self, constraints: Constraints) -> list[Option]:
        """The options to choose from, screened in nats."""
        options = self._of(self.initialization, constraints)
        if self.initialization is None:
            nearest = min((o for o in options if o.start.name == "gaussian"), key=lambda o: _distance(o, options))
            if self.profile.core < self.profile.sigma_data or not reaches(self.tails(nearest)):
                options += self._of("student-t", constraints)
        if self.record.criterion == "budget":
            seen = [option for option in options if option.schedule.sigmas[1] > 0]
            if not seen:
                raise InputError(_costly(options, self._cost, constraints) + UNSEEN)
            return seen
        return options

    def _of(self, families: Starts, constraints: Constraints) -> list[Option]:
        """The starts of these families, fitted once, and screened."""
        if (key := families if isinstance(families, str) else None) not in self._fitted:
            self._fitted[key] = fit_starts(
                self.split.fitted.samples,
                families,
                self.split.fitted.label,
                self.record.seed,
                self.compute.progress,
                training=self.training,
                sigmas=horizon_range(self.profile.sigma_data, constraints.sigma_T, self.profile.core, self._nearest),
                device=self.compute.device,
                work=self.pilot.work,
                conditions=self.split.fitted.conditions,
                denoiser=self.pilot.denoiser,
            )
        starts = self._fitted[key]
        costs = {id(start): self._cost(start) for start in starts if not start.closed_form}
        return screen(self.profile, starts, costs, constraints, self._nearest)

    @cached_property
    def _nearest(self) -> float:
        """The shortest horizon to look at: classes share out the data, and other conditions are numbers too.

        The budget alone is shown shorter ones: it sees by the held-out data what a start does not know there.
        """
        if self.record.criterion == "budget":
            return SHORTEST
        fitted = self.split.fitted
        classes = 1 if fitted.label is None else len(set(fitted.label.tolist()))
        told = [leaf for name, tree in fitted.conditions.items() if name != "label" for leaf in leaves(tree)]
        numbers = math.prod(self.profile.shape) + sum(leaf[0].numel() for leaf in told if isinstance(leaf, Tensor))
        return nearest_horizon(len(fitted) / classes, numbers)

    def _on_all_data(self, start: Initialization) -> Initialization:
        """A start of the same family and size that is fitted on the held-out data too; one that was given stays."""
        given, whole = self.initialization, self.split.whole
        if len(self.split.held_out_rows) < WORTH * len(whole):
            return start
        if start is given or (isinstance(given, Sequence) and any(start is each for each in given)):
            return start
        if id(start) not in self._whole:
            self.compute.progress.note(f"fitting the {start.name} start on all data")
            again = partial(refitted, start, whole.samples, whole.label, self.record.seed, conditions=whole.conditions)
            self._whole[id(start)] = self.pilot.work.kept(
                f"whole-{start.name}", again, lambda own, path: own.save(path), Initialization.load
            )
        return self._whole[id(start)]

    def _cost(self, start: Initialization) -> float:
        """The cost of drawing a start, in evaluations: as given, if it is not in closed form, or counted."""
        if self.start_cost is not None and not start.closed_form:
            return self.start_cost
        if id(start) not in self._costs:
            timed = self.split.held_out.take(slice(0, min(TIMED, self.compute.batch_size)))
            low, high = start.sigmas
            sigma = min(max(self.profile.sigma_data, low), high, float(self.profile.sigmas[0]))
            conditions = to_device(timed.conditions, self.compute.device)
            compute = (self.compute.device, self.compute.dtype)
            self._costs[id(start)] = cost_of(start, self.pilot.denoiser, sigma, len(timed), conditions, *compute)
        return self._costs[id(start)]

    def _decided(
        self, constraints: Constraints, options: Sequence[Option], settled: bool
    ) -> tuple[Option, list[Option], str | None]:
        """The best option, all that were looked at, and how its levels were learned."""
        if self.record.criterion == "budget":
            looked_at = [least(combined(self.profile, o, constraints)) for o in contenders(options, self.tails)]
            best = largest_tied(looked_at)
        elif settled and not constraints.distilled:
            best, looked_at = self.tails(options[0]), []
        else:
            best, looked_at = race(self.pilot, options, self.tails, constraints)
        if not constraints.distilled:
            return best, looked_at, None
        best, more, learned = learn(self.pilot, best, options, self.tails, self.split)
        return best, looked_at + more, learned

    def _novelty(self, best: Option) -> Novelty | None:
        """The test of its samples for copies of the data that its start was fitted on, where these are enough."""
        fitted, held_out = self.split.fitted, self.split.held_out
        if not self.test_novelty or len(fitted) < BLOCKS or len(held_out) < 2 * BLOCKS:
            return None
        drawn = self.pilot.samples(best, min(NOVEL, self.pilot.count))
        known = fitted.samples[: max(BLOCKS, min(TESTED, TESTED_NUMBERS // math.prod(self.profile.shape)))]
        return novelty(drawn, known, held_out.samples, seed=self.record.seed, progress=self.compute.progress)


def _costly(options: Sequence[Option], cost: Callable[[Initialization], float], constraints: Constraints) -> str:
    """How the cost of drawing the starts left the solver a single evaluation, in words."""
    dear = {option.start.name: f"{cost(option.start):.2g}" for option in options if not option.start.closed_form}
    costs = ", ".join(f"a {name} start costs {evaluations}" for name, evaluations in dear.items())
    asked = f"and {constraints.evaluations} are asked for (see start_cost), so that the solver has a single one"
    return f"drawing {costs} evaluations, {asked}: " if costs else ""


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


def _distance(option: Option, options: Sequence[Option]) -> float:
    """How far its horizon is from the shortest one that is admissible, in logarithms."""
    shortest = min(o.schedule.horizon for o in admissible(options))
    return abs(math.log(option.schedule.horizon / shortest))


def _records(
    options: Sequence[Option], looked_at: Sequence[Option], best: Option, tails: Tails
) -> tuple[Candidate, ...]:
    """All that was looked at, screened first, with what cannot be told from the best of it."""
    again = {option.key: option for option in looked_at}
    screened = [again.pop(option.key, option) for option in options]
    every = [replace(option, tail=tails.known.get(option.place)) for option in (*screened, *again.values())]
    same = [option for option in every if option.start is best.start]
    level = {id(option) for option in equivalent(same, least(same))}
    return tuple(option.record(id(option) in level, tied(option, best)) for option in every)
