"""The file of a plan: a folder of ``plan.json`` and ``tensors.safetensors``, neither of which can execute.

``plan.json`` says what was chosen, and why: the parts by their names, the budget, and the fields of the
:class:`~headstart.plan.base.Record`, whose schema is that dataclass itself. ``tensors.safetensors`` holds the start's
parameters and the profile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from headstart.artefact import fault, parse_json
from headstart.budget import Budget, Estimate
from headstart.errors import ArtefactError, InputError, unknown
from headstart.files import Exchange, exchange, finish, read_regular, staged
from headstart.initialization import INITIALIZATIONS
from headstart.plan.base import Plan, Record
from headstart.plan.place import check_place, identity
from headstart.profile import Profile
from headstart.schedule import Schedule
from headstart.schemas import ProfileValues
from headstart.solver import SOLVERS

__all__ = ["VERSION", "digest_of", "read", "values_of", "write"]

#: The version of the folder's layout that this code writes, and the newest that it reads.
VERSION = 6

#: How often a plan that changes while it is read is read again.
TRIES = 10

#: The fields of the record, which stand in ``plan.json`` beside the parts.
RECORDED = tuple(f.name for f in fields(Record))

#: Those that plans of version 1 did not have.
SINCE_2 = ("source", "start_cost", "novelty")

#: Fields of the record and of its candidates, by their defaults, that came with version 4. A plan in which none of them
#: says anything is written as version 3, which earlier headstarts read; and fields of the record that came with 5
#: and with 6.
SINCE_4: dict[str, Any] = {"doubts": ()}
CANDIDATE_SINCE_4: dict[str, Any] = {"final": None, "turn": 0.0}
SINCE_5: dict[str, Any] = {"conditioning": None, "guidance": None}
SINCE_6: dict[str, Any] = {"latents": None}

#: What decided, by the words that files keep from earlier versions.
IN_FILES = {"budget": "nats"}


def values_of(plan: Plan) -> dict[str, Any]:
    """A plan without its tensors, as plain values for JSON."""
    start = None if plan.budget is None else plan.budget.initialization
    version, record = _recorded(plan.record)
    return {
        "format": "headstart-plan",
        "version": version,
        "nfe": plan.nfe,
        "initialization": {"name": plan.initialization.name, "values": plan.initialization.state()[0]},
        "schedule": {"name": plan.schedule.name, "sigmas": list(plan.schedule.sigmas)},
        "solver": {"name": plan.solver.name, "parameters": plan.solver.parameters()},
        "budget": None
        if plan.budget is None
        else {
            "initialization": None if start is None else [start.value, start.error],
            "discretization": list(plan.budget.discretization),
        },
        "profile": plan.profile.state()[0],
        **record,
    }


def _recorded(record: Record) -> tuple[int, dict[str, Any]]:
    """The version of the layout that a record needs, and its fields as plain values."""
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(record).items()}
    values["criterion"] = IN_FILES.get(record.criterion, record.criterion)
    if any(getattr(record, name) != default for name, default in SINCE_6.items()):
        return VERSION, values
    values = {k: v for k, v in values.items() if k not in SINCE_6}
    if any(getattr(record, name) != default for name, default in SINCE_5.items()):
        return 5, values
    values = {k: v for k, v in values.items() if k not in SINCE_5}
    says = any(getattr(record, name) != default for name, default in SINCE_4.items())
    says |= any(getattr(c, name) != default for c in record.candidates for name, default in CANDIDATE_SINCE_4.items())
    if says:
        return 4, values
    candidates = [{k: v for k, v in c.items() if k not in CANDIDATE_SINCE_4} for c in values["candidates"]]
    return 3, {k: v for k, v in values.items() if k not in SINCE_4} | {"candidates": candidates}


def digest_of(plan: Plan) -> str:
    """SHA-256 over values and tensors, without the time that fitting took."""
    values = json.dumps({**values_of(plan), "fit_seconds": None}, sort_keys=True)
    return hashlib.sha256(values.encode() + _blob(plan)).hexdigest()


def _blob(plan: Plan) -> bytes:
    """The tensors of a plan, as a safetensors file."""
    parts = {"initialization": plan.initialization.state()[1], "profile": plan.profile.state()[1]}
    return safetensors.torch.save(
        {f"{part}.{name}": tensor.contiguous() for part, own in parts.items() for name, tensor in own.items()}
    )


def write(plan: Plan, target: Path, swap: Exchange = exchange) -> None:
    """Write a plan as a folder, whole or not at all. An older plan there is replaced; nothing else ever is.

    Arguments:
        plan: the plan.
        target: the folder; a symbolic link is followed.
        swap: exchanges two folders in one step, where that can be done.

    Raises:
        ArtefactError: if the folder exists and is not a plan, or cannot be written (no space, no permission).
    """
    target = check_place(target)
    for part, known in ((plan.initialization, INITIALIZATIONS), (plan.solver, SOLVERS)):
        if known.get(part.name) is not type(part):
            raise ArtefactError(f"{part!r} is not one of headstart's own, so no one else could read the plan")
    blob = _blob(plan)
    values = {**values_of(plan), "tensors_sha256": hashlib.sha256(blob).hexdigest()}
    try:
        with staged(target.parent, swap=swap) as place:
            folder = place / target.name
            folder.mkdir()
            (folder / "tensors.safetensors").write_bytes(blob)
            (folder / "plan.json").write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ArtefactError(f"the plan cannot be written to {target}: {error.strerror or error}") from error


def read(source: Path) -> Plan:
    """The plan that :func:`write` wrote, also while another process writes it anew.

    Raises:
        ArtefactError: if it is missing, damaged, or newer than this version of headstart.
    """
    for _ in range(TRIES):
        try:
            before = identity(source)
            try:
                return _read(source)
            except ArtefactError:
                if before is None:
                    finish(source.parent)
                if identity(source) == before:
                    raise
        except OSError as error:
            raise ArtefactError(f"{source} is not a plan: it cannot be read ({error.strerror})") from error
    return _read(source)


def _read(source: Path) -> Plan:
    """The plan in a folder that stays as it is meanwhile."""
    try:
        values = parse_json(read_regular(source / "plan.json").decode())
        blob = read_regular(source / "tensors.safetensors")
    except OSError as error:
        why = f"{error.filename} cannot be read ({error.strerror})"
        raise ArtefactError(f"{source} is not a plan: {why}; headstart fit makes one") from error
    except ValueError as error:
        raise ArtefactError(f"{source} is damaged: plan.json is not JSON ({error})") from error
    if not isinstance(values, dict) or values.get("format") != "headstart-plan":
        raise ArtefactError(f"{source} is not a plan: plan.json does not say that it is one")
    if isinstance(values.get("version"), int) and values["version"] > VERSION:
        raise ArtefactError(
            f"{source} has version {values['version']}, and this headstart reads up to {VERSION}: upgrade it"
        )
    try:
        file = _PlanFile.model_validate_json(json.dumps(_nested(_upgraded(values))), strict=True)
        if hashlib.sha256(blob).hexdigest() != file.tensors_sha256:
            raise ArtefactError(
                f"{source} is damaged: tensors.safetensors is not the file that the plan was saved with"
            )
        return file.plan(safetensors.torch.load(blob))
    except ValidationError as error:
        raise ArtefactError(f"{source} is damaged: {fault(error).removeprefix('record.')}") from error
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:  # also of no such start's values
        raise ArtefactError(f"{source} is damaged: {error}") from error


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
        values = {**values, **{name: getattr(Record(), name) for name in SINCE_2}, "candidates": candidates}
    if version == VERSION:
        return values
    older = version if isinstance(version, int) and 1 <= version < VERSION else 0
    since = (SINCE_4 if older < 4 else {}) | (SINCE_5 if older < 5 else {}) | SINCE_6
    return {**values, **since, **({"version": VERSION} if older else {})}


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the fields of the record in a mapping of their own.

    Raises:
        ValueError: if one of them is missing. The defaults of a record are not for damaged files.
    """
    if missing := [name for name in RECORDED if name not in values]:
        raise ValueError(f"{missing[0]}: Field required")
    parts = {name: value for name, value in values.items() if name not in RECORDED}
    record = {name: values[name] for name in RECORDED}
    for word, in_files in IN_FILES.items():
        if record["criterion"] == in_files:
            record["criterion"] = word
    return {**parts, "record": record}


AtLeastZero = Annotated[FiniteFloat, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Named(_Strict):
    name: str
    values: dict[str, Any] = {}
    sigmas: list[FiniteFloat] = []
    parameters: dict[str, FiniteFloat | list[list[FiniteFloat]]] = {}


class _BudgetFile(_Strict):
    initialization: tuple[FiniteFloat, AtLeastZero] | None
    discretization: list[AtLeastZero]

    def budget(self) -> Budget:
        start = self.initialization
        return Budget(None if start is None else Estimate(*start), tuple(self.discretization))


class _PlanFile(_Strict):
    """The schema of ``plan.json``, version 6, with the record apart."""

    format: Literal["headstart-plan"]
    version: Literal[6]
    nfe: int
    initialization: _Named
    schedule: _Named
    solver: _Named
    budget: _BudgetFile | None
    profile: ProfileValues
    record: Record
    tensors_sha256: str

    def plan(self, tensors: Mapping[str, Tensor]) -> Plan:
        def group(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        for part, name, known in (
            ("initialization", self.initialization.name, INITIALIZATIONS),
            ("solver", self.solver.name, SOLVERS),
        ):
            if name not in known:
                raise InputError(unknown(part, name, known))
        family = INITIALIZATIONS[self.initialization.name]
        plan = Plan(
            initialization=family.from_state(self.initialization.values, group("initialization.")),
            schedule=Schedule(self.schedule.sigmas, self.schedule.name),
            solver=SOLVERS[self.solver.name](**self.solver.parameters),
            budget=None if self.budget is None else self.budget.budget(),
            profile=Profile.from_state(self.profile, group("profile.")),
            record=self.record,
        )
        if plan.nfe != self.nfe or plan.initialization.shape != plan.profile.shape:
            raise InputError("the number of evaluations or the shape of a sample does not fit the rest of the plan")
        return plan
