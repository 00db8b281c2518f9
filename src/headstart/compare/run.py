"""The comparison: methods, numbers of evaluations and seeds, each scored once, and what they come to.

Every method draws from the same seeds; those from noise begin with the same states. Whatever is fitted or learned sees
the training samples alone, and is fitted anew for every seed. A cell is a method's samples for one number of
evaluations and one seed. Cells are kept on disk as soon as they are scored, and a run in the same folder makes those
that are missing. Cells that failed are shown and not kept, since the reason may have passed. The folder of the plans is
named after what they depend on, so that no plan is taken from another run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from headstart.artefact import read_json
from headstart.citation import PACKAGES
from headstart.compare.cells import Cells
from headstart.compare.gallery import Gallery, at_distances
from headstart.compare.grids import GRIDS, HEUN, HEUN_35
from headstart.compare.methods import Method, Prepared, draw, scored
from headstart.compare.ours import OURS
from headstart.compare.peers import azula, diffusers, k_diffusion
from headstart.compare.peers.packages import DISTRIBUTIONS, load
from headstart.compare.setting import SIGMA_MAX, SIGMA_MIN, Draws, Setting, Sizes
from headstart.compare.summary import ratios, summarised, verdict
from headstart.compute import Compute
from headstart.denoiser import Denoiser, Range, in_evaluation_mode
from headstart.deprecation import gathered, keywords
from headstart.environment import environment
from headstart.errors import ArtefactError, DenoiserError, HeadstartError, InputError, MissingExtraError, unknown
from headstart.files import atomic_write, check_folder
from headstart.metrics import Reference, floor
from headstart.metrics.checks import digest
from headstart.processes import same, spread
from headstart.report import check_libraries
from headstart.report.comparison import Pictures, comparison_table, write_comparison
from headstart.report.lanes import beside_classic, lanes
from headstart.sampler import Sampler

__all__ = ["METHODS", "compare"]

#: The methods by name.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (*OURS, HEUN, *diffusers.METHODS, *k_diffusion.METHODS, *azula.METHODS, *GRIDS, HEUN_35)
}

#: The settings that plans depend on.
PLANNED = ("model", "headstart", "data_digest", "sigma_max", "sigma_min", "sizes")

#: The kinds of methods whose samples are shown beside the nearest training samples: they may have learned from these.
LEARNED = ("ours", "oracle", "saved")


@keywords(arms="methods")
@gathered(draws=Draws, compute=Compute)
@in_evaluation_mode
def compare(
    denoiser: Denoiser,
    data: Tensor,
    reference: Reference,
    out: Path,
    *,
    draws: Draws | None = None,
    methods: Sequence[str] | None = None,
    plans: Sequence[Method] = (),
    sigma_max: float | None = None,
    sigma_min: float = SIGMA_MIN,
    sizes: Sizes | None = None,
    description: Mapping[str, Any] | None = None,
    compute: Compute | None = None,
) -> dict[str, Any]:
    """Draw and score every method, and write what was found into a folder.

    It gets ``results.json``, ``results.csv``, ``summary.md``, ``quality-nfe.svg``, ``quality-seconds.svg``,
    ``index.html`` and, of images, ``grids/``; and, for a run that goes on, ``cells.jsonl``, ``lanes.json`` and
    ``plans/``.

    Arguments:
        denoiser: the network, on the device; it is not changed.
        data: training samples, shape (N, \\*S), none of which are in the reference.
        reference: what samples are scored against.
        out: a folder, made if it is missing.
        draws: for which numbers of evaluations, how many samples, and with which seeds; :class:`Draws` by default.
        methods: names among :data:`METHODS`; by default all whose packages are installed. EDM's Heun sampler with 35
            evaluations is always among them.
        plans: methods of plans that were saved before (:func:`headstart.compare.saved`).
        sigma_max: the noise level that the methods from noise start at; by default 80, or the network's highest level
            if that is lower.
        sigma_min: the last level above 0 of the peers' grids that are made by hand, EDM's by default.
        sizes: how much goes into what is measured and learned.
        description: what else tells this run from others, such as the names of model, data and features: plain values.
            Cells of a run with another description, other data, or another number of samples and the like, are not
            mixed in; and plans of another "model" are not taken for those of this one, so that a network that has
            changed needs another name.
        compute: where the network works, how many samples at a time, and who is told of what takes time.

    Returns:
        What ``results.json`` holds. A cell whose samples or scores are not finite, or that cannot be made, holds no
        scores and the reason; it is tried again by the next run.

    Raises:
        InputError: if a method is unknown, a number is out of its range, or the folder holds another run.
        MissingExtraError: if the package of a method that was asked for by name, or one that pages need, is missing.
        DenoiserError: if not one cell could be made.
        ArtefactError: if a file cannot be written, or a plan that was kept is damaged.
    """
    began, draws, sizes, compute = time.perf_counter(), draws or Draws(), sizes or Sizes(), compute or Compute()
    counts = draws.counts(*(method.only for method in plans if method.only is not None))
    wanted, skipped = _chosen(methods, sizes)
    chosen = [*plans, *wanted, *([] if HEUN_35 in wanted else [HEUN_35])]
    names = [method.name for method in chosen]
    if len(set(names)) < len(names):
        raise InputError(f"every method has a name of its own: got {', '.join(names)}")
    known = Range.of(denoiser, sigma_max)
    highest = min(known.high, SIGMA_MAX) if sigma_max is None else sigma_max
    sigma_min = max(known.low, sigma_min)
    settings = {
        "features": "none" if reference.features is None else "unnamed",
        **(description or {}),
        "headstart": environment(compute.device)["headstart"],
        "data_digest": digest(data),
        "reference_digest": reference.digest,
        "samples": draws.samples,
        "sigma_max": highest,
        "sigma_min": sigma_min,
        "sizes": asdict(sizes),
        "device": str(compute.device),
        "batch_size": compute.batch_size,
    }
    check_libraries()
    check_folder(out)
    cells, gallery = Cells(out / "cells.jsonl", settings), Gallery(data, out / "grids")
    run = _Run(denoiser, data, reference, cells, gallery, draws, counts, compute)

    plans_in = out / "plans" / _name_of({name: settings.get(name) for name in PLANNED})

    rows: list[dict[str, Any]] = []
    floors: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    seeds, bar = range(draws.seed, draws.seed + draws.seeds), compute.progress
    for seed in bar.track(seeds, "seeds", len(seeds)):
        setting = Setting(denoiser, data, seed, plans_in, highest, sigma_min, sizes, compute)
        floors.append(same(partial(run.floor, seed)))
        rows += run.rows(chosen, setting)
        results = {
            "settings": {**settings, "nfe": counts, "seeds": [row["seed"] for row in floors]},
            "environment": environment(compute.device, list(DISTRIBUTIONS.values())),
            "metric": _metric(floors),
            **_found(chosen, rows, floors, counts),
            "rows": rows,
            "skipped": skipped,
            "seconds": time.perf_counter() - began,
        }
        same(partial(run.write, results, chosen, out))
    if all(row["scores"] is None for row in rows):
        raise DenoiserError(f"not one of {len(rows)} cells could be made. The first: {rows[0]['failed']}")
    return results


def _name_of(settings: Mapping[str, Any]) -> str:
    """A short name that other settings do not have."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


def _chosen(names: Sequence[str] | None, sizes: Sizes) -> tuple[list[Method], list[dict[str, str]]]:
    """The methods that can run, and those that were not asked for by name and cannot, with the reason."""
    if names is not None:
        if not names:
            raise InputError(f"name at least one method of {', '.join(METHODS)}")
        for name in names:
            if name not in METHODS:
                raise InputError(unknown("method", name, METHODS))
    chosen, skipped = [], []
    for method in METHODS.values() if names is None else [METHODS[name] for name in names]:
        if names is None and method.slow and not sizes.slow:
            reason = "it takes minutes to prepare, which a quick run does not wait for: ask for it by name"
            skipped.append({"method": method.name, "label": method.label, "reason": reason})
            continue
        try:
            if method.package is not None:
                load(method.package)
        except MissingExtraError as error:
            if names is not None:
                raise
            skipped.append({"method": method.name, "label": method.label, "reason": str(error)})
        else:
            chosen.append(method)
    return chosen, skipped


@dataclass(frozen=True)
class _Run:
    """The settings that cells are made with."""

    denoiser: Denoiser
    data: Tensor
    reference: Reference
    cells: Cells
    gallery: Gallery
    draws: Draws
    counts: Sequence[int]
    compute: Compute

    def rows(self, methods: Sequence[Method], setting: Setting) -> list[dict[str, Any]]:
        """The rows of the methods and a seed, which several processes share out."""
        every = [(method, nfe) for method in methods for nfe in self._counts(method)]

        def track(own: Sequence[Any]) -> Iterable[Any]:
            return self.compute.progress.track(own, "cells", len(own))

        return spread(every, lambda item: self._row(*item, setting), track)

    def _row(self, method: Method, nfe: int, setting: Setting) -> dict[str, Any]:
        """One row; where a method cannot spend all that it may, two numbers can share a cell."""
        spent = method.affordable(nfe)
        key = {"method": method.name, "nfe": spent, "seed": setting.seed}
        if method.identity:
            key["identity"] = method.identity
        cell = self.cells(key, partial(self._cell, method, setting, spent))
        return {**cell, "nfe": nfe, "label": method.label, "kind": method.kind, "family": method.family}

    def _counts(self, method: Method) -> Sequence[int]:
        """The numbers of evaluations that it is given."""
        return self.counts if method.only is None else [method.only]

    def _cell(self, method: Method, setting: Setting, nfe: int) -> dict[str, Any]:
        """The scores and the cost of a sampler, or why it failed."""
        row: dict[str, Any] = {"evaluations": None, "seconds": None, "prepare_seconds": None, "how": None}
        row |= {"scores": None, "failed": None}
        if nfe < 1:
            return row | {"failed": "it cannot be made with so few evaluations"}
        self.compute.progress.note(f"{method.name}, {nfe} evaluations")
        try:
            sampler = method.prepare(setting, nfe)
            return row | self._scored(method, sampler, setting, nfe)
        except ArtefactError:  # of the folder and not of the method
            raise
        except HeadstartError as error:
            return row | {"failed": str(error)}
        except Exception as error:
            if method.package is None:
                raise
            name = DISTRIBUTIONS[method.package]  # what goes wrong in there ends one cell, and not the comparison
            return row | {"failed": f"{name} failed: {type(error).__name__}: {error}"}

    def _scored(self, method: Method, sampler: Prepared, setting: Setting, nfe: int) -> dict[str, Any]:
        seeds = range(setting.seed * 2**32, setting.seed * 2**32 + self.draws.samples)
        drawn = draw(sampler, self.denoiser, seeds, self.compute)
        near = None
        if setting.seed == self.draws.seed:
            self.gallery.show(self._picture(method, nfe), drawn.samples)
            if sampler.sampler is not None and method.name == "plan" and nfe == self._moving:
                self._keep_lanes(sampler.sampler)
            if method.kind in LEARNED:
                near = self.gallery.show_nearest(self._picture(method, nfe), drawn.samples)
        scores = scored(drawn.samples, self.reference, self.compute.progress)
        return {
            "evaluations": drawn.evaluations,
            "seconds": drawn.seconds,
            "prepare_seconds": sampler.prepare_seconds,
            "how": sampler.how,
            "cited": [*sampler.cited, *PACKAGES.get(method.package or "", ())],
            "nearest": near,
            "scores": scores.to_dict(),
        }

    @property
    def _moving(self) -> int:
        """The plan whose samples are shown on their way has four evaluations, or about as many."""
        return min(self.counts, key=lambda count: abs(count - 4))

    def floor(self, seed: int) -> dict[str, Any]:
        """The score of as many training samples, or of all there are."""
        n = min(self.draws.samples, len(self.data))

        def make() -> dict[str, Any]:
            return {"scores": floor(self.reference, self.data, n, seed, self.compute.progress).to_dict()}

        return self.cells({"method": "real", "seed": seed}, make)

    def _picture(self, method: Method, nfe: int) -> str:
        """The file name of the first seed's samples."""
        return f"{method.name}-{nfe}-seed{self.draws.seed}"

    def write(self, results: dict[str, Any], methods: Sequence[Method], out: Path) -> None:
        """Write what was found so far, with pictures."""
        pictures = Pictures(self.shown(methods), self.beside(methods, results["rows"]), self.lanes)
        _write(results, pictures, out)

    def shown(self, methods: Sequence[Method]) -> dict[str, bytes]:
        """The grids of the smallest number of evaluations of every method, by its label; the real images first."""
        found: dict[str, bytes] = {}
        self.gallery.show("real", self.data)
        if png := self.gallery.find("real"):
            found["real images"] = png
        for method in methods:
            for nfe in self._counts(method):
                spent = method.affordable(nfe)
                if png := self.gallery.find(self._picture(method, spent)):
                    found[f"{method.label}, {spent}"] = png
                    break
        return found

    def _keep_lanes(self, plan: Sampler) -> None:
        """Keep a few samples of a plan on their way, beside EDM's sampler, for the page."""
        found = lanes(beside_classic(plan, self.denoiser), self.denoiser, compute=self.compute)
        atomic_write(json.dumps(found, allow_nan=False).encode(), self._lanes)

    @property
    def lanes(self) -> list[dict[str, Any]]:
        """The plan's samples on their way, as they were kept in this run or one before it."""
        found: list[dict[str, Any]] = read_json(self._lanes) if self._lanes.exists() else []
        return found

    @property
    def _lanes(self) -> Path:
        return self.cells.path.with_name("lanes.json")

    def beside(self, methods: Sequence[Method], rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
        """Pictures of samples above their nearest neighbours, at the fewest evaluations of every method, by caption."""
        found: dict[str, bytes] = {}
        for method in methods:
            own = [row for row in rows if (row["method"], row["seed"]) == (method.name, self.draws.seed)]
            row = next((row for row in own if row.get("nearest")), None)
            if row is None:
                continue
            spent = method.affordable(row["nfe"])
            if png := self.gallery.find_nearest(self._picture(method, spent)):
                found[at_distances(f"{method.label}, {spent}", row["nearest"])] = png
        return found


def _found(
    methods: Sequence[Method], rows: Sequence[dict[str, Any]], floors: Sequence[dict[str, Any]], counts: Sequence[int]
) -> dict[str, Any]:
    """The summary of the rows."""
    metric = _metric(floors)
    means = summarised(rows)
    best = ratios(rows, means, counts, metric)
    (real,) = summarised([{**row, "nfe": 0, "label": "real samples"} for row in floors])
    said = verdict(means, best, metric)
    return {"summary": means, "floor": real["scores"], "floor_n": real["n"], "ratios": best, "verdict": said}


def _metric(floors: Iterable[Mapping[str, Any]]) -> str:
    """The metric that methods are compared by: the Fréchet distance if there are features."""
    return "swd" if any(row["scores"]["frechet"] is None for row in floors) else "frechet"


def _write(results: dict[str, Any], pictures: Pictures, out: Path) -> None:
    atomic_write((json.dumps(results, indent=1, allow_nan=False) + "\n").encode(), out / "results.json")
    atomic_write(_table(results["rows"]).encode(), out / "results.csv")
    atomic_write((comparison_table(results) + "\n").encode(), out / "summary.md")
    write_comparison(results, pictures, out)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV, their scores in columns of their own; what a row does not have is left blank."""
    flat = [
        {k: v for k, v in {**row, **(row["scores"] or {})}.items() if not isinstance(v, dict) and k != "scores"}
        for row in rows
    ]
    for line, row in zip(flat, rows, strict=True):
        line["seed"] = row["seed"]  # and not that of the scores' random directions
    columns = list(dict.fromkeys(key for row in flat for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
