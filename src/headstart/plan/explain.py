"""The explanation of a plan: what was chosen and why, for a person."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headstart.solver import is_linear

if TYPE_CHECKING:
    from headstart.plan.base import Plan

__all__ = ["explanation"]


def explanation(plan: Plan) -> str:
    """A few paragraphs of plain text on what was chosen and why."""
    parts = (_choice_lines(plan), _budget_lines(plan), _finding_lines(plan), _pilot_lines(plan))
    return "\n\n".join("\n".join(lines) for lines in ([repr(plan)], *parts) if lines)


def _choice_lines(plan: Plan) -> list[str]:
    flat = ""
    if plan.flat is not None and plan.flat[0] < plan.flat[1]:
        flat = f"; as good from {plan.flat[0]:.3g} to {plan.flat[1]:.3g}"
    return [
        f"Start      {plan.initialization!r} at sigma_T = {plan.horizon:.3g}"
        f"{_why(plan, 'initialization', 'horizon')}{flat}",
        f"Levels     {plan.schedule!r}{_why(plan, 'schedule', 'sigma_min')}",
        f"Solver     {plan.solver!r}, {plan.nfe} network evaluation{'s' * (plan.nfe != 1)}{_why(plan, 'solver')}",
    ]


def _budget_lines(plan: Plan) -> list[str]:
    if plan.budget is None:
        return []
    e_init = plan.budget.initialization
    lines = [
        f"Error budget, in nats over {math.prod(plan.profile.shape)} dimensions:",
        f"  initialization   {'not known: the start has no density' if e_init is None else repr(e_init)}",
        f"  discretization   {', '.join(f'{k:.2g}' for k in plan.budget.discretization) or 'none above 0'}"
        f"   (of {_steps_of(plan)} between these levels)",
        f"  together         {plan.budget.total:.3g}   (square of the sum of the roots)",
    ]
    if e_init is not None and e_init.value < -2 * e_init.error:
        lines.append("  Below 0: at this horizon the start models the noised data better than the network does.")
    return lines


def _steps_of(plan: Plan) -> str:
    """Whose steps the budget is of (:func:`headstart.budget.discretization_error`)."""
    known = is_linear(plan.solver) and plan.profile.trajectories is not None
    return "the solver's own steps" if known else "Euler steps"


def _finding_lines(plan: Plan) -> list[str]:
    lines = []
    own = (plan.initialization.name, plan.horizon)
    tails = [c.tail for c in plan.record.candidates if (c.initialization, c.horizon) == own and c.tail is not None]
    if tails:
        lines.append(f"Tails      far quantiles of the start are {math.exp(tails[0]):.3g} times the noised data's")
    if plan.record.start_cost > 0:
        taken = "" if plan.initialization.closed_form else ", to the nearest whole number taken off what was asked for"
        lines.append(
            f"Cost       drawing a start costs {plan.record.start_cost:.2g} network evaluations on this machine{taken}"
        )
    if plan.record.novelty is not None:
        lines.append(f"Novelty    {plan.record.novelty!r}")
        if plan.record.novelty.memorising:
            lines.append("           Its samples know the data that the start was fitted on: they may be copies.")
    if plan.initialization.oracle:
        lines.append("Oracle     This start hands back training data through noise: for comparison only.")
    if plan.record.source != "data":
        lines.append(f"Fitted on  {plan.record.source}")
    return lines


def _pilot_lines(plan: Plan) -> list[str]:
    compared = [c for c in plan.record.candidates if c.pilot is not None]
    if not compared:
        return []
    lines = [f"Decided by a pilot of {len(compared)} candidates (distance to held-out data):"]
    for c in sorted(compared, key=lambda c: c.pilot or 0.0)[:5]:
        start = "" if c.e_init is None else f"E_init {c.e_init:7.2f}, "
        lines.append(
            f"  {c.pilot:.4f}  {c.initialization} at {c.horizon:.3g}, {c.schedule} to {c.sigma_min:.3g}, "
            f"{c.solver}: {start}budget {c.nats:.3g}"
        )
    return lines


def _why(plan: Plan, *parts: str) -> str:
    reasons = [plan.record.chosen[part] for part in parts if part in plan.record.chosen]
    if len(set(reasons)) == 1:
        return f" ({' and '.join(parts)} {reasons[0]})"
    said = [f"{part} {reason}" for part, reason in zip(parts, reasons, strict=False)]
    return f" ({', '.join(said)})" if said else ""
