r"""25 modes of unequal weight in the plane: the exact divergence of Euler's method, and every other solver by samples.

**Exactly.** Five and ten steps of Euler's method down to 0.02, without one to 0. The samples' density follows from
inverting the steps (:mod:`headstart.budget.exact`), and the expectation over the data is a quadrature.

**By samples.** All solvers in 3 to 20 evaluations, the last of them a step to 0: the sliced 2-Wasserstein distance to
exact samples. Its floor is that of as many other exact samples. LD3 is learned from each start at 3 to 10 evaluations.

Three starts: N(0, 80^2), the Gaussian of the data's moments, and a mixture that is fitted to data, which here is all
but the law itself. The horizons of the last two are of a fixed table.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (the law).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.common import Run, estimate, groups
from experiments.schedules.cells import Cells, best, lines
from experiments.schedules.grids import (
    HAND,
    SOLVERS,
    Grids,
    aligned_length,
    class_of,
    fits,
    teacher_of,
    trajectories,
)
from headstart.budget import invert_euler
from headstart.choose import fit_starts
from headstart.compute import Compute
from headstart.distill import Recipe, distill
from headstart.initialization import Initialization, Isotropic
from headstart.metrics import Reference, evaluate
from headstart.noise import Noise
from headstart.predictor import measure_predictor
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import Descent, Schedule, align_your_steps
from headstart.solver import DPMSolverPP2M
from headstart.targets import gmm25

__all__ = ["divergences", "modes", "points"]

LAW = gmm25(weights="chi2")
SIGMA_MIN = 0.02

#: Horizons at each number of evaluations.
HORIZONS: Mapping[str, Mapping[int, float]] = {
    "isotropic": dict.fromkeys((3, 4, 5, 6, 10, 20), 80.0),
    "gaussian": {3: 1.2, 4: 1.2, 5: 1.2, 6: 1.2, 10: 2.0, 20: 3.0},
    "mixture": {3: 0.5, 4: 0.5, 5: 0.5, 6: 0.5, 10: 0.8, 20: 1.2},
}

#: The bar at five steps from noise, in nats.
BAR = 0.36


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    data: int = 20_000
    measured: int = 1500
    levels: int = 120
    steps: tuple[int, ...] = (5, 10)
    nfe: tuple[int, ...] = (3, 4, 6, 10, 20)
    samples: int = 2000
    aligned: int = 1024
    learned: tuple[int, ...] = (3, 4, 6, 10)
    iterations: int = 100
    pairs: int = 512
    nodes: int = 38
    solvers: tuple[str, ...] = tuple(SOLVERS)
    sweeps: int = 100
    only: tuple[str, ...] = ()


QUICK = Sizes(
    data=1000,
    measured=100,
    levels=40,
    steps=(5,),
    nfe=(3,),
    samples=100,
    aligned=4,
    learned=(3,),
    iterations=1,
    pairs=16,
    nodes=14,
    solvers=("euler", "dpm++2m", "ddpm"),
    sweeps=1,
    only=("rho 7", "tangent", "defect", "least_error"),
)


def points(nodes: int) -> tuple[Tensor, Tensor]:
    """Points (G, 2) of the trapezoid rule at the last level, and their masses; what weighs nothing is left out."""
    axis = torch.linspace(-3.5, 3.5, nodes, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    mass = LAW.log_prob(x, SIGMA_MIN).exp()
    kept = mass > 1e-6 * mass.max()
    return x[kept], mass[kept] / mass[kept].sum()


def divergences(start: Initialization, grid: Schedule, x: Tensor, mass: Tensor) -> float:
    """The divergence in nats from the data at 0.02 to the samples of Euler's method, by a quadrature.

    Arguments:
        start: of the sampler.
        grid: the levels, the last one 0.02.
        x: the points of the quadrature.
        mass: their masses.
    """
    before, log_det = invert_euler(LAW, grid, x)
    return float(mass @ (LAW.log_prob(x, SIGMA_MIN) + log_det - start.log_prob(before, grid.horizon)))


def modes(run: Run, cells: Cells) -> dict[str, Any]:
    """Both parts: their tables, their figure, and what ``results.json`` holds of them."""
    sizes = QUICK if run.quick else Sizes()
    setup = _Setup.made(run, sizes, cells)
    exact = setup.exact()
    run.table("modes-exact", exact)
    rows = setup.sweep()
    floors = setup.floors()
    means = _means(rows)
    first = best(means, "swd", "start", "nfe", "solver", "class")
    run.table("modes", means)
    run.table("modes-best", first)
    floor = estimate(floors)
    run.figure(
        "modes",
        lines(
            best(means, "swd", "start", "nfe", "class"),
            "swd",
            "sliced 2-Wasserstein distance",
            {"exact samples": floor["mean"] or 0.0},
        ),
    )
    return {"exact": exact, "best": first, "floor": floor, "bar": _bar(exact)}


@dataclass(frozen=True, eq=False)
class _Setup:
    """The measurements and starts, made once."""

    run: Run
    sizes: Sizes
    cells: Cells
    data: Tensor
    starts: Mapping[str, Initialization]
    grids: Grids
    reference: Reference

    @classmethod
    def made(cls, run: Run, sizes: Sizes, cells: Cells) -> _Setup:
        data = LAW.sample(Noise(range(sizes.data)))
        sigmas = np.geomspace(80.0, SIGMA_MIN, sizes.levels)
        sigmas[0], sigmas[-1] = 80.0, SIGMA_MIN
        double: dict[str, Any] = {"dtype": torch.float64, "batch_size": sizes.measured}
        counts: dict[str, Any] = {"samples": sizes.measured, "cost_samples": sizes.measured}
        profile = Profile.measure(LAW, data, sigmas=sigmas, progress=run.progress, **counts, **double)
        horizons = [h for by_nfe in HORIZONS.values() for h in by_nfe.values()]
        teacher = teacher_of(horizons, SIGMA_MIN)
        states = trajectories(LAW, (2,), teacher, min(512, sizes.measured), "cpu", torch.float64)
        levels = cells({"part": "modes", "grid": "align_your_steps"}, lambda: _aligned(data, sizes))["sigmas"]
        predictor = measure_predictor(LAW, data[: sizes.measured // 2], sigmas, compute=Compute(**double))
        lengths = {
            "corrector marginal": profile.length("corrector", velocity="marginal"),
            "predictor": predictor.length(),
            "align_your_steps": aligned_length(Schedule(levels)),
        }
        gaussian, mixture = fit_starts(data, ["gaussian", "mixture"], progress=run.progress)
        starts = {"isotropic": Isotropic((2,)), "gaussian": gaussian, "mixture": mixture}
        reference = Reference.of(LAW.sample(Noise(range(2**42, 2**42 + sizes.data))), directions=64)
        grids = Grids.of(LAW, profile, teacher, states, lengths)
        return cls(run, sizes, cells, data, starts, grids, reference)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The schedules that are tried."""
        return tuple(k for k in (*HAND, *self.grids.measured) if k in self.sizes.only or not self.sizes.only)

    def exact(self) -> list[dict[str, Any]]:
        """Every schedule's divergence from every start, in nats."""
        x, mass = points(self.sizes.nodes)
        combinations = [
            (start, steps, kind) for steps in self.sizes.steps for start in self.starts for kind in self.kinds
        ]
        rows = []
        for name, steps, kind in self.run.progress.track(combinations, "25 modes, exactly"):
            horizon, start = HORIZONS[name][steps], self.starts[name]
            whole = self.grids(kind, steps + 1, horizon, SIGMA_MIN, SOLVERS["euler"])
            grid = Schedule(whole.sigmas[:-1], kind)
            key = {"part": "modes", "start": name, "horizon": horizon, "steps": steps, "schedule": kind}
            found = self.cells(key, lambda g=grid, s=start: {"divergence": divergences(s, g, x, mass)})  # type: ignore[misc]
            rows.append({"class": class_of(kind)} | {k: v for k, v in found.items() if k != "part"})
        return rows

    def sweep(self) -> list[dict[str, Any]]:
        """Every solver, by samples, for every seed."""
        combinations = [
            (start, nfe, solver, kind)
            for start in self.starts
            for nfe in self.sizes.nfe
            for solver in self.sizes.solvers
            for kind in (*self.kinds, "ld3")
            if fits(kind, SOLVERS[solver])
            and SOLVERS[solver].steps_for(nfe) > 1
            and (kind != "ld3" or (solver == "dpm++2m" and nfe in self.sizes.learned))
        ]
        rows = []
        for start, nfe, solver, kind in self.run.progress.track(combinations, "25 modes, by samples"):
            for seed in range(self.run.seeds):
                key = {"part": "modes", "start": start, "nfe": nfe, "solver": solver, "schedule": kind, "seed": seed}
                rows.append(self.cells(key, partial(self._swd, start, nfe, solver, kind, seed)))
        return rows

    def _swd(self, name: str, nfe: int, solver: str, kind: str, seed: int) -> dict[str, Any]:
        horizon, method = HORIZONS[name][nfe], SOLVERS[solver]
        grid = (
            self._ld3(name, nfe)
            if kind == "ld3"
            else self.grids(kind, method.steps_for(nfe), horizon, SIGMA_MIN, method)
        )
        sampler = Sampler(self.starts[name], grid, method)
        seeds = range(2**43 + seed * 2**32, 2**43 + seed * 2**32 + self.sizes.samples)
        samples = sampler.sample(LAW, seeds=seeds, dtype=torch.float64, batch_size=2000)
        return {"swd": evaluate(samples.float(), self.reference).swd, "horizon": horizon, "evaluations": sampler.nfe}

    def _ld3(self, name: str, nfe: int) -> Schedule:
        """The levels that LD3 learns from those of equal defect, whether or not held-out data find them better."""
        horizon = HORIZONS[name][nfe]
        recipe = Recipe(
            objectives=("trajectory",),
            learn="levels",
            iterations=self.sizes.iterations,
            pairs=self.sizes.pairs,
            judged=2 * self.sizes.pairs,
        )

        def learned() -> dict[str, Any]:
            found = distill(
                LAW,
                self.starts[name],
                self.grids("defect", nfe, horizon, SIGMA_MIN, DPMSolverPP2M()),
                DPMSolverPP2M(),
                self.data,
                recipe=recipe,
                compute=Compute(dtype=torch.float64, batch_size=recipe.batch_size),
            )
            return {"sigmas": found.candidates[1].schedule.sigmas}

        return Schedule(
            self.cells({"part": "modes", "grid": "ld3", "start": name, "nfe": nfe}, learned)["sigmas"], "ld3"
        )

    def floors(self) -> list[float]:
        """The distance of as many exact samples, for every seed."""
        n = self.sizes.samples
        others = (LAW.sample(Noise(range(2**44 + i * n, 2**44 + (i + 1) * n))) for i in range(self.run.seeds))
        return [evaluate(samples, self.reference).swd for samples in others]


def _aligned(data: Tensor, sizes: Sizes) -> dict[str, Any]:
    grid = align_your_steps(
        LAW,
        data,
        40,
        80.0,
        SIGMA_MIN,
        final_zero=False,
        descent=Descent(sizes.aligned, coarse=5, subdivisions=3, sweeps=sizes.sweeps),
        compute=Compute(dtype=torch.float64, batch_size=sizes.aligned),
    )
    return {"sigmas": grid.sigmas}


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds."""
    out = []
    for (start, nfe, solver, kind), own in groups(rows, "start", "nfe", "solver", "schedule").items():
        found = estimate([row["swd"] for row in own])
        row = {"start": start, "horizon": own[0]["horizon"], "nfe": nfe, "evaluations": own[0]["evaluations"]}
        row |= {"solver": solver, "class": class_of(kind), "schedule": kind}
        out.append(row | {"swd": found["mean"], "error": found["error"]})
    return out


def _bar(exact: list[dict[str, Any]]) -> dict[str, Any]:
    """A summary of five steps from noise, with the best measured schedule and with two made by hand."""
    own = {row["schedule"]: row["divergence"] for row in exact if (row["start"], row["steps"]) == ("isotropic", 5)}
    kind = min((k for k in own if k not in HAND), key=lambda k: own[k])
    found = {"schedule": kind, "divergence": own[kind], "defect": own["defect"], "rho 7": own["rho 7"]}
    return found | {"tangent": own["tangent"], "at_most": BAR, "met": own[kind] <= BAR}
