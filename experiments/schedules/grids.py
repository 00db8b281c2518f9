"""All the schedules under one name each, for one network: those made by hand, and those that are measured.

Everything that is measured is measured once, at a long horizon, and every grid of every horizon and number of steps is
cut from it: GITS and the constant rate on fine trajectories from there, Align Your Steps as 40 steps whose part below
the horizon is cut into equal parts of its own steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from headstart.denoiser import Denoiser
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import (
    GITS,
    Length,
    Schedule,
    ShortestPaths,
    constant_rate,
    equidistribute,
    get_rule,
    log_linear,
    rho_grid,
)
from headstart.solver import (
    DDPM,
    DEIS,
    IPNDM,
    DPMSolverPP2M,
    DPMSolverPP3M,
    Euler,
    Heun,
    Solver,
    UniPC,
    is_linear,
)

__all__ = ["HAND", "ODE", "SOLVERS", "Grids", "aligned_length", "class_of", "fits", "teacher_of", "trajectories"]

#: The grids that are made by hand. The other ones are measured, or learned by gradients.
HAND = ("rho 7", "rho 3", "log_linear", "cosine", "linear_vp", "tangent")

#: Every solver by its name here.
SOLVERS: Mapping[str, Solver] = {
    "euler": Euler(),
    "heun": Heun(),
    "dpm++2m": DPMSolverPP2M(),
    "dpm++3m": DPMSolverPP3M(),
    "unipc": UniPC(),
    "deis": DEIS(),
    "ipndm": IPNDM(),
    "ddpm": DDPM(),
    "dpm++2m sde": DPMSolverPP2M(eta=1.0),
}

#: Those of the probability-flow ODE.
ODE = tuple(name for name, solver in SOLVERS.items() if not solver.stochastic)


def class_of(kind: str) -> str:
    """Whether a schedule is made by hand, measured, or learned by gradients."""
    if kind in HAND:
        return "by hand"
    return "by gradient" if kind in ("ld3", "distilled") else "measured"


def fits(kind: str, solver: Solver) -> bool:
    """Whether a schedule is for a solver: the least error is known for ODE solvers with one evaluation a step alone."""
    return kind != "least_error" or is_linear(solver)


@dataclass(frozen=True, eq=False)
class Grids:
    """Every grid of one network, with a last step to 0.

    Attributes:
        profile: for the grids that follow from a rule.
        lengths: those that grids are cut from, by the kinds' names.
        gits: the programme, whose last level is the only sigma_min that it has.
        paths: the shortest paths, likewise.
    """

    profile: Profile
    lengths: Mapping[str, Length]
    gits: GITS
    paths: ShortestPaths
    _made: dict[tuple[str, int, float, float, Solver], Schedule] = field(default_factory=dict)

    @property
    def measured(self) -> tuple[str, ...]:
        """The kinds that are measured."""
        return ("corrector", "defect", "least_error", *self.lengths, "gits", "shortest_paths")

    def __call__(self, kind: str, steps: int, horizon: float, sigma_min: float, solver: Solver) -> Schedule:
        """The grid of a kind.

        Arguments:
            kind: its name.
            steps: with the last one to 0.
            horizon: the first level; a level of the teacher for "gits".
            sigma_min: the last level above 0; for "gits" and "shortest_paths" it is the teacher's.
            solver: whose error is to be least, for "least_error" alone.
        """
        key = kind, steps, horizon, sigma_min, solver
        if key not in self._made:  # the least error takes up to a second
            self._made[key] = Schedule(self._cut(*key).sigmas, kind)
        return self._made[key]

    def _cut(self, kind: str, steps: int, horizon: float, sigma_min: float, solver: Solver) -> Schedule:
        if kind in self.lengths:
            return equidistribute(self.lengths[kind], steps, horizon, sigma_min)
        if kind == "gits":
            return self.gits.schedule(steps, horizon)
        if kind == "shortest_paths":
            return self.paths.schedule(steps, horizon)
        return get_rule(kind)(self.profile, steps, horizon, sigma_min, solver)

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        profile: Profile,
        teacher: Schedule,
        states: Sequence[Tensor],
        lengths: Mapping[str, Length],
    ) -> Grids:
        """With what fine trajectories tell, and what was measured before.

        Arguments:
            denoiser: the network.
            profile: of it.
            teacher: the levels of the trajectories, with every horizon that is asked for later.
            states: the trajectories.
            lengths: others than the constant rate's.
        """
        gits = GITS.of(denoiser, states, teacher, metric="l2")
        rate = constant_rate(denoiser, states, teacher)
        dimension = int(np.prod(profile.shape))
        paths = ShortestPaths.of(profile.sigmas, profile.loss, dimension, 20, sigma_min=teacher.sigma_min)
        return cls(profile, {**lengths, "constant_rate": rate}, gits, paths)


def teacher_of(horizons: Sequence[float], sigma_min: float, levels: int = 60) -> Schedule:
    """The rho grid from the longest horizon to sigma_min, the other horizons, and half as many levels below the last.

    From a short horizon, the rho grid of the longest one would leave too few to choose from.
    """
    usual = rho_grid(levels, max(horizons), sigma_min, final_zero=False).sigmas
    below = log_linear(levels // 2, min(horizons), sigma_min, final_zero=False).sigmas
    return Schedule(sorted({*usual, *horizons, *below}, reverse=True), "teacher")


@torch.no_grad()
def trajectories(
    denoiser: Denoiser, shape: Sequence[int], teacher: Schedule, count: int, device: str, dtype: torch.dtype
) -> list[Tensor]:
    """The states of DPM-Solver++(2M) on a teacher's levels, from noise."""
    x = teacher.horizon * Noise(range(2**41, 2**41 + count), device, dtype).normal(tuple(shape))
    return [x, *DPMSolverPP2M().trajectory(denoiser, x, teacher)]


def aligned_length(grid: Schedule) -> Length:
    """The length that makes all steps of a grid equally long: a part of it in fewer steps is an interpolation."""
    return Length(np.array(grid.sigmas), np.ones(grid.steps), 1)
