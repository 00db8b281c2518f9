"""The methods of a comparison: a method is a way to sample a network, prepared for a number of evaluations and a seed.

A method prepares a :class:`Prepared` from what all methods share, a :class:`~headstart.compare.setting.Setting`. What a
sampler really spends is counted where the network is called, and never taken from what the method says of itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from headstart.citation import citations
from headstart.compare.setting import Setting
from headstart.compute import Compute
from headstart.denoiser import Counted, Denoiser, denoise
from headstart.errors import DataError, DenoiserError
from headstart.initialization import Initialization
from headstart.metrics import Reference, Scores, evaluate
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.progress import Progress
from headstart.sampler import Sampler
from headstart.schedule import Schedule
from headstart.solver import Solver

__all__ = [
    "Drawn",
    "Kind",
    "Method",
    "Prepared",
    "draw",
    "even",
    "from_noise",
    "odd",
    "of_plan",
    "of_sampler",
    "scored",
    "solving",
]

#: What a method is: "ours" is what this project makes, and a "peer" what it is compared with. An "oracle" knows the
#: training data, a "saved" plan may have been fitted on what it is scored against, and a "reference" is a fixed mark.
#: The best of "ours" is compared with the best of "peer".
Kind = Literal["ours", "peer", "oracle", "saved", "reference"]

#: From a denoiser and the samples' random streams to samples of shape (B, *S).
Draw = Callable[[Denoiser, Noise], Tensor]

#: How a package samples: from a checked denoiser D(x, sigma), states at the highest level (B, *S) and a number of
#: evaluations to samples of the same shape.
Walk = Callable[[Callable[[Tensor, float], Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Prepared:
    """A method that is ready to sample.

    Attributes:
        draw: from a denoiser and the samples' random streams to samples, shape (B, \\*S).
        how: its start, levels and solver, in a sentence.
        prepare_seconds: what it took to prepare: measuring, fitting and learning.
        cited: what it stands on, by the keys of :mod:`headstart.citation`.
        sampler: what it draws with, if that is one of this library.
    """

    draw: Draw
    how: str
    prepare_seconds: float = 0.0
    cited: tuple[str, ...] = ()
    sampler: Sampler | None = None


@dataclass(frozen=True)
class Method:
    """One way to sample a network.

    Attributes:
        name: on the command line and in the files of a comparison.
        label: its name on pages.
        kind: "ours", "peer", "oracle", "saved" or "reference".
        family: the methods that it is shown with.
        prepare: makes its sampler from what all methods share and a number of evaluations that it can spend.
        package: the optional module that it needs, or None.
        affordable: the largest number of evaluations that it can spend out of a given number; for Heun's method, an odd
            one.
        only: the one number of evaluations that it has a sampler for, or None if it has one for every number.
        identity: tells it from another method of the same name; empty if there is none.
        slow: whether it takes minutes to prepare on images.
    """

    name: str
    label: str
    kind: Kind
    family: str
    prepare: Callable[[Setting, int], Prepared]
    package: str | None = None
    affordable: Callable[[int], int] = int
    only: int | None = None
    identity: str = ""
    slow: bool = False


@dataclass(frozen=True)
class Drawn:
    """Samples and what they cost.

    Attributes:
        samples: shape (n, \\*S), on the CPU.
        seconds: of wall-clock time for all of them, the starts included.
        evaluations: of the network for a sample, as counted.
    """

    samples: Tensor
    seconds: float
    evaluations: float


@torch.no_grad()
def draw(
    sampler: Prepared,
    denoiser: Denoiser,
    seeds: Sequence[int],
    compute: Compute,
) -> Drawn:
    """A sample for every seed, the same for any batch size.

    Raises:
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape, or the samples are not finite.
    """
    counted = Counted(denoiser)
    parts = []
    began = time.perf_counter()
    for part in compute.batches(len(seeds), "sampling"):
        parts.append(sampler.draw(counted, compute.noise(seeds[part])).cpu())
    seconds = time.perf_counter() - began
    samples = torch.cat(parts).float()
    _check_finite(samples)
    return Drawn(samples, seconds, counted.samples / len(samples))


def scored(samples: Tensor, reference: Reference, progress: Progress | None = None) -> Scores:
    """The scores of samples (n, \\*S), every one a number.

    Raises:
        DenoiserError: if the samples are not finite, or so far out that features or a score of them are not.
    """
    _check_finite(samples)
    try:
        scores = evaluate(samples, reference, progress)
    except (DataError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        raise DenoiserError(f"the scores of the samples cannot be computed: {error}") from error
    if lost := [name for name, value, _ in scores.items() if not math.isfinite(value)]:
        largest = float(samples.abs().max())
        raise DenoiserError(f"{', '.join(lost)} of the samples is not finite: their largest value is {largest:.3g}")
    return scores


def _check_finite(samples: Tensor) -> None:
    if bad := int((~torch.isfinite(samples)).flatten(1).any(1).sum()):
        raise DenoiserError(f"{bad} of {len(samples)} samples are not finite")


def solving(start: Initialization, schedule: Schedule, solver: Solver) -> Draw:
    """Draws from a start, a schedule and a solver of this library."""

    def drawn(denoiser: Denoiser, noise: Noise) -> Tensor:
        return solver.solve(denoiser, start.sample(noise, schedule.horizon), schedule, noise)

    return drawn


def of_sampler(sampler: Sampler, seconds: float) -> Prepared:
    """A sampler of this library that took so long to prepare."""
    levels = " > ".join(f"{sigma:.3g}" for sigma in sampler.schedule.sigmas)
    how = f"{sampler.initialization.name} start, {sampler.schedule.name} levels {levels}, {sampler.solver.name}"
    draw = solving(sampler.initialization, sampler.schedule, sampler.solver)
    return Prepared(draw, how, seconds, sampler.cited, sampler)


def of_plan(plan: Plan) -> Prepared:
    """A plan as a sampler; what it took to prepare is what the plan took to fit."""
    return of_sampler(plan, plan.record.fit_seconds)


def from_noise(setting: Setting, walk: Walk, how: str, schedule: str, solver: str) -> Prepared:
    """A sampler of another package, from the noise that all methods from noise share: sigma_max times each seed's own.

    Arguments:
        setting: what the methods share.
        walk: samples.
        how: its levels and solver, in words.
        schedule: the name of the one that its levels are, for what to cite.
        solver: the name of the one of this library that it is, or nothing.
    """

    def drawn(denoiser: Denoiser, noise: Noise) -> Tensor:
        return walk(partial(denoise, denoiser), setting.sigma_max * noise.normal(setting.shape))

    cited = citations("isotropic", schedule, solver)
    return Prepared(drawn, f"N(0, {setting.sigma_max:g}^2) start, {how}", cited=cited)


def odd(nfe: int) -> int:
    """The largest odd number up to this one: two evaluations a step, and one for a last step to 0."""
    return nfe - (nfe % 2 == 0)


def even(nfe: int) -> int:
    """The largest even number up to this one: two evaluations a step."""
    return nfe - nfe % 2
