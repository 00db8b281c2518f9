"""Posteriors of two simulators at ten observations: plans of 4 evaluations against sbi's own sampler at 500 steps.

For a task and a seed, sbi's NPSE trains a score estimator on simulations, for a hundred epochs at most. A plan is
fitted once on the same simulations, amortised, as the estimator is: the observation is a condition. Then both draw at
ten observations that neither has seen, and a classifier tells their samples from exact ones of the posterior: its
accuracy on left-out samples (C2ST) is 0.5 where it cannot. Both reject samples that the prior does not allow, as sbi
does by itself.

The plan is chosen by the budget, in nats, down to a fiftieth of the prior's deviation: a pilot compares distances, in
which a crescent of a fiftieth of the prior's width is a line. Beside it are the plan that a pilot chooses, one whose
start ignores the observation, and exact samples of the posterior, for what the test says where there is nothing to
tell. A run goes on where it was stopped.

References:
    Lopez-Paz and Oquab, *Revisiting Classifier Two-Sample Tests*, ICLR 2017.

    Lueckmann et al., *Benchmarking Simulation-Based Inference*, AISTATS 2021 (the tasks and the classifier: two hidden
    layers of ten times the dimension, five folds).

    Tejero-Cantero et al., *sbi: A Toolkit for Simulation-Based Inference*, Journal of Open Source Software, 2020.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from experiments.common import Run, estimate, groups
from experiments.posterior.tasks import TASKS, Task
from headstart.choose import fit
from headstart.compare.cells import Cells
from headstart.denoiser import Denoiser
from headstart.extras import require
from headstart.integrations.sbi import from_sbi
from headstart.plan import Plan

__all__ = ["c2st", "posterior", "verdict"]

OWN, EXACT, PLAN = "sbi", "exact", "plan"
PILOTED, BLIND = "plan by a pilot", "plan by a pilot, unconditional start"

#: How each plan is chosen.
PLANS: Mapping[str, Mapping[str, Any]] = {
    PLAN: {"criterion": "budget"},
    PILOTED: {},
    BLIND: {"initialization": ["isotropic", "gaussian", "mixture"]},
}

#: The last level of a plan that is chosen by the budget, in deviations of the prior.
LAST = 0.02

#: How often samples are drawn that the prior may reject.
ROUNDS = 5


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    simulations: int = 10_000
    epochs: int = 100
    observations: int = 10
    samples: int = 1000
    nfe: int = 4
    steps: int = 500
    pilot_samples: int = 256


QUICK = Sizes(300, 2, 2, 60, 2, 5, 24)


def posterior(run: Run) -> dict[str, Any]:
    """Posteriors of two simulators at ten observations: plans of 4 evaluations against sbi's own 500 steps."""
    sizes = QUICK if run.quick else Sizes()
    cells = run.cells()
    rows: list[dict[str, Any]] = []
    for seed in range(run.seeds):
        for task in TASKS:
            setup = _Setup(run, sizes, task, seed, cells)
            for row in setup.rows():
                rows.append(row)
            run.table("summary", _summary(rows))
            run.table("observations", _by_observation(rows))
    pictures = {task.name: _Setup(run, sizes, task, 0, cells).pictures() for task in TASKS}
    run.figure("c2st", _accuracies(_by_observation(rows)))
    run.figure("samples", _scatter(pictures))
    return {
        "simulations": sizes.simulations,
        "samples": sizes.samples,
        "rows": rows,
        "summary": _summary(rows),
        "observations": _by_observation(rows),
    }


@dataclass(frozen=True, eq=False)
class _Setup:
    """The estimator and the plans of one task and seed."""

    run: Run
    sizes: Sizes
    task: Task
    seed: int
    cells: Cells

    @cached_property
    def own(self) -> tuple[Any, Any]:
        """The posterior of sbi's NPSE, and its score estimator, whose weights are kept on disk."""
        inference = require("sbi.inference", "experiments", "this posterior")
        path = self.run.out.resolve() / f"{self.task.name.replace(' ', '-')}-{self.seed}.pt"
        theta, x = self.task.pairs(self.sizes.simulations, self.seed)
        torch.manual_seed(self.seed)
        # sbi logs its training into the working folder.
        with _quiet(), tempfile.TemporaryDirectory() as logs, contextlib.chdir(logs):
            npse = inference.NPSE(self.task.prior(), show_progress_bars=False)
            epochs = 1 if path.exists() else self.sizes.epochs
            estimator = npse.append_simulations(theta, x).train(max_num_epochs=epochs)
            if path.exists():
                estimator.load_state_dict(torch.load(path, weights_only=True))
            else:
                torch.save(estimator.state_dict(), path)
            return npse.build_posterior(estimator), estimator.eval()

    @cached_property
    def denoiser(self) -> Denoiser:
        """The estimator as a denoiser with the condition ``observation``."""
        return from_sbi(self.own[1])

    def plan(self, method: str) -> Plan:
        """The plan of a method, kept on disk."""
        folder = self.run.out / "plans" / f"{self.task.name} {self.seed} {method}".replace(" ", "-").replace(",", "")
        if not folder.exists():
            theta, x = self.task.pairs(self.sizes.simulations, self.seed)
            last = LAST * float(theta.std(0).mean()) if method == PLAN else None
            fit(
                self.denoiser,
                theta,
                self.sizes.nfe,
                conditions={"observation": x},
                sigma_min=last,
                pilot_samples=self.sizes.pilot_samples,
                check=False,
                novelty=False,
                seed=self.seed,
                batch_size=1024,
                progress=self.run.progress,
                **PLANS[method],
            ).save(folder)
        return Plan.load(folder)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The accuracy of the classifier for each method at each observation."""
        for i in range(self.sizes.observations):
            for method in (EXACT, OWN, *PLANS):
                key = {"task": self.task.name, "seed": self.seed, "observation": i, "method": method}
                yield self.cells(key, partial(self._scored, method, i))

    def pictures(self) -> dict[str, Tensor]:
        """Samples of each method at the first observation."""
        return {method: self._samples(method, 0)[1] for method in (EXACT, OWN, *PLANS)}

    def _scored(self, method: str, i: int) -> dict[str, Any]:
        began = time.perf_counter()
        reference, samples = self._samples(method, i)
        row: dict[str, Any] = {"n": len(samples), "seconds": time.perf_counter() - began}
        if method in PLANS:
            plan = self.plan(method)
            row |= {"start": plan.initialization.name, "horizon": plan.horizon, "solver": plan.solver.name}
        return row | {"c2st": c2st(reference, samples, self.seed)}

    def _samples(self, method: str, i: int) -> tuple[Tensor, Tensor]:
        """Exact samples of the posterior at an observation, and those of a method."""
        x = self.task.pairs(self.sizes.observations, 2**21 + self.seed)[1][i]
        generator = torch.Generator().manual_seed(2**22 + 100 * self.seed + i)
        reference = self.task.posterior(x, self.sizes.samples, generator)
        if method == EXACT:
            return reference, self.task.posterior(x, self.sizes.samples, generator)
        torch.manual_seed(self.seed)
        return reference, self._drawn(method, x)

    def _drawn(self, method: str, x: Tensor) -> Tensor:
        """Samples that the prior allows; of whatever there is where hardly any are."""
        n, found = self.sizes.samples, torch.zeros(0, self.task.dimension)
        for i in range(ROUNDS):
            theta = self._own(x) if method == OWN else self._by_plan(self.plan(method), x, i)
            found = torch.cat([found, theta[self.task.within(theta)]])
            if len(found) >= n:
                return found[:n]
        return torch.cat([found, theta])[:n]

    def _own(self, x: Tensor) -> Tensor:
        options = {"steps": self.sizes.steps, "show_progress_bars": False, "reject_outside_prior": False}
        with _quiet():
            found: Tensor = self.own[0].sample((self.sizes.samples,), x=x[None], **options)
        return found.detach()

    def _by_plan(self, plan: Plan, x: Tensor, turn: int) -> Tensor:
        n = self.sizes.samples
        first = self.seed * 2**32 + turn * n
        given = {"observation": x.expand(n, -1)}
        return plan.sample(self.denoiser, seeds=range(first, first + n), batch_size=2048, conditions=given)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what sbi prints and warns of."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def c2st(a: Tensor, b: Tensor, seed: int = 0, folds: int = 5) -> float:
    """The accuracy at which a classifier tells two sets (n, d) of one size apart, on samples that are left out.

    As in the benchmark: standardised by the first set, a perceptron of two hidden layers of 10 d, five folds.
    """
    mean, std = a.double().mean(0), a.double().std(0)
    x = torch.cat([(each.double() - mean) / std for each in (a, b)]).numpy()
    y = np.repeat([0, 1], [len(a), len(b)])
    width = 10 * a.shape[1]
    model = MLPClassifier((width, width), activation="relu", solver="adam", max_iter=1000, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = cross_val_score(model, x, y, cv=KFold(folds, shuffle=True, random_state=seed), scoring="accuracy")
    return float(np.mean(scores))


def _by_observation(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At each observation of a task the mean over the seeds of each method, and of the plan less sbi's own."""
    found = []
    for (task, i), own in groups(rows, "task", "observation").items():
        row: dict[str, Any] = {"task": task, "observation": i}
        for (method,), each in groups(own, "method").items():
            row[method] = estimate([r["c2st"] for r in each])["mean"]
        pairs = groups(own, "seed").values()
        apart = [{r["method"]: r["c2st"] for r in pair} for pair in pairs]
        told = estimate([each[PLAN] - each[OWN] for each in apart])
        found.append(row | {"plan less sbi": told["mean"], "error": told["error"]})
    return found


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each method over observations and seeds: mean, error, worst observation, and seconds a sample takes."""
    found = []
    for (task, method), own in groups(rows, "task", "method").items():
        told = estimate([row["c2st"] for row in own])
        worst = max(estimate([r["c2st"] for r in each])["mean"] or 0.0 for each in groups(own, "observation").values())
        seconds = sum(row["seconds"] for row in own) / sum(row["n"] for row in own)
        row = {"task": task, "method": method, "c2st": told["mean"], "error": told["error"], "worst observation": worst}
        found.append(row | {"milliseconds a sample": 1000 * seconds, "draws": len(own)})
    return found


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The accuracy of the classifier at each observation."""
    tasks = groups(rows, "task")
    figure = Figure(figsize=(4.2 * len(tasks), 3.0), layout="constrained")
    for ax, ((task,), own) in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True):
        for method, marker in ((EXACT, "_"), (OWN, "o"), (PLAN, "x"), (PILOTED, "1"), (BLIND, "+")):
            ax.plot([row["observation"] for row in own], [row[method] for row in own], marker, label=method)
        ax.set(title=task, xlabel="observation", ylabel="C2ST", ylim=(0.45, 1.02))
    figure.axes[0].legend(frameon=False, fontsize=7)
    return figure


def _scatter(pictures: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Samples of the methods at one observation, in the first two parameters."""
    columns = max(len(own) for own in pictures.values())
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), columns, squeeze=False)
    for line, (task, own) in zip(axes, pictures.items(), strict=True):
        low, high = own[EXACT][:, :2].min(0).values, own[EXACT][:, :2].max(0).values
        edge = 0.3 * (high - low)
        for ax, (method, samples) in zip(line, own.items(), strict=True):
            ax.scatter(*samples[:1000, :2].T, s=1, linewidths=0, rasterized=True)
            ax.set(xlim=(low[0] - edge[0], high[0] + edge[0]), ylim=(low[1] - edge[1], high[1] + edge[1]))
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{task}:\n{method}", fontsize=7)
    return figure


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: by how much the plan's C2ST exceeds sbi's own, on the whole and at the worst place."""
    said = []
    for (task,), own in groups(results["observations"], "task").items():
        known = {row["method"]: row["c2st"] for row in results["summary"] if row["task"] == task}
        gaps = [row["plan less sbi"] for row in own]
        within = sum(gap <= 0.02 for gap in gaps)
        said.append(
            f"{task[0].upper()}{task[1:]}: {known[PLAN]:.3f} with the plan, {known[OWN]:.3f} with sbi's own 500 steps, "
            f"{known[EXACT]:.3f} for exact samples; not more than 0.02 above sbi's own at {within} of {len(gaps)} "
            f"observations, at most {max(gaps):+.3f}"
        )
    return f"C2ST to the exact posterior. {'. '.join(said)}."
