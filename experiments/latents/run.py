"""A latent model from end to end: a plan is fitted on encoded images, saved, and returns images.

The autoencoder and the denoiser of its latents are small ones of our own (:mod:`experiments.latents.network`). For a
seed the images are encoded, a plan is fitted in their space and given the way back (``with_latents``), saved, loaded,
and told to build what decodes by its name; then it returns images. Beside it are EDM's Heun sampler with 35 evaluations
from noise, decoded, and the autoencoder's own reconstructions, than which no sampler of latents is expected to be
better. Fréchet distances are of the bundled classifier's features to the test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.common import Run, estimate, groups
from experiments.latents.network import denoiser
from experiments.latents.network import latents as codec
from headstart.choose import fit
from headstart.data import fashion_mnist
from headstart.metrics import Reference, evaluate
from headstart.models import features, load_latents
from headstart.plan import Plan
from headstart.sampler import CLASSIC_NFE, classic

__all__ = ["latents", "verdict"]

HEUN, CODED, REAL = "Heun", "reconstructions", "training images"


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    images: int = 10_000
    nfe: tuple[int, ...] = (3, 4, 6)
    samples: int = 2000
    usual: int = CLASSIC_NFE
    pilot_samples: int = 512


QUICK = Sizes(300, (2,), 70, 5, 24)


def latents(run: Run) -> dict[str, Any]:
    """A latent model from end to end: a plan is fitted on encoded images, saved, and returns images."""
    sizes = QUICK if run.quick else Sizes()
    train, test = (fashion_mnist(split, bundled=run.quick).samples for split in ("train", "test"))
    network, space = denoiser(run.device), codec()
    reference = Reference.of(test, features(run.device))
    rows: list[dict[str, Any]] = []
    shown: dict[str, Tensor] = {}
    for seed in range(run.seeds):
        images = train[seed * sizes.images : (seed + 1) * sizes.images]
        z = space.encode(images)
        plans = fit(
            network,
            z,
            list(sizes.nfe),
            pilot_samples=sizes.pilot_samples,
            check=not run.quick,
            seed=seed,
            device=run.device,
            progress=run.progress,
        )
        seeds = range(seed * 2**32, seed * 2**32 + sizes.samples)
        drawn = {(REAL, 0): images[: sizes.samples], (CODED, 0): space.decode(z[: sizes.samples])}
        heun = classic(z.shape[1:], sizes.usual)
        latent = heun.sample(network, seeds=seeds, device=run.device, progress=run.progress)
        drawn[HEUN, heun.nfe] = space.decode(latent)
        for nfe, plan in plans.items():
            folder = run.out / "plans" / f"{seed}-{nfe}"
            plan.with_latents(space).save(folder)
            loaded = Plan.load(folder)
            assert loaded.record.latents is not None
            whole = loaded.with_latents(load_latents(loaded.record.latents, run.device))
            drawn["plan", nfe] = whole.sample(network, seeds=seeds, device=run.device, progress=run.progress)
        shown = shown or {f"{method}{f', {nfe}' if nfe else ''}": x[:10] for (method, nfe), x in drawn.items()}
        for (method, nfe), samples in drawn.items():
            scores = evaluate(samples, reference)
            row = {"method": method, "nfe": nfe, "seed": seed, "frechet": scores.frechet, "swd": scores.swd}
            if method == "plan":
                row |= {"start": plans[nfe].initialization.name, "horizon": plans[nfe].horizon}
            rows.append(row)
        run.table("rows", rows)
        run.table("summary", _summary(rows))
    run.figure("images", _pictures(shown))
    return {
        "data": f"{sizes.images} training images for a seed, {len(test)} test images",
        "samples": sizes.samples,
        "rows": rows,
        "summary": _summary(rows),
    }


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each method and number of evaluations over the seeds."""
    found = []
    for (method, nfe), own in groups(rows, "method", "nfe").items():
        row: dict[str, Any] = {"method": method, "nfe": nfe}
        for name in ("frechet", "swd"):
            told = estimate([each[name] for each in own])
            row |= {name: told["mean"], f"{name}_error": told["error"]}
        starts = (f"{each['start']} at {each['horizon']:.3g}" for each in own if "start" in each)
        found.append(row | {"starts": ", ".join(dict.fromkeys(starts)), "seeds": len(own)})
    return found


def _pictures(shown: Mapping[str, Tensor]) -> Figure:
    """Ten images of each method."""
    figure = Figure(figsize=(8.0, 0.9 * len(shown)), layout="constrained")
    for ax, (name, images) in zip(figure.subplots(len(shown), 1), shown.items(), strict=True):
        ax.imshow(torch.cat(list(images[:, 0]), dim=1), cmap="gray", vmin=-0.41, vmax=1.01)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
    return figure


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: Fréchet distances of the plans, of Heun's sampler, and of reconstructions."""
    rows = results["summary"]
    known = {row["method"]: row for row in rows}
    plans = ", ".join(f"{row['frechet']:.2f} at {row['nfe']}" for row in rows if row["method"] == "plan")
    return (
        f"In the latents of a small autoencoder, plans have Fréchet distances of {plans} evaluations, and EDM's Heun "
        f"sampler {known[HEUN]['frechet']:.2f} at {known[HEUN]['nfe']}; the autoencoder's own reconstructions have "
        f"{known[CODED]['frechet']:.2f}."
    )
