r"""The likeliest mistake in how a network was declared, found by trying the usual corrections.

A network that is asked about the same noisy samples in another process, and whose answers are read as another
prediction or with the other sign, has another loss. Of the readings that reach the best linear estimate, the one with
the fewest changes is named. Data in other units are tried as :math:`(D(a x + b, a \sigma) - b) / a`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.denoiser.adapters import (
    Adapted,
    DiscreteVariancePreserving,
    Prediction,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
)
from headstart.denoiser.contract import Denoiser, Wrapper
from headstart.denoiser.probe import Answers, Probe
from headstart.errors import HeadstartError

__all__ = ["Correction", "likeliest", "other_kind"]

#: A correction is named if it comes as near as this to the best linear estimate, and takes this share off the loss.
NEAR, SHARE = 1.12, 0.9

#: Levels that corrections are tried on, and the share of the samples.
TRIED, PART = 3, 3

#: A correction as good as the best, up to this, is preferred if it changes less.
TIE = 1.05


@dataclass(frozen=True)
class Correction:
    """A reading of a network under which it is a denoiser.

    Attributes:
        said: it, in words.
        code: it, in code.
        ratio: the loss that it would have, over the best linear estimate's.
        changes: how many things it changes.
        certain: whether the network is one then, and no better estimate could be meant by chance.
    """

    said: str
    code: str
    ratio: float
    changes: int = 1
    certain: bool = True

    def __str__(self) -> str:
        if not self.code:
            return self.said
        return f"it would be {self.ratio:#.2g} times {self.said}: try {self.code}"


@dataclass(frozen=True)
class _Retimed:
    """A process whose network takes another time."""

    process: Process
    retimed: Callable[[Tensor], Tensor]
    sigma_min: float = 0.0

    @property
    def sigma_max(self) -> float:
        """The highest noise level that the process knows."""
        return self.process.sigma_max

    def scale(self, sigma: Tensor) -> Tensor:
        """As that of the process."""
        return self.process.scale(sigma)

    def time(self, sigma: Tensor) -> Tensor:
        """The time of the network."""
        return self.retimed(sigma)


@dataclass(frozen=True)
class _Rescaled:
    """A denoiser of data a x + b as one of data x."""

    denoiser: Denoiser
    a: float
    b: float

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        return (self.denoiser(self.a * x + self.b, self.a * sigma, **conditions) - self.b) / self.a


def likeliest(denoiser: Denoiser, probe: Probe, sigmas: NDArray[np.float64], ratio: float) -> Correction | None:
    """The correction that makes it a denoiser, or what kind of network it is instead; None if none does.

    Arguments:
        denoiser: the network as it was declared.
        probe: asks it.
        sigmas: the levels, rising.
        ratio: the loss over the best linear estimate's as it was declared.
    """
    levels = sigmas[np.linspace(0, len(sigmas) - 1, min(TRIED, len(sigmas))).round().astype(int)]
    bases = {float(s): probe.at(float(s), rows=_rows(probe)) for s in levels}
    tried = [c for c in _corrections(denoiser, probe, bases) if c.ratio < min(NEAR, SHARE * ratio)]
    if tried:
        best = min(correction.ratio for correction in tried)
        return min((c for c in tried if c.ratio <= TIE * best), key=lambda c: (c.changes, c.ratio))
    return other_kind(probe, sigmas)


def _rows(probe: Probe) -> int:
    """How many noisy samples a correction is tried on."""
    return max(len(probe.index) // PART, 2)


def _corrections(denoiser: Denoiser, probe: Probe, bases: dict[float, Answers]) -> Iterator[Correction]:
    """Every correction with its worst ratio over the levels."""
    inner, given = denoiser, dict[str, Any]()
    while isinstance(inner, partial | Wrapper):
        if isinstance(inner, partial):
            given, inner = {**inner.keywords, **given}, inner.func
        else:
            inner = inner.denoiser
    declared = inner if isinstance(inner, Adapted) else Adapted(inner, "x0", VarianceExploding())
    shared = {**given, **(probe.denoiser.keywords if isinstance(probe.denoiser, partial) else {})}
    for process, said, code, time, changes in _processes(declared.process):
        answers = _read(replace(declared, process=process), probe, bases, shared)
        if answers is None:
            continue
        for prediction in get_args(Prediction):
            for sign in (1, -1):
                changed = [
                    *([said] if said else []),
                    *([f"with the prediction {prediction!r}"] if prediction != declared.prediction else []),
                    *(["with the sign of the network turned"] if sign < 0 else []),
                ]
                if not changed:
                    continue
                asked = f"lambda z, time: {'-' * (sign < 0)}network(z, {time})"
                network = "network" if sign > 0 and time == "time" else asked
                ratio = _ratio(Adapted(_silent, prediction, process), sign, answers, bases)
                call = f"adapt({network}, {prediction!r}, {code})"
                yield Correction(", ".join(changed), call, ratio, changes + len(changed) - bool(said))
    deviation, mean = probe.deviation, float(probe.linear.mean.mean())
    units = {
        (2.0, -1.0): "data of [-1, 1] where these are of [0, 1]",
        (0.5, 0.5): "data of [0, 1] where these are of [-1, 1]",
        (2 / 255, -1.0): "data of [-1, 1] where these are of [0, 255]",
        (1 / 255, 0.0): "data of [0, 1] where these are of [0, 255]",
        (127.5, 127.5): "data of [0, 255] where these are of [-1, 1]",
        (1 / deviation, -mean / deviation): "standardised data, of mean 0 and standard deviation 1",
        (0.5 / deviation, -0.5 * mean / deviation): "data of mean 0 and standard deviation 0.5",
        **{(a, 0.0): f"data of {a:g} times these" for a in (2.0, 0.5, 10.0, 0.1, 0.18215, 1 / 0.18215)},
    }
    for (a, b), said in units.items():
        shift = f" {'+' if b > 0 else '-'} {abs(b):.4g}" if b else ""
        yield Correction(f"for {said}", f"data = {a:.4g} * data{shift}", _rescaled(probe, bases, a, b))


def _processes(own: Process) -> Iterator[tuple[Process, str, str, str, int]]:
    """Processes that a network may see instead: in words, in code, its time in code, and how many things change.

    A time of another kind counts twice: it fits by chance where a usual process fits too.
    """
    yield own, "", _code(own), "time", 0
    others: list[Process] = [VarianceExploding(), VariancePreserving()]
    for scale in (1.0, 1000.0):
        others += [RectifiedFlow(scale), RectifiedFlow(scale, data_at=1)]
    for other in others:
        turned = isinstance(own, RectifiedFlow) and other == replace(own, data_at=0 if own.data_at else 1)
        if other != own:
            yield (
                other,
                "with the flow's time reversed" if turned else f"in the process {_code(other)}",
                _code(other),
                "time",
                1,
            )
    if isinstance(own, DiscreteVariancePreserving) and own.alphas_cumprod[-1] > 0.5:  # no table ends at so little noise
        products = np.cumprod(own.alphas_cumprod).tolist()
        code = "DiscreteVariancePreserving(torch.cumprod(alphas, 0))"
        yield replace(own, alphas_cumprod=products), "with the products of the table's alphas", code, "time", 1
    for table in _tables():
        if (discrete := DiscreteVariancePreserving(table)) != own:
            said = f"in DDPM's process, with indices up to {len(table) - 1}"
            yield discrete, said, "DiscreteVariancePreserving(alphas_cumprod)", "time", 1
    end = 1.0 if own.sigma_max == math.inf else float(own.time(torch.tensor([own.sigma_max], dtype=torch.float64)))
    times: dict[str, Callable[[Tensor], Tensor]] = {}
    if not isinstance(own, RectifiedFlow | VarianceExploding):
        times[f"{end:g} - time"] = lambda sigma: end - own.time(sigma)
    for factor in (999.0, 1000.0):
        times[f"{factor:g} * time"] = lambda sigma, by=factor: by * own.time(sigma)  # type: ignore[misc]
        times[f"time / {factor:g}"] = lambda sigma, by=factor: own.time(sigma) / by  # type: ignore[misc]
    for name, time in times.items():
        yield _Retimed(own, time), f"with the time {name}", _code(own), name, 2
    logarithms: dict[str, Callable[[Tensor], Tensor]] = {"": torch.log, " / 4": lambda sigma: sigma.log() / 4}
    sigma = "time" if isinstance(own, VarianceExploding) else "sigma"  # the time of other processes is not sigma
    for name, time in logarithms.items():
        yield _Retimed(own, time), f"with the time ln(sigma){name}", _code(own), f"{sigma}.log(){name}", 2


@cache
def _tables() -> tuple[tuple[float, ...], ...]:
    """The usual tables of 1,000 levels: those of DDPM, of latent diffusion, and of Nichol and Dhariwal (2021)."""
    linear = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scaled = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    angles = (torch.linspace(0, 1, 1001, dtype=torch.float64) + 0.008) / 1.008 * math.pi / 2
    squares = angles.cos() ** 2
    cosine = (1 - squares[1:] / squares[:-1]).clamp(max=0.999)
    return tuple(tuple((1 - betas).cumprod(0).tolist()) for betas in (linear, scaled, cosine))


def _code(process: Process) -> str:
    """A process in code, in short."""
    if isinstance(process, RectifiedFlow):
        parts = [f"time_scale={process.time_scale:g}"] if process.time_scale != 1 else []
        return f"RectifiedFlow({', '.join([*parts, *(['data_at=1'] if process.data_at else [])])})"
    usual = process in (VarianceExploding(), VariancePreserving())
    return f"{type(process).__name__}({'' if usual else '...'})"


def _silent(z: Tensor, time: Tensor, **conditions: Any) -> Tensor:
    return z


def _read(declared: Adapted, probe: Probe, bases: dict[float, Answers], shared: dict[str, Any]) -> Any:
    """The network's own answers at each level in the process of ``declared``; None if it fails."""
    taken: dict[float, Tensor] = {}
    for sigma in bases:
        said: list[Tensor] = []

        def network(z: Tensor, time: Tensor, said: list[Tensor] = said, **conditions: Any) -> Tensor:
            out = declared.network(z, time, **{**shared, **conditions})
            said.append(out.flatten(1).cpu().double().clone())
            return out

        try:
            probe.at(sigma, replace(declared, network=network), _rows(probe))
        except HeadstartError:
            return None
        taken[sigma] = torch.cat(said)
    return taken


def _ratio(reading: Adapted, sign: int, answers: dict[float, Tensor], bases: dict[float, Answers]) -> float:
    """The worst ratio over the levels if the answers are read so."""
    worst = 0.0
    for sigma, base in bases.items():
        level = torch.full((len(base.x), 1), sigma, dtype=torch.float64)
        keep, add = reading.coefficients(level)
        loss = (keep * base.x + sign * add * answers[sigma] - base.x0).square().sum(1).mean()
        worst = max(worst, float(loss / base.linear.mean()))
    return worst


def _rescaled(probe: Probe, bases: dict[float, Answers], a: float, b: float) -> float:
    """The worst ratio over the levels with data of other units."""
    try:
        return max(probe.at(sigma, _Rescaled(probe.denoiser, a, b), _rows(probe)).ratio for sigma in bases)
    except HeadstartError:
        return math.inf


def other_kind(probe: Probe, sigmas: NDArray[np.float64]) -> Correction | None:
    r"""Networks that are no denoisers, by their slopes on x for data of standard deviation s.

    A denoiser has :math:`s^2 / (s^2 + \sigma^2)`; the straight paths of an optimally coupled flow lead to
    :math:`s / (s + \sigma)`, and a consistency model, which answers with a sample, to :math:`s / \sqrt{s^2 +
    \sigma^2}`.
    """
    s = probe.linear.variances.clamp_min(0).sqrt()
    kinds: dict[str, Callable[[float], Tensor]] = {
        "": lambda a: s**2 / (s**2 + a**2),
        "its answers are as those of a flow with optimally coupled noise, which is no denoiser: it has to start from "
        "its own coupling, and is not sampled here": lambda a: s / (s + a),
        "its answers are as those of a consistency model, which returns samples and not their mean: it is not "
        "sampled here": lambda a: s / (s**2 + a**2).sqrt(),
    }
    gaps = dict.fromkeys(kinds, 0.0)
    for sigma in sigmas[len(sigmas) // 2 :]:
        found = probe.at(float(sigma), rows=_rows(probe))
        y = found.x - found.x.mean(0)
        slope = float(((found.out - found.out.mean(0)) * y).sum() / y.square().sum())
        weights = s**2 + float(sigma) ** 2
        for kind, slopes in kinds.items():
            expected = float((slopes(float(sigma)) * weights).sum() / weights.sum())
            gaps[kind] = max(gaps[kind], abs(math.log(max(slope, 1e-6) / expected)))
    best = min(gaps, key=lambda kind: gaps[kind])
    return Correction(best, "", math.nan, certain=False) if best and gaps[best] < 0.15 else None
