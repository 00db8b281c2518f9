"""Fashion-MNIST with the bundled network: every schedule, solver and number of evaluations, from three starts.

1. **The sweep**: all schedules with all solvers at 2 to 6 evaluations, a few of both at 10 and more, with the same
   seeds in every cell. From noise the grids that are made by hand are tried with the last level of the measured ones,
   0.05 standard deviations of the data, and with EDM's own, 0.002. The horizons of the other starts are of a fixed
   table. A network's evaluations are those that a solver makes, at most the number asked for.
2. **By gradient**, from noise and from the mixture: LD3, the levels alone, and levels and coefficients together
   ("distilled", where held-out data choose between two objectives and no change). Both begin with the best measured
   grid of the sweep among the solvers that are linear in the network's estimates, and with that solver.
3. **The finals**: the best cell of each class for each start and number of evaluations, with three more sets of seeds,
   next to EDM's Heun sampler with 35 evaluations.

The best are chosen by the distance to held-out training images (:class:`headstart.metrics.MultiscaleReference`). The
Fréchet distance is of the bundled classifier's features to the test images, which nothing here was fitted to or chosen
by. The seeds of the finals are other samples; the profile, the starts and what is learned are those of seed 0.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.common import Run, estimate, groups
from experiments.schedules.cells import Cells, best, lines
from experiments.schedules.grids import SOLVERS as EVERY
from experiments.schedules.grids import Grids, aligned_length, class_of, fits, teacher_of, trajectories
from headstart.choose import fit_starts, hold_out
from headstart.compute import Compute
from headstart.data import fashion_mnist
from headstart.denoiser import Denoiser
from headstart.distill import Objective, Recipe, distill
from headstart.initialization import Initialization, Isotropic
from headstart.metrics import MultiscaleReference, Reference, evaluate, floor
from headstart.models import features, load_denoiser
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import Descent, Schedule, align_your_steps, rho_grid
from headstart.solver import SOLVERS, Heun, Solver, is_linear

__all__ = ["Cell", "bars", "evaluations", "images", "swept"]

#: Horizons at each number of evaluations.
HORIZONS: Mapping[str, Mapping[int, tuple[float, ...]]] = {
    "isotropic": dict.fromkeys((3, 4, 6, 10, 20), (80.0,)),
    "gaussian": {3: (4.0,), 4: (4.0,), 6: (6.0,), 10: (8.0,), 20: (10.0,)},
    "mixture": {2: (0.5, 0.7), 3: (0.7, 1.0), 4: (1.0,), 6: (1.4,), 10: (2.0,), 20: (3.0,)},
}

HAND = ("rho 7", "log_linear", "cosine", "linear_vp", "tangent")
MEASURED = ("corrector", "defect", "least_error", "gits", "constant_rate", "align_your_steps")

#: What is left of them at 10 evaluations and more.
MANY = 10
FEW_KINDS = ("rho 7", "tangent", "defect", "least_error")
FEW_SOLVERS = ("heun", "dpm++2m", "dpm++3m", "unipc", "dpm++2m sde")

#: Where the seeds of the sweep and of the finals begin.
SWEPT, FINAL = 2**45, 2**46

#: EDM's last level.
EDM = 0.002


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    nfe: tuple[int, ...] = (2, 3, 4, 6, 10, 20)
    solvers: tuple[str, ...] = tuple(EVERY)
    kinds: tuple[str, ...] = (*HAND, *MEASURED)
    horizons: int = 1
    swept: int = 128
    final: int = 1000
    trajectories: int = 128
    aligned: int = 32
    coarse: int = 5
    halvings: int = 3
    sweeps: int = 100
    profile: int = 192
    learned: tuple[int, ...] = (4, 6)
    iterations: int = 50
    batch: int = 64
    pairs: int = 256
    judged: int = 512
    heun_steps: int = 18


QUICK = Sizes(
    nfe=(2, 3),
    solvers=("dpm++2m", "ddpm"),
    kinds=("rho 7", "defect", "align_your_steps"),
    horizons=1,
    swept=8,
    final=12,
    trajectories=2,
    aligned=2,
    coarse=2,
    halvings=1,
    sweeps=1,
    profile=4,
    learned=(3,),
    iterations=1,
    batch=4,
    pairs=4,
    judged=16,
    heun_steps=3,
)


@dataclass(frozen=True)
class Cell:
    """One cell of the sweep: what is sampled, and from where."""

    start: str
    horizon: float
    nfe: int
    kind: str
    sigma_min: float
    solver: str

    @property
    def key(self) -> dict[str, Any]:
        """The keys that identify it."""
        return {
            "part": "images",
            "start": self.start,
            "horizon": self.horizon,
            "nfe": self.nfe,
            "solver": self.solver,
            "class": class_of(self.kind),
            "schedule": self.kind,
            "sigma_min": self.sigma_min,
        }


def swept(sizes: Sizes, sigma_min: float) -> Iterator[Cell]:
    """The cells of the sweep, few evaluations first."""
    for nfe in sizes.nfe:
        for start, by_nfe in HORIZONS.items():
            for horizon in by_nfe.get(nfe, ())[: sizes.horizons]:
                for kind in sizes.kinds:
                    for solver in sizes.solvers:
                        many = nfe >= MANY and (kind not in FEW_KINDS or solver not in FEW_SOLVERS)
                        if many or not fits(kind, EVERY[solver]) or EVERY[solver].steps_for(nfe) < 2:
                            continue
                        yield Cell(start, horizon, nfe, kind, sigma_min, solver)
                        if start == "isotropic" and kind in HAND:
                            yield Cell(start, horizon, nfe, kind, EDM, solver)


def evaluations(sizes: Sizes, seeds: int) -> dict[str, int]:
    """About how many evaluations of the network each part takes; one with its gradient counts as three."""
    sweep = sizes.swept * sum(cell.nfe for cell in swept(sizes, 1.0))
    descents = 2 * 3  # two starts; LD3, and two objectives of the distilled ones
    pairs = 24 * sizes.pairs * 4
    learned = sum(descents * 3 * sizes.iterations * sizes.batch * nfe + pairs for nfe in sizes.learned)
    classes = 2  # by hand, and measured
    combinations = sum(classes * nfe for by_nfe in HORIZONS.values() for nfe in by_nfe if nfe in sizes.nfe)
    combinations += 2 * sum(sizes.learned) + 2 * sizes.heun_steps - 1
    measuring = 64 * 2 * sizes.profile + 180 * sizes.trajectories + 4000 * sizes.aligned
    found = {
        "measuring": measuring,
        "sweep": sweep,
        "by gradient": learned,
        "finals": seeds * sizes.final * combinations,
    }
    return found | {"together": sum(found.values())}


def images(run: Run, cells: Cells) -> dict[str, Any]:
    """The sweep, what is learned by gradient, and the finals: tables, figure, and what ``results.json`` holds."""
    sizes = QUICK if run.quick else Sizes()
    setup = _Setup.made(run, sizes, cells)
    rows = setup.sweep()
    _write(run, rows, [])
    rows += setup.by_gradient(rows)
    _write(run, rows, [])
    finals: list[dict[str, Any]] = []
    for row in setup.finals(rows):
        finals.append(row)
        _write(run, rows, finals)
        run.table("images-finals", _means(finals))
    real = [setup.floor(seed) for seed in range(run.seeds)]
    means = _means(finals)
    floored = estimate([row["frechet"] for row in real])
    heun = next(row["frechet"] for row in means if row["start"] == "edm-heun")
    marks = {"Heun 35": heun, "real images": floored["mean"] or 0.0}
    own = [row for row in means if row["start"] != "edm-heun"]
    run.figure("images", lines(own, "frechet", "Fréchet distance", marks))
    return {
        "evaluations": evaluations(sizes, run.seeds),
        "best": best(_shown(rows), "view", "start", "nfe", "class"),
        "finals": means,
        "floor": floored | {"view": estimate([row["view"] for row in real])["mean"]},
        "bars": bars(means),
    }


@dataclass(frozen=True, eq=False)
class _Setup:
    """The measurements and starts, made once."""

    run: Run
    sizes: Sizes
    cells: Cells
    denoiser: Denoiser
    real: Tensor
    fitted_on: Tensor
    held_out: Tensor
    reference: Reference
    views: MultiscaleReference
    starts: Mapping[str, Initialization]
    grids: Grids
    sigma_min: float

    @classmethod
    def made(cls, run: Run, sizes: Sizes, cells: Cells) -> _Setup:
        real = fashion_mnist("train", bundled=run.quick).samples[: 600 if run.quick else None]
        test = fashion_mnist("test", bundled=run.quick).samples[: 600 if run.quick else None]
        denoiser = load_denoiser("builtin:fashion-mnist", run.device)
        fitted_on, held_out = hold_out(real)
        measuring: dict[str, Any] = {"samples": sizes.profile, "device": run.device, "progress": run.progress}
        profile = Profile.measure(denoiser, real[held_out], **measuring)
        sigma_min = 0.05 * profile.sigma_data
        teacher = teacher_of(_horizons(), sigma_min)
        states = trajectories(denoiser, profile.shape, teacher, sizes.trajectories, run.device, torch.float32)
        aligned = partial(
            align_your_steps,
            descent=Descent(sizes.aligned, coarse=sizes.coarse, subdivisions=sizes.halvings, sweeps=sizes.sweeps),
            compute=Compute(run.device, progress=run.progress),
        )
        levels = cells(
            {"part": "images", "grid": "align_your_steps"},
            lambda: {"sigmas": aligned(denoiser, real[held_out], 40, 80.0, sigma_min, final_zero=False).sigmas},
        )["sigmas"]
        lengths = {"align_your_steps": aligned_length(Schedule(levels))}
        gaussian, mixture = fit_starts(real[fitted_on], ["gaussian", "mixture"], progress=run.progress)
        return cls(
            run,
            sizes,
            cells,
            denoiser,
            real,
            fitted_on,
            held_out,
            Reference.of(test, features(run.device), progress=run.progress),
            MultiscaleReference.of(real[held_out]),
            {"isotropic": Isotropic(profile.shape), "gaussian": gaussian, "mixture": mixture},
            Grids.of(denoiser, profile, teacher, states, lengths),
            sigma_min,
        )

    def sweep(self) -> list[dict[str, Any]]:
        """Every cell of the sweep."""
        every = list(swept(self.sizes, self.sigma_min))
        return [self.cells(cell.key, partial(self._swept, cell)) for cell in self.run.progress.track(every, "sweep")]

    def _swept(self, cell: Cell) -> dict[str, Any]:
        solver = EVERY[cell.solver]
        grid = self.grids(cell.kind, solver.steps_for(cell.nfe), cell.horizon, cell.sigma_min, solver)
        return self._scored(cell.start, grid, solver, range(SWEPT, SWEPT + self.sizes.swept))

    def _scored(self, start: str, grid: Schedule, solver: Solver, seeds: range) -> dict[str, Any]:
        """The scores of a sampler, and all that is needed to build it again."""
        began = time.perf_counter()
        sampler = Sampler(self.starts[start], grid, solver)
        samples = sampler.sample(self.denoiser, seeds=seeds, device=self.run.device)
        seconds = time.perf_counter() - began
        return self._scores(samples) | {
            "evaluations": sampler.nfe,
            "n": len(samples),
            "seconds": seconds,
            "sigmas": grid.sigmas,
            "method": solver.name,
            "parameters": solver.parameters(),
        }

    def _scores(self, samples: Tensor) -> dict[str, Any]:
        return {"view": self.views.distance(samples), "frechet": evaluate(samples, self.reference).frechet}

    def by_gradient(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Levels and coefficients learned from the best measured grid with a linear solver, scored as the sweep is."""
        improved = [row for row in rows if row["class"] == "measured" and is_linear(EVERY[row["solver"]])]
        firsts = [
            row
            for row in best(improved, "view", "start", "nfe")
            if row["start"] != "gaussian" and row["nfe"] in self.sizes.learned
        ]
        found = []
        for first in self.run.progress.track(firsts, "by gradient"):
            for kind in ("ld3", "distilled"):
                key = Cell(
                    first["start"], first["horizon"], first["nfe"], kind, first["sigma_min"], first["solver"]
                ).key
                found.append(self.cells(key, partial(self._learned, first, kind)))
        return found

    def _learned(self, first: Mapping[str, Any], kind: str) -> dict[str, Any]:
        objectives: tuple[Objective, ...] = ("trajectory",) if kind == "ld3" else ("trajectory", "data")
        recipe = Recipe(
            objectives=objectives,
            learn="levels" if kind == "ld3" else "both",
            iterations=self.sizes.iterations,
            batch_size=self.sizes.batch,
            pairs=self.sizes.pairs,
            judged=self.sizes.judged,
        )
        began = time.perf_counter()
        result = distill(
            self.denoiser,
            self.starts[first["start"]],
            Schedule(first["sigmas"]),
            EVERY[first["solver"]],
            self.real,
            recipe=recipe,
            held_out=self.held_out,
            compute=Compute(self.run.device, batch_size=recipe.batch_size, progress=self.run.progress),
        )
        # LD3 has no one who decides: what it learns is taken, better or not, if the network stands its samples.
        ld3 = result.candidates[1]
        chosen = ld3 if kind == "ld3" and np.isfinite(ld3.gain) else result.winner
        seeds = range(SWEPT, SWEPT + self.sizes.swept)
        seconds = time.perf_counter() - began
        scored = self._scored(first["start"], chosen.schedule, chosen.solver, seeds)
        return scored | {"objective": chosen.objective, "began_with": first["schedule"], "fit_seconds": seconds}

    def finals(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Heun's 35 evaluations, and the best cell of each class, few evaluations first."""
        heun = rho_grid(self.sizes.heun_steps, 80.0, EDM)
        key = {"start": "edm-heun", "horizon": 80.0, "nfe": Heun().nfe(heun), "class": "by hand", "schedule": "rho 7"}
        for seed in range(self.run.seeds):
            yield self._final(key | {"solver": "heun", "sigma_min": EDM}, "isotropic", heun, Heun(), seed)
        every = sorted(best(rows, "view", "start", "nfe", "class"), key=lambda row: row["nfe"])
        for row in self.run.progress.track(every, "finals", len(every)):
            cell = {k: row[k] for k in ("start", "horizon", "nfe", "class", "schedule", "solver", "sigma_min")}
            solver = SOLVERS[row["method"]](**row["parameters"])
            for seed in range(self.run.seeds):
                yield self._final(cell, row["start"], Schedule(row["sigmas"]), solver, seed)

    def _final(self, cell: Mapping[str, Any], start: str, grid: Schedule, solver: Solver, seed: int) -> dict[str, Any]:
        first = FINAL + seed * 2**32
        seeds = range(first, first + self.sizes.final)
        key = {"part": "images", "final": seed, **cell}
        return self.cells(key, partial(self._scored, start, grid, solver, seeds))

    def floor(self, seed: int) -> dict[str, Any]:
        """Real images against real ones: as many of those that the starts were fitted on."""
        n = min(self.sizes.final, len(self.fitted_on))
        order = torch.randperm(len(self.fitted_on), generator=torch.Generator().manual_seed(seed))
        real = self.real[self.fitted_on[order[:n]]]
        frechet = floor(self.reference, real, n, seed).frechet
        return {"frechet": frechet, "view": self.views.distance(real)}


def _horizons() -> list[float]:
    return sorted({h for by_nfe in HORIZONS.values() for own in by_nfe.values() for h in own})


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Without what only builds a sampler again."""
    hidden = ("part", "sigmas", "parameters", "method")
    return [{k: v for k, v in row.items() if k not in hidden} for row in rows]


def _means(finals: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds: scores, their ratio to Heun's, and that of a class to the grids made by hand.

    Of the combinations of a start and a number of evaluations that are not made by hand, the one nearest to held-out
    images is the "learned" one.
    """
    out: list[dict[str, Any]] = []
    combinations = groups(finals, "start", "nfe", "class")
    heun = [r["frechet"] for r in finals if r["start"] == "edm-heun"]
    for (start, nfe, kind), own in combinations.items():
        found, view = estimate([r["frechet"] for r in own]), estimate([r["view"] for r in own])
        hand = combinations.get((start, nfe, "by hand"))
        rivals = {c: r for (s, k, c), r in combinations.items() if (s, k) == (start, nfe) and c != "by hand"}
        learned = min(rivals, key=lambda c: _mean([r["view"] for r in rivals[c]]), default=None)
        mean, one = found["mean"] or 0.0, own[0]
        out.append(
            {
                "start": start,
                "nfe": nfe,
                "class": kind,
                "frechet": mean,
                "error": found["error"],
                "view": view["mean"],
                "to_heun": mean / _mean(heun) if heun else None,
                "to_hand": mean / _mean([r["frechet"] for r in hand]) if hand and kind != "by hand" else None,
                "learned": kind == learned,
                "how": f"{one['schedule']} from {one['horizon']:g} to {one['sigma_min']:.3g}, {one['solver']}",
                "evaluations": own[0]["evaluations"],
                "n": own[0]["n"],
                "seeds": len(own),
            }
        )
    return out


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def bars(means: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The bars set beforehand and the results; None where it was not run."""
    learned = {(row["start"], row["nfe"]): row for row in means if row["learned"]}
    asked = [(("isotropic", nfe), "to_hand", 0.7) for nfe in (4, 6)]
    asked += [(("mixture", 3), "to_heun", 1.2), (("mixture", 2), "to_heun", 2.0)]
    out = []
    for (start, nfe), ratio, most in asked:
        value = learned[start, nfe][ratio] if (start, nfe) in learned else None
        to = "the best by hand" if ratio == "to_hand" else "Heun's 35"
        name = f"the best learned from {start} in {nfe} evaluations, to {to}"
        out.append({"name": name, "value": value, "at_most": most, "met": None if value is None else value <= most})
    return out


def _write(run: Run, rows: Sequence[Mapping[str, Any]], finals: Sequence[Mapping[str, Any]]) -> None:
    """The tables of what there is so far: nothing is lost if the run is stopped."""
    shown = _shown(rows)
    run.table("images-sweep", shown)
    run.table("images-best", best(shown, "view", "start", "nfe", "class"))
    if finals:
        run.table("images-finals-seeds", _shown(finals))
