"""Galaxies by a score network of galaxygrad, in JAX: its own sampler, and four evaluations without data.

Its weights come with the package: ``pip install -c constraints.txt galaxygrad``. Images are in the network's own unit,
log(1 + flux) / 0.1.
"""

import functools

import jax
import numpy as np
import torch
from galaxygrad.generate import int_beta, single_sample_fn
from galaxygrad.scorenet import HSC_32

from headstart import Sampler, Schedule, adapt
from headstart.choose import own_samples
from headstart.initialization import Gaussian
from headstart.integrations.arrays import numpy_network
from headstart.integrations.process import Path
from headstart.solver import DPMSolverPP2M

SHAPE, LAST, STEP = (1, 32, 32), 10.0, 0.025


def galaxygrad_samples(count):
    """Its own sampler: Tsit5 of diffrax along the flow from time 10 to 0, with 400 steps of six evaluations."""
    sample = functools.partial(single_sample_fn, HSC_32, int_beta, SHAPE, STEP, LAST)
    return np.asarray(jax.vmap(sample)(jax.random.split(jax.random.PRNGKey(0), count)))


def main(count=2, n_samples=50):
    own = galaxygrad_samples(count)

    # The package's process: dz = -z / 2 dt + dw, so that alpha = exp(-t / 2) and sigma^2 = 1 - exp(-t).
    process = Path(lambda t: (-t / 2).exp(), lambda t: (-torch.expm1(-t)).sqrt(), last=LAST)
    denoiser = adapt(numpy_network(jax.jit(jax.vmap(HSC_32)), batch=50), "score", process)

    # No data come with it: 50 samples of the network itself. With time, plan = fit(denoiser, None, nfe=4, shape=SHAPE).
    start = Gaussian.fit(own_samples(denoiser, SHAPE, n_samples))
    plan = Sampler(start, Schedule((10.0, 2.0, 0.5, 0.1, 0.0)), DPMSolverPP2M())
    samples = plan.sample(denoiser, 50)
    print(f"{len(samples)} galaxies of {plan.nfe} evaluations each, beside {count} of {6 * LAST / STEP:.0f}")
    print(f"brightest pixels {samples.flatten(1).amax(1).mean():.1f}, beside {own.max(axis=(1, 2, 3)).mean():.1f}")
    return samples


if __name__ == "__main__":
    main()
