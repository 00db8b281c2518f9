"""Mean brightness of a network whose training ends short of pure noise: before and after a learned start.

The network (:mod:`experiments.brightness.network`) was trained by a table whose last level still shows how bright an
image is, and it believes what it sees there. Noise shows nothing of it: whatever the number of evaluations, samples
that start from noise at that level are grey. The network is right, and the start is not. Small images of
Fashion-MNIST, standardised, are drawn for each seed from noise and by plans with as many evaluations:

* **noise**: the best plan from N(0, sigma^2) at the table's last level;
* **noise, 35**: EDM's Heun sampler from there with 35 evaluations;
* **plan, same level**: the best plan from there with a learned start;
* **plan**: all that ``fit`` chooses.

Scored is the 1-Wasserstein distance of the mean brightness of samples to that of test images, and the sliced
2-Wasserstein distance of the images.

References:
    Lin et al., *Common Diffusion Noise Schedules and Sample Steps Are Flawed*, WACV 2024 (the fault, which it mends by
    training anew).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from experiments.brightness.network import denoiser, small
from experiments.common import Run, estimate, groups
from headstart.choose import fit
from headstart.data import fashion_mnist
from headstart.denoiser import Denoiser, Range
from headstart.initialization import Isotropic
from headstart.metrics import sliced_wasserstein
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.solver import Heun

__all__ = ["brightness", "brightness_distance", "verdict"]

NOISE, HEUN, SAME, PLAN, REAL = "noise", "noise, 35", "plan, same level", "plan", "training images"


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    images: int = 5000
    nfe: int = 4
    samples: int = 2000
    heun_steps: int = 18
    pilot_samples: int = 256


QUICK = Sizes(300, 2, 60, 3, 24)


def brightness(run: Run) -> dict[str, Any]:
    """Mean brightness of a network whose training ends short of pure noise: before and after a learned start."""
    sizes = QUICK if run.quick else Sizes()
    train, test = (small(fashion_mnist(split, bundled=run.quick).samples) for split in ("train", "test"))
    network = denoiser(run.device)
    rows: list[dict[str, Any]] = []
    shown: dict[str, Tensor] = {}
    for seed in range(run.seeds):
        own = train[seed * sizes.images : (seed + 1) * sizes.images]
        drawn = {REAL: own[: sizes.samples]}
        samplers = _samplers(run, sizes, network, own, seed)
        for method, sampler in samplers.items():
            seeds = range(seed * 2**32, seed * 2**32 + sizes.samples)
            drawn[method] = sampler.sample(network, seeds=seeds, device=run.device, progress=run.progress)
        shown = shown or drawn
        for method, samples in drawn.items():
            row: dict[str, Any] = {"method": method, "seed": seed, "nfe": None, "start": None, "horizon": None}
            if method in samplers:
                row |= {"nfe": samplers[method].nfe, "horizon": samplers[method].horizon}
                row |= {"start": samplers[method].initialization.name}
            row |= {"distance": brightness_distance(samples, test), "width": float(_brightness(samples).std())}
            rows.append(row | {"swd": sliced_wasserstein(samples, test, seed=0)})
        run.table("rows", rows)
        run.table("summary", _summary(rows))
    run.figure("brightness", _histograms(test, shown))
    return {
        "data": f"{sizes.images} training images for a seed, {len(test)} test images, 16 x 16",
        "sigma_max": Range.of(network).high,
        "width": float(_brightness(test).std()),
        "rows": rows,
        "summary": _summary(rows),
    }


def _samplers(run: Run, sizes: Sizes, network: Denoiser, images: Tensor, seed: int) -> dict[str, Sampler]:
    """The methods that draw samples."""
    known = Range.of(network)
    asked: dict[str, dict[str, Any]] = {
        NOISE: {"initialization": "isotropic", "horizon": known.high},
        SAME: {"horizon": known.high},
        PLAN: {},
    }
    found: dict[str, Sampler] = {
        HEUN: Sampler(Isotropic(tuple(images.shape[1:])), rho_grid(sizes.heun_steps, known.high, 2 * known.low), Heun())
    }
    for method, fixed in asked.items():
        found[method] = fit(
            network,
            images,
            sizes.nfe,
            pilot_samples=sizes.pilot_samples,
            check=False,
            seed=seed,
            device=run.device,
            progress=run.progress,
            **fixed,
        )
    return found


def _brightness(images: Tensor) -> Tensor:
    """The mean over the pixels of each image (N, C, H, W): (N,)."""
    return images.double().flatten(1).mean(1)


def brightness_distance(a: Tensor, b: Tensor) -> float:
    """The 1-Wasserstein distance of the mean brightness of two sets of images (N, C, H, W) and (M, C, H, W)."""
    levels = (np.arange(2000) + 0.5) / 2000
    x, y = (np.quantile(_brightness(each).numpy(), levels) for each in (a, b))
    return float(np.abs(x - y).mean())


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each method over the seeds, and how many times less its distance is than that from noise."""
    base = [row["distance"] for row in rows if row["method"] == NOISE]
    found = []
    for (method,), own in groups(rows, "method").items():
        row: dict[str, Any] = {"method": method, "nfe": own[0]["nfe"]}
        for name in ("distance", "width", "swd"):
            told = estimate([each[name] for each in own])
            row |= {name: told["mean"], f"{name}_error": told["error"]}
        row["times_less"] = sum(base) / sum(each["distance"] for each in own)
        starts = (f"{each['start']} at {each['horizon']:.3g}" for each in own if each["start"])
        found.append(row | {"starts": ", ".join(dict.fromkeys(starts)), "seeds": len(own)})
    return found


def _histograms(test: Tensor, drawn: Mapping[str, Tensor]) -> Figure:
    """The mean brightness of the samples of each method, over that of the test images."""
    methods = [method for method in drawn if method != REAL]
    figure = Figure(figsize=(2.6 * len(methods), 2.6), layout="constrained")
    edges = np.linspace(-1.2, 1.6, 45).tolist()
    for ax, method in zip(figure.subplots(1, len(methods), sharey=True, squeeze=False)[0], methods, strict=True):
        ax.hist(_brightness(test).numpy(), edges, density=True, color="0.8", label="test images")
        ax.hist(_brightness(drawn[method]).numpy(), edges, density=True, histtype="step", label="samples")
        ax.set(title=method, xlabel="mean brightness", yticks=[])
    figure.axes[0].legend(frameon=False, fontsize=7)
    return figure


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: the distances of brightness before and after, and how wide it is."""
    known = {row["method"]: row for row in results["summary"]}
    noise, heun, plan = known[NOISE], known[HEUN], known[PLAN]
    return (
        f"From noise at the last level that the network knows, {results['sigma_max']:.3g}, the mean brightness of "
        f"samples is {noise['width']:.2f} wide after {noise['nfe']} evaluations and {heun['width']:.2f} after "
        f"{heun['nfe']}, where images are {results['width']:.2f}; by a plan of {plan['nfe']} it is "
        f"{plan['width']:.2f}, and its distance to the data's falls from {noise['distance']:.3f} to "
        f"{plan['distance']:.3f}, {plan['times_less']:.1f} times ({known[REAL]['distance']:.3f} for training images)."
    )
