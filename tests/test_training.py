"""The training scripts: a run that was stopped and resumed ends where one that was not ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[1] / "training" / "denoiser.py"


def train(out: Path, steps: int) -> dict[str, torch.Tensor]:
    options = ["--steps", str(steps), "--cooldown", "1", "--batch", "4", "--out", str(out)]
    subprocess.run([sys.executable, str(SCRIPT), *options], check=True, capture_output=True)
    return load_file(out / "denoiser.safetensors")


@pytest.mark.slow
def test_denoiser_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    straight = train(tmp_path / "straight", 4)
    before = train(tmp_path / "resumed", 2)
    resumed = train(tmp_path / "resumed", 4)
    assert any(not torch.equal(before[name], resumed[name]) for name in before)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
