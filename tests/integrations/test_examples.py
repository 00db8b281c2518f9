"""The examples run, are short, and sample what they say; the lines of the documentation name what there is."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
import torch
import typer

from experiments.clients.network import without_torchvision
from headstart.cli import app
from headstart.integrations.export import EXPORTERS
from headstart.models.load import LOADERS

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {
    "azula_sampler": ("azula", "peers"),
    "k_diffusion_sampler": ("k_diffusion", "peers"),
    "diffusers_pipeline": ("diffusers", "peers"),
    "galaxygrad_galaxies": ("galaxygrad", "none: pip install -c constraints.txt galaxygrad"),
    "ray_data": ("ray", "none: pip install 'ray[data]'"),
    "lucidrains_images": ("denoising_diffusion_pytorch", "clients"),
    "sbi_posterior": ("sbi", "clients"),
    "torchcfm_moons": ("torchcfm", "clients"),
}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs(file, request, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where packages may leave logs
    assert len(file.read_text().splitlines()) < 60
    needed, extra = NEEDS.get(file.stem, (None, None))
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed (extra: {extra})")
    if needed == "diffusers":
        request.getfixturevalue("diffusers")
    spec = importlib.util.spec_from_file_location(f"example_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    with without_torchvision() if needed == "denoising_diffusion_pytorch" else contextlib.nullcontext():
        spec.loader.exec_module(module)
    samples = torch.as_tensor(module.main())
    assert samples.isfinite().all()
    assert "evaluations each" in capsys.readouterr().out
    if file.stem == "ray_data":
        draw = module.Draw()
        expected = draw.plan.sample(draw.denoiser, 1000)
        torch.testing.assert_close(samples, expected, rtol=0.0, atol=1e-4)
    if file.stem == "galaxygrad_galaxies":  # the network's own samples have 6.2 there, and noise of their spread 1.8
        assert samples.flatten(1).amax(1).mean() == pytest.approx(6.2, abs=0.4)
    if file.stem == "sbi_posterior":
        assert samples.mean(dim=0).tolist() == pytest.approx([0.4, -0.2], abs=0.25)
    if "N(0.3, 0.25)" in file.read_text():
        assert samples.mean() == pytest.approx(0.3, abs=0.2)


def test_the_script_for_slurm_is_one_and_its_command_is_known():
    file = ROOT / "examples" / "slurm.sh"
    assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
    words = re.search(r"-m headstart (.*)", file.read_text())[1].split()
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(group.make_context("headstart", list(words)), list(words))
    command.make_context(name, rest)


def test_the_table_of_the_documentation_names_what_there_is():
    text = (ROOT / "docs" / "integrations.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("| ") and not row.startswith(("| you have", "| NAME"))]
    for row in rows:
        for kind in re.findall(r'load_denoiser\("(\w+):', row):
            assert kind in LOADERS
        modules = re.findall(r"`(headstart\.integrations\.\w+)`", row)
        for name in re.findall(r"`(?:adapt\()?(from_\w+|numpy_network)\(", row):
            assert any(hasattr(importlib.import_module(module), name) for module in modules), row
    named = [name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    assert set(EXPORTERS) <= set(named)
