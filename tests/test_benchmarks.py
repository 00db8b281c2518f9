"""The benchmarks in small: they run, and say what they promise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

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
    """Along one cosine the variance falls as the square of its number."""
    x = _natural(8, 4000)[:, 0].double()
    number = [1, 2, 4]
    frequency = [math.pi * k / 8 for k in (0, 1, 3)]
    waves = [(x.mean(1) * (f * (x.new_tensor(range(8)) + 0.5)).cos()).mean(1) for f in frequency]
    powers = [float(w.var()) for w in waves]
    assert powers[0] > powers[1] > powers[2], dict(zip(number, powers, strict=True))
