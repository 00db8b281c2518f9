"""Networks of other packages: plans of a few evaluations beside the package's own sampler at its default number.

Each package trains a small network by its own loss on data of the kind that it is for. The package samples it as it
does by default; headstart takes the network by its loader, fits plans of 3, 4 and 6 evaluations, and samples it too.
Both are compared with data that neither has seen, by sliced Wasserstein and energy distance; the floor is that of as
many other data. Plans are fitted twice where there are data: on the data, and without any, on samples of the network
itself. Evaluations are counted at the network.

Whatever is finished is in the folder (``networks``, ``plans``, ``cells.jsonl``), and a run that was cut off goes on
where it stopped if it is started in the same folder again. Packages that are not installed are left out, and said. With
``--only TEXT``, networks without that text in their names are not worked on: their rows are shown if they are finished.
Where a folder has the ``results.json`` of an earlier run and no cells, as stored results have, its rows are the cells.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.clients import azula, diffusers, flows, galaxygrad, lucidrains, posteriors
from experiments.clients.network import Client, Network, Place
from experiments.clients.scores import SCORES, distances
from experiments.common import Run, estimate, groups
from headstart.artefact import read_json
from headstart.choose import fit
from headstart.compare.cells import Cells
from headstart.environment import environment
from headstart.errors import HeadstartError, MissingExtraError
from headstart.files import atomic_write
from headstart.plan import Plan
from headstart.report.text import number

__all__ = ["CLIENTS", "clients", "ratio", "table", "verdict"]

#: The rows of the table, a package at a time.
CLIENTS: tuple[Client, ...] = (
    *azula.CLIENTS,
    *flows.CLIENTS,
    *lucidrains.CLIENTS,
    *diffusers.CLIENTS,
    *posteriors.CLIENTS,
    *galaxygrad.CLIENTS,
)

#: The packages, as they are installed.
PACKAGES = (
    "azula",
    "torchcfm",
    "torchdiffeq",
    "flow_matching",
    "denoising-diffusion-pytorch",
    "diffusers",
    "sbi",
    "treeffuser",
    "galaxygrad",
)

#: The number of evaluations that the verdict is about.
HEADLINE = 4

#: What a cell is known by.
KEY = ("client", "method", "nfe", "seed")

#: Plans by what they are fitted on.
DATA, FREE = "plan", "plan without data"


#: Why a plan that is fitted without data may be behind, whatever the network.
WITHOUT = (
    "without data, the start is fitted on samples that EDM's 35 evaluations draw of the network, 10,000 of them, and a "
    "short horizon is taken, at which the network no longer mends what these differ by from the data"
)


class _UnaskedError(Exception):
    """A cell is missing of a network that this run was not asked to work on."""


@dataclass(frozen=True)
class Sizes:
    """How much is done; ``own`` are the samples that a fit without data draws, and ``options`` those of every fit."""

    nfe: tuple[int, ...] = (3, 4, 6)
    own: int = 10_000
    free: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


#: In small, little is left to choose.
QUICK = Sizes(
    nfe=(4,),
    own=64,
    free=False,
    options={"initialization": "gaussian", "schedule": "rho", "solver": "dpm++2m", "pilot_samples": 16, "check": False},
)


def clients(run: Run) -> dict[str, Any]:
    """Networks of other packages: plans of a few evaluations beside the package's own sampler at its default number."""
    sizes = QUICK if run.quick else Sizes()
    cells = Cells(run.out / "cells.jsonl", {"experiment": "clients", "quick": run.quick, "sizes": asdict(sizes)})
    _take_stored(run, cells)
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for client in run.progress.track(CLIENTS, "networks", len(CLIENTS)):
        try:
            rows += _Row(run, sizes, cells, client).rows()
        except MissingExtraError as error:
            missing[client.name] = str(error)
        except _UnaskedError:
            missing[client.name] = "not finished, and not among what --only asks for"
        found = summary(rows)
        if found:
            run.table("samples", rows)
            run.text("summary", "\n\n".join(f"## {name}\n\n{table(found, key)}" for key, name in _titles()) + "\n")
    found = summary(rows)
    if any("ratios" in row for row in found):
        run.figure("ratios", _figure(found))
    known = environment(run.device, PACKAGES)
    packages = {name: known[name] for name in PACKAGES}
    return {"missing": missing, "packages": packages, "rows": rows, "summary": found, "reasons": reasons(found)}


def _take_stored(run: Run, cells: Cells) -> None:
    """Enter the rows of results that were stored without their cells."""
    path = run.out / "results.json"
    if cells.rows or not path.exists():
        return
    stored: dict[str, Any] = read_json(path)
    if stored.get("experiment") == "clients" and stored.get("quick") == run.quick:
        for row in stored["rows"]:
            cells({name: row[name] for name in KEY}, partial(_rest, row))


def _rest(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in KEY}


def _titles() -> Iterable[tuple[str, str]]:
    return ((key, name[0].upper() + name[1:]) for key, name in SCORES.items())


@dataclass(frozen=True, eq=False)
class _Row:
    """One client: its network is made when the first cell that is missing asks for it."""

    run: Run
    sizes: Sizes
    cells: Cells
    client: Client

    @cached_property
    def network(self) -> Network:
        if not self.run.asked(self.client.name):
            raise _UnaskedError
        folder = self.run.out / "networks"
        folder.mkdir(parents=True, exist_ok=True)
        return self.client.make(Place(folder, self.run.quick))

    @property
    def count(self) -> int:
        """Samples that are compared with as many data."""
        return len(self.network.held_out) // 2

    def rows(self) -> list[dict[str, Any]]:
        """The cells: the floor, the package's own sampler, and the plans."""
        found = [self.cell("data", 0, 0, self.floor)]
        with_data = found[0]["with_data"]
        for seed in range(self.run.seeds):
            found.append(self.cell("own", 0, seed, lambda seed=seed: self.drawn(self.network.own, seed)))  # type: ignore[misc]
        methods = [DATA] * with_data + [FREE] * (self.sizes.free or not with_data)
        for method in methods:
            for nfe in self.sizes.nfe:
                for seed in range(self.run.seeds):
                    found.append(self.cell(method, nfe, seed, lambda a=method, n=nfe, s=seed: self.planned(a, n, s)))  # type: ignore[misc]
        return found

    def cell(self, method: str, nfe: int, seed: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return self.cells(dict(zip(KEY, (self.client.name, method, nfe, seed), strict=True)), make)

    def floor(self) -> dict[str, Any]:
        network = self.network
        return {
            **distances(*self.compared(network.held_out[self.count :])),
            "samples": self.count,
            "with_data": network.data is not None,
            "law": self.client.law,
            "sampler": self.client.sampler,
        }

    def compared(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Samples that belong to the second half, and the data of the first one, each beside its own columns."""
        network, n = self.network, self.count
        if network.limits is not None:
            samples = samples.clamp(*network.limits)
        if network.beside is None:
            return samples, network.held_out[:n]
        both = (network.beside[n:], samples.flatten(1)), (network.beside[:n], network.held_out[:n].flatten(1))
        first, second = (torch.cat([columns.to(own), own], dim=1) for columns, own in both)
        return first, second

    def drawn(self, draw: Callable[[int, int], Tensor], seed: int) -> dict[str, Any]:
        """Samples, scored; how often the network was called for them, and how long it took."""
        before, began = self.network.calls.rows, time.perf_counter()
        samples = draw(self.count, seed).detach().float()
        seconds = time.perf_counter() - began
        return {
            **distances(*self.compared(samples)),
            "evaluations": (self.network.calls.rows - before) / self.count,
            "seconds_per_1000": 1000 * seconds / self.count,
        }

    def planned(self, method: str, nfe: int, seed: int) -> dict[str, Any]:
        """Samples of a plan, as :meth:`drawn` has them; a fit that is refused says why."""
        try:
            plan, seconds = self.plan(method, nfe)
        except HeadstartError as error:
            return {"refused": f"{type(error).__name__}: {error}"}
        network, n = self.network, self.count
        given = {name: value[n:] for name, value in network.held_conditions.items()}

        def draw(count: int, seed: int) -> Tensor:
            first = seed * 2**24
            seeds = range(first, first + count)
            return plan.sample(network.denoiser, seeds=seeds, batch_size=network.batch, conditions=given or None)

        start = f"{plan.initialization.name} at {number(plan.horizon, 3)}"
        parts = {"start": start, "schedule": plan.schedule.name, "solver": plan.solver.name, "fit_seconds": seconds}
        return self.drawn(draw, seed) | parts

    def plan(self, method: str, nfe: int) -> tuple[Plan, float]:
        """A plan, and how long all of this method took to fit; they are fitted at once and kept."""
        folder = self.run.out / "plans" / f"{self.client.name} - {method}".replace(" ", "_")
        if not (folder / "seconds.json").exists():
            network, began = self.network, time.perf_counter()
            data, given, options = network.data, dict(network.conditions), dict(self.sizes.options)
            if method == FREE:
                count = self.sizes.own if not given else min(self.sizes.own, len(next(iter(given.values()))))
                data, options = None, {**options, "shape": tuple(network.held_out.shape[1:]), "n_samples": count}
                given = {name: value[:count] for name, value in given.items()}
            plans = fit(
                network.denoiser,
                data,
                self.sizes.nfe,
                conditions=given or None,
                batch_size=network.batch,
                **options,
            )
            for count, plan in plans.items():
                plan.save(folder / str(count))
            atomic_write(json.dumps(time.perf_counter() - began).encode(), folder / "seconds.json")
        return Plan.load(folder / str(nfe)), float(json.loads((folder / "seconds.json").read_text()))


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds with their errors, and the ratios of plans to the package's own sampler."""
    found = []
    own: dict[str, Mapping[str, Any]] = {}
    for (client, method, nfe), each in groups(rows, "client", "method", "nfe").items():
        scored = [row for row in each if "swd" in row]
        row: dict[str, Any] = {"client": client, "method": method, "nfe": nfe}
        row |= {key: each[0][key] for key in ("law", "sampler", "samples", "start", "refused") if key in each[0]}
        if not scored:
            found.append(row)
            continue
        for key in ("evaluations", "seconds_per_1000"):
            if key in scored[0]:
                row[key] = estimate([one[key] for one in scored])["mean"]
        for key in SCORES:
            row[key] = estimate([one[key] for one in scored])
        if method == "own":
            own[client] = row
        elif method != "data":
            row["ratios"] = {key: ratio(row[key], own[client][key]) for key in SCORES}
        found.append(row)
    return found


def ratio(over: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, float | None]:
    """A ratio of two means, and its standard error to first order where both have one."""
    value = over["mean"] / under["mean"]
    if over["error"] is None or under["error"] is None:
        return {"mean": value, "error": None}
    return {"mean": value, "error": value * math.hypot(over["error"] / over["mean"], under["error"] / under["mean"])}


def table(found: Sequence[Mapping[str, Any]], score: str) -> str:
    """A row for each network and kind of fit: the floor, its own sampler, and plans in units of that, in Markdown."""
    counts = sorted({row["nfe"] for row in found if row["nfe"]})
    head = ["network", "its own sampler", "evaluations", "floor", "own", *(f"plan, {n}" for n in counts)]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "--:|" * (len(head) - 2)]
    for (client,), each in groups(found, "client").items():
        by_method = {(row["method"], row["nfe"]): row for row in each}
        if ("own", 0) not in by_method:
            continue
        floor, own = by_method["data", 0], by_method["own", 0]
        for method in (DATA, FREE):
            if not any(row["method"] == method for row in each):
                continue
            cells = [_named(client, method), floor["sampler"], number(own["evaluations"], 4)]
            cells += [number(floor[score]["mean"]), _measured(own[score])]
            cells += [_ratio(by_method.get((method, n)), score) for n in counts]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _measured(value: Mapping[str, Any]) -> str:
    error = "" if value["error"] is None else f" ± {number(value['error'], 1)}"
    return number(value["mean"]) + error


def _ratio(row: Mapping[str, Any] | None, score: str) -> str:
    if row is None:
        return ""
    if "ratios" not in row:
        return "refused"
    value = row["ratios"][score]
    text = f"{value['mean']:.2f}" + ("" if value["error"] is None else f" ± {value['error']:.2f}")
    return f"**{text}**" if value["mean"] <= 1 else text


def _figure(found: Sequence[Mapping[str, Any]]) -> Figure:
    """The ratios of the sliced distances: a line for each network and kind of fit, a mark for each number."""
    rows = [row for row in found if "ratios" in row]
    names = list(dict.fromkeys(_named(row["client"], row["method"]) for row in rows))
    figure = Figure(figsize=(7.5, 1.2 + 0.27 * len(names)), layout="constrained")
    ax = figure.subplots()
    for place, nfe in enumerate(sorted({row["nfe"] for row in rows})):
        own = [row for row in rows if row["nfe"] == nfe]
        at = [names.index(_named(row["client"], row["method"])) + 0.15 * (place - 1) for row in own]
        ratios = [row["ratios"]["swd"] for row in own]
        errors = [value["error"] or 0.0 for value in ratios]
        ax.errorbar(
            [value["mean"] for value in ratios], at, xerr=errors, fmt=f"C{place}o", markersize=4, label=str(nfe)
        )
    ax.axvline(1.0, color="k", linewidth=0.8)
    ax.set(xscale="log", xlabel="sliced Wasserstein distance of the plan over that of the package's own sampler")
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.invert_yaxis()
    ax.legend(title="evaluations", frameon=False, fontsize=8)
    return figure


def _named(client: str, method: str) -> str:
    return client if method == DATA else f"{client}, without data"


def reasons(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Why plans of four evaluations are behind by one of both distances, by the rows of the table."""
    known = {client.name: {DATA: client.reason, FREE: client.without or WITHOUT} for client in CLIENTS}
    behind = dict[str, str]()
    for row in found:
        if row["method"] in (DATA, FREE) and row["nfe"] == HEADLINE:
            over = [value for value in row.get("ratios", {}).values() if value["mean"] > 1]
            if over or "refused" in row:
                said = row.get("refused") or known[row["client"]][row["method"]] or "not known"
                if over and all(value["mean"] - 2 * (value["error"] or 0.0) <= 1 for value in over):
                    said = "by less than two standard errors"
                behind[_named(row["client"], row["method"])] = said
    return behind


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: where plans of four evaluations are at or below the package's own sampler."""
    plans = [row for row in results["summary"] if row["method"] in (DATA, FREE) and row["nfe"] == HEADLINE]
    ahead = [row for row in plans if "ratios" in row and row["ratios"]["swd"]["mean"] <= 1]
    names = {row["client"] for row in plans}
    left = len(results["missing"])
    missing = f"; {left} more network{'s are' if left > 1 else ' is'} left out" if left else ""
    return (
        f"Plans of four evaluations have at most the sliced Wasserstein distance of the package's own sampler in "
        f"{len(ahead)} of {len(plans)} fits on {len(names)} networks{missing}."
    )
