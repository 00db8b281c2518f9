"""``python -m benchmarks.throughput``: how many samples a second the distances compare, and in how much memory.

On two synthetic sets of one size with the spectrum of photographs: the Fréchet and the kernel distance, and precision,
recall, density and coverage, of as many features as Inception has and of the bundled classifier's 64; and the sliced
Wasserstein distance of whole images. Samples are those of one set; the features themselves are not computed here. Then
all of them once at the size of a published FID, 50,000 samples in 2,048 dimensions, which are to fit in 2 GiB with the
data.
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
from headstart.metrics import frechet_distance, kernel_distance, manifold, max_sliced, sliced

Distance = Callable[[Tensor, Tensor], object]

#: The distances, each with the dimensions that it is for.
DISTANCES: dict[str, tuple[Distance, tuple[int, ...]]] = {
    "frechet": (frechet_distance, (64, 2048)),
    "kernel": (kernel_distance, (64, 2048)),
    "manifold": (manifold, (64, 2048)),
    "sliced": (partial(sliced, directions=512), (64, 784, 3072)),
}

#: What is done once, at the size of a published FID, and the memory that it is to fit in with the data, in MiB.
WHOLE: dict[str, Distance] = {
    "frechet": frechet_distance,
    "kernel": kernel_distance,
    "manifold": manifold,
    "sliced": partial(sliced, directions=512),
    "max_sliced": max_sliced,
}
SAMPLES, DIMENSIONS, BAR = 50_000, 2048, 2048.0


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: the slowest distance, and the one that takes most memory."""
    slow = min(results["throughput"], key=lambda row: row["per_second"])
    said = (
        f"The slowest distance, {slow['distance']} in {slow['dimensions']:,} dimensions, takes "
        f"{slow['per_second']:,.0f} samples a second"
    )
    large = max(results["whole"], key=lambda row: row["memory_mib"] or 0.0)
    if large["memory_mib"] is None:
        return f"{said}."
    return (
        f"{said}; of {large['samples']:,} samples in {large['dimensions']:,} dimensions the most memory, "
        f"{large['memory_mib']:,.0f} MiB beyond the data's {large['data_mib']:,.0f}, is that of {large['distance']}, "
        f"where {results['bar_mib']:,.0f} in all were asked."
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
        rows.append(_row(name, partial(distance, *sets), n, d, 1 if run.quick else 3, run.device))
    run.table("throughput", rows)
    n, d = (400, 64) if run.quick else (SAMPLES, DIMENSIONS)
    sets, whole = _sets(n, d, run.device), []
    for name, distance in run.progress.track(WHOLE.items(), f"{n:,} samples", len(WHOLE)):
        whole.append(_row(name, partial(distance, *sets), n, d, 1, run.device))
    run.table("whole", whole)
    powers = {}
    for name, (_, dimensions) in DISTANCES.items():
        for d in dimensions[:1] if run.quick else dimensions:
            own = [row for row in rows if (row["distance"], row["dimensions"]) == (name, d)]
            powers[f"{name} in {d} dimensions"] = power(counts, [float(row["seconds"]) for row in own])
    return {"throughput": rows, "powers": powers, "whole": whole, "bar_mib": BAR, "processor": processor()}


def _row(name: str, call: Callable[[], object], n: int, d: int, times: int, device: str) -> dict[str, Any]:
    """The cost of a distance of n samples in d dimensions: the median of some calls, and the memory of the first."""
    taken = [cost(call, device) for _ in range(times)]
    seconds = median(one.seconds for one in taken)
    row = {"distance": name, "samples": n, "dimensions": d, "seconds": seconds, "per_second": n / seconds}
    return {**row, "memory_mib": taken[0].memory, "data_mib": 2 * n * d * 4 / 2**20}


def _sets(n: int, dimensions: int, device: str) -> tuple[Tensor, Tensor]:
    """Two sets of n samples whose j-th coordinate has the variance 1 / j."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, dimensions + 1).float().rsqrt()
    first, second = (scale * torch.randn(n, dimensions, generator=generator) for _ in range(2))
    return first.to(device), second.to(device)


if __name__ == "__main__":
    command("throughput", throughput, verdict, package="benchmarks")
