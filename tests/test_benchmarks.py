"""The benchmarks in small: they run, and say what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.starts import _natural, _power, starts
from experiments.common import Run
from headstart.progress import Progress


def test_the_benchmark_of_starts_runs(tmp_path: Path) -> None:
    found = starts(Run(tmp_path, True, 1, "cpu", Progress()))
    assert {row["family"] for row in found["fitting"]} == {"gaussian", "mixture"}
    assert all(row["seconds"] > 0 for row in found["fitting"])
    assert all(row["ratio"] > 0 for row in found["drawing"])
    assert {path.name for path in tmp_path.iterdir()} == {"fitting.md", "fitting.csv", "drawing.md", "drawing.csv"}
    json.dumps(found, allow_nan=False)


def test_the_power_is_that_of_the_times() -> None:
    assert _power([(n, 3.0 * n**1.5) for n in (10.0, 20.0, 50.0)]) == pytest.approx(1.5)


def test_synthetic_images_have_the_spectrum_of_natural_ones() -> None:
    """The variances fall as 1 / j, after the few directions of the clusters."""
    x = _natural(16, 4000)[:, 0].flatten(1).double()
    variances = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    assert -1.25 < _power([(float(j), float(variances[j])) for j in range(20, 100)]) < -0.75
