r"""Daily returns: whether few evaluations reach the tails of a network that was trained on real heavy-tailed series.

Ten days in a row of logarithmic returns, in percent, of the S&P 500 and of the Nasdaq from 1999 to 2018, as the package
``arch`` ships them (extra ``experiments``). Every second block of 125 days trains a small denoiser
(:mod:`experiments.returns.network`), on which plans of 4 evaluations are fitted; the other blocks are what samples are
held against. For a seed, all of it is done anew. Windows overlap, and volatile times come in clusters: the two halves
differ from each other by more than as many independent days would, and the row of the training windows says by how
much.

1. **Quantiles** of the daily returns, and of the sum of the ten days.
2. **Expected shortfall**, the mean loss beyond the quantile: of a day and of ten days, at 2.5 % and 1 %.
3. **Distances**: the tail gap of the days, and the sliced distance of the windows.

Beside the plans is EDM's Heun sampler with 35 evaluations from noise, which is what a package does by default, and the
best plan from noise with as many evaluations as the plan.

References:
    Sheppard et al., *arch*, a package for Python (the data). Basel Committee on Banking Supervision, *Minimum Capital
    Requirements for Market Risk*, 2019 (expected shortfall at 97.5 % over ten days).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from experiments.common import Run, estimate, groups
from experiments.returns.data import DAYS, blocks, log_returns, windows
from experiments.returns.network import trained
from headstart.choose import fit
from headstart.initialization import Isotropic
from headstart.metrics import sliced_wasserstein, tail_gap
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.solver import Heun

__all__ = ["quantities", "returns", "shortfall", "verdict"]

LEVELS = (0.001, 0.01, 0.025, 0.25, 0.5, 0.75, 0.975, 0.99, 0.999)
SHORTFALLS = (0.025, 0.01)

DATA, TRAINING, HEUN = "data", "training data", "Heun"

#: The starts that each plan chooses from: all that are usual, with Student-t where tails are missed, and two alone.
METHODS: Mapping[str, str | None] = {
    "plan": None,
    "plan, student-t": "student-t",
    "plan, gaussian": "gaussian",
    "plan, from noise": "isotropic",
}


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    block: int = 125
    steps: int = 4000
    samples: int = 20_000
    nfe: int = 4
    heun_steps: int = 18
    pilot_samples: int = 1024


QUICK = Sizes(steps=150, samples=2000, heun_steps=4, pilot_samples=64)


def returns(run: Run) -> dict[str, Any]:
    """Daily returns: whether few evaluations reach the tails of a network trained on real heavy-tailed series."""
    sizes = QUICK if run.quick else Sizes()
    series = log_returns()
    sides = [windows([part for own in series.values() for part in blocks(own, sizes.block, i)]) for i in (0, 1)]
    rows: list[dict[str, Any]] = []
    chosen: list[dict[str, Any]] = []
    drawn: dict[str, Tensor] = {}
    for seed in range(run.seeds):
        found, plans = _samples(run, sizes, sides[0], seed)
        drawn = drawn or found
        chosen += plans
        for method, samples in {DATA: sides[1], TRAINING: sides[0], **found}.items():
            row: dict[str, Any] = {"method": method, "seed": seed, **quantities(samples)}
            if method != DATA:
                gap = tail_gap(samples, sides[1])
                row |= {"tail_gap": gap.value, "swd": sliced_wasserstein(samples, sides[1], seed=0)}
            rows.append(row)
        run.table("rows", rows)
        run.table("plans", chosen)
        run.table("summary", _summary(rows))
    run.figure("quantiles", _quantiles(sides[1], sides[0], drawn))
    run.figure("shortfall", _shortfalls(_summary(rows)))
    days = {name: len(own) for name, own in series.items()}
    return {
        "data": ", ".join(f"{n} days of {name}" for name, n in days.items())
        + f"; windows of {DAYS}: {len(sides[0])} for training, {len(sides[1])} for scoring",
        "seeds": run.seeds,
        "rows": rows,
        "plans": chosen,
        "summary": _summary(rows),
    }


def _samples(run: Run, sizes: Sizes, data: Tensor, seed: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Samples (N, days) of every method, and what the plans are."""
    network = trained(data, sizes.steps, seed, run.progress)
    scale = float(data.std())
    samplers: dict[str, Sampler] = {
        HEUN: Sampler(Isotropic((DAYS,)), rho_grid(sizes.heun_steps, 160 * scale, 0.004 * scale), Heun())
    }
    rows = []
    for method, start in METHODS.items():
        plan = fit(
            network,
            data,
            sizes.nfe,
            initialization=start,
            pilot_samples=sizes.pilot_samples,
            seed=seed,
            progress=run.progress,
            batch_size=2048,
        )
        samplers[method] = plan
        rows.append(
            {
                "method": method,
                "seed": seed,
                "start": plan.initialization.name,
                "horizon": plan.horizon,
                "nfe": plan.nfe,
            }
            | {"schedule": plan.schedule.name, "solver": plan.solver.name}
        )
    first = seed * 2**32
    drawn = {
        method: sampler.sample(
            network, seeds=range(first, first + sizes.samples), batch_size=8192, progress=run.progress
        )
        for method, sampler in samplers.items()
    }
    return drawn, rows


def shortfall(values: NDArray[np.float64], share: float) -> float:
    """Minus the mean of the lowest share of values (N,): the mean loss beyond the quantile."""
    count = max(1, round(share * len(values)))
    return -float(np.sort(values)[:count].mean())


def _returns(windows: Tensor, days: int) -> NDArray[np.float64]:
    """The returns of single days, or of all days together, of windows (N, days)."""
    values = windows.flatten() if days == 1 else windows.sum(1)
    return values.double().numpy()


def quantities(samples: Tensor) -> dict[str, float]:
    """Quantiles and expected shortfall of the days of windows (N, days), and of their sums."""
    found: dict[str, float] = {}
    for name, days in (("day", 1), (f"{DAYS} days", DAYS)):
        values = _returns(samples, days)
        at = np.quantile(values, LEVELS, method="median_unbiased")
        found |= {f"{name}, {level:g}": float(q) for level, q in zip(LEVELS, at, strict=True)}
        found |= {f"{name}, shortfall {share:g}": shortfall(values, share) for share in SHORTFALLS}
    return found


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every quantity by method: means over the seeds, with their errors where the seeds differ."""
    methods = groups(rows, "method")
    found = []
    for name in dict.fromkeys(name for row in rows for name in row if name not in ("method", "seed")):
        row: dict[str, Any] = {"quantity": name}
        for (method,), own in methods.items():
            values = [each[name] for each in own if name in each]
            if values:
                told = estimate(values)
                row[method] = told["mean"]
                if method not in (DATA, TRAINING):
                    row[f"{method}, error"] = told["error"]
        found.append(row)
    return found


def _quantiles(data: Tensor, training: Tensor, drawn: Mapping[str, Tensor]) -> Figure:
    """Quantiles of samples against those of the data, of days and of ten days."""
    tail = np.geomspace(3e-4, 0.5, 60)
    levels = np.concatenate([tail, 1 - tail[::-1]])
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    for ax, days in zip(figure.subplots(1, 2), (1, DAYS), strict=True):
        at = np.quantile(_returns(data, days), levels)
        ax.plot(at, at, color="0.7", linewidth=1)
        for method, samples in {TRAINING: training, **drawn}.items():
            style = {"color": "k", "linestyle": ":"} if method == TRAINING else {}
            ax.plot(at, np.quantile(_returns(samples, days), levels), label=method, linewidth=1.2, **style)
        ax.set(title=f"return of {days} day{'s' * (days > 1)}, %", xlabel="held-out data", ylabel="samples")
    figure.axes[0].legend(frameon=False, fontsize=7)
    return figure


def _shortfalls(summary: Sequence[Mapping[str, Any]]) -> Figure:
    """Expected shortfall of each method, with the data's as a line."""
    figure = Figure(figsize=(8.0, 2.4), layout="constrained")
    rows = [row for row in summary if "shortfall" in row["quantity"]]
    methods = [TRAINING, HEUN, *METHODS]
    for ax, row in zip(figure.subplots(1, len(rows)), rows, strict=True):
        ax.barh(
            methods,
            [row[method] for method in methods],
            xerr=[row.get(f"{method}, error") or 0.0 for method in methods],
            color="0.6",
        )
        ax.axvline(row[DATA], color="k", linewidth=1)
        ax.set_title(f"{row['quantity']}, %", fontsize=8)
        ax.tick_params(labelsize=7)
        if ax is not figure.axes[0]:
            ax.set_yticklabels([])
    return figure


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: expected shortfall of the data, of the plan, of Heun's sampler and from noise."""
    known = next(row for row in results["summary"] if row["quantity"] == f"{DAYS} days, shortfall 0.025")
    nfe = results["plans"][0]["nfe"]
    return (
        f"The expected shortfall over {DAYS} days at 97.5 % is {known[DATA]:.2f} % in held-out data and "
        f"{known[TRAINING]:.2f} % in those that the network was trained on; a plan of {nfe} evaluations has "
        f"{known['plan']:.2f} %, EDM's Heun sampler at 35 {known[HEUN]:.2f} %, and {nfe} evaluations from noise "
        f"{known['plan, from noise']:.2f} %."
    )
