"""Families of starts x horizons x numbers of evaluations, on Fashion-MNIST with the bundled network.

For every seed the data are split anew, the network is measured and the starts are fitted. Then

1. every family at every horizon gets its error in nats, by the network's own loss, and the mixture its novelty test;
2. **the sweep** samples every family at every horizon, with the defect levels and DPM-Solver++(2M), a thousand samples
   each: a map of what there is to find;
3. **the finals** are at full size: the plan that is chosen from these families for every number of evaluations, for
   few of them also with its levels and coefficients learned from there (``schedule="distilled"``), the best cell of the
   sweep, the best cell of the closed-form Gaussian, and EDM's Heun sampler with 35 evaluations from noise.

Fréchet distances are of the bundled classifier's features to the test images, which the network, the starts and the
plans have not seen. The best cells are chosen by the test images themselves, on the first of the samples that they are
then scored with: they are an oracle's choice, which a plan is held against.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from torch import Tensor

from experiments.common import Run, estimate, groups, mean
from headstart.budget import Estimate, initialization_errors
from headstart.choose import fit, fit_starts, hold_out
from headstart.choose.levels import usual_last
from headstart.data import fashion_mnist as images
from headstart.denoiser import Denoiser
from headstart.initialization import Initialization
from headstart.metrics import Reference, evaluate, floor, novelty
from headstart.models import features, load_denoiser
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.sampler import CLASSIC_NFE, Sampler, classic
from headstart.schedule import Defect
from headstart.solver import DPMSolverPP2M

__all__ = ["fashion_mnist", "headline", "verdict"]


@dataclass(frozen=True)
class Sizes:
    """How much is done; ``hindsight``: for how many seeds the methods chosen in hindsight are drawn in full."""

    families: tuple[str, ...] = ("shifted", "diagonal", "gaussian", "mixture")
    nfe: tuple[int, ...] = (2, 3, 4, 6, 8)
    distilled: tuple[int, ...] = (2, 3, 4)
    sigmas: tuple[float, ...] = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0)
    swept: int = 1000
    final: int = 10_000
    tested: int = 1000
    usual: int = CLASSIC_NFE
    hindsight: int = 2
    measured: int | None = None
    piloted: int = 1024


QUICK = Sizes(("gaussian", "mixture"), (2, 3), (), (0.5, 1.0), 48, 64, 64, usual=7, measured=16, piloted=16)

#: What a family is swept at. Far from where it is any good, a cell only costs time.
REACH: Mapping[str, tuple[float, float]] = {
    "shifted": (4.0, 8.0),
    "diagonal": (2.0, 8.0),
    "gaussian": (0.7, 8.0),
    "mixture": (0.25, 4.0),
}

#: Only the first seed sweeps these: they are there for the order of the families.
ONCE = ("shifted", "diagonal")


def fashion_mnist(run: Run) -> dict[str, Any]:
    """Families of starts x horizons x numbers of evaluations, on Fashion-MNIST with the bundled network."""
    sizes = QUICK if run.quick else Sizes()
    real = images("train", bundled=run.quick).samples[: 2000 if run.quick else None]
    denoiser = load_denoiser("builtin:fashion-mnist", run.device)
    test = images("test", bundled=run.quick).samples
    reference = Reference.of(test, features(run.device), progress=run.progress)

    errors: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    finals: list[dict[str, Any]] = []
    floors = []
    for seed in range(run.seeds):
        setup = _Setup.made(run, sizes, denoiser, reference, real, seed)
        floors.append(floor(reference, real, min(sizes.final, len(real)), seed))
        errors += setup.errors()
        cells += setup.sweep()
        _write(run, errors, cells, finals)
    for seed in range(run.seeds):
        setup = _Setup.made(run, sizes, denoiser, reference, real, seed)
        for row in setup.finals(_best(cells)):
            finals.append(row)
            _write(run, errors, cells, finals)
    return {
        "data": f"{len(real)} training images, {len(test)} test images",
        "seeds": run.seeds,
        "floor": estimate([scores.frechet or 0.0 for scores in floors]) | {"samples": floors[0].n},
        "errors": errors,
        "sweep": cells,
        "finals": finals,
        "summary": _summary(cells, finals),
        "order": _order(errors, cells),
    }


@dataclass(frozen=True, eq=False)
class _Setup:
    """The measurements and starts of one seed."""

    run: Run
    sizes: Sizes
    denoiser: Denoiser
    reference: Reference
    real: Tensor
    seed: int
    profile: Profile
    starts: list[Initialization]
    seconds: float

    @classmethod
    def made(cls, run: Run, sizes: Sizes, denoiser: Denoiser, reference: Reference, real: Tensor, seed: int) -> _Setup:
        began = time.perf_counter()
        fitted_on, held_out = hold_out(real, seed)
        profile = Profile.measure(
            denoiser, real[held_out], samples=sizes.measured, seed=seed, device=run.device, progress=run.progress
        )
        starts = fit_starts(real[fitted_on], list(sizes.families), seed=seed, progress=run.progress)
        seconds = time.perf_counter() - began
        return cls(run, sizes, denoiser, reference, real, seed, profile, starts, seconds)

    def errors(self) -> list[dict[str, Any]]:
        """E_init by the network's own loss, and the novelty of the mixture's starts themselves, at every horizon."""
        fitted_on, held_out = hold_out(self.real, self.seed)
        rows = []
        for start in self.run.progress.track(self.starts, "errors in nats"):
            for sigma in self.sizes.sigmas:
                e_init = Estimate.of(initialization_errors(self.profile, start, sigma))
                row = {"seed": self.seed, "start": start.name, "horizon": sigma, "e_init": e_init.value}
                row["e_init_error"] = e_init.error
                row["novelty_p"] = None
                if start.name == "mixture":
                    x = start.sample(Noise([2**60 + i for i in range(self.sizes.tested)]), sigma)
                    found = novelty(x, self.real[fitted_on], self.real[held_out], seed=self.seed)
                    row["novelty_p"] = found.p_value
                rows.append(row)
        return rows

    def sweep(self) -> list[dict[str, Any]]:
        """Every family at every horizon within its reach, at every number of evaluations."""
        rows = []
        cells = [
            (start, sigma, nfe)
            for start in self.starts
            for sigma in self.sizes.sigmas
            for nfe in self.sizes.nfe
            if REACH[start.name][0] <= sigma <= REACH[start.name][1] and not (self.seed > 0 and start.name in ONCE)
        ]
        for start, sigma, nfe in self.run.progress.track(cells, f"sweep, seed {self.seed}"):
            rows.append(self._row("sweep", self._cell(start, sigma, nfe), self.sizes.swept))
        return rows

    def finals(self, best: Mapping[tuple[str, float, int], float]) -> Iterator[dict[str, Any]]:
        """The methods at full size, one by one."""
        by_name = {start.name: start for start in self.starts}
        for nfe in self.sizes.nfe:
            yield self._planned("plan", nfe, None)
            if nfe in self.sizes.distilled:
                yield self._planned("plan, distilled", nfe, "distilled")
            methods = (("best of the sweep", list(by_name)), ("gaussian start", ["gaussian"]))
            for method, families in methods if self.seed < self.sizes.hindsight else ():
                own = {key: frechet for key, frechet in best.items() if key[0] in families and key[2] == nfe}
                name, sigma, _ = min(own, key=lambda key: own[key])
                yield self._row(method, self._cell(by_name[name], sigma, nfe), self.sizes.final)
        yield self._row("edm-heun", classic(self.profile.shape, self.sizes.usual), self.sizes.final)

    def _planned(self, method: str, nfe: int, schedule: str | None) -> dict[str, Any]:
        plan = fit(
            self.denoiser,
            self.real,
            nfe,
            profile=self.profile,
            initialization=self.starts,
            schedule=schedule,
            pilot_samples=self.sizes.piloted,
            check=not self.run.quick,
            seed=self.seed,
            device=self.run.device,
            progress=self.run.progress,
        )
        row = self._row(method, plan, self.sizes.final)
        return row | {"novelty_p": None if plan.record.novelty is None else plan.record.novelty.p_value}

    def _cell(self, start: Initialization, sigma: float, nfe: int) -> Sampler:
        """The sampler of a cell of the sweep."""
        grid = Defect()(self.profile, nfe, sigma, usual_last(self.profile, sigma))
        return Sampler(start, grid, DPMSolverPP2M())

    def _row(self, method: str, sampler: Sampler, n: int) -> dict[str, Any]:
        began = time.perf_counter()
        # Seeds of samples: not those of pilots, and other ones for each seed of the experiment.
        seeds = range(self.seed * 2**32, self.seed * 2**32 + n)
        samples = sampler.sample(self.denoiser, seeds=seeds, device=self.run.device, progress=self.run.progress)
        seconds = time.perf_counter() - began
        scores = evaluate(samples, self.reference)
        fitting = sampler.record.fit_seconds if isinstance(sampler, Plan) else 0.0
        return {
            "method": method,
            "seed": self.seed,
            "start": sampler.initialization.name,
            "horizon": sampler.horizon,
            "nfe": sampler.nfe,
            "schedule": sampler.schedule.name,
            "sigma_min": sampler.schedule.sigma_min,
            "solver": sampler.solver.name,
            "n": n,
            "frechet": scores.frechet,
            "swd": scores.swd,
            "max_swd": scores.max_swd,
            "sample_seconds": seconds,
            "fit_seconds": 0.0 if method == "edm-heun" else self.seconds + fitting,
        }


def _best(cells: Sequence[Mapping[str, Any]]) -> dict[tuple[str, float, int], float]:
    """The mean Fréchet distance over the seeds of every (start, horizon, nfe)."""
    own = groups(cells, "start", "horizon", "nfe")
    return {(start, horizon, nfe): mean(rows, "frechet") for (start, horizon, nfe), rows in own.items()}


def _summary(cells: Sequence[Mapping[str, Any]], finals: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At each number of evaluations: the methods at full size, over the seeds, and their ratio to Heun's."""
    heun = [row["frechet"] for row in finals if row["method"] == "edm-heun"]
    rows = []
    for (method, nfe), own in sorted(
        groups(finals, "method", "nfe").items(), key=lambda item: (item[0][1], item[0][0])
    ):
        found = estimate([row["frechet"] for row in own])
        rows.append(
            {
                "nfe": nfe,
                "method": method,
                "frechet": found["mean"],
                "error": found["error"],
                "to_heun": mean(own, "frechet") / (sum(heun) / len(heun)) if heun else None,
                "swd": mean(own, "swd"),
                "starts": ", ".join(sorted({f"{row['start']} at {row['horizon']:.3g}" for row in own})),
                "seconds": mean(own, "sample_seconds"),
                "n": own[0]["n"],
                "seeds": len(own),
            }
        )
    return rows


def _order(errors: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether, at each horizon and number of evaluations, E_init orders the families as the Fréchet distances do.

    Pairs of families whose errors in nats are within two standard errors of each other are ties, and left out.
    """
    nats = {(r["seed"], r["start"], r["horizon"]): (r["e_init"], r["e_init_error"]) for r in errors}
    rows = []
    for (seed, horizon, nfe), own in groups(cells, "seed", "horizon", "nfe").items():
        for i, a in enumerate(own):
            for b in own[i + 1 :]:
                (x, dx), (y, dy) = (nats[seed, row["start"], horizon] for row in (a, b))
                if abs(x - y) > 2 * (dx**2 + dy**2) ** 0.5:
                    agree = (x < y) == (a["frechet"] < b["frechet"])
                    pair = f"{a['start']}, {b['start']}"
                    rows.append({"seed": seed, "horizon": horizon, "nfe": nfe, "pair": pair, "agree": agree})
    return rows


def _write(
    run: Run,
    errors: Sequence[Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]],
    finals: Sequence[Mapping[str, Any]],
) -> None:
    """The tables and the figure of what there is so far: nothing is lost if the run is stopped."""
    run.table("errors", errors)
    run.table("sweep", cells)
    if finals:
        run.table("finals", finals)
        run.table("summary", _summary(cells, finals))
    best = _best(cells)
    counts = sorted({key[2] for key in best})
    figure = Figure(figsize=(2.6 * len(counts), 3.0), layout="constrained")
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for ax, nfe in zip(axes, counts, strict=True):
        for family in sorted({key[0] for key in best}):
            line = sorted((key[1], frechet) for key, frechet in best.items() if key[0] == family and key[2] == nfe)
            ax.plot(*zip(*line, strict=True), marker="o", markersize=3, label=family)
        chosen = [row for row in finals if row["method"] == "plan" and row["nfe"] == nfe]
        x, y = ([row[key] for row in chosen] for key in ("horizon", "frechet"))
        ax.scatter(x, y, marker="*", color="k", label="plan, in full")
        ax.set(xscale="log", yscale="log", title=f"{nfe} evaluations", xlabel="horizon")
        for axis, ticks in ((ax.xaxis, (0.25, 1, 4)), (ax.yaxis, (2, 5, 10, 20, 50))):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("Fréchet distance")
    axes[0].legend(frameon=False)
    run.figure("sweep", figure)


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: what plans have of the distance of EDM's Heun sampler."""
    heun = next(row for row in results["summary"] if row["method"] == "edm-heun")
    said = []
    for method in ("plan", "plan, distilled"):
        own = sorted((row for row in results["summary"] if row["method"] == method), key=lambda row: row["nfe"])
        if own:
            ratios = ", ".join(f"{row['frechet'] / heun['frechet']:.2f} at {row['nfe']}" for row in own)
            said.append(f"{method}: {ratios}")
    return (
        f"Fréchet distances as parts of the {heun['frechet']:.2f} that EDM's Heun sampler has after {heun['nfe']} "
        f"evaluations from noise. {'; '.join(said).capitalize()} evaluations."
    )


def headline(results: Mapping[str, Any]) -> str:
    """The table of the page on starts, in Markdown: the methods at full size, by the number of evaluations."""
    heun = next(row for row in results["summary"] if row["method"] == "edm-heun")
    by_nfe: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in results["summary"]:
        by_nfe.setdefault(row["nfe"], {})[row["method"]] = row

    def cell(row: Mapping[str, Any] | None, mark: str = "") -> str:
        if row is None:
            return ""
        error = "" if row["error"] is None else f" ± {row['error']:.2f}"
        return f"{mark}{row['frechet']:.2f}{mark}{error}"

    columns = (
        "evaluations",
        "plan",
        "ratio to Heun's 35",
        "distilled plan",
        "ratio",
        "best of a sweep, in hindsight",
        "best Gaussian, in hindsight",
    )

    def ratio(row: Mapping[str, Any] | None) -> str:
        return "" if row is None else f"{row['to_heun']:.2f}"

    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for nfe, methods in sorted(by_nfe.items()):
        if "plan" in methods:
            learned = methods.get("plan, distilled")
            cells = [str(nfe), cell(methods["plan"], "**"), ratio(methods["plan"]), cell(learned, "**"), ratio(learned)]
            cells += [cell(methods.get("best of the sweep")), cell(methods.get("gaussian start"))]
            lines.append("| " + " | ".join(cells) + " |")
    lines.append(f"| {heun['nfe']}, EDM's Heun from noise | {cell(heun)} | 1 | | | | |")
    floor = results["floor"]
    lines.append(f"| real images | {floor['mean']:.3f} | {floor['mean'] / heun['frechet']:.2f} | | | | |")
    return "\n".join(lines)
