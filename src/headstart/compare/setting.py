"""Shared by all methods of a seed: the split of the data, the measurements, the fitted starts; each made once.

Plans, and what they rest on, are kept in the folder of the run as each of them is saved, and read from there by a run
that goes on. The trajectories of GITS are not kept, and followed anew when it is to have a grid that is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat
from torch import Tensor

from headstart.artefact import checked, read_json
from headstart.choose import fit_starts, hold_out
from headstart.choose.constraints import MOST_NFE
from headstart.choose.levels import SIGMA_MINS, measured_levels
from headstart.compute import Compute
from headstart.denoiser import Denoiser, Range
from headstart.errors import InputError
from headstart.files import atomic_write
from headstart.initialization import Initialization, Isotropic
from headstart.noise import Stream
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.schedule import GITS, Schedule, rho_grid
from headstart.schedule.classic import EDM_MAX, EDM_MIN
from headstart.solver import DPMSolverPP2M

__all__ = ["NFE", "QUICK", "SIGMA_MAX", "SIGMA_MIN", "Draws", "Setting", "Sizes"]

Part = TypeVar("Part", Profile, Initialization)
Kept = TypeVar("Kept", bound=BaseModel)

#: EDM's range of noise levels.
SIGMA_MAX, SIGMA_MIN = EDM_MAX, EDM_MIN


#: The numbers of evaluations that are looked at by default.
NFE = (3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Draws:
    """The samples that are drawn and scored of each method.

    Attributes:
        nfe: numbers of evaluations.
        samples: for each number of evaluations and seed; those of seed k have the seeds k 2^32, k 2^32 + 1, ...
        seeds: how many seeds.
        seed: the first of them.

    Raises:
        InputError: if there is nothing to draw, or a number is out of its range.
    """

    nfe: Sequence[int] = NFE
    samples: int = 10_000
    seeds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 2 or self.seeds < 1:
            raise InputError(
                f"a comparison needs 2 samples or more, and a seed: got {self.samples} samples and {self.seeds} seeds"
            )
        self.counts()

    def counts(self, *others: int) -> list[int]:
        """The numbers of evaluations and some others, in order, each once."""
        counts = sorted({*self.nfe, *others})
        if not counts or counts[0] < 1:
            raise InputError(f"a comparison needs evaluations of 1 or more: got {counts}")
        if counts[-1] > MOST_NFE:
            raise InputError(f"a sampler has {MOST_NFE} evaluations at most: got {counts[-1]}")
        return counts


@dataclass(frozen=True)
class Sizes:
    """How much goes into what is measured and learned.

    Attributes:
        profile: samples that the network is measured on; the usual number by default.
        pilot: samples of each pilot of a fit.
        trajectories: that GITS learns from; its release takes 256 too.
        teacher: levels of these.
        aligned: samples that Align Your Steps estimates its bound on; the paper takes 8,192.
        coarse: steps of its first grid.
        halvings: how often these are halved.
        sweeps: of its descent at most, before and after each halving.
        iterations: steps of Adam that LD3 makes.
        batch: samples of each.
        pairs: fine trajectories that it learns from.
        judged: samples that its result is checked on.
        slow: whether methods that take minutes to prepare are among those that run by default.
    """

    profile: int | None = None
    pilot: int = 1024
    trajectories: int = 256
    teacher: int = 61
    aligned: int = 32
    coarse: int = 5
    halvings: int = 3
    sweeps: int = 100
    iterations: int = 100
    batch: int = 128
    pairs: int = 512
    judged: int = 512
    slow: bool = True


#: Enough to see that everything works.
QUICK = Sizes(
    profile=16,
    pilot=16,
    trajectories=4,
    teacher=12,
    aligned=2,
    coarse=2,
    halvings=1,
    sweeps=1,
    iterations=2,
    batch=8,
    pairs=8,
    judged=16,
    slow=False,
)


@dataclass(frozen=True, eq=False)
class Setting:
    """The data, measurements and starts that all methods of a seed share.

    Attributes:
        denoiser: the network, on ``device``.
        data: the training samples, shape (N, \\*S); none of what samples are scored against.
        seed: of the split, of measuring, fitting and learning.
        folder: where plans are kept.
        sigma_max: the level of noise that the methods from noise start at.
        sigma_min: the last level above 0 of the grids that are made by hand.
        sizes: how much goes into what is measured and learned.
        compute: where the network works, how many samples at a time, and who is told of what takes time.
    """

    denoiser: Denoiser
    data: Tensor
    seed: int
    folder: Path
    sigma_max: float = SIGMA_MAX
    sigma_min: float = SIGMA_MIN
    sizes: Sizes = field(default_factory=Sizes)
    compute: Compute = field(default_factory=Compute)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape S of one sample."""
        return tuple(self.data.shape[1:])

    @cached_property
    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the data that starts are fitted on, and of those held out from them (as a fit holds them out)."""
        return hold_out(self.data, self.seed)

    @cached_property
    def measured(self) -> tuple[Profile, float]:
        """The profile of the network, and the seconds that it took to measure."""

        def measure() -> Profile:
            return Profile.measure(
                self.denoiser,
                self.data[self.split[1]],
                sigmas=measured_levels(self.data, [self.sigma_max], Range.of(self.denoiser)),
                samples=self.sizes.profile,
                seed=self.seed,
                device=self.compute.device,
                batch_size=self.compute.batch_size,
                progress=self.compute.progress,
            )

        return self._kept_part("profile", measure, Profile.load)

    @property
    def profile(self) -> Profile:
        """The measurements of the network."""
        return self.measured[0]

    def edm(self, steps: int) -> Schedule:
        """EDM's grid, with a last step to 0."""
        return rho_grid(steps, self.sigma_max, self.sigma_min)

    @property
    def few_sigma_min(self) -> float:
        """The last level above 0 of grids that are measured or learned: with few steps, finer detail is not worth one.

        It is the one that our own grids begin with, 0.05 standard deviations of the data.
        """
        return max(self.sigma_min, SIGMA_MINS[0] * self.profile.sigma_data)

    def start(self, family: str) -> tuple[Initialization, float]:
        """A start of a family, fitted once, and the seconds that this took."""
        if family not in self._starts:
            self._starts[family] = self._fitted(family)
        return self._starts[family]

    @cached_property
    def _starts(self) -> dict[str, tuple[Initialization, float]]:
        return {}

    def _fitted(self, family: str) -> tuple[Initialization, float]:
        fitted_on = self.data[self.split[0]]

        def fitted() -> Initialization:
            return fit_starts(fitted_on, family, seed=self.seed, progress=self.compute.progress)[0]

        if family in ("isotropic", "empirical"):  # nothing to fit, and training data are not written down
            return fit_starts(fitted_on, family)[0], 0.0
        return self._kept_part(f"start-{family}", fitted, Initialization.load)

    @cached_property
    def gits(self) -> tuple[GITS, float]:
        """The programme of GITS on trajectories of DPM-Solver++(2M) from noise, and the seconds that it took."""
        teacher = rho_grid(self.sizes.teacher, self.sigma_max, self.few_sigma_min, final_zero=False)
        began = time.perf_counter()
        noise = self.compute.noise(Stream.TAUGHT.seeds(self.seed, self.sizes.trajectories))
        x = self.sigma_max * noise.normal(self.shape)

        def denoiser(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
            """The network, some trajectories at a time."""
            levels = torch.as_tensor(sigma, device=x.device).expand(len(x))
            parts = self.compute.batches(len(x))
            return torch.cat([self.denoiser(x[part], levels[part], **conditions) for part in parts])

        with torch.no_grad():
            states = [x, *DPMSolverPP2M().trajectory(denoiser, x, teacher)]
            gits = GITS.of(denoiser, states, teacher)
        return gits, time.perf_counter() - began

    def _kept_part(self, name: str, make: Callable[[], Part], load: Callable[[Path], Part]) -> tuple[Part, float]:
        """A profile or a start as it was kept on disk, or made and kept there; and the seconds that making it took.

        Raises:
            ArtefactError: if what is there is damaged, or it cannot be written.
        """
        place = self._place(name)
        file, seconds = place.with_name(f"{place.name}.safetensors"), place.with_name(f"{place.name}.json")
        if file.exists():
            return load(file), _read(seconds, _Seconds).seconds
        began = time.perf_counter()
        part = make()
        found = _Seconds(seconds=time.perf_counter() - began)
        _write(found, seconds)  # first: it is the other file that says that both are there
        part.save(file)
        return part, found.seconds

    def kept_grid(self, name: str, make: Callable[[], tuple[Schedule, float]]) -> tuple[Schedule, float]:
        """A schedule as it was kept on disk, or made and kept there; and the seconds that making it took.

        Arguments:
            name: of the schedule.
            make: makes it, and says how many seconds it took, with all that it rests on.

        Raises:
            ArtefactError: if what is there is damaged, or it cannot be written.
        """
        place = self._place(name)
        file = place.with_name(f"{place.name}.json")
        if not file.exists():
            schedule, seconds = make()
            _write(_Grid(name=schedule.name, sigmas=list(schedule.sigmas), seconds=seconds), file)
        found = _read(file, _Grid)
        return Schedule(found.sigmas, found.name), found.seconds

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}-seed{self.seed}"

    def kept(self, name: str, make: Callable[[], Plan], start: Initialization | None = None) -> Plan:
        """A plan as it was kept on disk, or made and kept there.

        Arguments:
            name: of the plan.
            make: makes it; the seconds of its record should count all that it rests on.
            start: if given, the plan's own start is not kept, and this one is put in its place.

        Raises:
            ArtefactError: if what is there is damaged or no plan, or it cannot be written.
        """
        place = self._place(name)
        if (place / "plan.json").exists():
            plan = Plan.load(place)
        else:
            plan = make()
            (plan if start is None else replace(plan, initialization=Isotropic(self.shape))).save(place)
        return plan if start is None else replace(plan, initialization=start)


class _Seconds(BaseModel):
    """The time that something took to make."""

    model_config = ConfigDict(extra="forbid")
    seconds: FiniteFloat


class _Grid(_Seconds):
    """A schedule that took some time to make."""

    name: str
    sigmas: list[FiniteFloat]


def _write(values: BaseModel, path: Path) -> None:
    atomic_write((json.dumps(values.model_dump(), allow_nan=False) + "\n").encode(), path)


def _read(path: Path, schema: type[Kept]) -> Kept:
    return checked(schema, read_json(path), path)
