"""A sampler: where to start, which levels to visit and how to move between them.

The three parts are all that it takes to draw samples of a network. A :class:`headstart.plan.Plan` is a sampler with the
evidence for its parts.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headstart.citation import bibtex, citations
from headstart.compute import Compute
from headstart.conditions import Conditions
from headstart.denoiser import Counted, Denoiser, Range, denoise, in_evaluation_mode
from headstart.errors import DenoiserError, InputError, NotFiniteError
from headstart.initialization import Initialization, Isotropic
from headstart.progress import Progress
from headstart.schedule import Schedule, rho_grid
from headstart.schedule.classic import EDM_MAX, EDM_MIN
from headstart.solver import Heun, Solver
from headstart.solver.base import last

__all__ = ["CLASSIC_NFE", "MOST_SAMPLES", "Sampler", "State", "classic"]

#: No run draws more: their seeds alone take hundreds of megabytes.
MOST_SAMPLES = 10_000_000

#: Evaluations of the classic sampler as it is published for small images.
CLASSIC_NFE = 35


@dataclass(frozen=True, eq=False)
class State:
    """Where samples are at one level of their trajectories.

    Attributes:
        sigma: the level.
        x: the states, shape (n, \\*S), on the CPU.
        evaluations: of the network for a sample, up to here.
        seconds: of wall-clock time up to here, for all of them together.
    """

    sigma: float
    x: Tensor
    evaluations: int
    seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class Sampler:
    """A start, a schedule and a solver: all that samples a denoiser.

    Attributes:
        initialization: where the reverse process starts.
        schedule: which levels it visits.
        solver: how it moves between them.

    >>> from headstart.initialization import Isotropic
    >>> from headstart.schedule import rho_grid
    >>> from headstart.solver import Heun
    >>> Sampler(Isotropic((2,)), rho_grid(18, 80.0, 0.002), Heun())
    Sampler(35 evaluations: isotropic start at 80, rho 7 levels, heun)
    """

    initialization: Initialization
    schedule: Schedule
    solver: Solver

    @property
    def nfe(self) -> int:
        """Network evaluations per sample."""
        return self.solver.nfe(self.schedule) + self.initialization.evaluations

    @property
    def horizon(self) -> float:
        """The level sigma_T that the reverse process starts from."""
        return self.schedule.horizon

    @in_evaluation_mode
    @torch.no_grad()
    def sample(
        self,
        denoiser: Denoiser,
        n: int | None = None,
        *,
        seeds: Iterable[int] | Tensor | None = None,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        progress: Progress | None = None,
        conditions: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Tensor:
        """New samples, each a function of its own seed alone.

        Where several processes work together (:mod:`headstart.processes`), each draws some of the batches, and all get
        all samples.

        Arguments:
            denoiser: the network, on ``device``; its modules are used in evaluation mode, and put back.
            n: how many samples; their seeds are then 0 to n - 1.
            seeds: one seed a sample, instead of n; a list, an array or a tensor of integers.
            batch_size: samples per call of the network.
            device: where the network works.
            dtype: of the states.
            progress: told of the batches.
            conditions: handed to the network by name; what they are made of goes with the samples if it is as long, or
                marked so (:mod:`headstart.conditions`). ``label`` is a class for each sample, or one for all. They
                also condition a start that was fitted with them.
            named: more conditions, whose names are none of the above.

        Returns:
            Samples of shape (n, \\*S), on the CPU.

        Raises:
            InputError: if neither or both of n and seeds are given, they are empty or no integers, or the label does
                not fit.
            DenoiserError: if the denoiser returns NaN or Inf, whose level and seeds are named, or the wrong shape.
        """
        every = _every_seed(n, seeds)
        self._announce(denoiser)
        compute = Compute(device, dtype, batch_size, progress or Progress())
        if not every:
            raise InputError("at least one sample is drawn: got none")
        if twice := sorted({*(conditions or {})} & {*named}):
            raise InputError(f"{', '.join(twice)} is given twice: among the conditions and by name")
        every_given = Conditions.of(conditions if not named else {**(conditions or {}), **named}, len(every))
        if batch_size < len(every):
            every_given = every_given.told_apart(partial(self._first_answer, denoiser, every, compute))

        def draw(part: slice) -> Tensor:
            noise = compute.noise(every[part])
            given = every_given.take(part).to(device)
            x = self.initialization.bound(denoiser).sample(noise, self.horizon, given)
            try:
                x = last(self.solver.trajectory(partial(denoiser, **given), x, self.schedule, noise))
            except NotFiniteError as error:
                raise error.of_seeds(every[part]) from error
            return self._returned(x).cpu()

        return torch.cat(compute.spread(len(every), draw, "sampling"))

    @in_evaluation_mode
    @torch.no_grad()
    def trajectory(
        self,
        denoiser: Denoiser,
        seeds: Sequence[int],
        conditions: Mapping[str, Any] | None = None,
        *,
        compute: Compute | None = None,
    ) -> list[State]:
        """A few samples at every level of the schedule, from the start to the end, in one batch.

        Arguments:
            denoiser: the network, on the device.
            seeds: one a sample. The last states are those of :meth:`sample` for these seeds; latents are not decoded.
            conditions: as there.
            compute: where the network works, and the type of the states.

        Raises:
            InputError: as :meth:`sample`.
            DenoiserError: as :meth:`sample`.
        """
        every, compute = _every_seed(None, seeds), compute or Compute()
        if not every:
            raise InputError("at least one sample is drawn: got none")
        noise, counted = compute.noise(every), Counted(denoiser)
        given = Conditions.of(conditions, len(every)).to(compute.device)
        began = time.perf_counter()
        x = self.initialization.bound(counted).sample(noise, self.horizon, given)
        states = [State(self.horizon, x.cpu(), counted.calls, time.perf_counter() - began)]
        path = self.solver.trajectory(partial(counted, **given), x, self.schedule, noise)
        for sigma, x in zip(self.schedule.sigmas[1:], path, strict=True):
            states.append(State(sigma, x.cpu(), counted.calls, time.perf_counter() - began))
        return states

    def _announce(self, denoiser: Denoiser) -> None:
        """Say what is unusual about sampling this denoiser: of a sampler, nothing."""

    def _returned(self, samples: Tensor) -> Tensor:
        """The samples as they are returned: those of a sampler as they are."""
        return samples

    def _first_answer(self, denoiser: Denoiser, seeds: list[int], compute: Compute, given: Conditions) -> Tensor | None:
        """The network's answer for the first samples with these conditions, or None where it or the start fails."""
        given = given.to(compute.device)
        try:
            start = self.initialization.bound(denoiser)
            x = start.sample(compute.noise(seeds[: given.count]), self.horizon, given)
            return denoise(denoiser, x, self.horizon, **given)
        except (DenoiserError, InputError):
            return None

    def citation(self) -> str:
        """The BibTeX entries of what to cite for its start, schedule and solver, and for what chose them."""
        return bibtex(self.cited)

    @property
    def cited(self) -> tuple[str, ...]:
        """The keys of :meth:`citation`, as in :func:`headstart.citation.references`, each once."""
        return citations(self.initialization.name, self.schedule.name, self.solver.name)

    def _summary(self) -> str:
        return (
            f"{self.nfe} evaluation{'s' * (self.nfe != 1)}: {self.initialization.name} start at {self.horizon:.3g}, "
            f"{self.schedule.name} levels, {self.solver.name}"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._summary()})"


def classic(shape: Sequence[int], nfe: int = CLASSIC_NFE, denoiser: Denoiser | None = None) -> Sampler:
    """EDM's sampler from pure noise: Heun's method on the rho grid with at most so many evaluations.

    Arguments:
        shape: S, of a sample.
        nfe: evaluations; Heun's method spends an odd number, or 1.
        denoiser: the network; the grid stays within the levels that it knows.

    Reference:
        Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022.

    >>> classic((2,), nfe=4)
    Sampler(3 evaluations: isotropic start at 80, rho 7 levels, heun)
    """
    known = Range() if denoiser is None else Range.of(denoiser)
    levels = rho_grid(max(1, Heun().steps_for(nfe)), min(EDM_MAX, known.high), max(EDM_MIN, known.low))
    return Sampler(Isotropic(tuple(shape)), levels, Heun())


def _every_seed(n: int | None, seeds: Iterable[int] | Tensor | None) -> list[int]:
    """The seed of each sample."""
    if (n is None) == (seeds is None):
        raise InputError("say how many samples to draw (n) or give their seeds, and not both")
    if seeds is None:
        try:
            count = operator.index(n)  # type: ignore[arg-type]
        except TypeError as error:
            raise InputError(f"the number of samples is {n!r}: it must be an integer") from error
        if count > MOST_SAMPLES:
            raise InputError(f"{count:,} samples are more than {MOST_SAMPLES:,}: draw them in several runs, by seeds")
        return list(range(count))
    try:
        every = [operator.index(seed) for seed in itertools.islice(seeds, MOST_SAMPLES + 1)]
    except TypeError as error:
        raise InputError(f"seeds must be integers, one for each sample: {error}") from error
    if len(every) > MOST_SAMPLES:
        raise InputError(f"there are more than {MOST_SAMPLES:,} seeds: draw their samples in several runs")
    return every
