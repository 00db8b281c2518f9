"""A network of another package: how it comes to be, what samples it otherwise, and how often it is called.

A :class:`Client` is a row of the table before anything is trained; its ``make`` gives the :class:`Network`. Networks
are trained once for each folder of results: :meth:`Place.trained` keeps their weights there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from headstart.artefact import read_tensors, write_tensors
from headstart.denoiser import Denoiser
from headstart.extras import require

__all__ = [
    "Calls",
    "Client",
    "Network",
    "Perceptron",
    "Place",
    "descend",
    "package",
    "seeded",
    "without_torchvision",
]

#: The form of kept weights, and its version.
FORM, VERSION = "headstart-client", 1


class Calls:
    """The rows that a network was called with, counted at the network itself."""

    def __init__(self, network: nn.Module | None = None) -> None:
        self.rows = 0
        if network is not None:
            network.register_forward_hook(lambda module, inputs, output: self.add(len(inputs[0] if inputs else output)))

    def add(self, rows: int) -> None:
        """Count a call with so many rows."""
        self.rows += rows


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network, data that it has not seen, and the package's own sampler.

    Attributes:
        denoiser: the network through headstart's loader.
        own: samples of the package's own sampler, called as ``own(count, seed)``; where there are conditions, with the
            first ``count`` of the second half of these.
        calls: counts the rows that the network is called with.
        held_out: data (2 N, \\*S) in the denoiser's units: samples are compared with the first half, and the second
            half says what is left of a distance between samples of the same law.
        data: for a plan that is fitted on data; None where there are none.
        conditions: those that go with the data.
        held_conditions: those that go with the data that were held out.
        beside: columns of both halves (2 N, P) that samples are compared together with.
        limits: values that samples are cut to, as the package's own sampler cuts its images.
        batch: samples per call.
    """

    denoiser: Denoiser
    own: Callable[[int, int], Tensor]
    calls: Calls
    held_out: Tensor
    data: Tensor | None = None
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    held_conditions: Mapping[str, Tensor] = field(default_factory=dict)
    beside: Tensor | None = None
    limits: tuple[float, float] | None = None
    batch: int = 4000


@dataclass(frozen=True)
class Place:
    """Where a network is kept, and how large it is.

    Attributes:
        folder: gets the weights.
        quick: train for a few steps alone, on few data.
    """

    folder: Path
    quick: bool

    def some(self, full: int, quick: int) -> int:
        """A number of steps or samples."""
        return quick if self.quick else full

    def trained(self, name: str, network: nn.Module, train: Callable[[], None]) -> None:
        """Give a network its weights, as they are found in the folder, or trained and put there."""
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            network.load_state_dict(read_tensors(path, FORM, VERSION)[1])
        else:
            train()
            state = {key: value.detach().clone() for key, value in network.state_dict().items()}
            write_tensors(path, FORM, VERSION, {"network": name}, state)
        network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Client:
    """A row of the table: a package, the law that its network is trained on, and the sampler that it brings.

    Attributes:
        name: of the row.
        law: the data, in words.
        sampler: the package's own one at its own number of evaluations, in words.
        make: trains the network, or reads it from a folder.
        reason: why a plan of four evaluations that is fitted on data is behind that sampler, where it is.
        without: the same of one that is fitted without data, where it is not what holds for all.
    """

    name: str
    law: str
    sampler: str
    make: Callable[[Place], Network]
    reason: str = ""
    without: str = ""


def package(module: str) -> Any:
    """A module of a package that may be missing.

    Raises:
        MissingExtraError: if it cannot be imported.
    """
    return require(module, "clients", "this network")


class _Empty(ModuleType):
    """A module that has whatever it is asked for: classes by names that begin with a capital, and modules."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {}) if name[0].isupper() else _Empty(f"{self.__name__}.{name}")


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Empty modules stand in for torchvision while a package is imported that uses it for files of images alone.

    Its builds for GPUs, the only ones in the package index, do not load beside a PyTorch for CPUs.
    """
    names = ("torchvision", "torchvision.transforms", "torchvision.utils")
    before = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "torchvision"}
    sys.modules.update({name: _Empty(name) for name in names})
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's own random numbers, which packages draw from, begin with a seed and are put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def descend(network: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float = 2e-3) -> None:
    """Train a network on a loss of fresh noise: Adam, with a rate that falls to 0."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay.step()


class Perceptron(nn.Module):
    """The network of points, for packages that leave it to their users: of x (B, d) and a time of shape () or (B,)."""

    rates: Tensor

    def __init__(self, dimension: int, width: int = 128, waves: int = 6) -> None:
        super().__init__()
        self.register_buffer("rates", 2.0 ** torch.arange(waves) * torch.pi / 4)
        sizes = [dimension + 1 + 2 * waves, width, width, width]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dimension))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = t.to(x).reshape(-1, 1).expand(len(x), 1)
        turns = time * self.rates
        found: Tensor = self.layers(torch.cat([x, time, turns.sin(), turns.cos()], dim=1))
        return found
