r"""Mixtures of 25 Gaussians: the budget against exact divergences, and samples against the law, in 2 to 100 dimensions.

The law is :func:`headstart.targets.gmm25`: means :math:`1.25\, \{-2, ..., 2\}^2`, repeated d / 2 times, weights that
are squares of normal numbers, covariances :math:`0.25^2 I`. The paper's own scale, spacing 5 and standard deviation 1,
is four times this one, and so are distances: both are given. In two dimensions there is also the paper's mixture with
random covariances, standardised.

1. **Exact, in two dimensions.** Euler's method, on levels of equal defect, is inverted step by step, and the divergence
   from the data at 0.02 to its samples is a sum over a fine square grid: no Monte Carlo. Beside it stand the budget of
   an ODE and J of the stochastic samplers on the same levels, less the entropy that all share, and what horizon each of
   them picks. E_init is held against its exact value likewise.
2. **Distances, in 2 to 100 dimensions**, with the exact denoiser. Starts and plans are fitted on training samples, and
   scored on fresh ones by sliced and max-sliced 2-Wasserstein distance, next to that of two fresh sets of equal size.
3. **Many samples** in 40 and 100 dimensions: a quarter of a million, of which two sets of data are no farther apart
   than the paper's best figures.

For independent noise and equal, isotropic modes, what a sample says of its mode is the mean of its d / 2 pairs of
coordinates, z = mean of x. So the denoiser is that of a mixture in two dimensions and a linear rest,

.. math:: D(x, \sigma) = \operatorname{tile} D_2\big(z, \sigma \sqrt{2 / d}\big)
    + \frac{s^2}{s^2 + \sigma^2}\, (x - \operatorname{tile} z),

with modes of standard deviation :math:`s \sqrt{2 / d}` in :math:`D_2`: exact, and d / 2 times as fast.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (the mixtures, and
    max-sliced distances of 0.10 and 0.15 in 40 and 100 dimensions).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.common import Run, drawn, estimate, groups, max_sliced
from headstart.budget import (
    Budget,
    Estimate,
    discretization_error,
    initialization_bracket,
    initialization_error,
    invert_euler,
    path_bound,
)
from headstart.choose import fit, fit_starts, hold_out
from headstart.compute import Compute
from headstart.denoiser import Denoiser
from headstart.initialization import Flow, Gaussian, Initialization, Isotropic, Mixture, Training
from headstart.metrics import sliced
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import Defect, ReverseVariance, Schedule, equidistribute, rho_grid
from headstart.solver import DPMSolverPP2M, Heun, Solver
from headstart.targets import GaussianMixture, gmm25, gmm_paper

__all__ = ["gmm", "quadrature", "tiled", "verdict"]

#: Four of our units are one of the paper's: spacing 5 and standard deviation 1.
PAPER_SCALE = 4.0

#: The paper's best max-sliced distances, by dimension; its other figures, and its numbers of samples, we do not have.
PAPER_BEST = {40: 0.10, 100: 0.15}

SIGMA_MIN = 0.02

#: Divergences in nats from the Gaussian start on levels of equal defect, from an independent computation by Monte Carlo
#: with 4,000 points, by number of steps, at the horizons of :class:`Sizes`.
REFERENCE: Mapping[int, tuple[float, ...]] = {
    5: (0.263, 0.098, 0.053, 0.079, 0.127, 0.196, 0.319, 0.359),
    10: (0.282, 0.100, 0.032, 0.022, 0.032, 0.046, 0.071, 0.079),
    20: (0.294, 0.104, 0.028, 0.0068, 0.008, 0.012, 0.018, 0.020),
}

#: What samples are for: training, measuring, scoring, the floor, and starts.
TRAIN, MEASURE, TEST, FLOOR, START = range(1, 6)


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    horizons: tuple[float, ...] = (0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 20.0, 80.0)
    steps: tuple[int, ...] = (5, 10, 20)
    fitted: int = 20_000
    measured: int = 4000
    bracketed: int = 2000
    levels: int = 120
    laws: tuple[str, ...] = ("gmm25-2", "gmm25-10", "gmm25-40", "gmm25-100", "gmm_paper-2")
    trained: int = 6000
    profiled: int = 1000
    scored: int = 10_000
    nfe: tuple[int, ...] = (4, 8)
    long_nodes: int = 40
    flow_epochs: int = 8
    large: tuple[int, ...] = (40, 100)
    many: int = 250_000


QUICK = Sizes(
    horizons=(0.8, 2.0, 20.0),
    steps=(5,),
    fitted=2000,
    measured=400,
    bracketed=300,
    levels=40,
    laws=("gmm25-2", "gmm25-10"),
    trained=600,
    profiled=100,
    scored=500,
    nfe=(4,),
    long_nodes=8,
    flow_epochs=1,
    large=(10,),
    many=2000,
)


def gmm(run: Run) -> dict[str, Any]:
    """Mixtures of 25 Gaussians: the budget against exact divergences, and samples against the law."""
    sizes = QUICK if run.quick else Sizes()
    exact, errors = exact_table(run, sizes)
    picked = picks(exact)
    run.table("exact", exact)
    run.table("initialization", errors)
    run.table("picks", picked)
    run.figure("exact", _exact_figure(exact))
    rows: list[dict[str, Any]] = []
    for name in sizes.laws:
        for seed in range(run.seeds):
            rows += _Setup.made(run, sizes, name, seed).rows()
            run.table("distances", rows)
            run.table("summary", summary(rows))
    run.figure("distances", _distances_figure(summary(rows)))
    large = [row for d in sizes.large for row in _Setup.made(run, sizes, f"gmm25-{d}", 0).many()]
    run.table("many", large)
    return {
        "law": "means 1.25 {-2..2}^2 repeated d / 2 times, standard deviation 0.25, chi-square weights",
        "schedule": "exact: levels of equal defect down to 0.02, no step to 0",
        "scale": f"distances in the law's own units; _paper: times {PAPER_SCALE:g}, those of spacing 5 and deviation 1",
        "max_sliced": "the best direction of gradient ascent on 4,000 samples of each, valued on all samples",
        "seeds": run.seeds,
        "exact": exact,
        "initialization": errors,
        "picks": picked,
        "largest_ratio_to_reference": _largest_ratio(exact),
        "distances": rows,
        "summary": summary(rows),
        "many": large,
        "paper": {str(d): best for d, best in PAPER_BEST.items()},
    }


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: how often the budget picks the right horizon, and what the pick costs."""
    own = [row for row in results["picks"] if row["criterion"] == "b_ode"]
    near = sum(row["within_one"] for row in own)
    worst = max(row["divergence_there"] / row["least_divergence"] for row in own)
    return (
        f"The error budget picks the best horizon, or one next to it, in {near} of {len(own)} cases of a start and a "
        f"number of steps; what it picks has at most {worst:.2f} times the least divergence."
    )


def tiled(d: int) -> Denoiser:
    """The denoiser of ``gmm25(d, weights="chi2")``, by the formula at the top of this module."""
    full, pairs = gmm25(2, weights="chi2"), d // 2
    variance = float(full.variances[0, 0])
    coarse = GaussianMixture(full.weights, full.means, variance / pairs)

    def denoiser(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1)
        z = x.reshape(-1, pairs, 2).mean(1)
        mode = coarse(z, level.flatten() / math.sqrt(pairs))
        share = variance / (variance + level**2)
        clean: Tensor = (mode - share * z).repeat(1, pairs) + share * x
        return clean

    return denoiser


def quadrature(law: GaussianMixture, sigma: float) -> tuple[Tensor, Tensor]:
    """Points (G, 2) of the trapezoid rule for the law at a noise level, and their masses; without the lightest.

    For what varies like a Gaussian of the narrowest mode's width the rule is exact to fifteen digits.
    """
    width = math.sqrt(float(law.variances.min()) + sigma**2)
    reach = float(law.means.abs().max()) + 6.5 * math.sqrt(float(law.variances.max()) + sigma**2)
    axis = torch.linspace(-reach, reach, math.ceil(2 * reach / (0.75 * width)), dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    mass = law.log_prob(x, sigma).exp()
    kept = mass > 1e-8 * mass.max()
    return x[kept], mass[kept] / mass[kept].sum()


def exact_table(run: Run, sizes: Sizes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divergences with the budget and J, for every start, number of steps and horizon; and the errors of the starts."""
    law = gmm25(2, weights="chi2")
    train = drawn(law.sample, sizes.fitted, TRAIN, 0)
    fresh = drawn(law.sample, sizes.measured, MEASURE, 0)
    starts: dict[str, Initialization] = {
        "isotropic": Isotropic((2,)),
        "gaussian": Gaussian.fit(train),
        "mixture": Mixture.fit(train),
    }
    profile = Profile.measure(
        law,
        fresh,
        sigmas=np.geomspace(80.0, SIGMA_MIN, sizes.levels),
        samples=sizes.measured,
        cost_samples=sizes.measured,
        batch_size=sizes.measured,
        dtype=torch.float64,
        progress=run.progress,
    )
    errors: list[dict[str, Any]] = []
    for horizon in run.progress.track(sizes.horizons, "errors of the starts"):
        x, mass = quadrature(law, horizon)
        for name, start in starts.items():
            bracket = initialization_bracket(fresh[: sizes.bracketed], start, horizon, Noise(range(sizes.bracketed)))
            by_loss = initialization_error(profile, start, horizon)
            row = {"start": name, "horizon": horizon}
            row |= {"exact": float(mass @ (law.log_prob(x, horizon) - start.log_prob(x, horizon)))}
            row |= {"by_loss": by_loss.value, "by_loss_error": by_loss.error}
            row |= {"bracket_low": bracket.low.value, "bracket_high": bracket.high.value}
            row |= {"bracket_error": bracket.high.error, "bracket_open": bracket.open}
            errors.append(row)
    known = {(row["start"], row["horizon"]): Estimate(row["by_loss"], row["by_loss_error"]) for row in errors}

    rows = []
    x, mass = quadrature(law, SIGMA_MIN)
    cells = [(steps, horizon) for steps in sizes.steps for horizon in sizes.horizons]
    for steps, horizon in run.progress.track(cells, "exact divergences"):
        grid = equidistribute(profile.length("defect"), steps, horizon, SIGMA_MIN, final_zero=False)
        before, log_det = invert_euler(law, grid, x)
        common = law.log_prob(x, SIGMA_MIN) + log_det
        costs = discretization_error(profile, grid)
        every: dict[str, Initialization | GaussianMixture] = {**starts, "perfect": law}
        for name, begin in every.items():
            budget = Budget(known.get((name, horizon), Estimate(0.0, 0.0)), costs)
            row = {"start": name, "steps": steps, "horizon": horizon}
            row |= {"divergence": float(mass @ (common - begin.log_prob(before, horizon)))}
            row |= {"b_ode": budget.total, "b_ode_error": budget.error}
            for variance in get_args(ReverseVariance):
                bound = path_bound(profile, begin, grid, law, variance)
                row |= {f"j_{variance}": bound.value, f"j_{variance}_error": bound.error}
            if name == "gaussian" and not run.quick:
                row |= {"reference": REFERENCE[steps][sizes.horizons.index(horizon)]}
            rows.append(row)
    return rows, errors


def picks(exact: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The horizon that each criterion picks for a start and a number of steps, against the best for Euler's method."""
    rows = []
    for (start, steps), own in groups(exact, "start", "steps").items():
        horizons = [row["horizon"] for row in own]
        best = min(range(len(own)), key=lambda i: own[i]["divergence"])
        for criterion in ("b_ode", *(f"j_{variance}" for variance in get_args(ReverseVariance))):
            pick = min(range(len(own)), key=lambda i: own[i][criterion])
            row = {"start": start, "steps": steps, "criterion": criterion, "picks": horizons[pick]}
            row |= {"best": horizons[best], "nodes_away": pick - best, "within_one": abs(pick - best) <= 1}
            row |= {"divergence_there": own[pick]["divergence"], "least_divergence": own[best]["divergence"]}
            rows.append(row)
    return rows


@dataclass(frozen=True, eq=False)
class _Setup:
    """The samples, measurements and starts of a law and a seed."""

    run: Run
    sizes: Sizes
    name: str
    d: int
    law: GaussianMixture
    denoiser: Denoiser
    seed: int
    train: Tensor
    profile: Profile
    starts: dict[str, Initialization]

    @classmethod
    def made(cls, run: Run, sizes: Sizes, name: str, seed: int) -> _Setup:
        family, d = name.split("-")
        law = gmm25(int(d), weights="chi2") if family == "gmm25" else gmm_paper(int(d))
        denoiser: Denoiser = tiled(int(d)) if family == "gmm25" else law
        train = drawn(law.sample, sizes.trained, TRAIN, seed)
        fitted_on, held_out = hold_out(train, seed)
        profile = Profile.measure(
            denoiser, train[held_out], samples=sizes.profiled, cost_samples=sizes.profiled, seed=seed, batch_size=2000
        )
        fitted = fit_starts(train[fitted_on], ["isotropic", "gaussian", "mixture"], seed=seed, progress=run.progress)
        starts = {start.name: start for start in fitted}
        return cls(run, sizes, name, int(d), law, denoiser, seed, train, profile, starts)

    def rows(self) -> list[dict[str, Any]]:
        """Every method of this law and seed."""
        test = drawn(self.law.sample, self.sizes.scored, TEST, self.seed)
        return [
            row | self._scores(samples, test)
            for row, samples in self.run.progress.track(list(self._methods(self.sizes.nfe)), f"{self.name}: distances")
        ]

    def many(self) -> list[dict[str, Any]]:
        """The floor, noise on the long way, and both plans at their largest number of evaluations, at full size."""
        n, rows = self.sizes.many, []
        test = drawn(self.law.sample, n, TEST, self.seed)
        rows.append(
            {"law": self.name, "method": "data", "nfe": 0} | self._scores(drawn(self.law.sample, n, FLOOR, 0), test)
        )
        plan, gaussian = (self._plan(self.sizes.nfe[-1], names) for names in (list(self.starts), ["gaussian"]))
        methods = [
            ("N(0, 80^2), long", self.starts["isotropic"], self._long(), Heun()),
            ("plan", plan[0], plan[1], plan[2]),
            ("gaussian, its own plan", gaussian[0], gaussian[1], gaussian[2]),
        ]
        for method, start, grid, solver in self.run.progress.track(methods, f"{self.name}: {n} samples"):
            row, samples = self._method(method, start, grid, solver, n)
            rows.append(row | self._scores(samples, test) | {"paper_best": PAPER_BEST.get(self.d)})
        return rows

    def _methods(self, counts: Sequence[int]) -> Iterator[tuple[dict[str, Any], Tensor]]:
        n = self.sizes.scored
        yield (
            {"law": self.name, "seed": self.seed, "method": "data", "nfe": 0, "n": n},
            drawn(self.law.sample, n, FLOOR, self.seed),
        )
        isotropic = self.starts["isotropic"]
        yield self._method("N(0, 80^2), long", isotropic, self._long(), Heun(), n)
        flow = self._flow() if self.seed == 0 else None
        for nfe in counts:
            last = 0.05 * self.profile.sigma_data
            grid = Defect()(self.profile, nfe, 80.0, last)
            yield self._method("N(0, 80^2)", isotropic, grid, DPMSolverPP2M(), n)
            yield self._method("plan", *self._plan(nfe, list(self.starts)), n)
            start, grid, solver = self._plan(nfe, ["gaussian"])
            yield self._method("gaussian, its own plan", start, grid, solver, n)
            yield self._method("same levels: N(0, s^2)", isotropic, grid, solver, n)
            yield self._method("same levels: mixture", self.starts["mixture"], grid, solver, n)
            if flow is not None:
                yield self._method("same levels: flow", flow, grid, solver, n)
            yield self._method("same levels: noised data", None, grid, solver, n)

    def _long(self) -> Schedule:
        """EDM's grid without a last step to 0, as in the paper's experiments on mixtures."""
        return rho_grid(self.sizes.long_nodes - 1, 80.0, 0.002, final_zero=False)

    def _flow(self) -> Flow:
        """A coupling flow on the Gaussian, in the eight leading directions, for every horizon."""
        unit = self.profile.sigma_data
        fitted_on, _ = hold_out(self.train, self.seed)
        return Flow.fit(
            self.train[fitted_on],
            base=self.starts["gaussian"],
            dimensions=min(8, self.d),
            hidden=(64, 64),
            sigmas=(0.3 * unit, 200.0 * unit),
            training=Training(epochs=self.sizes.flow_epochs, patience=self.sizes.flow_epochs, levels=8),
            seed=self.seed,
            compute=Compute(progress=self.run.progress),
        )

    def _plan(self, nfe: int, names: Sequence[str]) -> tuple[Initialization, Schedule, Solver]:
        plan = fit(
            self.denoiser,
            self.train,
            nfe,
            profile=self.profile,
            initialization=[self.starts[name] for name in names],
            seed=self.seed,
            batch_size=2000,
            progress=self.run.progress,
        )
        return plan.initialization, plan.schedule, plan.solver

    def _method(
        self, method: str, start: Initialization | None, grid: Schedule, solver: Solver, n: int
    ) -> tuple[dict[str, Any], Tensor]:
        """A row without its scores, and samples; without a start, from fresh data noised at the horizon."""

        def sample(noise: Noise) -> Tensor:
            if start is None:
                x = self.law.sample(noise) + grid.horizon * noise.normal(self.law.shape)
            else:
                x = start.sample(noise, grid.horizon)
            return solver.solve(self.denoiser, x, grid)

        with torch.no_grad():
            samples = drawn(sample, n, START, self.seed)
        row = {"law": self.name, "seed": self.seed, "method": method, "nfe": solver.nfe(grid), "n": n}
        row |= {"start": "noised data" if start is None else start.name, "horizon": grid.horizon}
        return row | {"schedule": grid.name, "sigma_min": grid.sigma_min, "solver": solver.name}, samples

    def _scores(self, samples: Tensor, test: Tensor) -> dict[str, Any]:
        largest = max_sliced(samples, test)
        scores = {"n": len(test), "swd": sliced(samples, test, directions=64).mean, "max_swd": largest}
        return scores | ({"max_swd_paper": PAPER_SCALE * largest} if self.name.startswith("gmm25") else {})


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds."""
    out = []
    for (law, nfe, method), own in groups(rows, "law", "nfe", "method").items():
        row = {"law": law, "nfe": nfe, "method": method}
        for key in ("swd", "max_swd", "max_swd_paper"):
            if key in own[0]:
                found = estimate([r[key] for r in own])
                row |= {key: found["mean"], f"{key}_error": found["error"]}
        starts = {f"{r['start']} at {r['horizon']:.3g}" for r in own if "start" in r}
        out.append(row | {"starts": ", ".join(sorted(starts)), "seeds": len(own)})
    return out


def _largest_ratio(exact: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """By what factor our divergences are at most away from the reference, by number of steps."""
    known = [row for row in exact if "reference" in row]
    by_steps = groups(known, "steps")
    return {
        str(steps): max(math.exp(abs(math.log(r["divergence"] / r["reference"]))) for r in own)
        for (steps,), own in by_steps.items()
    } or None


def _exact_figure(exact: Sequence[Mapping[str, Any]]) -> Figure:
    counts = sorted({row["steps"] for row in exact})
    figure = Figure(figsize=(3.6 * len(counts), 3.4), layout="constrained")
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(row["start"] for row in exact))
    for ax, steps in zip(axes, counts, strict=True):
        for i, name in enumerate(names):
            own = [row for row in exact if row["start"] == name and row["steps"] == steps]
            x = [row["horizon"] for row in own]
            ax.plot(x, [row["divergence"] for row in own], f"C{i}o-", markersize=3, label=name)
            ax.plot(x, [row["b_ode"] for row in own], f"C{i}--", linewidth=1)
        ax.set(xscale="log", yscale="log", title=f"{steps} Euler steps", xlabel="horizon")
    axes[0].set_ylabel("nats: divergence (solid), budget (dashed)")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _distances_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    laws = list(dict.fromkeys(row["law"] for row in rows))
    figure = Figure(figsize=(3.0 * len(laws), 3.8), layout="constrained")
    axes = figure.subplots(1, len(laws), squeeze=False)[0]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for ax, law in zip(axes, laws, strict=True):
        for i, method in enumerate(methods):
            own = [row for row in rows if row["law"] == law and row["method"] == method]
            y, error = ([row[key] or 0.0 for row in own] for key in ("max_swd", "max_swd_error"))
            if method == "data":
                ax.axhline(y[0], color="k", linewidth=0.8, label="two sets of data" if ax is axes[0] else None)
                continue
            label = method if ax is axes[0] else None
            ax.errorbar([row["nfe"] for row in own], y, error, fmt=f"C{i}o-", markersize=3, label=label)
        ax.set(xscale="log", yscale="log", title=law, xlabel="network evaluations")
    axes[0].set_ylabel("max-sliced 2-Wasserstein distance")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=5)
    return figure
