"""Plans that know the class, beside the usual samplers with the same labels, on Fashion-MNIST.

The bundled network takes labels. For every seed, plans are fitted with the labels of the training images, and they and
EDM's Heun and DPM-Solver++ from noise draw as many images of each class as there are. Fréchet distances are of the
bundled classifier's features to the test images, of all images and within each class, where a good image of another
class counts as a bad one.

With guidance, plans are fitted on samples of the guided sampler itself, which no longer draws from the law of the data:
they are held against the guided sampler at 35 evaluations, each of which calls the network twice. Its distance to the
data is what there is to reach, not to undercut.

What is finished is kept in ``cells.jsonl``, so that a run in the same folder goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.common import Run, estimate, groups, mean
from headstart.choose import fit
from headstart.compare.cells import Cells
from headstart.data import fashion_mnist as images
from headstart.denoiser import Denoiser, guide
from headstart.initialization import Isotropic
from headstart.metrics import Reference, by_class, evaluate, floor, floor_by_class, references_by_class
from headstart.metrics.novelty import nearest
from headstart.models import features, load_denoiser
from headstart.plan import Plan
from headstart.sampler import CLASSIC_NFE, Sampler, classic
from headstart.schedule import rho_grid
from headstart.schedule.classic import EDM_MAX, EDM_MIN
from headstart.solver import DPMSolverPP2M

__all__ = ["classes", "verdict"]

Row = Mapping[str, Any]

CLASSES = 10

#: The sampler that all are held against.
USUAL = "edm-heun"


@dataclass(frozen=True)
class Sizes:
    """How much is done; with guidance there are fewer images, and one seed."""

    plans: tuple[int, ...] = (1, 2, 3, 4)
    grids: tuple[int, ...] = (6, 10)
    usual: int = CLASSIC_NFE
    final: int = 10_000
    scales: tuple[float, ...] = (1.5, 2.5)
    guided_plans: tuple[int, ...] = (3, 4)
    guided: int = 4000
    shown: int = 3
    fitted: int | None = None
    own: int = 2000
    piloted: int = 1024
    tested: int | None = None


QUICK = Sizes((2,), (), 5, 80, (1.5,), (2,), 60, 2, fitted=100, own=40, piloted=16, tested=1000)


def classes(run: Run) -> dict[str, Any]:
    """Plans that know the class, beside the usual samplers with the same labels, on Fashion-MNIST."""
    sizes = QUICK if run.quick else Sizes()
    setup = _Setup.made(run, sizes)
    rows: list[Row] = []
    for seed in range(run.seeds):
        rows.append(
            setup.cells({"method": "real images", "scale": 1.0, "nfe": 0, "seed": seed}, partial(setup.floor, seed))
        )
        rows += setup.rows(seed, 1.0, sizes.plans, sizes.final)
        _write(run, rows)
    for scale in sizes.scales:
        rows += setup.rows(0, scale, sizes.guided_plans, sizes.guided)
        _write(run, rows)
    run.figure("nearest", setup.nearest())
    return {"data": setup.said, "summary": _summary(rows), "rows": rows}


@dataclass(frozen=True, eq=False)
class _Setup:
    """The network, data and references that all seeds share."""

    run: Run
    sizes: Sizes
    denoiser: Denoiser
    data: Tensor
    labels: Tensor
    reference: Reference
    by_class: Mapping[int, Reference]
    cells: Cells

    @classmethod
    def made(cls, run: Run, sizes: Sizes) -> _Setup:
        data, labels = _images("train", run.quick, sizes.fitted)
        test, tested = _images("test", run.quick, sizes.tested)
        seen = features(run.device)
        reference = Reference.of(test, seen, progress=run.progress)
        within = references_by_class(test, tested, seen, progress=run.progress)
        denoiser = load_denoiser("builtin:fashion-mnist", run.device)
        return cls(run, sizes, denoiser, data, labels, reference, within, run.cells())

    @property
    def said(self) -> str:
        return f"{len(self.data)} training images, {len(self.reference)} test images"

    def floor(self, seed: int) -> dict[str, Any]:
        """The scores of training images, which are as good as images can be."""
        n = min(self.sizes.final, len(self.data))
        whole = floor(self.reference, self.data, n, seed)
        counts = dict.fromkeys(self.by_class, n // CLASSES)
        within = floor_by_class(self.by_class, self.data, self.labels, counts, seed)
        return {"frechet": whole.frechet, "within": within.mean["frechet"], "each": _each(within.each), "n": n}

    def rows(self, seed: int, scale: float, plans: Sequence[int], n: int) -> list[Row]:
        """The plans of one seed and guidance, and the usual samplers."""

        def row(method: str, nfe: int, sampler: Any) -> Row:
            key = {"method": method, "scale": scale, "nfe": nfe, "seed": seed}
            return self.cells(key, lambda: self._scored(sampler(), seed, scale, n))

        found = [row("plan", nfe, partial(self.plan, seed, scale, nfe)) for nfe in plans]
        found.append(row(USUAL, self.usual.nfe, lambda: self.usual))
        for nfe in self.sizes.grids if scale == 1 else ():
            noise = Isotropic(self.usual.initialization.shape)
            grid = rho_grid(nfe, EDM_MAX, EDM_MIN)
            found.append(row("dpm++2m", nfe, partial(Sampler, noise, grid, DPMSolverPP2M())))
        return found

    @property
    def usual(self) -> Sampler:
        """EDM's Heun sampler from noise."""
        return classic(self.data.shape[1:], self.sizes.usual)

    def plan(self, seed: int, scale: float, nfe: int) -> Plan:
        """The plan of one seed, scale of guidance and number of evaluations, kept on disk."""
        folder = self.run.out / "plans"
        if not (folder / _named(seed, scale, nfe)).exists():
            together = self.sizes.plans if scale == 1 else self.sizes.guided_plans
            found = fit(
                self.denoiser,
                self.data,
                list(together),
                labels=self.labels,
                guidance=None if scale == 1 else scale,
                n_samples=self.sizes.own,
                pilot_samples=self.sizes.piloted,
                check=not self.run.quick,
                seed=seed,
                device=self.run.device,
                progress=self.run.progress,
            )
            for each, plan in found.items():
                plan.save(folder / _named(seed, scale, each))
        return Plan.load(folder / _named(seed, scale, nfe))

    def draw(self, sampler: Sampler, seed: int, scale: float, n: int) -> Tensor:
        """Images (n, ...) of the classes 0, 1, ... in turn."""
        return sampler.sample(
            guide(self.denoiser, scale),
            seeds=range(seed * 2**32, seed * 2**32 + n),
            conditions={"label": _labels(n)},
            device=self.run.device,
            progress=self.run.progress,
        )

    def _scored(self, sampler: Sampler, seed: int, scale: float, n: int) -> dict[str, Any]:
        began = time.perf_counter()
        samples = self.draw(sampler, seed, scale, n)
        seconds = time.perf_counter() - began
        within = by_class(samples, _labels(n), self.by_class)
        return {
            "frechet": evaluate(samples, self.reference).frechet,
            "within": within.mean["frechet"],
            "each": _each(within.each),
            "n": n,
            "start": sampler.initialization.name,
            "levels": " > ".join(f"{sigma:.3g}" for sigma in sampler.schedule.sigmas),
            "solver": sampler.solver.name,
            "sample_seconds": seconds,
            "fit_seconds": sampler.record.fit_seconds if isinstance(sampler, Plan) else 0.0,
        }

    def nearest(self) -> Figure:
        """A few images of each class by a plan, above the nearest training images of that class."""
        nfe, shown = self.sizes.plans[-1], self.sizes.shown
        drawn = self.draw(self.plan(0, 1.0, nfe), 0, 1.0, CLASSES * shown).cpu()
        figure = Figure(figsize=(CLASSES, 2 * shown), layout="constrained")
        axes = figure.subplots(2 * shown, CLASSES, squeeze=False)
        for label in range(CLASSES):
            own = drawn[_labels(len(drawn)) == label]
            training = self.data[self.labels == label]
            distances, places = nearest(own, training)
            for i in range(shown):
                for line, image in ((2 * i, own[i]), (2 * i + 1, training[places[i]])):
                    axes[line][label].imshow(image[0].clamp(-1, 1), cmap="gray_r", vmin=-1, vmax=1)
                axes[2 * i + 1][label].set_xlabel(f"{float(distances[i]):.1f}", fontsize=7)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for i in range(shown):
            axes[2 * i][0].set_ylabel(f"{nfe} evaluations", fontsize=7)
            axes[2 * i + 1][0].set_ylabel("nearest", fontsize=7)
        return figure


def _images(split: Literal["train", "test"], bundled: bool, count: int | None) -> tuple[Tensor, Tensor]:
    """The first images of a split, or all of them, and their labels."""
    found = images(split, bundled=bundled)
    assert found.labels is not None, "Fashion-MNIST has labels"
    return found.samples[:count], found.labels[:count]


def _labels(n: int) -> Tensor:
    return torch.arange(n) % CLASSES


def _named(seed: int, scale: float, nfe: int) -> str:
    return f"plan-{nfe}-guidance-{scale:g}-seed-{seed}"


def _each(scores: Mapping[int, Any]) -> dict[str, float]:
    """The Fréchet distance within each class."""
    return {str(label): found.frechet for label, found in scores.items()}


def _summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The means over the seeds, and the ratios to the usual sampler of the same guidance."""
    usual = {scale: own for (method, scale), own in groups(rows, "method", "scale").items() if method == USUAL}
    found = []
    for (method, scale, nfe), own in groups(rows, "method", "scale", "nfe").items():
        line: dict[str, Any] = {"guidance": scale, "method": method, "evaluations": nfe}
        for name in ("frechet", "within"):
            line |= {name: mean(own, name), f"{name}_error": estimate([row[name] for row in own])["error"]}
            if scale in usual:
                line[f"{name}_ratio"] = mean(own, name) / mean(usual[scale], name)
        found.append(line | {"n": own[0]["n"], "seeds": len(own), "levels": own[0].get("levels")})
    return found


def _write(run: Run, rows: Sequence[Row]) -> None:
    """The tables and the figure of what there is so far."""
    run.table("summary", _summary(rows))
    each = [
        {
            "guidance": row["scale"],
            "method": row["method"],
            "evaluations": row["nfe"],
            "seed": row["seed"],
            **row["each"],
        }
        for row in rows
    ]
    run.table("each", each)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, name, title in zip(axes, ("frechet", "within"), ("all images", "within classes"), strict=True):
        for (scale, method), own in groups(_summary(rows), "guidance", "method").items():
            if method == "real images":
                ax.axhline(own[0][name], color="0.6", linestyle="--", label=method)
                continue
            label = method if scale == 1 else f"{method}, guidance {scale:g}"
            values = [row[name] for row in own]
            errors = [row[f"{name}_error"] or 0.0 for row in own]
            ax.errorbar([row["evaluations"] for row in own], values, yerr=errors, marker="o", markersize=4, label=label)
        ax.set(xscale="log", yscale="log", title=title, xlabel="evaluations", ylabel="Fréchet distance")
    axes[0].legend(frameon=False, fontsize=7)
    run.figure("quality", figure)


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: what plans have of the distance of EDM's Heun sampler with the same labels."""
    by_scale = groups([row for row in results["summary"] if "frechet_ratio" in row], "guidance")
    said = []
    for (scale,), own in by_scale.items():
        plans = [row for row in own if row["method"] == "plan"]
        usual = next(row for row in own if row["method"] == USUAL)
        ratios = ", ".join(
            f"{row['frechet_ratio']:.2f} ({row['within_ratio']:.2f}) at {row['evaluations']}" for row in plans
        )
        name = "without guidance" if scale == 1 else f"with guidance {scale:g}"
        said.append(f"{name} {ratios}, of {usual['frechet']:.2f} ({usual['within']:.2f})")
    return (
        "Fréchet distances of plans with labels as parts of those of EDM's Heun sampler with the same labels, of all "
        f"images and in brackets within classes: {'; '.join(said)}."
    )
