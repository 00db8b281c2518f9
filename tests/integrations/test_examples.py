"""The examples run, are short, and sample what they say; the lines of the documentation name what there is."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import torch

from headstart.integrations.export import EXPORTERS
from headstart.models.load import LOADERS

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {"azula_sampler": "azula", "k_diffusion_sampler": "k_diffusion", "diffusers_pipeline": "diffusers"}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs(file, request, capsys):
    assert len(file.read_text().splitlines()) < 60
    if (needed := NEEDS.get(file.stem)) and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed (extra: peers)")
    if needed == "diffusers":
        request.getfixturevalue("diffusers")
    spec = importlib.util.spec_from_file_location(f"headstart_example_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    samples = torch.as_tensor(module.main())
    assert samples.isfinite().all()
    assert "evaluations each" in capsys.readouterr().out
    if "N(0.3, 0.25)" in file.read_text():
        assert samples.mean() == pytest.approx(0.3, abs=0.2)


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
