"""What the tests of several processes have each of them do: the results are the same, however many there are."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.compute import Compute
from headstart.data.shards import Manifest, ranges
from headstart.denoiser import Counted
from headstart.errors import HeadstartError, InputError
from headstart.initialization import Isotropic
from headstart.processes import alone, count, gathered, index, same, spread
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
    return {"place": (index(), count()), **sampling(folder), **sharing(folder)}


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
