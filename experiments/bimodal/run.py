r"""Two modes on the line: a network whose noise levels are learned with it, against the same network on fixed levels.

The law is :func:`headstart.targets.bimodal`, and the network the small one of ``training/online.py``. It is trained for
as many steps, on the same data and from the same weights, on levels that stay (linear in sigma, log-linear, EDM's
rho 7, and those whose corrector costs by the exact denoiser are equal), and on levels that follow it
(:class:`headstart.schedule.OnlineSchedule`), from the linear and from the log-linear ones. Everything that is reported
is a sum over a fine grid of x, and no Monte Carlo: what varies is the seed of weights and data.

1. **The error of the score**, by the exact one: on the network's own levels, as the sampler below weighs them (levels
   that are few where the error is large make it small, so that it compares networks on one grid and no grids), and over
   all levels, which is the same for every network,

   .. math:: \tfrac12 \int_{u(\sigma_T)}^{u(\sigma_{\min})} e\; du = \int_{\sigma_{\min}}^{\sigma_T}
       \frac{E\|D - D_\theta\|^2}{\sigma^2}\, d \ln \sigma, \qquad u = \sigma^{-2}.

2. **The samples** of Euler and Maruyama's method, whose score is frozen over each step: their law goes from level to
   level by

   .. math:: \hat p_b(y) = \int N\big(y;\, r x + (1 - r)\, D_\theta(x, a),\; a^2 - b^2\big)\, \hat p_a(x)\, dx,
       \qquad r = b^2 / a^2,

   from the exact law at the horizon, so that nothing is of the start. At the last level: its divergence from the data
   there, the negative log likelihood of the data (which is that and their entropy), the 1-Wasserstein distance, and the
   divergence of the path, which is above that of the samples. The floor is the exact denoiser on the same levels.
3. **The levels**: largest over smallest corrector cost, by the network and by the exact denoiser, before and after; and
   how far the levels are from those of equal cost.

References:
    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877, Algorithm 2 (the experiment:
    levels learned online have a smaller error of the score, and a higher likelihood). The constants of its law, its
    network and its sampler are not known to us, nor what levels it compares with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from experiments.common import Run, drawn, estimate, groups
from headstart.denoiser import Denoiser, denoise
from headstart.errors import DenoiserError
from headstart.schedule import OnlineSchedule, Schedule, fixed_point, log_linear, rho_grid
from training.online import LAW, Perceptron, bound_terms, errors, noised, step_costs, train

__all__ = [
    "bimodal",
    "deviation",
    "differences",
    "distances",
    "entropy",
    "equal_costs",
    "samples_law",
    "score_error",
    "verdict",
]

#: What samples are for: training.
TRAIN = 1

#: Mass that says nothing of where samples go, and how far from 1 all masses may sum to.
NEGLIGIBLE, LOST = 1e-12, 1e-4

#: What the methods are compared by, of which less is better.
SCORES = ("score_all_levels", "score_own_levels", "kl", "nll", "w1", "path")

#: What of the levels alone is averaged over the seeds.
FLOORS = ("kl_floor", "w1_floor")
SPREADS = tuple(f"spread_{when}_{whose}" for whose in ("network", "exact") for when in ("before", "after"))
LEVELS = (*SPREADS, "deviation", "deviation_rms")

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    horizon: float = 20.0
    sigma_min: float = 0.05
    grid_steps: int = 40
    data: int = 20_000
    steps: int = 4000
    batch: int = 512
    blending: float = 0.1
    #: Levels that the error is integrated over, and points of the law of the samples.
    levels: int = 200
    points: int = 801


QUICK = Sizes(grid_steps=8, data=1000, steps=150, batch=256, levels=20, points=401)


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: what levels that are learned during training come to."""
    own = {row["less"]: row for row in results["differences"] if row["method"] == "online from linear"}
    first, best = own["linear"], own["rho 7"]
    return (
        f"Levels learned during training, from linear ones, leave the sampler with {_nats(first)} nats against those "
        f"it began with, and with {_nats(best)} against rho 7."
    )


def _nats(row: Mapping[str, Any]) -> str:
    """A difference of divergences with its standard error."""
    return f"{row['kl']:+.3f}" + ("" if row["kl_error"] is None else f" ± {row['kl_error']:.3f}")


def bimodal(run: Run) -> dict[str, Any]:
    """Two modes on the line: noise levels that are learned with the network, against fixed ones."""
    sizes = QUICK if run.quick else Sizes()
    grids = first_grids(sizes)
    methods = [(name, grid, False) for name, grid in grids.items()]
    methods += [(f"online from {name}", grids[name], True) for name in ("linear", "log-linear")]
    floor = [
        {"levels": name, "path": path_divergence(LAW, grid)}
        | distances(*samples_law(LAW, grid, sizes.points), grid.sigma_min)
        for name, grid in grids.items()
    ]
    run.table("floor", floor)
    trained: list[_Trained] = []
    rows: list[dict[str, Any]] = []
    crossed: list[dict[str, Any]] = []
    for seed in range(run.seeds):
        data = drawn(LAW.sample, sizes.data, TRAIN, seed)
        for name, first, moving in run.progress.track(methods, f"networks of seed {seed}"):
            online = OnlineSchedule(first, blending=sizes.blending)
            network = train(online, data, moving, sizes.steps, sizes.batch, seed)
            trained.append(_Trained(name, seed, moving, first, online.schedule, online.moves, network))
            rows.append(trained[-1].row(sizes, grids["equal cost"]))
            crossed += trained[-1].elsewhere(sizes, grids)
            run.table("methods", rows)
            run.table("crossed", crossed)
    tables = {
        "summary": means(rows, ("method",), (*SCORES, *FLOORS, *LEVELS)),
        "differences": differences(rows),
        "crossed_summary": means(crossed, ("method", "levels"), ("score", "kl")),
        "levels": _levels(grids, trained),
    }
    for table, found in tables.items():
        run.table(table, found)
    run.figure("bimodal", _figure(grids, trained, sizes))
    return {
        "law": "0.3 N(-1, 0.2^2) + 0.7 N(1, 0.2^2)",
        "network": f"perceptron, two hidden layers of 64; {sizes.steps} steps of Adam on {sizes.batch} samples each",
        "levels_of": f"{sizes.grid_steps} steps from {sizes.horizon:g} to {sizes.sigma_min:g}",
        "blending": sizes.blending,
        "sampler": "Euler-Maruyama from the exact law at the horizon, no step to 0; its law by quadrature",
        "seeds": run.seeds,
        "entropy": entropy(sizes.sigma_min),
        "floor": floor,
        "methods": rows,
        "crossed": crossed,
    } | tables


def first_grids(sizes: Sizes) -> dict[str, Schedule]:
    """The levels that stay; those of equal cost are what levels that move would come to with the exact denoiser."""
    steps, high, low = sizes.grid_steps, sizes.horizon, sizes.sigma_min
    return {
        "linear": rho_grid(steps, high, low, rho=1.0, final_zero=False),
        "log-linear": log_linear(steps, high, low, final_zero=False),
        "rho 7": rho_grid(steps, high, low, final_zero=False),
        "equal cost": equal_costs(steps, high, low),
    }


def equal_costs(steps: int, horizon: float, sigma_min: float) -> Schedule:
    """The levels whose steps have the same corrector cost by the exact denoiser."""
    first = log_linear(steps, horizon, sigma_min, final_zero=False)
    found = fixed_point(lambda grid: step_costs(LAW, grid), first, exponent=2, iterations=60, tolerance=1e-4)
    return Schedule(found.schedule.sigmas, "equal cost")


def entropy(sigma: float) -> float:
    """Differential entropy of the noised law in nats."""
    x, mass = noised(sigma)
    return -float(mass @ LAW.log_prob(x, sigma))


def score_error(denoiser: Denoiser, sigmas: Curve) -> float:
    """The error over all levels in nats, by the trapezoid rule on decreasing ones: the integral above."""
    each = errors(denoiser, sigmas.tolist()) / sigmas**2
    return float(((each[:-1] + each[1:]) / 2) @ -np.diff(np.log(sigmas)))


def path_divergence(denoiser: Denoiser, schedule: Schedule) -> float:
    """The divergence of the sampler's path from the exact law at the horizon: see :mod:`headstart.budget.path`."""
    terms, _ = bound_terms(denoiser, schedule)
    gained = entropy(schedule.horizon) - math.log(schedule.horizon / schedule.sigma_min) + float(terms.sum())
    return gained - entropy(schedule.sigma_min)


@torch.no_grad()
def samples_law(denoiser: Denoiser, schedule: Schedule, count: int = 801) -> tuple[Tensor, Tensor]:
    """The law of the samples at the last level, as points (G, 1) and masses (G,): the recursion above.

    Raises:
        DenoiserError: if masses do not sum to 1: the network spreads its samples wider than the points resolve.
    """
    x, mass = noised(schedule.horizon, count)
    data = float(noised(schedule.sigma_min, count)[0].max())
    for a, b in schedule.pairs():
        r, variance = (b / a) ** 2, a**2 - b**2
        mean = (r * x + (1 - r) * denoise(denoiser, x, a))[:, 0]
        reach = max(data, float(mean[mass > NEGLIGIBLE].abs().max()) + 8 * math.sqrt(variance))
        x = torch.linspace(-reach, reach, count, dtype=torch.float64)[:, None]
        kernel = (-0.5 * (x - mean).square() / variance).exp() / math.sqrt(2 * math.pi * variance)
        mass = (kernel @ mass) * (2 * reach / (count - 1))
        off = abs(float(mass.sum()) - 1)
        if not off < LOST:
            raise DenoiserError(
                f"the masses of the samples at {b:.4g} are {off:.2g} away from 1: the network spreads them from "
                f"{-reach:.4g} to {reach:.4g}, which is more than {count} points resolve"
            )
    return x, mass


def distances(x: Tensor, mass: Tensor, sigma: float) -> dict[str, float]:
    """The loss of a law on equally spaced points at a level: divergence and likelihood in nats, and W_1."""
    spacing = float(x[1, 0] - x[0, 0])
    log_p = LAW.log_prob(x, sigma)
    own = log_p.exp() * spacing
    nll = -float(own @ (mass / spacing).clamp_min(1e-300).log())
    return {
        "kl": nll + float(own @ log_p),
        "nll": nll,
        "w1": float((mass - own).cumsum(0).abs().sum()) * spacing,
    }


def deviation(schedule: Schedule, reference: Schedule) -> Curve:
    """How far each level is from that of another grid, in ln sigma, shape (N + 1,)."""
    return np.asarray(np.log(np.array(schedule.sigmas) / np.array(reference.sigmas)))


@dataclass(frozen=True, eq=False)
class _Trained:
    """A network, and the levels that it was trained on: the first ones, and those at the end."""

    method: str
    seed: int
    moving: bool
    first: Schedule
    levels: Schedule
    moves: int
    network: Perceptron

    def row(self, sizes: Sizes, reference: Schedule) -> dict[str, Any]:
        """The results on its own levels; the reference has equal costs."""
        grid, network = self.levels, self.network
        _, own = bound_terms(network, grid)
        found, floor = (
            distances(*samples_law(denoiser, grid, sizes.points), grid.sigma_min) for denoiser in (network, LAW)
        )
        away = deviation(grid, reference)
        row: dict[str, Any] = {"method": self.method, "seed": self.seed, "moving": self.moving, "moves": self.moves}
        row |= {"score_all_levels": score_error(network, np.geomspace(grid.horizon, grid.sigma_min, sizes.levels))}
        row |= {"score_own_levels": float(own.sum())}
        row |= found | {"path": path_divergence(network, grid)}
        row |= {"kl_floor": floor["kl"], "w1_floor": floor["w1"]}
        for whose, denoiser in (("network", network), ("exact", LAW)):
            row |= {f"spread_before_{whose}": _spread(denoiser, self.first)}
            row |= {f"spread_after_{whose}": _spread(denoiser, grid)}
        return row | {"deviation": float(abs(away).max()), "deviation_rms": float(np.sqrt((away**2).mean()))}

    def elsewhere(self, sizes: Sizes, grids: Mapping[str, Schedule]) -> list[dict[str, Any]]:
        """Its error and its samples on the fixed levels, whichever it was trained on."""
        rows = []
        for name, grid in grids.items():
            _, own = bound_terms(self.network, grid)
            kl = distances(*samples_law(self.network, grid, sizes.points), grid.sigma_min)["kl"]
            rows.append({"method": self.method, "seed": self.seed, "levels": name, "score": float(own.sum()), "kl": kl})
        return rows


def _spread(denoiser: Denoiser, schedule: Schedule) -> float:
    """Largest over smallest corrector cost of a step."""
    costs = step_costs(denoiser, schedule)
    return float(costs.max() / costs.min())


def means(rows: Sequence[Mapping[str, Any]], by: Sequence[str], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Means over the seeds, with their errors."""
    return [
        dict(zip(by, group, strict=True)) | _estimates(keys, own) | {"seeds": len(own)}
        for group, own in groups(rows, *by).items()
    ]


def differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Levels that move less levels that stay, seed by seed: below 0 where moving is better."""
    known = {(row["method"], row["seed"]): row for row in rows}
    moving, fixed = ([*dict.fromkeys(r["method"] for r in rows if r["moving"] is which)] for which in (True, False))
    seeds = sorted({row["seed"] for row in rows})
    out = []
    for method in moving:
        for other in fixed:
            gaps = [{key: known[method, s][key] - known[other, s][key] for key in SCORES} for s in seeds]
            out.append({"method": method, "less": other} | _estimates(SCORES, gaps))
    return out


def _estimates(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key in keys:
        found = estimate([row[key] for row in rows])
        out |= {key: found["mean"], f"{key}_error": found["error"]}
    return out


def _levels(grids: Mapping[str, Schedule], trained: Sequence[_Trained]) -> list[dict[str, Any]]:
    """A row for every level: the fixed ones, and of those that moved the mean and its error over the seeds."""
    moved: dict[str, list[tuple[float, ...]]] = {}
    for network in trained:
        if network.moving:
            moved.setdefault(network.method, []).append(network.levels.sigmas)
    rows = []
    for i in range(len(next(iter(grids.values())).sigmas)):
        row: dict[str, Any] = {"level": i} | {name: grid.sigmas[i] for name, grid in grids.items()}
        for name, each in moved.items():
            found = estimate([sigmas[i] for sigmas in each])
            row |= {name: found["mean"], f"{name}, error": found["error"]}
        rows.append(row)
    return rows


def _figure(grids: Mapping[str, Schedule], trained: Sequence[_Trained], sizes: Sizes) -> Figure:
    """Of the first seed: levels, their exact costs, the networks' errors at all levels, and the laws of the samples."""
    figure = Figure(figsize=(9.0, 7.0), layout="constrained")
    (levels, costs), (gaps, laws) = figure.subplots(2, 2)
    sigmas = np.geomspace(sizes.horizon, sizes.sigma_min, sizes.levels)
    for i, network in enumerate([network for network in trained if network.seed == 0]):
        style = {"color": f"C{i}", "linestyle": "-" if network.moving else "--", "linewidth": 1.2}
        levels.plot(network.levels.sigmas, label=network.method, **style)
        costs.plot(step_costs(LAW, network.levels), **style)
        gaps.plot(sigmas, errors(network.network, sigmas.tolist()) / sigmas**2, **style)
        x, mass = samples_law(network.network, network.levels, sizes.points)
        laws.plot(x[:, 0], mass / (x[1, 0] - x[0, 0]), **style)
    x, mass = noised(sizes.sigma_min)
    laws.plot(x[:, 0], mass / (x[1, 0] - x[0, 0]), "k-", linewidth=0.8, label="data")
    levels.set(yscale="log", xlabel="place", ylabel="sigma", title="levels")
    costs.set(yscale="log", xlabel="step", title="corrector cost by the exact denoiser")
    gaps.set(xscale="log", yscale="log", xlabel="sigma", title="error of the network over sigma^2")
    laws.set(xlim=(-2.2, 2.2), xlabel="x", title="density of the samples, and of data (black)")
    levels.legend(frameon=False, fontsize=8)
    return figure
