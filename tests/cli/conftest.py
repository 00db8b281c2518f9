"""A place with data and models in it, and the command line as a function."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from headstart.cli import app, progress

MODELS = '''
"""Exact denoisers, and broken ones."""

import torch
from headstart.denoiser import expand
from headstart.targets import GaussianMixture

LAW = GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [1.0, 0.5]], 0.04)

def exact():
    return LAW

def talkative():
    print("loading the weights")
    return LAW

def images():
    """Two classes of 4x4 images: N(-1/2, 1/4) and N(1/2, 1/4) in every pixel."""
    def denoiser(x, sigma, label=None):
        s2 = expand(sigma, x) ** 2
        if label is not None:
            return (0.25 * x + s2 * (expand(label, x) - 0.5)) / (0.25 + s2)
        share = torch.sigmoid((x / (0.25 + s2)).sum((1, 2, 3), keepdim=True))
        return (0.25 * x + s2 * (share - 0.5)) / (0.25 + s2)
    return denoiser

def codec():
    """Latents of two numbers are samples of three."""
    return lambda x: x[:, :2], lambda z: torch.cat([z, z.sum(1, keepdim=True)], 1)

def broken_codec():
    return lambda x: x, lambda z: z / 0

def conditioned():
    """N(coarse + mean of table, 1/4)."""
    def denoiser(x, sigma, /, **given):
        mean = given["x"]["coarse"] + given["n"].mean()
        return mean + 0.25 / (0.25 + expand(sigma, x) ** 2) * (x - mean)
    return denoiser

def returns_nan():
    return lambda x, sigma: x * float("nan")

def returns_a_row():
    return lambda x, sigma: x[:, :1]

def interrupted():
    def denoiser(x, sigma):
        raise KeyboardInterrupt
    return denoiser
'''


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str
    exception: BaseException | None

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        assert self.out.endswith("\n")
        return json.loads(self.out, parse_constant=pytest.fail)


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a command takes on a slow machine, it says nothing of that."""
    monkeypatch.setattr(progress, "EVERY", float("inf"))


@pytest.fixture
def run() -> Callable[..., Done]:
    def run(*arguments: object) -> Done:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return Done(result.exit_code, result.stdout, result.stderr, result.exception)

    return run


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with models, data, and a plan for each."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "headstart_cli_models.py").write_text(MODELS)
    generator = np.random.default_rng(0)
    centre = generator.integers(0, 2, 300)
    points = np.stack([2.0 * centre - 1, np.full(300, 0.5)], axis=1) + 0.2 * generator.normal(size=(300, 2))
    np.save(folder / "points.npy", points.astype(np.float32))
    pixels = centre[:, None, None, None] - 0.5 + 0.5 * generator.normal(size=(300, 1, 4, 4))
    np.savez(folder / "images.npz", samples=pixels.astype(np.float32), labels=centre)
    np.save(folder / "nan.npy", np.where(np.arange(600).reshape(300, 2) == 7, np.nan, points))
    np.save(folder / "line.npy", points[:, 0])
    (folder / "text.npy").write_text("no array")
    sys.path.insert(0, str(folder))
    fit = ["--nfe", "3", "--criterion", "budget"]
    for data, model, plan, more in (
        ("points.npy", "exact", "plan", []),
        ("images.npz", "images", "conditional", ["--conditional", "--initialization", "mixture"]),
    ):
        arguments = ["fit", f"python:headstart_cli_models:{model}", str(folder / data), "-o", str(folder / plan)]
        result = CliRunner().invoke(app, [*arguments, *fit, *more])
        assert result.exit_code == 0, result.output
    yield folder
    sys.path.remove(str(folder))
    del sys.modules["headstart_cli_models"]


@pytest.fixture
def two_kilobytes() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which the system lets no file grow beyond 2 kB: what fills up does so in the middle of a write."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited() -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
