"""``headstart check``: a line a finding, and an exit code that programs can read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from headstart.cli import app

MODEL = """
from headstart import adapt

def exact(x, sigma):
    return x / (1 + sigma.reshape(-1, 1) ** 2)

def right():
    return exact

def wrong():
    return adapt(exact, "epsilon")

def conditioned():
    def denoiser(x, sigma, centre, mean):
        assert len(mean) == 200
        c = centre + mean.mean()
        return c + (x - c) / (1 + sigma.reshape(-1, 1) ** 2)
    return denoiser

def in_place():
    def denoiser(x, sigma):
        out = exact(x, sigma)
        x.zero_()
        return out
    return denoiser
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ofcheck.py").write_text(MODEL)
    torch.save(torch.randn(200, 2, generator=torch.Generator().manual_seed(0)), tmp_path / "data.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("factory", "code", "errors", "doubts"), [("right", 0, 0, 0), ("wrong", 2, 1, 0), ("in_place", 0, 0, 1)]
)
def test_each_finding_is_a_line(folder: Path, factory: str, code: int, errors: int, doubts: int) -> None:
    done = CliRunner().invoke(app, ["check", f"python:ofcheck:{factory}", "data.pt"])
    assert done.exit_code == code
    lines = done.stdout.splitlines()
    assert len(lines) == errors + doubts + (1 if errors + doubts else 3)
    assert ("nothing is wrong" in done.stdout) == (not errors + doubts)
    assert ("hardly better than a linear estimate" in done.stdout) == (not errors + doubts), "the data are normal"
    assert sum(line.startswith("error: ") for line in lines) == errors
    assert sum(line.startswith("doubt: ") for line in lines) == doubts
    done = CliRunner().invoke(app, ["check", f"python:ofcheck:{factory}", "data.pt", "--json"])
    assert done.exit_code == code
    found = json.loads(done.stdout)
    assert (len(found["errors"]), len(found["doubts"])) == (errors, doubts)
    assert len(found["sigmas"]) == len(found["ratios"]) == 6


def test_conditions_come_from_files(folder: Path) -> None:
    """p(x given c) = N(c + m, 1): with the rows of other samples it is no denoiser of these data."""
    data, g = torch.load(folder / "data.pt"), np.random.default_rng(0)
    centre = 5 * g.normal(size=(200, 2))
    np.save(folder / "shifted.npy", data.numpy() + centre + 1)
    np.save(folder / "centre.npy", centre)
    np.save(folder / "others.npy", centre[::-1])
    np.save(folder / "mean.npy", np.ones(200))
    shared = ("--shared", "mean=mean.npy")
    for rows, code in (("centre", 0), ("others", 2)):
        given = ("--condition", f"centre={rows}.npy", *shared)
        done = CliRunner().invoke(app, ["check", "python:ofcheck:conditioned", "shifted.npy", *given])
        assert done.exit_code == code, done.output
    done = CliRunner().invoke(app, ["check", "python:ofcheck:right", "data.pt", "--condition", "centre"])
    assert done.exit_code == 2


def test_a_fit_stops_at_an_error_unless_it_is_told_not_to_ask(folder: Path) -> None:
    command = ["fit", "python:ofcheck:wrong", "data.pt", "--nfe", "3", "-o", "plan"]
    assert CliRunner().invoke(app, command).exit_code == 2
    assert not Path("plan").exists()
    assert CliRunner().invoke(app, [*command, "--no-check"]).exit_code in (0, 4)


def test_labels_that_are_not_handed_over_are_told(folder: Path) -> None:
    data = torch.load(folder / "data.pt").numpy()
    np.savez(folder / "labelled.npz", samples=data, labels=np.arange(len(data)) % 2)
    done = CliRunner().invoke(app, ["check", "python:ofcheck:right", "labelled.npz"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].startswith("labelled.npz holds labels, which --conditional hands to the model")
    assert "--conditional" not in CliRunner().invoke(app, ["check", "python:ofcheck:right", "data.pt"]).stdout
