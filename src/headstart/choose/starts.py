"""The starts that are considered, fitted by the names of their families."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from headstart.choose.work import Work
from headstart.compute import Compute
from headstart.conditions import Conditions
from headstart.denoiser import Denoiser
from headstart.errors import InputError, unknown
from headstart.initialization import INITIALIZATIONS, Features, Initialization, Subspace, Training
from headstart.processes import count, same
from headstart.profile import HIGHEST
from headstart.progress import Progress

__all__ = ["Starts", "fit_starts", "known_starts", "refitted", "start_names", "usual_starts"]

Starts: TypeAlias = "str | Initialization | Sequence[str | Initialization] | None"

#: Leading directions whose variances a start models.
LEADING = 256


def fit_starts(
    data: Tensor,
    starts: Starts = None,
    labels: Tensor | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    training: Training | None = None,
    sigmas: tuple[float, float] | None = None,
    device: torch.device | str = "cpu",
    work: Work | None = None,
    conditions: Mapping[str, Any] | None = None,
    denoiser: Denoiser | None = None,
) -> list[Initialization]:
    """Starts fitted on clean data (N, \\*S), by the names of their families; those fitted already are kept.

    Arguments:
        data: the samples.
        starts: names of families, fitted starts, or a list of these; "isotropic", "gaussian" and "mixture" by default,
            and "regression" and "conditional-mixture" where there are conditions other than classes.
            "teleportation" begins at EDM's 80, or at 200 times the data's standard deviation if that is higher.
        labels: classes, shape (N,), for the families that know them.
        seed: of fitting.
        progress: told of the families, and of what a training does.
        training: how "flow" and "autoregressive" are trained; a checkpoint is a file for each of them, with the
            family's name added.
        sigmas: the lowest and the highest horizon that these are for; from 0.5 to 25 standard deviations by default.
        device: where they are trained.
        work: where each is kept as soon as it is fitted.
        conditions: what goes with the samples, by name (:mod:`headstart.conditions`), for the families that know them.
        denoiser: the network, for a start that asks for its own mean.

    Raises:
        InputError: if a family is unknown, or a start is of another shape than the data.
    """
    given = Conditions.of(conditions, len(data))
    names = start_names(usual_starts(given) if starts is None else starts)
    bar, kept = progress or Progress(), work or Work()

    @cache
    def subspace() -> Subspace:
        return Subspace.fit(data, LEADING)

    def farthest() -> float:
        """EDM's 80, or the highest level of a profile."""
        return max(80.0, HIGHEST * math.sqrt(float(subspace().total_variance) / subspace().dimension))

    shared: Mapping[str, Callable[[str], Any]] = {
        "labels": lambda _: labels,
        "conditions": lambda _: given,
        "denoiser": lambda _: denoiser,
        "subspace": lambda _: subspace(),
        "sigma_max": lambda _: farthest(),
        "training": lambda family: _training(training or Training(), family, kept),
        "sigmas": lambda _: sigmas,
        "seed": lambda _: seed,
        "compute": lambda _: Compute(device, progress=bar),
        "device": lambda _: device,
        "progress": lambda _: bar,
    }

    def fit(family: str) -> Initialization:
        known = inspect.signature(INITIALIZATIONS[family].fit).parameters
        wanted = {name: value(family) for name, value in shared.items() if name in known}
        return INITIALIZATIONS[family].fit(data, **wanted)

    fitted = []
    for start in bar.track(names, "fitting starts"):
        if isinstance(start, str):
            make = partial(fit, start)
            make = partial(kept.kept, f"start-{start}", make, lambda own, path: own.save(path), Initialization.load)
            start = _handed_on(make, denoiser)
        fitted.append(start)
    for start in fitted:
        if start.shape != tuple(data.shape[1:]):
            raise InputError(f"{start!r} does not fit samples of shape {tuple(data.shape[1:])}")
    return fitted


def refitted(
    start: Initialization,
    data: Tensor,
    labels: Tensor | None = None,
    seed: int = 0,
    *,
    conditions: Mapping[str, Any] | None = None,
) -> Initialization:
    """A start of the same family and size, fitted on these data.

    One that is given as it is, is trained for minutes, or asks the network about all data stays as it is.

    A plan is chosen by data that its start has not seen. Once it is, they are worth more in the start.

    Arguments:
        start: as :func:`fit_starts` fitted it, by the name of its family.
        data: clean samples (N, \\*S).
        labels: as of :func:`fit_starts`, and so are all others.
        seed: of fitting.
        conditions: what goes with the samples.
    """
    family = type(start)
    if family.trained or family.given or family.oracle or family.evaluations:
        return start
    shared = {"labels": labels, "conditions": Conditions.of(conditions, len(data)), "seed": seed}
    known = inspect.signature(family.fit).parameters
    fitted = family.fit(data, **{name: value for name, value in shared.items() if name in known}, **start.settings())
    return fitted


def _handed_on(make: Callable[[], Initialization], denoiser: Denoiser | None) -> Initialization:
    """A start that the first of several processes makes, and the others get as it would be saved, with its network."""
    made: list[Initialization] = []

    def handed() -> tuple[str, Mapping[str, Any], Mapping[str, Tensor]]:
        made.append(make())
        return made[0].name, *made[0].state()

    name, values, tensors = same(handed) if count() > 1 else handed()
    start = made[0] if made else INITIALIZATIONS[name].from_state(values, tensors)
    return start if denoiser is None else start.bound(denoiser)


def _training(training: Training, family: str, work: Work) -> Training:
    """The same with a checkpoint for this family alone: beside the one that is named, or where finished units are."""
    if training.checkpoint is None:
        return replace(training, checkpoint=work.checkpoint(f"training-{family}"))
    path = Path(training.checkpoint)
    return replace(training, checkpoint=path.with_name(f"{path.stem}-{family}{path.suffix}"))


def usual_starts(conditions: Conditions | None = None) -> tuple[str, ...]:
    """The families that are considered where none is asked for.

    Classes are what a mixture by class knows already. Where there is more among the conditions that can be described,
    the families that are made for them are considered too.
    """
    told = conditions is not None and set(Features.fit(conditions).names) - {"label"}
    return tuple(n for n, family in INITIALIZATIONS.items() if family.usual and (told or not family.conditional))


def known_starts() -> tuple[str, ...]:
    """The families that can be fitted by their names alone."""
    return tuple(name for name, family in INITIALIZATIONS.items() if not family.given)


def start_names(starts: Starts) -> list[str | Initialization]:
    """The requested starts as a list of known names and fitted starts.

    Raises:
        InputError: if a family is unknown, none is named, or one is named that cannot be fitted by its name alone.
    """
    wanted = usual_starts() if starts is None else starts
    names = (
        [wanted]
        if isinstance(wanted, (str, Initialization))
        else list(wanted)
        if isinstance(wanted, Iterable)
        else [wanted]
    )
    if not names:
        raise InputError("name at least one initialization")
    for name in names:
        if isinstance(name, Initialization):
            continue
        if name not in INITIALIZATIONS:
            raise InputError(unknown("initialization", name, known_starts()))
        family = INITIALIZATIONS[name]
        if family.given:
            place = f"{family.__module__}.{family.__name__}"
            raise InputError(f"a {name} is of your making: hand a {place} in, not its name")
    return names
