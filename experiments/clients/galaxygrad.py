"""galaxygrad: a score network of galaxies in JAX whose weights come with the package, and its sampler with fixed steps.

No data come with it, so that plans are compared with what its own sampler draws from other seeds: the column "own" is
at the floor whatever the network is like.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.clients.network import Calls, Client, Network, Place, package
from headstart import adapt
from headstart.artefact import read_tensors, write_tensors
from headstart.integrations.arrays import numpy_network
from headstart.integrations.process import Path as ProcessPath

__all__ = ["CLIENTS"]

SHAPE, LAST = (1, 32, 32), 10.0

#: Steps of the package's sampler, as its function ``generateSamples`` takes them.
STEPS = 400

#: The form of kept samples, and its version.
FORM, VERSION = "headstart-client-samples", 1

#: Seeds of what is compared with, far from those of the table.
HELD_OUT = 1992


def galaxies(place: Place) -> Network:
    """Galaxies of the Hyper Suprime-Cam survey at 32 x 32 pixels."""
    jax, generate = package("jax"), package("galaxygrad.generate")
    model = package("galaxygrad.scorenet").HSC_32
    batch, calls = place.some(50, 4), Calls()
    network = numpy_network(jax.jit(jax.vmap(model)), batch=batch)
    # The package's process: dz = -z / 2 dt + dw, so that alpha = exp(-t / 2) and sigma^2 = 1 - exp(-t).
    process = ProcessPath(lambda t: (-t / 2).exp(), lambda t: (-torch.expm1(-t)).sqrt(), last=LAST)
    settings = generate.int_beta, SHAPE, LAST / place.some(STEPS, 4), LAST
    drawn = jax.vmap(partial(generate.single_sample_fn, model, *settings))

    def counted(z: Tensor, time: Tensor) -> Tensor:
        calls.add(len(z))
        found: Tensor = network(z, time)
        return found

    @cache
    def evaluations() -> int:
        """How often the package's sampler calls the network for a sample, counted at the network."""
        found: list[None] = []

        def watched(y: Any, t: Any) -> Any:
            jax.debug.callback(lambda: found.append(None))
            return model(y, t)

        generate.single_sample_fn(watched, *settings, jax.random.PRNGKey(0))
        jax.effects_barrier()
        return len(found)

    def own(count: int, seed: int) -> Tensor:
        calls.add(count * evaluations())
        keys = np.array(jax.random.split(jax.random.PRNGKey(seed), count))
        return torch.cat(
            [torch.from_numpy(np.array(drawn(part))) for part in np.split(keys, range(batch, count, batch))]
        )

    path = place.folder / "galaxygrad-held-out.safetensors"
    if not path.exists():
        write_tensors(path, FORM, VERSION, {"network": "HSC_32"}, {"x": own(place.some(400, 8), HELD_OUT)})
    held_out = read_tensors(path, FORM, VERSION)[1]["x"]
    return Network(adapt(counted, "score", process), own, calls, held_out, batch=batch)


CLIENTS = (
    Client(
        "galaxygrad, HSC 32 x 32",
        "galaxies of a survey, 32 x 32",
        f"Tsit5 of diffrax, {STEPS} steps",
        galaxies,
        without="its own sampler is compared with itself, and is at the floor",
    ),
)
