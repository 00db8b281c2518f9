"""``python -m benchmarks.throughput``: how many samples a second the distances compare, and in how much memory.

On two synthetic sets of one size with the spectrum of photographs: the Fréchet and the kernel distance, and precision,
recall, density and coverage, of as many features as Inception has and of the bundled classifier's 64; and the sliced
Wasserstein distance of whole images. Samples are those of one set; the features themselves are not computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import cost, power, processor
from experiments.common import Run, command
from headstart.metrics import frechet_distance, kernel_distance, manifold, sliced

Distance = Callable[[Tensor, Tensor], object]

#: The distances, each with the dimensions that it is for.
DISTANCES: dict[str, tuple[Distance, tuple[int, ...]]] = {
    "frechet": (frechet_distance, (64, 2048)),
    "kernel": (kernel_distance, (64, 2048)),
    "manifold": (manifold, (64, 2048)),
    "sliced": (partial(sliced, directions=512), (64, 784, 3072)),
}


def verdict(results: Mapping[str, Any]) -> str:
    """What was found, in a sentence: the slowest distance, and the one that takes most memory."""
    slow = min(results["throughput"], key=lambda row: row["per_second"])
    said = (
        f"The slowest distance, {slow['distance']} in {slow['dimensions']:,} dimensions, takes "
        f"{slow['per_second']:,.0f} samples a second"
    )
    known = [row for row in results["throughput"] if row["memory_mib"] is not None]
    if not known:
        return f"{said}."
    large = max(known, key=lambda row: row["memory_mib"])
    return (
        f"{said}; the largest peak of memory, {large['memory_mib']:,.0f} MiB beyond the data's "
        f"{large['data_mib']:,.0f}, is that of {large['distance']} in {large['dimensions']:,} dimensions."
    )


def throughput(run: Run) -> dict[str, Any]:
    """Samples a second and the peak of memory of the distances, against samples and dimensions."""
    counts = [200, 400] if run.quick else [2500, 5000, 10_000]
    cells = [
        (name, distance, d, n)
        for name, (distance, dimensions) in DISTANCES.items()
        for d in (dimensions[:1] if run.quick else dimensions)
        for n in counts
    ]
    rows: list[dict[str, Any]] = []
    for name, distance, d, n in run.progress.track(cells, "distances"):
        sets = _sets(n, d, run.device)
        taken = [cost(partial(distance, *sets), run.device) for _ in range(1 if run.quick else 3)]
        seconds = median(one.seconds for one in taken)
        row = {"distance": name, "samples": n, "dimensions": d, "seconds": seconds, "per_second": n / seconds}
        rows.append({**row, "memory_mib": taken[0].memory, "data_mib": 2 * n * d * 4 / 2**20})
    run.table("throughput", rows)
    powers = {}
    for name, (_, dimensions) in DISTANCES.items():
        for d in dimensions[:1] if run.quick else dimensions:
            own = [row for row in rows if (row["distance"], row["dimensions"]) == (name, d)]
            powers[f"{name} in {d} dimensions"] = power(counts, [float(row["seconds"]) for row in own])
    return {"throughput": rows, "powers": powers, "processor": processor()}


def _sets(n: int, dimensions: int, device: str) -> tuple[Tensor, Tensor]:
    """Two sets of n samples whose j-th coordinate has the variance 1 / j."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, dimensions + 1).float().rsqrt()
    first, second = (scale * torch.randn(n, dimensions, generator=generator) for _ in range(2))
    return first.to(device), second.to(device)


if __name__ == "__main__":
    command("throughput", throughput, verdict, package="benchmarks")
