"""The explanation of a plan: what was chosen and why, for a person.

Of the error budget it shows the start's part in nats, and the discretization beside the same estimate for the usual
sampler and for the best plan from noise (:func:`references`). Nats count detail that nobody sees, so the sum of all
parts ranks no plans: what decided is said apart (:func:`decided_by`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headstart.budget import Budget, Estimate, discretization_error
from headstart.initialization import Isotropic
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import LeastError, rho_grid, usual_rules
from headstart.schedule.classic import EDM_DEVIATION, EDM_MAX, EDM_MIN
from headstart.solver import USUAL_SOLVERS, Heun, get_solver, is_linear

if TYPE_CHECKING:
    from headstart.plan.base import Candidate, Plan

__all__ = ["Reference", "decided_by", "explanation", "references", "total"]

#: The most steps that a grid of least error is sought for; with 40, it takes a minute.
DESCENDED = 12


def explanation(plan: Plan) -> str:
    """A few paragraphs of plain text on what was chosen and why."""
    parts = (_choice_lines(plan), _budget_lines(plan), _finding_lines(plan), _decision_lines(plan))
    return "\n\n".join("\n".join(lines) for lines in ([repr(plan)], *parts) if lines)


def _choice_lines(plan: Plan) -> list[str]:
    equivalent = ""
    if plan.equivalent is not None and plan.equivalent[0] < plan.equivalent[1]:
        equivalent = f"; as good from {plan.equivalent[0]:.3g} to {plan.equivalent[1]:.3g}"
    return [
        f"Start      {plan.initialization!r} at sigma_T = {plan.horizon:.3g}"
        f"{_why(plan, 'initialization', 'horizon')}{equivalent}",
        f"Levels     {plan.schedule!r}{_why(plan, 'schedule', 'sigma_min')}",
        f"Solver     {plan.solver!r}, {plan.nfe} network evaluation{'s' * (plan.nfe != 1)}{_why(plan, 'solver')}",
    ]


def _budget_lines(plan: Plan) -> list[str]:
    if plan.budget is None:
        return []
    e_init, steps = plan.budget.initialization, plan.budget.discretization
    lines = [
        f"Error budget, in nats over {math.prod(plan.profile.shape)} dimensions:",
        f"  E_init           {'not known: the start has no density' if e_init is None else repr(e_init)}",
        f"  discretization   {number_of(total(steps)):<9} this plan{_by_step(steps)}, by {_estimate_of(plan)}",
    ]
    for name, reference in references(plan).items():
        sampler = reference.sampler
        how = f"{sampler.schedule.name} levels from {sampler.horizon:.3g}, {sampler.solver.name}"
        how += "" if is_linear(sampler.solver) else "; by Euler's steps"
        lines.append(f"                   {number_of(reference.nats):<9} {name} ({how})")
    if e_init is not None and e_init.value < -2 * e_init.error:
        lines.append("  Below 0: at this horizon the start models the noised data better than the network does.")
    return lines


def _by_step(steps: Sequence[float]) -> str:
    return f" ({', '.join(f'{k:.2g}' for k in steps)} by step)" if len(steps) > 1 else ""


def number_of(nats: float) -> str:
    """A number of nats without an exponent: three digits, and whole ones above."""
    return f"{nats:.0f}" if nats >= 999.5 else f"{nats:.3g}"


def _estimate_of(plan: Plan) -> str:
    """Which steps the estimate is of (:func:`headstart.budget.discretization_error`)."""
    known = is_linear(plan.solver) and plan.profile.trajectories is not None
    return "its solver's own steps" if known else "Euler's steps on its levels"


@dataclass(frozen=True)
class Reference:
    """A sampler that the discretization of a plan is compared with.

    Attributes:
        sampler: the sampler.
        nats: its discretization error, as :func:`total`.
    """

    sampler: Sampler
    nats: float


def total(steps: Sequence[float]) -> float:
    r"""The discretization error of all steps, :math:`(\sum_i \sqrt{K_i})^2` nats: the budget of a perfect start."""
    return Budget(None, tuple(steps)).total


def references(plan: Plan) -> dict[str, Reference]:
    r"""The samplers that the discretization of a plan is compared with, by their names for a person.

    * EDM's Heun with 35 evaluations, on 18 steps of the rho 7 grid from 80 down to 0.002 for images of standard
      deviation 1/2: in units of the data, and as far as the profile goes. Two evaluations a step have no estimate of
      their own (:func:`headstart.budget.discretization_error`); the one for them is by the defect of Euler's steps on
      the same levels.
    * The best plan from noise: N(0, sigma^2) at the same highest level, with as many evaluations as the plan and its
      last level, by whichever of the usual schedules and solvers has the least estimate. Plans of one evaluation have
      no step above 0, and nothing to compare.

    All of it follows from the profile: nothing is stored, and the network is not called. It takes a few seconds at
    most: with more than 12 evaluations, where the descent to the least error takes longer, its grids are left out.
    """
    profile, start = plan.profile, Isotropic(plan.profile.shape)
    high, low, unit = float(profile.sigmas[0]), float(profile.sigmas[-1]), profile.sigma_data / EDM_DEVIATION
    high, low = min(high, EDM_MAX * unit), max(low, EDM_MIN * unit)
    found = {"EDM's Heun, 35 evaluations": _reference(profile, Sampler(start, rho_grid(18, high, low), Heun()))}
    last = plan.schedule.sigma_min
    if plan.nfe > 1 and last < high:
        samplers = [
            Sampler(start, rule(profile, plan.nfe, high, last, solver), solver)
            for solver in map(get_solver, USUAL_SOLVERS)
            for rule in usual_rules()
            if rule.fits(profile, solver) and not (isinstance(rule, LeastError) and plan.nfe > DESCENDED)
        ]
        best = min((_reference(profile, sampler) for sampler in samplers), key=lambda reference: reference.nats)
        found[f"the best from noise, {plan.nfe} evaluations"] = best
    return found


def _reference(profile: Profile, sampler: Sampler) -> Reference:
    return Reference(sampler, total(discretization_error(profile, sampler.schedule, sampler.solver)))


def decided_by(plan: Plan) -> Literal["pilot", "budget", "user"]:
    """The judge of the candidates: the pilot, the budget, or the user, who then asked for every part."""
    if plan.record.criterion == "budget":
        return "budget" if "by budget" in plan.record.chosen.values() else "user"
    return "pilot" if any(candidate.pilot is not None for candidate in plan.record.candidates) else "user"


def _finding_lines(plan: Plan) -> list[str]:
    lines = []
    own = (plan.initialization.name, plan.horizon)
    tails = [c.tail for c in plan.record.candidates if (c.initialization, c.horizon) == own and c.tail is not None]
    if tails:
        lines.append(f"Tails      far quantiles of the start are {math.exp(tails[0]):.3g} times the noised data's")
    if plan.record.start_cost > 0:
        taken = "" if plan.initialization.closed_form else ", to the nearest whole number taken off what was asked for"
        lines.append(f"Cost       drawing a start costs {plan.record.start_cost:.2g} network evaluations{taken}")
    if plan.record.novelty is not None:
        lines.append(f"Novelty    {plan.record.novelty!r}")
        if plan.record.novelty.memorising:
            lines.append("           Its samples know the data that the start was fitted on: they may be copies.")
    lines += _conditioning_lines(plan)
    if plan.record.guidance is not None:
        calls = f"{plan.network_calls} calls of the network a sample"
        lines.append(f"Guidance   {plan.record.guidance}: {calls}; fitted and judged on samples of the guided sampler")
    if (latents := plan.record.latents) is not None:
        lines.append(f"Latents    samples are decoded by {latents.spec or 'what it is given: with_latents(...)'}")
    lines += [f"Doubt      {doubt}" for doubt in plan.record.doubts]
    if plan.initialization.oracle:
        lines.append("Oracle     This start hands back training data through noise: for comparison only.")
    if plan.record.source != "data":
        lines.append(f"Fitted on  {plan.record.source}")
    return lines


def _conditioning_lines(plan: Plan) -> list[str]:
    """Lines on what the start knows of the conditions, and on what it costs to ignore them at its horizon."""
    found = plan.record.conditioning
    if found is None:
        return []
    ignored = f"; it ignores {', '.join(found.ignores)}" if found.ignores else ""
    lines = [f"Knows      {', '.join(found.knows) or 'nothing of the conditions'}{ignored}"]
    if found.information is not None:
        nats = repr(Estimate(*found.information))
        would = "a start that ignored the conditions would pay" if found.knows else "ignoring the conditions costs it"
        lines.append(f"           At this horizon {would} {nats} nats more.")
    return lines


def _decision_lines(plan: Plan) -> list[str]:
    compared = [c for c in plan.record.candidates if c.pilot is not None]
    decided = decided_by(plan)
    if decided == "user":
        return ["Decided by the user."] if plan.record.chosen else []
    if decided == "budget":
        return [f"Decided by the budget, the least of {len(plan.record.candidates)} candidates."]
    finalists = [c for c in compared if c.final is not None]
    lines = [
        f"Decided by a pilot of {len(compared)} candidates (distance to held-out data; of those that are as good as "
        "the first, up to chance, the one with the best start, and then with the shortest horizon):"
    ]
    ranked = sorted(finalists or compared, key=lambda c: c.rank)
    for c in [c for i, c in enumerate(ranked) if i < 5 or _is_chosen(plan, c)]:
        start = "" if c.e_init is None else f": E_init {c.e_init:.2f}"
        turn = f" turned by {c.turn:g}" if c.turn else ""
        lines.append(
            f"  {c.final or c.pilot:.4f}  {c.initialization} at {c.horizon:.3g}, {c.schedule} to {c.sigma_min:.3g}, "
            f"{c.solver}{turn}{start}{' (chosen)' if _is_chosen(plan, c) else ''}"
        )
    return lines


def _is_chosen(plan: Plan, candidate: Candidate) -> bool:
    """Whether the plan was made of a candidate: by its start, its levels, and its solver unless that was turned."""
    start, levels = (plan.initialization.name, plan.horizon), plan.schedule
    return (
        start == (candidate.initialization, candidate.horizon)
        and levels.sigma_min == candidate.sigma_min
        and levels.name.startswith(candidate.schedule)
        and (candidate.turn != 0 or plan.solver.name == candidate.solver)
    )


def _why(plan: Plan, *parts: str) -> str:
    reasons = [plan.record.chosen[part] for part in parts if part in plan.record.chosen]
    if len(set(reasons)) == 1:
        return f" ({' and '.join(parts)} {reasons[0]})"
    said = [f"{part} {reason}" for part, reason in zip(parts, reasons, strict=False)]
    return f" ({', '.join(said)})" if said else ""
