"""``python -m benchmarks.starts``: what fitting and drawing a start costs, against samples, dimensions and the network.

Fitting is timed on images of Fashion-MNIST, more and more of them, and on synthetic data with the spectrum of images
(a variance of 1 / j in the j-th direction) in more and more dimensions; drawing as the ratio to one evaluation of the
bundled network on as many samples, in pairs, the median of several. If the time grows as the p-th power of a size, p is
the slope of a line through its logarithms.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import power
from experiments.common import Run, command
from headstart.choose import fit_starts
from headstart.data import fashion_mnist
from headstart.initialization import Gaussian, Initialization, Mixture
from headstart.models import load_denoiser
from headstart.noise import Noise

BATCH = 256


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: the dearest fit, and drawing beside the network."""
    dear = max(results["fitting"], key=lambda row: row["seconds"])
    drawn = max(results["drawing"], key=lambda row: row["ratio"])
    return (
        f"The dearest fit, a {dear['family']} start on {dear['samples']:,} samples of {dear['dimensions']:,} "
        f"dimensions, takes {dear['seconds']:.0f} s; drawing a {drawn['family']} start takes {drawn['ratio']:.1%} of "
        "one evaluation of the network."
    )


def starts(run: Run) -> dict[str, Any]:
    """The cost of fitting and drawing a start, against samples, dimensions and the network."""
    images = fashion_mnist("train", bundled=run.quick).samples
    counts = [500, 1000] if run.quick else [n for n in (7500, 15_000, 30_000, 60_000) if n <= len(images)]
    sides = [8, 16] if run.quick else [16, 32, 64]
    by_samples = [_fitted(images[:n]) for n in run.progress.track(counts, "samples")]
    by_dimension = [_fitted(_natural(side, 200 if run.quick else 4000)) for side in run.progress.track(sides, "sizes")]
    families = ["gaussian", "mixture"]
    rows = [row for rows in (*by_samples, *by_dimension) for row in rows]
    drawn = _drawing(run, fit_starts(images[: counts[-1]], families), 3 if run.quick else 15)
    run.table("fitting", rows)
    run.table("drawing", drawn)
    powers = {
        f"{family} against {what}": power(
            [row[key] for row in own if row["family"] == family],
            [row["seconds"] for row in own if row["family"] == family],
        )
        for family in families
        for what, key, own in (
            ("samples", "samples", [row for rows in by_samples for row in rows]),
            ("dimensions", "dimensions", [row for rows in by_dimension for row in rows]),
        )
    }
    return {"fitting": rows, "drawing": drawn, "powers": powers}


def _natural(side: int, count: int) -> Tensor:
    """Colour images of side x side, in four clusters, with a power of 1 / f^2 at the frequency f, as in photographs.

    In two dimensions about j waves have a frequency below that of the j-th, sqrt(j): the j-th variance falls as 1 / j.
    """
    generator = torch.Generator().manual_seed(0)
    number = torch.arange(side, dtype=torch.float32)
    amplitude = (1 + number[:, None].square() + number.square()).rsqrt()
    waves = amplitude * torch.randn(count, 3, side, side, generator=generator)
    cluster = torch.arange(count) % 4
    waves[:, :, :4, :4] += 3 * torch.randn(4, 3, 4, 4, generator=generator)[cluster] * amplitude[:4, :4]
    cosines = torch.cos(math.pi * (number + 0.5)[:, None] * number / side) * math.sqrt(2 / side)
    cosines[:, 0] *= math.sqrt(0.5)
    return torch.einsum("ij,bcjk,lk->bcil", cosines, waves, cosines)


def _fitted(data: Tensor) -> list[dict[str, Any]]:
    families: dict[str, Callable[[], Initialization]] = {
        "gaussian": lambda: Gaussian.fit(data),
        "mixture": lambda: Mixture.fit(data),
    }
    rows = []
    for family, fit in families.items():
        began = time.perf_counter()
        start = fit()
        seconds = time.perf_counter() - began
        size = {"samples": len(data), "dimensions": data[0].numel()}
        rows.append({"family": family, **size, "seconds": seconds, "start": repr(start)})
    return rows


@torch.no_grad()
def _drawing(run: Run, fitted: list[Initialization], trials: int) -> list[dict[str, Any]]:
    """Seconds for a batch of starts and for one evaluation of the network on it, and the median of their ratios."""
    denoiser = load_denoiser("builtin:fashion-mnist", run.device)
    x = Noise(range(BATCH), run.device).normal((1, 28, 28))
    sigma = torch.ones(BATCH, device=run.device)
    rows = []
    for start in fitted:
        pairs = []
        for _ in range(trials + 1):
            began = time.perf_counter()
            start.sample(Noise(range(BATCH), run.device), 1.0).sum().item()
            drawn = time.perf_counter()
            denoiser(x, sigma).sum().item()
            pairs.append((drawn - began, time.perf_counter() - drawn))
        ours, network = zip(*pairs[1:], strict=True)
        ratio = median(a / b for a, b in pairs[1:])
        rows.append({"family": start.name, "batch": BATCH, "seconds": median(ours), "network": median(network)})
        rows[-1]["ratio"] = ratio
    return rows


if __name__ == "__main__":
    command("starts", starts, verdict, package="benchmarks")
