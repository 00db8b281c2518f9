"""Shared parts of the reproductions: a subject, tables of samplers, and cells that are kept.

An :class:`Experiment` names what the paper reports and builds the samplers of its table; :func:`reproduce` draws from
each of them, scores the samples, and sets the two side by side. A cell, one sampler with one set of seeds, is on disk
as soon as it is there, and a run that was cut off goes on where it stopped. The samplers, which take measuring and
fitting, are made when a cell is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from headstart.compare.cells import Cells
from headstart.compare.gallery import Gallery, at_distances
from headstart.compare.methods import scored
from headstart.compare.summary import estimate
from headstart.denoiser import Denoiser, Range
from headstart.environment import environment
from headstart.errors import DenoiserError, InputError
from headstart.files import atomic_write, check_folder
from headstart.metrics import Reference, floor
from headstart.metrics.checks import digest
from headstart.progress import Progress
from headstart.report import check_libraries, write_experiment_page
from headstart.report.text import number
from headstart.sampler import Sampler

__all__ = ["METRICS", "Entry", "Experiment", "Subject", "Table", "in_units", "reproduce"]

#: What is measured, and its title.
METRICS: Mapping[str, str] = {"frechet": "Fréchet distance", "swd": "sliced Wasserstein distance"}

#: Where the seeds begin: not those of pilots, of fits, or of users.
SEEDS = 2**45


@dataclass(frozen=True)
class Table:
    """Numbers that were published, or measured.

    Attributes:
        title: what they are.
        corner: what the rows are.
        columns: the heads of the columns.
        rows: by name, a value a column; None where there is none.
        errors: standard errors, of the same form, where they are known.
        best: whether the least of each column is to be set off.
    """

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]
    errors: Mapping[str, tuple[float | None, ...]] | None = None
    best: bool = True


@dataclass(frozen=True, eq=False)
class Subject:
    """Where an experiment is done.

    Attributes:
        denoiser: the network, on ``device``.
        model: its name, for the page.
        fitting: data that starts are fitted on and costs are measured on, shape (N, \\*S).
        reference: of data that nothing is fitted on.
        data: their name, for the page.
        held_out: data that are not in the reference, which tell the noise floor.
        n: samples of each entry of a table.
        seeds: sets of seeds, each of n.
        quick: only to see that it works.
        features: the name of what the reference's features are made with.
        device: where the network works.
        batch_size: samples per call of the network.
        progress: told of what takes time.
    """

    denoiser: Denoiser
    model: str
    fitting: Tensor
    reference: Reference
    data: str
    held_out: Tensor
    n: int
    seeds: int
    quick: bool = False
    features: str = "unnamed"
    device: torch.device | str = "cpu"
    batch_size: int = 256
    progress: Progress = Progress()  # noqa: RUF009 (it holds nothing)

    @property
    def highest(self) -> float:
        """EDM's highest noise level, or the network's own if it knows less."""
        return min(80.0, Range.of(self.denoiser).high)


@dataclass(frozen=True)
class Entry:
    """One cell of a table: where it stands, and what is sampled."""

    row: str
    column: str
    sampler: Sampler


@dataclass(frozen=True)
class Experiment:
    """An experiment of a paper.

    Attributes:
        name: what it is called on the command line.
        title: in words.
        paper: the reference.
        set_up: how the paper did it.
        published: what the paper reports.
        corner: what the rows of our tables are.
        ours: how we do it.
        differences: why the numbers differ, whatever they turn out to be.
        proposed: the row of our tables that the paper argues for.
        entries: makes the samplers of our table, column by column.
        found: a sentence about what was measured, from each of our tables; the first is the verdict.
    """

    name: str
    title: str
    paper: str
    set_up: str
    published: tuple[Table, ...]
    corner: str
    ours: str
    differences: tuple[str, ...]
    proposed: str
    entries: Callable[[Subject], Sequence[Entry]]
    found: Callable[[Table], str]


def in_units(value: float | None, unit: float) -> str:
    """A distance in units of another one, as a person reads it; "-" for none."""
    return number(None if value is None else value / unit)


def reproduce(experiment: Experiment, subject: Subject, out: Path) -> dict[str, Any]:
    """Do an experiment; write ``results.json`` and ``index.html`` into ``out``, and return what the first holds.

    For a run that goes on, the folder keeps ``cells.jsonl`` and, of images, ``grids/``.

    Arguments:
        experiment: which.
        subject: where.
        out: a folder, made if it is missing. Finished cells of a run with the same settings are taken from it: the same
            names, numbers of samples, data and version of headstart. A network that has changed needs another name.

    Raises:
        InputError: if a number is out of its range, or the folder holds the cells of another run.
        ArtefactError: if the folder cannot be written to.
        DenoiserError: as fitting and sampling, or if samples or their scores are not finite; what is done is kept.
        DataError: as fitting.
        MissingExtraError: if a package that pages need is missing.
    """
    if subject.n < 2 or subject.seeds < 1:
        raise InputError(f"an entry needs two samples or more and a set of seeds: got {subject.n} and {subject.seeds}")
    check_libraries()
    check_folder(out)
    settings = {
        "experiment": experiment.name,
        "model": subject.model,
        "data": subject.data,
        "features": "none" if subject.reference.features is None else subject.features,
        "n": subject.n,
        "n_reference": len(subject.reference),
        "n_fitting": len(subject.fitting),
        "fitting_digest": digest(subject.fitting),
        "reference_digest": subject.reference.digest,
        "headstart": environment(subject.device)["headstart"],
        "quick": subject.quick,
    }
    cells, gallery = Cells(out / "cells.jsonl", settings), Gallery(subject.fitting, out / "grids")
    samplers = cache(lambda: {(entry.row, entry.column): entry.sampler for entry in experiment.entries(subject)})
    order = cells({"cell": "methods"}, lambda: {"places": list(samplers())})["places"]
    real = [cells({"cell": "floor", "seed": k}, lambda k=k: _real(subject, k)) for k in range(subject.seeds)]  # type: ignore[misc]
    rows = []
    places = [(row, column, seed) for row, column in order for seed in range(subject.seeds)]
    for row, column, seed in subject.progress.track(places, experiment.name, len(places)):

        def make(row: str = row, column: str = column, seed: int = seed) -> dict[str, Any]:
            try:
                return _cell(subject, samplers()[row, column], seed, gallery, _picture(order, row, column))
            except DenoiserError as error:
                where = f"{row}, {column}, seeds {seed}"
                raise DenoiserError(f"{where}: {error}. What was done before is kept in {out}") from error

        rows.append(cells({"row": row, "column": column, "seed": seed}, make))
    tables = {metric: _table(experiment, metric, rows) for metric in METRICS if _values(rows, metric)}
    results = {
        **settings,
        "seeds": subject.seeds,
        "floor": {metric: fmean(values) for metric in METRICS if (values := _values(real, metric))},
        "floor_n": real[0]["n"],
        "rows": rows,
        "tables": {metric: vars(table) for metric, table in tables.items()},
        "found": [experiment.found(table) for table in tables.values()],
        "environment": environment(subject.device),
        "seconds": sum(row["seconds"] for row in rows),
    }
    atomic_write((json.dumps(results, indent=1, allow_nan=False) + "\n").encode(), out / "results.json")
    known = {field.name: getattr(experiment, field.name) for field in fields(experiment)}
    known["published"] = [vars(table) for table in experiment.published]
    gallery.show("real", subject.fitting)
    write_experiment_page(known, results, *_pictures(gallery, order, rows), out / "index.html")
    return results


def _cell(subject: Subject, sampler: Sampler, seed: int, gallery: Gallery, picture: str) -> dict[str, Any]:
    """The scores of one set of samples; the first set is shown, and what may have learned the data beside them."""
    first = SEEDS + seed * 2**32
    began = time.perf_counter()
    samples = sampler.sample(
        subject.denoiser,
        seeds=range(first, first + subject.n),
        batch_size=subject.batch_size,
        device=subject.device,
        progress=subject.progress,
    )
    seconds = time.perf_counter() - began
    found = {"evaluations": sampler.nfe, "n": subject.n, "seconds": seconds, "cited": list(sampler.cited)}
    scores = scored(samples, subject.reference, subject.progress)
    if seed == 0:
        gallery.show(picture, samples)
        if sampler.initialization.name != "isotropic":
            found["nearest"] = gallery.show_nearest(picture, samples)
    return {metric: getattr(scores, metric) for metric in METRICS} | found


def _picture(order: list[list[str]], row: str, column: str) -> str:
    """The file name of the first samples of an entry."""
    return f"method-{order.index([row, column])}"


def _pictures(
    gallery: Gallery, order: list[list[str]], rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The samples of the fewest evaluations of every row, and those beside their nearest neighbours, by captions."""
    grids, beside = dict[str, bytes](), dict[str, bytes]()
    if png := gallery.find("real"):
        grids["real images"] = png
    first = [row for row in rows if row["seed"] == 0]
    for name in dict.fromkeys(row["row"] for row in first):
        fewest = min((row for row in first if row["row"] == name), key=lambda row: int(row["evaluations"]))
        picture, caption = _picture(order, name, fewest["column"]), f"{name}, {fewest['evaluations']}"
        if png := gallery.find(picture):
            grids[caption] = png
        if fewest.get("nearest") and (png := gallery.find_nearest(picture)):
            beside[at_distances(caption, fewest["nearest"])] = png
    return grids, beside


def _real(subject: Subject, seed: int) -> dict[str, float | None]:
    """The noise floor: of as many real samples, or of all that there are."""
    n = min(subject.n, len(subject.held_out))
    scores = floor(subject.reference, subject.held_out, n, seed, subject.progress)
    return {metric: getattr(scores, metric) for metric in METRICS} | {"n": n}


def _values(rows: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """The distances of all rows; without features there are no Fréchet distances."""
    return [float(row[metric]) for row in rows if row[metric] is not None]


def _table(experiment: Experiment, metric: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Means over the sets of seeds, and their standard errors."""
    columns = tuple(dict.fromkeys(row["column"] for row in rows))
    values: dict[str, tuple[float | None, ...]] = {}
    errors: dict[str, tuple[float | None, ...]] = {}
    for name in dict.fromkeys(row["row"] for row in rows):
        own = [[r[metric] for r in rows if (r["row"], r["column"]) == (name, column)] for column in columns]
        known = [estimate(cell) if cell else {"mean": None, "error": None} for cell in own]
        values[name] = tuple(cell["mean"] for cell in known)
        errors[name] = tuple(cell["error"] for cell in known)
    return Table(METRICS[metric], experiment.corner, columns, values, errors)
