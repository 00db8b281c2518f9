"""azula: its preconditioning and loss around a network of points, and DDIM with its default number of steps."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.clients.laws import HELD_OUT, TRAIN, samples
from experiments.clients.network import Calls, Client, Network, Perceptron, Place, descend, package, seeded
from headstart.integrations.azula import from_azula

__all__ = ["CLIENTS"]


def modes(place: Place) -> Network:
    """25 modes in 8 dimensions."""
    denoise, noise, sample = (package(f"azula.{part}") for part in ("denoise", "noise", "sample"))
    data = samples("modes", place.some(20_000, 300), TRAIN)
    with seeded(0):
        denoiser = denoise.KarrasDenoiser(Perceptron(8), noise.VPSchedule())

        def loss() -> Tensor:
            x = data[torch.randint(len(data), (256,))]
            found: Tensor = denoiser.loss(x, torch.rand(len(x)))
            return found

        place.trained("azula", denoiser, lambda: descend(denoiser, loss, place.some(12_000, 50)))
    calls = Calls(denoiser.backbone)

    def own(count: int, seed: int) -> Tensor:
        sampler = sample.DDIMSampler(denoiser, silent=True)
        with seeded(seed):
            found: Tensor = sampler(sampler.init((count, 8)))
        return found

    return Network(from_azula(denoiser), own, calls, samples("modes", place.some(8000, 400), HELD_OUT), data)


CLIENTS = (Client("azula, VP", "25 modes in 8 dimensions", "DDIMSampler, 64 steps", modes),)
