r"""The mollified Cantor law: which schedule recovers its modes, with which solver, in how many evaluations.

The law is :func:`headstart.targets.cantor`, :math:`2^K` equal modes in one dimension that stand in pairs of pairs, so
that noise of every scale from 1 down to :math:`3^{-K}` has something to decide: 8 modes, and 32 as the hard case. The
start is :math:`N(0, 20^2)`, the denoiser is exact, and so are the costs that the schedules are made from: sums over a
fine grid of x, and no Monte Carlo.

**Schedules.** rho 3 and 7, log-linear, tangent at the data's standard deviation, linear in the noise level, equal costs
of the corrector, the defect and the predictor, and for the stochastic solvers the shortest paths of ``ddpm``; all from
20 to a level that is a seventh of a mode's width, without a step to 0.

**Solvers.** Euler, DPM-Solver++(2M), Heun, DDPM, and annealed Langevin dynamics: corrections as in
:class:`headstart.solver.PredictorCorrector`, but with no predictor before them, which is what the corrector cost is
the cost of,

.. math:: x \leftarrow x + \epsilon\, s(x, b) + \sqrt{2 \epsilon}\; z, \qquad \epsilon = 2\, (\text{snr} \cdot b)^2.

**Scores.** A mode is *recovered* if the share of samples within 3 of its standard deviations is between half and twice
its weight. Samples spread evenly from -0.03 to 1.03 recover all of 8 modes, whose windows fill most of it. So a mode
counts as *separated* if it is recovered and, half way to each neighbour, samples are at most half as dense as at its
centre, both over one standard deviation. The distance is 1-Wasserstein, to the law itself and not to samples of it,

.. math:: W_1 = \int_0^1 |F_n^{-1}(u) - F^{-1}(u)|\, du,

and its floor is that of as many exact samples.

References:
    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877 (the experiment: on the linear
    schedule the modes are not separated, and on the best one by score they are). The constants of its law, its sampler
    and its number of steps are not known to us.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import ndtr
from torch import Tensor

from experiments.common import Run, drawn, estimate, groups
from headstart.denoiser import Denoiser
from headstart.noise import Noise
from headstart.predictor import predictor_costs
from headstart.schedule import Length, Schedule, ShortestPaths, equidistribute, log_linear, rho_grid, tangent
from headstart.solver import DDPM, DPMSolverPP2M, Euler, Heun, Solver
from headstart.targets import GaussianMixture
from headstart.targets import cantor as cantor_law

__all__ = ["Costs", "Langevin", "cantor", "distance", "recovered", "separated", "verdict"]

HORIZON = 20.0

#: The best ten steps by corrector cost for 8 modes and tau = 0.005, from an independent computation.
REFERENCE = (20.0, 11.51, 6.617, 3.794, 2.156, 1.191, 0.596, 0.237, 0.0857, 0.0309, 0.002)

#: The schedule that only stochastic solvers take.
SHORTEST = "shortest paths"

#: What samples are for.
FLOOR, START = 1, 2


@dataclass(frozen=True)
class Case:
    """A law and the last level of its schedules."""

    name: str
    level: int
    tau: float
    sigma_min: float

    @property
    def law(self) -> GaussianMixture:
        """The law."""
        return cantor_law(self.level, self.tau)


EIGHT = Case("8 modes", 3, 0.005, 0.002)
HARD = Case("32 modes", 5, 0.001, 0.00025)


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    cases: tuple[Case, ...] = (EIGHT, HARD)
    steps: tuple[int, ...] = (5, 8, 10, 16, 20, 32, 64)
    samples: int = 4000
    levels: int = 200


QUICK = Sizes(cases=(EIGHT,), steps=(10, 20), samples=500, levels=60)


@dataclass(frozen=True, eq=False, repr=False)
class Langevin(Solver):
    """Corrections at every level and no predictor before them: M evaluations a step. See the top of this module.

    Arguments:
        corrections: M.
        snr: the step in units of the noise's norm. With 0.5 a deviation that is all noise is halved, and its variance
            ends a third too large.
    """

    name = "langevin"
    order = 1

    corrections: int = 2
    snr: float = 0.5

    @property
    def stochastic(self) -> bool:
        return True

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        share = 2 * self.snr**2  # epsilon / b^2
        for _, b in schedule.pairs():
            for _ in range(self.corrections):
                x = x + share * (D(x, b) - x) + math.sqrt(2 * share) * b * noise()
            yield x

    def nfe(self, schedule: Schedule) -> int:
        return schedule.steps * self.corrections


#: The solvers, whose schedules may be those of the shortest paths where they are stochastic.
SOLVERS: tuple[Solver, ...] = (Euler(), DPMSolverPP2M(), Heun(), DDPM(), Langevin())


def on_the_line(law: GaussianMixture) -> Denoiser:
    """The denoiser of equal modes on the line: exact, as the law's own, and in a third of its time."""
    means, variance = law.means[:, 0], float(law.variances[0, 0])

    def denoiser(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        noised = variance + torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1) ** 2
        share = variance / noised
        mode = ((x * means - 0.5 * means**2) / noised).softmax(1) @ means[:, None]
        clean: Tensor = mode + share * (x - mode)
        return clean

    return denoiser


@dataclass(frozen=True, eq=False)
class Costs:
    """The exact loss and costs of a law on the line, on a dense grid of levels.

    Attributes:
        loss: denoising loss at each level, :math:`\\sigma^2 - \\sigma^4 E\\, s^2`, shape (G,).
        corrector: length by the corrector cost.
        defect: length by the defect cost.
        predictor: length by the predictor cost of Euler's step.
    """

    loss: np.ndarray[Any, np.dtype[np.float64]]
    corrector: Length
    defect: Length
    predictor: Length

    @classmethod
    def of(cls, law: GaussianMixture, sigma_min: float, levels: int) -> Costs:
        """By the trapezoid rule in x, from :data:`HORIZON` down to ``sigma_min``."""
        sigmas = np.geomspace(HORIZON, sigma_min, levels)
        sigmas[0], sigmas[-1] = HORIZON, sigma_min
        variance, loss, costs = deviation(law) ** 2, [], []
        for a, b in pairwise([*map(float, sigmas), 0.9 * sigma_min]):
            x, mass = quadrature(law, a)
            clean = law(x, a)
            slope = (x - clean) / a
            loss.append(a**2 * (1 - float(mass @ slope.square())))
            score = law.score(x, b) - law.score(x, a)
            euler = x + (b - a) * slope
            bend = 0.5 * (b - a) * ((euler - law(euler, b)) / b - slope)
            predictor = predictor_costs(law, x, a, b)[:, None]
            each = b**2 * score.square(), bend.square() / (b**2 + variance), predictor
            costs.append([float(mass @ cost) for cost in each])
        table = np.array(costs[:-1])
        lengths = (Length(sigmas, table[:, i], q) for i, q in enumerate((2, 4, 4)))
        return cls(np.array(loss), *lengths)


def quadrature(law: GaussianMixture, sigma: float, step: float = 0.05) -> tuple[Tensor, Tensor]:
    """Points (G, 1) of the trapezoid rule on the line for the law at a noise level, and their masses (G,).

    They are ``step`` of a mode's noised width apart. In the middle of a wide gap the denoiser changes within far less
    than that width: with steps of 0.2 the predictor cost would be off by a tenth, with 0.05 it has seven digits.
    """
    width = math.sqrt(float(law.variances.min()) + sigma**2)
    low, high = float(law.means.min()) - 8 * width, float(law.means.max()) + 8 * width
    x = torch.linspace(low, high, math.ceil((high - low) / (step * width)) + 1, dtype=torch.float64)[:, None]
    mass = law.log_prob(x, sigma).exp()
    return x, mass / mass.sum()


def deviation(law: GaussianMixture) -> float:
    """The standard deviation of a law on the line."""
    mean = law.weights @ law.means
    return math.sqrt(float(law.weights @ ((law.means - mean).square() + law.variances)))


def schedules(case: Case, costs: Costs, paths: ShortestPaths, steps: int) -> Iterator[Schedule]:
    """Every schedule of so many steps, the shortest path last, none of them with a step to 0."""
    ends = (steps, HORIZON, case.sigma_min)
    yield Schedule(rho_grid(*ends, rho=1, final_zero=False).sigmas, "linear")
    yield rho_grid(*ends, rho=3, final_zero=False)
    yield rho_grid(*ends, rho=7, final_zero=False)
    yield log_linear(*ends, final_zero=False)
    yield Schedule(tangent(*ends, scale=deviation(case.law), final_zero=False).sigmas, "tangent")
    yield equidistribute(costs.corrector, *ends, final_zero=False, name="corrector")
    yield equidistribute(costs.defect, *ends, final_zero=False, name="defect")
    yield equidistribute(costs.predictor, *ends, final_zero=False, name="predictor")
    yield Schedule(paths.schedule(steps, HORIZON, final_zero=False).sigmas, SHORTEST)


# Scores.


def recovered(samples: Tensor, law: GaussianMixture) -> Tensor:
    """Which of K modes on the line are recovered by samples (n, 1), shape (K,). See the top of this module."""
    shares = near(samples, law, law.means[:, 0], 3.0)
    return (shares >= 0.5 * law.weights) & (shares <= 2 * law.weights)


def separated(samples: Tensor, law: GaussianMixture) -> Tensor:
    """Which of K modes on the line, in rising order, are separated, shape (K,). See the top of this module."""
    centres = law.means[:, 0]
    peaks = near(samples, law, centres, 0.5)
    valleys = near(samples, law, (centres[1:] + centres[:-1]) / 2, 0.5)
    none = torch.zeros(1, dtype=valleys.dtype)
    highest = torch.maximum(torch.cat([none, valleys]), torch.cat([valleys, none]))
    return recovered(samples, law) & (highest <= 0.5 * peaks)


def near(samples: Tensor, law: GaussianMixture, places: Tensor, reach: float) -> Tensor:
    """The share of samples (n, 1) within so many standard deviations of a mode of each place (P,), shape (P,)."""
    ordered = samples[:, 0].double().sort().values.contiguous()
    width = reach * law.variances[0, 0].sqrt()
    counts = torch.searchsorted(ordered, places + width, right=True) - torch.searchsorted(ordered, places - width)
    return counts / len(samples)


def quantiles(law: GaussianMixture, count: int) -> Tensor:
    """The quantiles of a law on the line at the middles of so many equal parts of [0, 1], shape (count,).

    Linear between a thousand places to a standard deviation of a mode.
    """
    width = float(law.variances[0, 0].sqrt())
    x = np.arange(float(law.means.min()) - 8 * width, float(law.means.max()) + 8 * width, 1e-3 * width)
    centres, weights = law.means[:, 0].numpy(), law.weights.numpy()
    distribution = sum(w * ndtr((x - centre) / width) for w, centre in zip(weights, centres, strict=True))
    return torch.from_numpy(np.interp((np.arange(count) + 0.5) / count, distribution, x))


def distance(samples: Tensor, exact: Tensor) -> float:
    """W_1 of samples (n, 1) to the law of which ``exact`` are :func:`quantiles`, a multiple of n in number."""
    ordered = samples[:, 0].double().sort().values
    return float((ordered[:, None] - exact.reshape(len(ordered), -1)).abs().mean())


# The experiment.


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: whether the claim of the paper holds here."""
    never, always = (results["summary"][key] for key in ("linear_always_fails", "corrector_always_recovers"))
    linear = "never recovers all modes" if never else "recovers all modes with some solver"
    corrector = "recovers them with every solver" if always else "does not recover them with every solver"
    return f"The linear schedule {linear}; that of equal corrector cost {corrector}, given enough evaluations."


def cantor(run: Run) -> dict[str, Any]:
    """The mollified Cantor law: which schedule recovers its modes, with which solver, in how many evaluations."""
    sizes = QUICK if run.quick else Sizes()
    rows: list[dict[str, Any]] = []
    floors: list[dict[str, Any]] = []
    grids: list[dict[str, Any]] = []
    off = 0.0
    for case in sizes.cases:
        costs = Costs.of(case.law, case.sigma_min, sizes.levels)
        paths = ShortestPaths.of(costs.corrector.sigmas, costs.loss, 1, max(sizes.steps))
        if case == EIGHT:
            off = reference_error(costs)
        own = [grid for steps in sizes.steps for grid in schedules(case, costs, paths, steps)]
        tens = [grid for grid in own if grid.steps == 10]
        grids += [{"law": case.name, "schedule": grid.name, "levels": list(grid.sigmas)} for grid in tens]
        exact = quantiles(case.law, 4 * sizes.samples)
        for seed in range(run.seeds):
            floors.append({"law": case.name, "seed": seed} | scores(_floor(case, sizes, seed), case.law, exact))
        combinations = [
            (solver, grid) for solver in SOLVERS for grid in own if solver.stochastic or grid.name != SHORTEST
        ]
        for solver, grid in run.progress.track(combinations, case.name):
            for seed in range(run.seeds):
                samples = _samples(case, sizes, solver, grid, seed)
                row = {"law": case.name, "solver": solver.name, "schedule": grid.name, "steps": grid.steps}
                rows.append(row | {"nfe": solver.nfe(grid), "seed": seed} | scores(samples, case.law, exact))
    mean, floor = means(rows, "law", "solver", "schedule", "steps", "nfe"), means(floors, "law")
    least = first(mean, floor)
    run.table("rows", rows)
    run.table("means", mean)
    run.table("equal", equal(mean))
    run.table("floor", floor)
    run.table("first", least)
    run.figure("modes", _figure(mean, floor, "modes", "modes recovered"))
    run.figure("w1", _figure(mean, floor, "w1", "1-Wasserstein distance"))
    return {
        "laws": {
            case.name: {"level": case.level, "tau": case.tau, "sigma_min": case.sigma_min} for case in sizes.cases
        },
        "horizon": HORIZON,
        "samples": sizes.samples,
        "seeds": run.seeds,
        "langevin": {"corrections": Langevin().corrections, "snr": Langevin().snr},
        "corrector_grid_off_reference": off,
        "ten_steps": grids,
        "means": mean,
        "floor": floor,
        "first": least,
        "summary": summary(mean, least),
    }


def reference_error(costs: Costs) -> float:
    """How far the levels of the ten best steps by corrector cost are from the reference at most, relative to it."""
    grid = equidistribute(costs.corrector, 10, HORIZON, 0.002, final_zero=False)
    return float(np.abs(np.array(grid.sigmas) / REFERENCE - 1).max())


def scores(samples: Tensor, law: GaussianMixture, exact: Tensor) -> dict[str, float]:
    """Modes recovered and separated, and the distance to the law."""
    counts = {"modes": recovered(samples, law), "separated": separated(samples, law)}
    return {name: int(which.sum()) for name, which in counts.items()} | {"w1": distance(samples, exact)}


def means(rows: Sequence[Mapping[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Means over the seeds, with standard errors."""
    out = []
    for key, own in groups(rows, *keys).items():
        row = dict(zip(keys, key, strict=True))
        for score in ("modes", "separated", "w1"):
            found = estimate([r[score] for r in own])
            row |= {score: found["mean"], f"{score}_error": found["error"]}
        out.append(row)
    return out


def first(mean: Sequence[Mapping[str, Any]], floor: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each solver and schedule the fewest evaluations from which on all seeds do as well as the data, or None.

    Recovering and separating as many modes as exact samples do, and being at most twice as far from the law.
    """
    best = {row["law"]: row for row in floor}
    out = []
    for key, own in groups(mean, "law", "solver", "schedule").items():
        at = best[key[0]]
        row = dict(zip(("law", "solver", "schedule"), key, strict=True))
        for score in ("modes", "separated"):
            row[score] = _from_on((r["nfe"], r[score] >= at[score]) for r in own)
        out.append(row | {"w1": _from_on((r["nfe"], r["w1"] <= 2 * at["w1"]) for r in own)})
    return out


def _from_on(found: Iterable[tuple[int, bool]]) -> int | None:
    """The fewest evaluations from which on all is well."""
    least = None
    for nfe, well in sorted(found, reverse=True):
        if not well:
            break
        least = nfe
    return least


def equal(mean: Sequence[Mapping[str, Any]], nfe: int = 20) -> list[dict[str, Any]]:
    """Every schedule at one number of evaluations: a row for each, with "recovered (separated)" under every solver."""
    out: dict[tuple[str, str], dict[str, Any]] = {}
    for r in (r for r in mean if r["nfe"] == nfe):
        row = out.setdefault((r["law"], r["schedule"]), {"law": r["law"], "schedule": r["schedule"]})
        row[r["solver"]] = f"{r['modes']:.1f} ({r['separated']:.1f})"
    return list(out.values())


def summary(mean: Sequence[Mapping[str, Any]], least: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paper's claim and what becomes of it here, in words that are made from the figures."""
    reached = {(r["law"], r["solver"], r["schedule"]): r["modes"] for r in least}
    found, fails, recovers = [], True, True
    for law in dict.fromkeys(r["law"] for r in mean):
        linear = max((r for r in mean if (r["law"], r["schedule"]) == (law, "linear")), key=lambda r: r["modes"])
        most = max(r["separated"] for r in mean if (r["law"], r["schedule"]) == (law, "linear"))
        found.append(
            f"{law}: on the linear schedule at most {linear['modes']:.1f} are recovered, by {linear['solver']} in "
            f"{linear['nfe']} evaluations, and at most {most:.1f} are separated."
        )
        for solver in dict.fromkeys(r["solver"] for r in mean if r["law"] == law):
            own = {name: nfe for (where, how, name), nfe in reached.items() if (where, how) == (law, solver)}
            fails, recovers = fails and own["linear"] is None, recovers and own["corrector"] is not None
            order = sorted(own.items(), key=lambda item: math.inf if item[1] is None else item[1])
            each = ", ".join(f"{name} {'never' if nfe is None else nfe}" for name, nfe in order)
            found.append(f"{law}, {solver}: all are recovered from so many evaluations on: {each}.")
    return {
        "claim": "On the linear schedule the modes are not all recovered, and on that of the corrector they are "
        "(Williams et al. 2024).",
        "linear_always_fails": fails,
        "corrector_always_recovers": recovers,
        "findings": found,
    }


def _floor(case: Case, sizes: Sizes, seed: int) -> Tensor:
    return drawn(case.law.sample, sizes.samples, FLOOR, seed)


def _samples(case: Case, sizes: Sizes, solver: Solver, grid: Schedule, seed: int) -> Tensor:
    denoiser = on_the_line(case.law)

    def sample(noise: Noise) -> Tensor:
        return solver.solve(denoiser, grid.horizon * noise.normal((1,)).double(), grid, noise)

    with torch.no_grad():
        return drawn(sample, sizes.samples, START, seed)


def _figure(mean: Sequence[Mapping[str, Any]], floor: Sequence[Mapping[str, Any]], score: str, label: str) -> Figure:
    """One panel a law and solver, one line a schedule."""
    laws, solvers, names = (list(dict.fromkeys(r[key] for r in mean)) for key in ("law", "solver", "schedule"))
    figure = Figure(figsize=(2.6 * len(solvers), 2.7 * len(laws) + 0.6), layout="constrained")
    axes = figure.subplots(len(laws), len(solvers), sharex=True, sharey="row", squeeze=False)
    for i, law in enumerate(laws):
        best = next(r[score] for r in floor if r["law"] == law)
        for ax, solver in zip(axes[i], solvers, strict=True):
            ax.axhline(best, color="k", linewidth=0.8)
            for colour, name in enumerate(names):
                own = [r for r in mean if (r["law"], r["solver"], r["schedule"]) == (law, solver, name)]
                x, y = [r["nfe"] for r in own], [r[score] for r in own]
                ax.plot(x, y, f"C{colour}o-", markersize=2.5, linewidth=1)
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set(title=f"{law}, {solver}", yscale="log" if score == "w1" else "linear")
        axes[i][0].set_ylabel(label)
    for ax in axes[-1]:
        ax.set_xlabel("network evaluations")
    handles = [axes[0][0].plot([], [], f"C{colour}o-", markersize=3)[0] for colour in range(len(names))]
    figure.legend(handles, names, frameon=False, fontsize=8, loc="outside lower center", ncols=len(names))
    return figure
