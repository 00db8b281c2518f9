"""What the tests of several processes have each of them do: the results are the same, however many there are."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.choose import fit
from headstart.choose.work import Work
from headstart.compare import QUICK, Draws, compare
from headstart.compute import Compute
from headstart.data.shards import Manifest, ranges
from headstart.denoiser import Counted
from headstart.errors import HeadstartError, InputError
from headstart.initialization import Isotropic
from headstart.metrics import Reference, evaluate
from headstart.noise import Noise
from headstart.processes import alone, count, gathered, index, same, spread
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.shards import draw_shards
from headstart.solver import DDPM, Heun
from headstart.targets import GaussianMixture, gmm25

SHAPE = (3, 4, 4)
SEEDS = [*range(100, 137), 2**63 + 5]


class Network(nn.Module):
    """A tiny network with dropout, which evaluation mode turns off, on images and classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Dropout(), nn.Conv2d(8, 3, 3, padding=1)
        )

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        scale = (1 + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2) ** -0.5
        shift = 0.0 if label is None else 0.1 * label.reshape(-1, 1, 1, 1)
        return 0.9 * scale**2 * x + 0.1 * self.layers(scale * x) + shift


SAMPLER = Sampler(Isotropic(SHAPE), rho_grid(4, 5.0, 0.05), Heun())


def labels(seeds: Sequence[int]) -> dict[str, Tensor]:
    return {"label": torch.tensor([seed % 3 for seed in seeds])}


def everything(folder: Path) -> dict[str, Any]:
    """All of them, since starting a process takes longer than what it does."""
    programs = sampling, sharing, measuring, fitting, scoring, comparing
    return {"place": (index(), count())} | {name: value for do in programs for name, value in do(folder).items()}


def sampling(folder: Path) -> dict[str, Any]:
    """Samples in one piece and in shards, of an ODE and of an SDE."""
    network = Counted(Network())
    stochastic = Sampler(SAMPLER.initialization, SAMPLER.schedule, DDPM())
    found: dict[str, Any] = {
        "samples": SAMPLER.sample(network, seeds=SEEDS, batch_size=8, conditions=labels(SEEDS)),
        "evaluations": sum(gathered(network.samples)),
        "stochastic": stochastic.sample(Network(), seeds=SEEDS, batch_size=8),
        "in other batches": SAMPLER.sample(Network(), seeds=SEEDS, batch_size=5 * count()),
        "noise": torch.cat(Compute(batch_size=4).spread(38, lambda part: Compute().noise(SEEDS[part]).normal((9,)))),
        "one": SAMPLER.sample(Network(), 1),
    }
    manifest = Manifest(
        plan="0" * 64,
        model="python:tests.programs:Network",
        nfe=SAMPLER.nfe,
        kind="npz",
        shape=SHAPE,
        count=len(SEEDS),
        shard_size=6,
        batch_size=3,
        seeds=ranges(SEEDS),
    )
    for _ in range(2):
        done = draw_shards(SAMPLER, Network(), SEEDS, folder / "shards", manifest, conditions=labels)
        found.setdefault("drawn", []).append((done.shards, done.kept, done.samples))
    return found


def measuring(folder: Path) -> dict[str, Any]:
    """Profiles of a network, in several batches, to a number of samples and to an error."""
    data = law().sample(Noise(range(1000, 1100)))
    options: dict[str, Any] = {"sigmas": np.geomspace(50, 0.02, 24), "batch_size": 16}
    network = Counted(law())
    profile = Profile.measure(network, data, samples=40, cost_samples=20, **options)
    known = Profile.measure(law(), data, relative_error=0.3, **options)
    return {"profile": profile.state(), "known": known.state(), "measured": sum(gathered(network.samples))}


def fitting(folder: Path) -> dict[str, Any]:
    """The plans of a fit that keeps its units, and of one without data."""
    data = law().sample(Noise(range(2000, 2300)))
    options: dict[str, Any] = {"pilot_samples": 48, "batch_size": 16, "schedule": "rho", "horizon": 5.0}
    options |= {"initialization": ["gaussian", "mixture"], "novelty": False}
    with Work(folder / "plan.work") as work:
        plan = fit(law(), data, 3, work=work, **options)
        same(partial(plan.save, folder / "plan"))
    alone = fit(law(), None, 3, shape=(2,), n_samples=100, solver="euler", **options)
    return {"plan": plan.digest, "samples of the plan": plan.sample(law(), 8), "plan without data": alone.digest}


def scoring(folder: Path) -> dict[str, Any]:
    """Scores, with their errors and without, by features that take several batches."""
    matrix = Noise([3]).normal((48, 6))[0]
    real, samples = Noise(range(1200)).normal(SHAPE), 1.1 * Noise(range(5000, 6300)).normal(SHAPE)

    def features(x: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix).tanh()

    lean = Reference.of(real, features, directions=70)
    kept = Reference.of(real, features, directions=70, keep=True)
    return {
        "scores": evaluate(samples, lean).to_dict(),
        "scores and errors": evaluate(samples, kept, scores=("kid", "coverage"), errors=True).to_dict(),
    }


def comparing(folder: Path) -> dict[str, Any]:
    """The rows of a comparison, and what is made of them, without what was timed."""
    data = law().sample(Noise(range(3000, 3200)))
    reference = Reference.of(law().sample(Noise(range(4000, 4200))), directions=16)
    draws = Draws(nfe=(3, 4), samples=40, seeds=2)
    found = compare(law(), data, reference, folder / "compared", draws=draws, methods=["heun", "gits"], sizes=QUICK)
    rows = [{name: value for name, value in row.items() if "seconds" not in name} for row in found["rows"]]
    lines = (folder / "compared" / "cells.jsonl").read_text().splitlines()
    return {"rows": rows, "verdict": found["verdict"], "cells": len(lines) - 1}


def sharing(folder: Path) -> dict[str, Any]:
    """How items are shared out, and what becomes of errors: each ends its call in all processes, and the next one
    works.
    """
    done: list[int] = []

    def item(i: int) -> int:
        done.append(i)
        assert (count(), index()) == (1, 0), "an item is done by a process by itself"
        assert spread([i], lambda other: other) == [i]
        return i * i

    found: dict[str, Any] = {"squares": spread(range(7), item), "done": done}
    found["none"] = spread([], item)
    found["first"] = same(index)
    found["ranks"] = gathered(index())
    with alone():
        found["alone"] = (count(), gathered(5))
    found["errors"] = [_said(partial(spread, range(9), fails)) for fails in (_refused, _defect)]
    found["after"] = spread(range(2), lambda i: i)
    if count() > 1:
        found["unlike"] = _said(lambda: spread(range(3 + (index() == 1)), lambda i: i))
    return found


def _refused(i: int) -> int:
    if i in (4, 7):
        raise InputError(f"item {i} is refused")
    return i


def _defect(i: int) -> int:
    return 1 // (i - 3)


def _said(call: Any) -> tuple[str, str]:
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    raise AssertionError("it did not fail")


def killed(folder: Path) -> str:
    """The last process is killed in the middle of its work; the others are told, and do not wait."""

    def item(i: int) -> int:
        if i == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    try:
        spread(range(4), item)
    except HeadstartError as error:
        os.write(1, str(error).encode())
        os._exit(error.exit_code)
    return "it did not fail"


def law() -> GaussianMixture:
    """A network whose law is known."""
    return gmm25()


def fails_in_the_last() -> Any:
    """A network that returns NaN in the last process."""
    if os.environ["RANK"] == "1":
        return lambda x, sigma: x * torch.nan
    return law()
