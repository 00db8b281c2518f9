"""The pilot: samples of a combination of start, levels and solver, held against held-out data.

It decides what nats cannot. A nat of initialization is visible structure, a nat of discretization imperceptible detail;
and at a few steps, a solver that extrapolates further errs more in nats and often makes the better samples. The
distance is that of :mod:`headstart.choose.judge`. All pilots share their seeds, so that their differences are paired.

**The last row.** A solver's step to 0 ends at a weighted sum of the network's answers. The last two of them are at
hand, and

.. math:: x_N(v) = x_N + v\\, (D_{N-1} - D_{N-2})

is judged for any v without another evaluation, since projections are linear. The v of the least score is kept where
it is better than v = 0 by more than one standard error. A plan stores it as a solver with its weights
(:class:`headstart.solver.Distilled`). At two evaluations, where all solvers take the same steps, it is all there is to
choose of a solver.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.artefact import read_tensors, write_tensors
from headstart.choose.judge import Judge, expected
from headstart.choose.screen import Option, Score, resampled
from headstart.choose.work import Work
from headstart.compute import Compute
from headstart.conditions import Part
from headstart.denoiser import Denoiser
from headstart.metrics.checks import digest
from headstart.noise import Stream
from headstart.processes import spread
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.solver import Distilled, is_linear, linear_weights

__all__ = ["FEW", "Pilot", "turned"]

#: Samples that every combination is judged by first.
FEW = 128

#: The form of a file of samples.
FORM = "headstart-pilot"

#: How far the last row is turned.
TURNS = (-1.0, 5.0)

#: Where that is not far enough: so many times as far as the straight line through the last two answers is at 0. Of
#: levels near each other it is many times their difference away.
LINES = 3.0

#: To what the turn is found.
NEAR = 0.02

#: Answers of the network that are kept, in bytes: combinations that share their first levels share them.
KEPT = 2**28


@dataclass(frozen=True, eq=False)
class _Drawn:
    """The first samples of a combination: their projections, and those of the difference of the last two answers."""

    samples: tuple[Tensor, ...]
    change: tuple[Tensor, ...] | None

    def __len__(self) -> int:
        return len(self.samples[0])

    def at(self, turn: float) -> tuple[Tensor, ...]:
        """The projections of the samples with the last row turned."""
        if not turn or self.change is None:
            return self.samples
        return tuple(torch.add(a, b, alpha=turn) for a, b in zip(self.samples, self.change, strict=True))

    def joined(self, other: _Drawn) -> _Drawn:
        """Those of two sets of samples."""
        samples = tuple(torch.cat(pair) for pair in zip(self.samples, other.samples, strict=True))
        if self.change is None or other.change is None:
            return _Drawn(samples, None)
        return _Drawn(samples, tuple(torch.cat(pair) for pair in zip(self.change, other.change, strict=True)))

    def save(self, path: Path) -> None:
        """Write them as one file, whole or not at all."""
        parts = {"samples": self.samples, "change": self.change or ()}
        tensors = {f"{name}.{i}": tensor for name, own in parts.items() for i, tensor in enumerate(own)}
        write_tensors(path, FORM, 1, {}, tensors)

    @staticmethod
    def load(path: Path) -> _Drawn:
        """Those that :meth:`save` wrote.

        Raises:
            ArtefactError: if the file is damaged.
        """
        _, tensors = read_tensors(path, FORM, 1)
        count = sum(name.startswith("samples.") for name in tensors)
        samples, change = (
            tuple(tensors[f"{part}.{i}"] for i in range(count) if f"{part}.{i}" in tensors)
            for part in ("samples", "change")
        )
        return _Drawn(samples, change or None)


class Pilot:
    """Draws samples of combinations and scores them by their distance to the held-out data.

    Arguments:
        denoiser: the network, its shared conditions fixed, on the device.
        held_out: data that neither starts nor, if possible, the network were fitted on, with their conditions, which
            the pilot samples take over.
        profile: the measurements of the network.
        count: samples of each combination that comes far.
        seed: of the views, and of the samples, whose own seeds are those of no other samples.
        compute: how samples are drawn.
        turning: whether the last row of a solver may be turned.
        work: where the samples of a combination are kept as soon as they are drawn, as they are judged.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        held_out: Part,
        profile: Profile,
        count: int,
        seed: int,
        compute: Compute,
        turning: bool = True,
        work: Work | None = None,
    ) -> None:
        self.denoiser, self.profile, self.compute, self.seed = denoiser, profile, compute, seed
        self.held_out, self.count, self.turning = held_out, count, turning
        self.few, self.work = min(FEW, count), work or Work()
        self._answers = _Answers(denoiser)
        self._drawn: dict[Any, _Drawn] = {}
        self._told: dict[int, str] = {}

    @cached_property
    def judge(self) -> Judge:
        """The held-out data that samples are compared with."""
        means = expected(self.denoiser, self.held_out, float(self.profile.sigmas[0]), self.seed, self.compute)
        return Judge.of(self.held_out.samples.float(), means, self.seed)

    def __call__(self, options: Iterable[Option], count: int | None = None) -> list[Option]:
        """The options with their scores: the first ones as ``pilot``, or those of ``count`` samples as ``final``.

        Several processes share out the options that samples are drawn of.
        """
        options, few = list(options), count is None
        wanted = self.few if count is None else count
        lacking = [o for o in {o.key: o for o in options}.values() if len(self._drawn.get(o.key, ())) < wanted]
        _ = self.judge  # once, and not by each process for itself
        found = spread(
            lacking,
            lambda option: self._extended(option, wanted),
            lambda own: self.compute.progress.track(own, "piloting", len(own)),
        )
        self._drawn |= {option.key: drawn for option, drawn in zip(lacking, found, strict=True)}
        return [self._scored(option, few) for option in options]

    def samples(self, option: Option, count: int) -> Tensor:
        """The first samples of a combination, its last row turned, of shape (count, \\*S)."""
        return self._sample(_sampler(turned(self.profile, option)), self.denoiser, slice(0, count))

    def _scored(self, option: Option, few: bool) -> Option:
        drawn = self._drawn[option.key]
        plain = score = self._score(drawn, 0.0)
        turn = 0.0
        if drawn.change is not None:
            turn = self._turn(option, drawn)
            score = self._score(drawn, turn)
            if plain.value - score.value <= plain.gap(score):
                turn, score = 0.0, plain
        return replace(option, pilot=score, turn=turn) if few else replace(option, final=score, turn=turn)

    def _turn(self, option: Option, drawn: _Drawn) -> float:
        """The turn of the last row with the least distance, to two digits after the point."""
        from scipy.optimize import minimize_scalar

        def distance(turn: float) -> float:
            return self.judge.energy(drawn.at(turn)).value

        def least(*ends: float) -> float:
            return float(minimize_scalar(distance, bounds=ends, options={"xatol": NEAR}).x)

        turn = least(*TURNS)
        before, last = option.schedule.sigmas[-3:-1]
        far = LINES * last / (before - last)
        if turn > TURNS[1] - 2 * NEAR and far > TURNS[1]:
            turn = least(TURNS[1], far)
        return round(turn, 2)

    def _score(self, drawn: _Drawn, turn: float) -> Score:
        energy = self.judge.energy(drawn.at(turn))
        return Score.of(len(drawn), lambda kept: energy.of(torch.from_numpy(kept)))

    def _extended(self, option: Option, count: int) -> _Drawn:
        """``count`` samples of a combination, those that are known among them."""
        known = self._drawn.get(option.key)
        first = 0 if known is None else len(known)
        make = partial(self._projected, option, first, count)
        name = partial(self._unit, option, first, count)
        new = self.work.kept(name, make, _Drawn.save, _Drawn.load)
        return new if known is None else known.joined(new)

    def _unit(self, option: Option, first: int, count: int) -> str:
        """The name that samples of a combination are kept by."""
        if id(option.start) not in self._told:
            values, tensors = option.start.state()
            parts = {name: digest(tensor.flatten()) for name, tensor in tensors.items()}
            self._told[id(option.start)] = json.dumps([option.start.name, values, parts], sort_keys=True)
        solver = [option.solver.name, option.solver.parameters()]
        what = json.dumps([self._told[id(option.start)], option.schedule.sigmas, solver, first, count], sort_keys=True)
        return f"pilot-{hashlib.sha256(what.encode()).hexdigest()[:24]}"

    def _projected(self, option: Option, first: int, count: int) -> _Drawn:
        """The samples from place ``first`` on, projected."""
        turning, parts = self.turning and _turns(option), []
        for part in self.compute.batches(count - first):
            places = slice(first + part.start, first + part.stop)
            asked = self._answers.at(places)
            last = _Last(asked)
            samples = self._sample(_sampler(option), last if turning else asked, places)
            change = self.judge.project(last.change()) if turning else None
            parts.append(_Drawn(self.judge.project(samples, self._rows(places)), change))
        return reduce(_Drawn.joined, parts)

    def _sample(self, sampler: Sampler, denoiser: Denoiser, places: slice) -> Tensor:
        return sampler.sample(
            denoiser,
            seeds=Stream.PILOT.seeds(self.seed, places.stop - places.start, places.start),
            batch_size=self.compute.batch_size,
            device=self.compute.device,
            dtype=self.compute.dtype,
            conditions=self.held_out.conditions.take(self._rows(places)),
        ).float()

    def _rows(self, places: slice) -> Tensor:
        """Which of the held-out data each sample takes the conditions of."""
        return torch.arange(places.start, places.stop) % len(self.held_out)


def turned(profile: Profile, option: Option) -> Option:
    """The combination whose solver has its last row turned, as the pilot judged it."""
    if not option.turn:
        return option
    weights = linear_weights(option.solver, option.schedule)
    weights[-1, -2:] += [-option.turn, option.turn]
    return resampled(profile, option, option.kind, option.schedule, Distilled.from_matrix(weights.tolist()))


def _turns(option: Option) -> bool:
    """Whether the last step of a combination is one to 0 that has two answers to go by."""
    return is_linear(option.solver) and option.schedule.steps > 1 and option.schedule.sigmas[-1] == 0


def _sampler(option: Option) -> Sampler:
    return Sampler(option.start, option.schedule, option.solver)


class _Last:
    """A denoiser that keeps its last two answers."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.answers: Sequence[Tensor] = ()

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        answer = self.denoiser(x, sigma, **conditions)
        self.answers = (*self.answers[-1:], answer.detach().clone())
        return answer

    def change(self) -> Tensor:
        """The difference of the last two answers, on the CPU."""
        before, last = self.answers
        return (last.float() - before.float()).cpu()


class _Answers:
    """A denoiser that remembers its latest answers, by the samples that were asked about, their states and the level.

    The first steps of many combinations are the same. The places of the samples stand for their conditions, which the
    states do not tell: a start may ask about one state for all samples.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.known: OrderedDict[tuple[int, int, str, str], Tensor] = OrderedDict()
        self.size = 0

    def at(self, places: slice) -> Denoiser:
        """The denoiser for the samples at these places."""
        return partial(self._answer, places)

    def _answer(self, places: slice, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        key = (places.start, places.stop, digest(x), digest(torch.as_tensor(sigma)))
        if key not in self.known:
            self.known[key] = found = self.denoiser(x, sigma, **conditions)
            self.size += found.nbytes
            while self.size > KEPT and len(self.known) > 1:
                self.size -= self.known.popitem(last=False)[1].nbytes
        self.known.move_to_end(key)
        return self.known[key]
