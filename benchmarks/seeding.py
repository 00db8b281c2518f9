"""``python -m benchmarks.seeding``: what the random numbers of 100,000 samples cost, against their run.

Making the streams of all seeds is timed in alternating rounds with one call of a network on a batch; the run is four
evaluations of every sample at that speed: ``share``. The networks are the bundled one and a small perceptron of two
dimensions, the cheapest that anyone samples. Drawing is timed against what it was before: one generator of NumPy for
each sample, whose numbers are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.timing import interval, processor, ratio, rounds
from experiments.common import Run, command
from headstart.models import load_denoiser
from headstart.noise import Noise

#: Seeds of a run, evaluations of each, and the most that making their streams may take of it.
SEEDS, NFE, BAR = 100_000, 4, 0.01


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: the largest share, and the gain on short draws."""
    worst = max(row["share"] for row in results["seeding"])
    short = results["drawing"][0]
    return (
        f"The streams of {SEEDS:,} seeds take at most {worst:.2%} of a run of {NFE} evaluations each, where {BAR:.0%} "
        f"was asked; to make them and draw {short['numbers']} numbers of each takes {short['ratio']:.3f} of the time "
        "that a generator for each takes."
    )


def seeding(run: Run) -> dict[str, Any]:
    """The cost of seeding and drawing the random numbers of 100,000 samples."""
    trials, batch = (2, 64) if run.quick else (9, 256)
    perceptron = nn.Sequential(nn.Linear(2, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2))
    bundled = load_denoiser("builtin:fashion-mnist", run.device)
    sigma = torch.tensor(1.0)
    few = torch.randn(batch, 1, 28, 28)
    many = torch.randn(100 * batch, 2)
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "bundled, 784 dimensions": (batch, lambda: bundled(few, sigma)),
        "perceptron, 2 dimensions": (100 * batch, lambda: perceptron(many)),
    }
    rows = []
    with torch.inference_mode():
        for name, (size, call) in run.progress.track(calls.items(), "networks"):
            found = rounds({"seeds": lambda: Noise(range(SEEDS)), "network": call}, trials, run.device)
            whole = [seconds * NFE * SEEDS / size for seconds in found["network"]]
            part = ratio(found["seeds"], whole)
            each = interval([1e6 * seconds / SEEDS for seconds in found["seeds"]])
            rows.append(
                {"network": name, "microseconds_a_seed": each["median"], "share": part["median"]}
                | {"share_low": part["low"], "share_high": part["high"], "meets_bar": part["median"] <= BAR}
            )
    drawn = [_drawing(numbers, 1000 if run.quick else 10_000, trials) for numbers in (2, 16, 64, 128, 784)]
    run.table("seeding", rows)
    run.table("drawing", drawn)
    return {"seeding": rows, "drawing": drawn, "bar": BAR, "processor": processor()}


def _drawing(numbers: int, samples: int, trials: int) -> dict[str, Any]:
    """One row: making the streams of all samples and drawing once, against a generator for each."""

    def each() -> None:
        streams = [np.random.Generator(np.random.Philox(key=seed)) for seed in range(samples)]
        draws = np.empty((samples, numbers), dtype=np.float32)
        for i, stream in enumerate(streams):
            stream.standard_normal(out=draws[i : i + 1], dtype=np.float32)

    found = rounds({"ours": lambda: Noise(range(samples)).normal((numbers,)), "each": each}, trials)
    part = ratio(found["ours"], found["each"])
    return {"numbers": numbers, "ratio": part["median"], "low": part["low"], "high": part["high"]}


if __name__ == "__main__":
    command("seeding", seeding, verdict, package="benchmarks")
