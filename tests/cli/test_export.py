"""``headstart export``: a plan's levels and starts in a file, and how often the network is called there."""

from __future__ import annotations

import json

import pytest
import torch

from headstart import Noise, Plan
from headstart.artefact import read_tensors
from headstart.integrations.export import EXPORTERS


@pytest.mark.parametrize("name", ["json", "csv"])
def test_it_writes_the_levels(run, place, tmp_path, name):
    plan = Plan.load(place / "plan")
    done = run("export", place / "plan", "--to", name, "-o", tmp_path / "out", "--json")
    assert done.json["evaluations"] == plan.nfe
    assert done.json["sigmas"] == list(plan.schedule.sigmas)
    text = (tmp_path / "out").read_text()
    if name == "json":
        assert json.loads(text)["sigmas"] == list(plan.schedule.sigmas)


def test_seeds_add_the_starts(run, place, tmp_path):
    plan = Plan.load(place / "plan")
    run("export", place / "plan", "--to", "json", "--seeds", "3-5", "-o", tmp_path / "out")
    values, tensors = read_tensors(tmp_path / "out", "headstart-export", 1)
    assert values["evaluations"] == plan.nfe
    assert torch.equal(tensors["x"], plan.initialization.sample(Noise(range(3, 6)), plan.horizon))


def test_what_cannot_be_is_refused_and_nothing_is_written(run, place, tmp_path):
    done = run("export", place / "plan", "--to", "nothing", "-o", tmp_path / "out")
    assert done.code == 2
    assert all(name in done.err for name in EXPORTERS)
    assert run("export", place / "plan", "--to", "diffusers", "-o", tmp_path / "out").code == 2
    assert not (tmp_path / "out").exists()


def test_help_names_what_there_is(run):
    assert "physicsnemo" in run("export", "--help").out


def test_convert_refuses_what_runs_code(run, tmp_path):
    (tmp_path / "network.pkl").write_bytes(b"cos\nsystem\n(V" + f"touch {tmp_path / 'ran'}".encode() + b"\ntR.")
    done = run("convert", tmp_path / "network.pkl", "-o", tmp_path / "out.safetensors")
    assert done.code == 4
    assert "os.system" in done.err
    assert not any((tmp_path / name).exists() for name in ("ran", "out.safetensors"))
