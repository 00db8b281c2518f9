"""The plan: where to start, which levels to visit and how to move between them, for a number of network evaluations.

A plan is chosen by :func:`headstart.fit`, samples any denoiser of the same data, and is saved as a folder of two files:
``plan.json`` (what was chosen, and why) and ``tensors.safetensors`` (the start's parameters and the profile). Neither
can execute.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from headstart.budget import Budget, Estimate
from headstart.citation import BUDGET, IMAGES, PILOT
from headstart.errors import ArtefactError, InputError
from headstart.initialization import INITIALIZATIONS
from headstart.metrics import Novelty
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import Schedule
from headstart.solver import SOLVERS, is_linear
from headstart.trajectory import Trajectories

__all__ = ["Candidate", "Plan", "check_place"]

#: The version of the folder's layout that this code writes, and the newest that it reads.
VERSION = 3


@dataclass(frozen=True)
class Candidate:
    """One combination that was looked at on the way to a plan.

    Attributes:
        initialization: name of the family.
        horizon: sigma_T.
        schedule: name of the kind of schedule.
        sigma_min: its last level above 0.
        solver: name of the solver.
        e_init: the start's error in nats, or None if it has no density.
        e_init_error: its standard error.
        nats: the whole budget: :math:`B_\\text{ODE}`, or J for "ddpm" and "euler-maruyama".
        pilot: distance of pilot samples to held-out data (:class:`headstart.metrics.ViewReference`), or None if it was
            not piloted.
        tail: logarithm of the start's far quantiles over those of the noised data; below 0, the start misses the tails.
        flat: whether its budget is as good as the best one of the chosen start, up to 5 % or the Monte-Carlo error.
        pilot_flat: whether the pilot cannot tell it from the chosen combination.
    """

    initialization: str
    horizon: float
    schedule: str
    sigma_min: float
    solver: str
    e_init: float | None
    e_init_error: float | None
    nats: float
    pilot: float | None = None
    tail: float | None = None
    flat: bool = False
    pilot_flat: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Sampler):
    """A sampler with its evidence: the budget, the measurements and the candidates that its parts were chosen by.

    Attributes:
        initialization: where the reverse process starts.
        schedule: which levels it visits.
        solver: how it moves between them.
        budget: the error budget in nats, or None if none was drawn up.
        profile: the measurements that the choice rests on.
        candidates: what else was looked at.
        criterion: what decided: "pilot" or "nats".
        chosen: how the user or the criterion came to each part, for :meth:`explain`.
        seed: of everything random in fitting.
        fit_seconds: wall-clock time of fitting, measuring included.
        source: what it was fitted on: "data", or samples of the network itself and what they cost.
        start_cost: of drawing a start, in evaluations of the network on the machine that the plan was fitted on; for
            starts that are not in closed form it was taken off the evaluations that were asked for.
        novelty: the test of its samples for copies of the data that the start was fitted on, or None if the data were
            too few.
    """

    budget: Budget | None
    profile: Profile
    candidates: tuple[Candidate, ...] = ()
    criterion: Literal["pilot", "nats"] = "pilot"
    chosen: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    fit_seconds: float = 0.0
    source: str = "data"
    start_cost: float = 0.0
    novelty: Novelty | None = None

    @property
    def flat(self) -> tuple[float, float] | None:
        """The lowest and the highest horizon that the criterion cannot tell from the chosen one, with its start."""
        same = [c for c in self.candidates if c.initialization == self.initialization.name]
        level = [c.horizon for c in same if (c.pilot_flat if self.criterion == "pilot" else c.flat)]
        return (min(level), max(level)) if level else None

    def explain(self) -> str:
        """An explanation of what was chosen and why."""
        parts = (self._choice_lines(), self._budget_lines(), self._finding_lines(), self._pilot_lines())
        return "\n\n".join("\n".join(lines) for lines in ([repr(self)], *parts) if lines)

    @property
    def cited(self) -> tuple[str, ...]:
        """The keys of :meth:`citation`, as in :func:`headstart.citation.references`, each once."""
        keys = [*super().cited]
        keys += BUDGET if self.budget is not None else ()
        if any(candidate.pilot is not None for candidate in self.candidates):
            keys += (*PILOT, *IMAGES) if len(self.profile.shape) == 3 else PILOT
        return tuple(dict.fromkeys(keys))

    def _choice_lines(self) -> list[str]:
        flat = ""
        if self.flat is not None and self.flat[0] < self.flat[1]:
            flat = f"; as good from {self.flat[0]:.3g} to {self.flat[1]:.3g}"
        return [
            f"Start      {self.initialization!r} at sigma_T = {self.horizon:.3g}"
            f"{self._why('initialization', 'horizon')}{flat}",
            f"Levels     {self.schedule!r}{self._why('schedule', 'sigma_min')}",
            f"Solver     {self.solver!r}, {self.nfe} network evaluation{'s' * (self.nfe != 1)}{self._why('solver')}",
        ]

    def _budget_lines(self) -> list[str]:
        if self.budget is None:
            return []
        e_init = self.budget.initialization
        lines = [
            f"Error budget, in nats over {math.prod(self.profile.shape)} dimensions:",
            f"  initialization   {'not known: the start has no density' if e_init is None else repr(e_init)}",
            f"  discretization   {', '.join(f'{k:.2g}' for k in self.budget.discretization) or 'none above 0'}"
            f"   (of {self._steps_of} between these levels)",
            f"  together         {self.budget.total:.3g}   (square of the sum of the roots)",
        ]
        if e_init is not None and e_init.value < -2 * e_init.error:
            lines.append("  Below 0: at this horizon the start models the noised data better than the network does.")
        return lines

    @property
    def _steps_of(self) -> str:
        """Whose steps the budget is of (:func:`headstart.budget.discretization_error`)."""
        known = is_linear(self.solver) and self.profile.trajectories is not None
        return "the solver's own steps" if known else "Euler steps"

    def _finding_lines(self) -> list[str]:
        lines = []
        own = (self.initialization.name, self.horizon)
        tails = [c.tail for c in self.candidates if (c.initialization, c.horizon) == own and c.tail is not None]
        if tails:
            lines.append(f"Tails      far quantiles of the start are {math.exp(tails[0]):.3g} times the noised data's")
        if self.start_cost > 0:
            taken = (
                "" if self.initialization.closed_form else ", to the nearest whole number taken off what was asked for"
            )
            lines.append(
                f"Cost       drawing a start costs {self.start_cost:.2g} network evaluations on this machine{taken}"
            )
        if self.novelty is not None:
            lines.append(f"Novelty    {self.novelty!r}")
            if self.novelty.memorising:
                lines.append("           Its samples know the data that the start was fitted on: they may be copies.")
        if self.initialization.oracle:
            lines.append("Oracle     This start hands back training data through noise: for comparison only.")
        if self.source != "data":
            lines.append(f"Fitted on  {self.source}")
        return lines

    def _pilot_lines(self) -> list[str]:
        compared = [c for c in self.candidates if c.pilot is not None]
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

    def _why(self, *parts: str) -> str:
        reasons = [self.chosen[part] for part in parts if part in self.chosen]
        if len(set(reasons)) == 1:
            return f" ({' and '.join(parts)} {reasons[0]})"
        said = [f"{part} {reason}" for part, reason in zip(parts, reasons, strict=False)]
        return f" ({', '.join(said)})" if said else ""

    def _summary(self) -> str:
        return super()._summary() + ("" if self.budget is None else f"; budget {self.budget.total:.3g} nats")

    def to_dict(self) -> dict[str, Any]:
        """The plan without its tensors, as plain values for JSON."""
        values, _ = self.initialization.state()
        start = None if self.budget is None else self.budget.initialization
        return {
            "format": "headstart-plan",
            "version": VERSION,
            "nfe": self.nfe,
            "initialization": {"name": self.initialization.name, "values": values},
            "schedule": {"name": self.schedule.name, "sigmas": list(self.schedule.sigmas)},
            "solver": {"name": self.solver.name, "parameters": self.solver.parameters()},
            "budget": None
            if self.budget is None
            else {
                "initialization": None if start is None else [start.value, start.error],
                "discretization": list(self.budget.discretization),
            },
            "profile": {
                "sigma_data": self.profile.sigma_data,
                "shape": list(self.profile.shape),
                "seed": self.profile.seed,
                "digest": self.profile.digest,
            },
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "criterion": self.criterion,
            "chosen": dict(self.chosen),
            "seed": self.seed,
            "fit_seconds": self.fit_seconds,
            "source": self.source,
            "start_cost": self.start_cost,
            "novelty": None if self.novelty is None else asdict(self.novelty),
        }

    def save(self, folder: str | Path) -> None:
        """Write the plan as a folder, whole or not at all. An older plan there is replaced; nothing else ever is.

        Raises:
            ArtefactError: if the folder exists and is not a plan, or cannot be written (no space, no permission).
        """
        target = Path(folder)
        check_place(target)
        for part, known in ((self.initialization, INITIALIZATIONS), (self.solver, SOLVERS)):
            if known.get(part.name) is not type(part):
                raise ArtefactError(f"{part!r} is not one of headstart's own, so no one else could read the plan")
        _, tensors = self.initialization.state()
        curves = {name: getattr(self.profile, name) for name in ("sigmas", "losses", "corrector", "defect")}
        stored = {f"initialization.{name}": tensor.contiguous() for name, tensor in tensors.items()}
        if self.profile.trajectories is not None:
            curves["products"] = self.profile.trajectories.products
            curves["spread"] = self.profile.trajectories.spread
        stored |= {f"profile.{name}": torch.from_numpy(curve.copy()) for name, curve in curves.items()}
        blob = safetensors.torch.save(stored)
        values = {**self.to_dict(), "tensors_sha256": hashlib.sha256(blob).hexdigest()}
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            try:
                (staged / "tensors.safetensors").write_bytes(blob)
                (staged / "plan.json").write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")
                staged.chmod(0o755)
                replaced = staged.with_name(f"{staged.name}.replaced")
                if target.exists():
                    os.replace(target, replaced)
                try:
                    os.replace(staged, target)
                except BaseException:
                    if replaced.exists() and not target.exists():
                        os.replace(replaced, target)
                    raise
                shutil.rmtree(replaced, ignore_errors=True)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        except OSError as error:
            raise ArtefactError(f"the plan cannot be written to {target}: {error.strerror or error}") from error

    @classmethod
    def load(cls, folder: str | Path) -> Plan:
        """The plan that :meth:`save` wrote.

        Raises:
            ArtefactError: if it is missing, damaged, or newer than this version of headstart.
        """
        source = Path(folder)
        try:
            values = json.loads((source / "plan.json").read_text(), parse_constant=_finite, parse_float=_finite)
            blob = (source / "tensors.safetensors").read_bytes()
        except OSError as error:
            raise ArtefactError(
                f"{source} is not a plan: {error.filename} cannot be read ({error.strerror})"
            ) from error
        except ValueError as error:
            raise ArtefactError(f"{source} is damaged: plan.json is not JSON ({error})") from error
        if not isinstance(values, dict) or values.get("format") != "headstart-plan":
            raise ArtefactError(f"{source} is not a plan: plan.json does not say that it is one")
        if isinstance(values.get("version"), int) and values["version"] > VERSION:
            raise ArtefactError(
                f"{source} has version {values['version']}, and this headstart reads up to {VERSION}: upgrade it"
            )
        try:
            file = _PlanFile.model_validate(_upgraded(values))
            if hashlib.sha256(blob).hexdigest() != file.tensors_sha256:
                raise ArtefactError(
                    f"{source} is damaged: tensors.safetensors is not the file that the plan was saved with"
                )
            return file.plan(safetensors.torch.load(blob))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ArtefactError(f"{source} is damaged: {where or 'plan.json'}: {first['msg']}") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:  # also of values that are no such start's
            raise ArtefactError(f"{source} is damaged: {error}") from error


def check_place(folder: Path) -> None:
    """Raise :class:`ArtefactError` if something that is not a plan is where a plan is to be written."""
    try:
        inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise ArtefactError(f"{folder} cannot be read: {error.strerror or error}") from error
    if folder.exists() and "plan.json" not in inside:
        raise ArtefactError(f"{folder} exists and is not a plan: choose another name, or remove it first")
    if others := sorted(inside - {"plan.json", "tensors.safetensors"}):
        raise ArtefactError(f"{folder} is a plan and holds {others[0]} too: choose another name, or move that first")


def _upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """The values of an older version's ``plan.json``, as those of this one."""
    version = values.get("version")
    if version == 1:
        candidates = [
            {**{key: value for key, value in c.items() if key != "b_ode"}, "nats": c.get("b_ode")}
            if isinstance(c, dict)
            else c
            for c in values.get("candidates", [])
        ]
        values = {**values, "source": "data", "start_cost": 0.0, "novelty": None, "candidates": candidates}
    return {**values, "version": VERSION} if version in (1, 2) else values


def _finite(number: str) -> float:
    """A number of a JSON file; Python's reader would let NaN and Infinity pass."""
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} is not a finite number")
    return float(number)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Named(_Strict):
    name: str
    values: dict[str, Any] = {}
    sigmas: list[FiniteFloat] = []
    parameters: dict[str, FiniteFloat | list[list[FiniteFloat]]] = {}


class _BudgetFile(_Strict):
    initialization: tuple[FiniteFloat, FiniteFloat] | None
    discretization: list[FiniteFloat]


class _ProfileFile(_Strict):
    sigma_data: FiniteFloat
    shape: list[int]
    seed: int
    digest: str


class _PlanFile(_Strict):
    """The schema of ``plan.json``, version 3."""

    format: Literal["headstart-plan"]
    version: Literal[3]
    nfe: int
    initialization: _Named
    schedule: _Named
    solver: _Named
    budget: _BudgetFile | None
    profile: _ProfileFile
    candidates: list[Candidate]
    criterion: Literal["pilot", "nats"]
    chosen: dict[str, str]
    seed: int
    fit_seconds: FiniteFloat
    source: str
    start_cost: FiniteFloat
    novelty: Novelty | None
    tensors_sha256: str

    def plan(self, tensors: Mapping[str, Tensor]) -> Plan:
        def group(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        curves = {name: tensor.numpy() for name, tensor in group("profile.").items()}
        sigmas, followed = curves["sigmas"], "products" in curves
        budget = None
        if self.budget is not None:
            start = self.budget.initialization
            budget = Budget(None if start is None else Estimate(*start), tuple(self.budget.discretization))
        for part, name, known in (
            ("initialization", self.initialization.name, INITIALIZATIONS),
            ("solver", self.solver.name, SOLVERS),
        ):
            if name not in known:
                raise InputError(f"unknown {part} {name!r}: expected one of {', '.join(known)}")
        family = INITIALIZATIONS[self.initialization.name]
        plan = Plan(
            initialization=family.from_state(self.initialization.values, group("initialization.")),
            schedule=Schedule(self.schedule.sigmas, self.schedule.name),
            solver=SOLVERS[self.solver.name](**self.solver.parameters),
            budget=budget,
            profile=Profile(
                sigmas=sigmas,
                losses=curves["losses"],
                corrector=curves["corrector"],
                defect=curves["defect"],
                sigma_data=self.profile.sigma_data,
                shape=tuple(self.profile.shape),
                seed=self.profile.seed,
                digest=self.profile.digest,
                trajectories=Trajectories(sigmas, curves["products"], curves["spread"]) if followed else None,
            ),
            candidates=tuple(self.candidates),
            criterion=self.criterion,
            chosen=self.chosen,
            seed=self.seed,
            fit_seconds=self.fit_seconds,
            source=self.source,
            start_cost=self.start_cost,
            novelty=self.novelty,
        )
        if plan.nfe != self.nfe or plan.initialization.shape != plan.profile.shape:
            raise InputError("the number of evaluations or the shape of a sample does not fit the rest of the plan")
        return plan
