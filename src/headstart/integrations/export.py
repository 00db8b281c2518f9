r"""Plans out to other people's samplers: levels, starts, and what they cost there.

An :class:`Export` says three things: how many evaluations the framework's own sampler makes, how it ends (whether the
last level is 0, and who put it there), and what was transformed on the way. Where a framework has no sampler that moves
as the plan does, it is refused. Levels are those of :math:`x_0 + \sigma \varepsilon`, and starts are the states at the
first of them: do not multiply them by that level again.

>>> from headstart import Sampler, Schedule
>>> from headstart.initialization import Isotropic
>>> from headstart.solver import Heun
>>> found = export(Sampler(Isotropic((2,)), Schedule((2.0, 0.5, 0.0)), Heun()), "k-diffusion", seeds=[0, 1])
>>> found
Export(k-diffusion: sample_heun, 3 evaluations)
>>> found.tensors["x"].shape, found.tensors["sigmas"].tolist()
(torch.Size([2, 2]), [2.0, 0.5, 0.0])
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.artefact import write_tensors
from headstart.errors import InputError
from headstart.files import atomic_write
from headstart.integrations.stepping import evaluation_levels
from headstart.noise import Noise
from headstart.registry import Registry
from headstart.sampler import Sampler

__all__ = ["EXPORTERS", "Export", "Exporter", "counterpart", "ending", "export", "starts"]

#: The form of a file of tensors, and its version.
FORM, VERSION = "headstart-export", 1


@dataclass(frozen=True, eq=False, repr=False)
class Export:
    """A sampler in the form of another framework.

    Attributes:
        to: the framework or the form.
        call: what takes it there.
        evaluations: how often the network is called for a sample there.
        values: plain values.
        tensors: ``sigmas`` (N + 1,) in float64 and, with seeds, ``x`` (B, \\*S), the states at the first of them.
        notes: how it ends, and what was transformed.
        text: the file, where it is text of a form of its own.
    """

    to: str
    call: str
    evaluations: int
    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    text: str | None = None

    @property
    def about(self) -> dict[str, Any]:
        """All but the tensors, as plain values for JSON."""
        return {
            "to": self.to,
            "call": self.call,
            "evaluations": self.evaluations,
            "notes": list(self.notes),
            **self.values,
        }

    def save(self, path: str | Path) -> None:
        """Write it as one file, whole or not at all: text, or safetensors where there are starts, or else JSON.

        Raises:
            ArtefactError: if the file cannot be written.
        """
        if self.text is None and "x" in self.tensors:
            write_tensors(Path(path), FORM, VERSION, self.about, self.tensors)
            return
        text = json.dumps(self.about, indent=1, allow_nan=False) + "\n" if self.text is None else self.text
        atomic_write(text.encode(), Path(path))

    def __repr__(self) -> str:
        return f"Export({self.to}: {self.call}, {self.evaluations} evaluations)"


@dataclass(frozen=True)
class Exporter:
    """How a sampler goes out to one framework.

    Attributes:
        name: of the framework or the form.
        make: takes the sampler, the seeds of starts or None, and options of the framework.
        about: one line for help.
    """

    name: str
    make: Callable[..., Export]
    about: str


EXPORTERS: Registry[Exporter] = Registry("export", "headstart.integrations", "headstart.exporters")
"""What plans can be exported to."""


def export(sampler: Sampler, to: str, *, seeds: Iterable[int] | None = None, **options: Any) -> Export:
    """A plan in the form of another framework.

    Arguments:
        sampler: the plan, or any start, schedule and solver.
        to: one of ``EXPORTERS``.
        seeds: of the starts that go with it; none by default.
        options: of the framework: ``scheduler`` for diffusers, ``label`` for starts of classes.

    Raises:
        InputError: if there is no such form, it does not take an option, or it has no sampler that moves as the plan
            does.
    """
    make = EXPORTERS.find(to).make
    if wrong := options.keys() - inspect.signature(make).parameters.keys():
        raise InputError(f"the form {to!r} takes no {', '.join(sorted(wrong))}: leave it out")
    return make(sampler, seeds, **options)


def counterpart(sampler: Sampler, calls: Mapping[str, str], framework: str) -> str:
    """The call of a framework that moves as a sampler's solver does.

    Arguments:
        sampler: whose solver is looked for.
        calls: of the framework, by the names of our solvers with their defaults.
        framework: named in messages.

    Raises:
        InputError: if there is none.
    """
    solver = sampler.solver
    if solver.name not in calls or solver.parameters():
        raise InputError(
            f"{framework} has no sampler that moves as {solver!r} does: fit a plan with the solver "
            f"{' or '.join(calls)} of default parameters, or export the levels alone (json or csv)"
        )
    return calls[solver.name]


def ending(sampler: Sampler) -> str:
    """How the levels of a sampler end, in words."""
    last = sampler.schedule.sigmas[-1]
    if last == 0:
        return "the last of the levels is 0, and is part of them: append no other"
    return f"the last of the levels is {last:.6g} and not 0: the samples keep that noise"


def starts(sampler: Sampler, seeds: Iterable[int] | None, label: Tensor | None = None) -> dict[str, Tensor]:
    """The levels as ``sigmas``, and with seeds the states at the first of them as ``x``."""
    found = {"sigmas": torch.tensor(sampler.schedule.sigmas, dtype=torch.float64)}
    if seeds is not None:
        found["x"] = sampler.initialization.sample(Noise(seeds), sampler.horizon, label)
    return found


def _values(sampler: Sampler) -> dict[str, Any]:
    return {
        "sigmas": list(sampler.schedule.sigmas),
        "schedule": sampler.schedule.name,
        "solver": sampler.solver.name,
        "start": sampler.initialization.name,
    }


def _json(sampler: Sampler, seeds: Iterable[int] | None, label: Tensor | None = None) -> Export:
    values = {**_values(sampler), "evaluation_sigmas": evaluation_levels(sampler)}
    notes = (ending(sampler), "nothing is transformed")
    return Export("json", sampler.solver.name, sampler.nfe, values, starts(sampler, seeds, label), notes)


def _csv(sampler: Sampler, seeds: Iterable[int] | None, label: Tensor | None = None) -> Export:
    if seeds is not None:
        raise InputError("a table of levels holds no starts: leave the seeds out, or export to json")
    rows = "".join(f"{sigma!r}\n" for sigma in sampler.schedule.sigmas)
    notes = (ending(sampler), "nothing is transformed")
    return Export("csv", sampler.solver.name, sampler.nfe, _values(sampler), {}, notes, f"sigma\n{rows}")


@dataclass(frozen=True)
class _Framework:
    """A framework whose sampler takes levels and the states at the first of them as they are.

    Attributes:
        name: of the framework.
        calls: its samplers by the names of our solvers.
        how: the call in full.
        in_vain: whether Heun's method calls the network at a last level of 0 too, in vain.
        finite: samplers that divide by the last level, so that it cannot be 0.
    """

    name: str
    calls: Mapping[str, str]
    how: str
    in_vain: bool = False
    finite: tuple[str, ...] = ()

    def make(self, sampler: Sampler, seeds: Iterable[int] | None, label: Tensor | None = None) -> Export:
        call = counterpart(sampler, self.calls, self.name)
        to_zero = sampler.schedule.sigmas[-1] == 0
        if to_zero and sampler.solver.name in self.finite:
            raise InputError(
                f"{call} of {self.name} divides by the last level, which is 0 here: fit a plan with the solver euler"
            )
        wasted = int(self.in_vain and to_zero and sampler.solver.name == "heun")
        notes = [ending(sampler), "nothing is transformed: x is the state at the first level, and not standard noise"]
        if wasted:
            notes.append("the last step calls the network once in vain: its correction at 0 is not used")
        notes.append(self.how.format(call=call))
        tensors = starts(sampler, seeds, label)
        return Export(self.name, call, sampler.nfe + wasted, _values(sampler), tensors, tuple(notes))


def _comfyui(sampler: Sampler, seeds: Iterable[int] | None) -> Export:
    if seeds is not None:
        raise InputError("ComfyUI draws starts by the node of headstart.integrations.comfyui: leave the seeds out")
    call = counterpart(sampler, {"euler": "euler", "heun": "heun", "dpm++2m": "dpmpp_2m"}, "ComfyUI")
    notes = (
        ending(sampler),
        "nothing is transformed for networks in these units; those of flows want sigma / (1 + sigma) instead",
        f"paste the levels into ManualSigmas, choose the sampler {call}, give SamplerCustomAdvanced the noise of the "
        "node 'headstart start', and an empty latent",
        "networks that know whole times round the conditioning to the nearest one",
    )
    text = ", ".join(f"{sigma:.8g}" for sigma in sampler.schedule.sigmas)
    return Export("comfyui", call, sampler.nfe, _values(sampler), {}, notes, text + "\n")


def _sbi(sampler: Sampler, seeds: Iterable[int] | None) -> Export:
    if seeds is not None:
        raise InputError("sbi draws starts by the diffuser of headstart.integrations.sbi: leave the seeds out")
    notes = (
        ending(sampler),
        "levels become times of the estimator's own process, and states are scaled as it scales them",
        "headstart.integrations.sbi.to_sbi makes the Diffuser, and the predictor and times for posterior.sample",
    )
    return Export("sbi", "Diffuser", sampler.nfe, _values(sampler), {}, notes)


for _exporter in (
    Exporter("json", _json, "levels and what is known about them; with seeds, starts in safetensors"),
    Exporter("csv", _csv, "a column of levels"),
    Exporter("comfyui", _comfyui, "the text of a ManualSigmas node"),
    Exporter("sbi", _sbi, "levels for a Diffuser of sbi, which moves as the plan does"),
    *(
        Exporter(framework.name, framework.make, f"levels and starts for the samplers of {framework.name}")
        for framework in (
            _Framework(
                "k-diffusion",
                {"euler": "sample_euler", "heun": "sample_heun", "dpm++2m": "sample_dpmpp_2m"},
                "call k_diffusion.sampling.{call}(model, x, sigmas)",
            ),
            _Framework(
                "azula",
                {"euler": "DDIMSampler", "heun": "HeunSampler"},
                "headstart.integrations.azula.to_azula makes the schedule that visits the levels",
                finite=("heun",),
            ),
            _Framework(
                "physicsnemo",
                {"euler": "euler", "heun": "heun"},
                'call physicsnemo.diffusion.samplers.sample(denoiser, x, scheduler, 0, solver="{call}", '
                "time_steps=sigmas), with a scheduler whose time is sigma (EDMNoiseScheduler)",
                in_vain=True,
            ),
            _Framework(
                "deepinv",
                {"euler": "EulerSolver", "heun": "HeunSolver"},
                "call sde.sample(x_init=x, timesteps=sigmas) with an EDMDiffusionSDE whose sigma(t) is t, alpha 0, the "
                "solver {call}, and minus_one_one=False: it takes networks to be of [0, 1] unless told",
                finite=("heun",),
            ),
        )
    ),
):
    EXPORTERS.register(_exporter)
