"""The demonstration: Fashion-MNIST in three, four and six network evaluations, beside the usual samplers, in one run.

The network is measured once; the plans, and the two baselines that have anything to choose, are then chosen by the same
function with the same care. All methods draw from the same seeds. Starts are fitted on the training images, and pilots
are compared with these alone; scores are against test images, which neither the starts nor the network have seen.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.choose import fit, hold_out
from headstart.compute import Compute
from headstart.data import fashion_mnist
from headstart.denoiser import Counted, Denoiser
from headstart.environment import environment
from headstart.errors import InputError
from headstart.files import atomic_write, check_folder
from headstart.initialization import Isotropic
from headstart.metrics import Reference, Scores, evaluate, floor
from headstart.models import features, load_denoiser
from headstart.plan import Plan, check_place
from headstart.profile import Profile
from headstart.progress import Progress
from headstart.report import check_libraries, write_demo_report
from headstart.report.figures import method_colours
from headstart.report.lanes import SHOWN, Entry, lanes
from headstart.report.plan import plan_values, profile_values
from headstart.sampler import Sampler, classic
from headstart.schedule import rho_grid
from headstart.schedule.classic import EDM_MAX, EDM_MIN
from headstart.solver import DPMSolverPP2M

__all__ = ["run"]


@dataclass(frozen=True)
class Sizes:
    """How much the demonstration does."""

    plans: tuple[int, ...] = (3, 4, 6)
    grids: tuple[int, ...] = (4, 6, 10)
    baselines: tuple[int, ...] = (4,)
    profile_samples: int = 192
    cost_samples: int = 64
    pilot_samples: int = 192
    shown: int = 64


QUICK = Sizes((3,), (4,), (4,), profile_samples=32, cost_samples=16, pilot_samples=16, shown=16)


#: The plan whose samples the page shows on their way is that of so many evaluations, or of about as many.
MOVING = 4


def run(
    out: Path,
    *,
    n: int = 1000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    quick: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Plan, sample and score; write ``results.json`` and ``report.html`` into ``out``.

    Arguments:
        out: a folder, made if it is missing.
        n: images per method, at least 2 and at most 14,000.
        seed: of fitting; the images' own seeds are seed * 2^32, seed * 2^32 + 1, ...
        device: where the network works.
        batch_size: images per call of the network.
        quick: at most 64 images and fewer methods, to see that everything works.
        progress: told of what takes time.

    Returns:
        What ``results.json`` holds.

    Raises:
        InputError: if n is out of its range.
        ArtefactError: if the folder cannot be written.
    """
    began = time.perf_counter()
    bar = progress or Progress()
    real = fashion_mnist("train", bundled=True).samples
    sizes, n = (QUICK, min(n, 64)) if quick else (Sizes(), n)
    if not 2 <= n <= len(real):
        raise InputError(f"the demonstration draws 2 to {len(real)} images per method: got {n}")
    check_folder(out)
    check_libraries()
    for nfe in sizes.plans:
        check_place(out / f"plan-{nfe}")
    if quick:
        real = real[:2000]

    denoiser = load_denoiser("builtin:fashion-mnist", device)
    reference = Reference.of(fashion_mnist("test", bundled=True).samples, features(device), progress=bar)
    noise_floor = floor(reference, real, n, seed, bar)
    seeds = [seed * 2**32 + i for i in range(n)]

    rows: list[dict[str, Any]] = []
    images: dict[str, Tensor] = {"real": real[: sizes.shown]}
    plans: list[Plan] = []
    done: list[tuple[str, int, Sampler]] = []
    for method, sampler in _methods(denoiser, real, sizes, seed, Compute(device, batch_size=batch_size, progress=bar)):
        counted = Counted(denoiser)
        started = time.perf_counter()
        samples = sampler.sample(counted, seeds=seeds, batch_size=batch_size, device=device, progress=bar)
        seconds = time.perf_counter() - started
        nfe = counted.samples // n
        images[f"{method} {nfe}"] = samples[: sizes.shown]
        scores = evaluate(samples, reference, bar)
        rows.append(_row(method, sampler, nfe, seed, scores, seconds))
        if isinstance(sampler, Plan) and method == "plan":
            plans.append(sampler)
        done.append((method, nfe, sampler))
    results = {
        "rows": rows,
        "floor": {**_scores(noise_floor), "seed": seed},
        "environment": environment(device),
        "plans": [plan_values(plan) for plan in plans],
        "profile": profile_values(plans[0].profile),
        "data": f"Fashion-MNIST: {len(real)} training images to fit on, {len(reference)} test images to score against",
        "seconds": time.perf_counter() - began,
    }
    atomic_write(json.dumps(results, indent=1, allow_nan=False).encode(), out / "results.json")
    moving = lanes(_moving(done), denoiser, seeds[:SHOWN], compute=Compute(device))
    write_demo_report(results, images, out / "report.html", moving)
    for plan in plans:
        plan.save(out / f"plan-{plan.nfe}")
    return results


def _methods(
    denoiser: Denoiser,
    real: Tensor,
    sizes: Sizes,
    seed: int,
    compute: Compute,
) -> Iterator[tuple[str, Sampler]]:
    """The methods one by one, each as a sampler; the network is measured first, for all of them, and timed."""
    began = time.perf_counter()
    profile = Profile.measure(
        denoiser,
        real[hold_out(real, seed)[1]],
        samples=sizes.profile_samples,
        cost_samples=sizes.cost_samples,
        seed=seed,
        device=compute.device,
        batch_size=compute.batch_size,
        progress=compute.progress,
    )
    measured = time.perf_counter() - began

    def chosen(counts: tuple[int, ...], family: str | None = None, horizon: float | None = None) -> list[Plan]:
        plans = fit(
            denoiser,
            real,
            counts,
            profile=profile,
            initialization=family,
            horizon=horizon,
            pilot_samples=sizes.pilot_samples,
            seed=seed,
            device=compute.device,
            batch_size=compute.batch_size,
            progress=compute.progress,
        )
        distinct = {plan.nfe: plan for plan in plans.values()}  # a cheaper one may have taken another's place
        return [
            replace(p, record=replace(p.record, fit_seconds=p.record.fit_seconds + measured)) for p in distinct.values()
        ]

    for plan in chosen(sizes.plans):
        yield "plan", plan
    noise = Isotropic(tuple(real.shape[1:]))
    yield "edm-heun", classic(noise.shape)
    for nfe in sizes.grids:
        yield "dpm++2m", Sampler(noise, rho_grid(nfe, EDM_MAX, EDM_MIN), DPMSolverPP2M())
    for baseline in chosen(sizes.baselines, "isotropic", EDM_MAX):
        yield "noise, our schedule", baseline
    for baseline in chosen(sizes.baselines, "gaussian"):
        yield "gaussian start", baseline


def _moving(done: Sequence[tuple[str, int, Sampler]]) -> list[Entry]:
    """A plan, the usual sampler with about as many evaluations, and EDM's with 35."""
    found = []
    nfe = MOVING
    for method in ("plan", "dpm++2m", "edm-heun"):
        _, nfe, sampler = min((row for row in done if row[0] == method), key=lambda row: abs(row[1] - nfe))
        title = f"{sampler.initialization.name} start at {sampler.horizon:.3g}, {sampler.solver.name}"
        label = f"{method} {nfe}"
        found.append(Entry(label, label, title, sampler, method_colours([method])[method]))
    return found


def _row(method: str, sampler: Sampler, nfe: int, seed: int, scores: Scores, seconds: float) -> dict[str, Any]:
    return {
        "method": method,
        "initialization": sampler.initialization.name,
        "horizon": sampler.horizon,
        "schedule": sampler.schedule.name,
        "solver": sampler.solver.name,
        "nfe": nfe,
        "seed": seed,
        **_scores(scores),
        "sample_seconds": seconds,
        "fit_seconds": sampler.record.fit_seconds if isinstance(sampler, Plan) else 0.0,
        "sigmas": list(sampler.schedule.sigmas),
    }


def _scores(scores: Scores) -> dict[str, Any]:
    return {name: getattr(scores, name) for name in ("frechet", "swd", "max_swd", "n")}
