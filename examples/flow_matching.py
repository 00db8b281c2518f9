"""A flow-matching network, called as ``model(t, x)`` as in torchcfm, whose time runs from noise to data."""

import torch

from headstart import Sampler, Schedule
from headstart.initialization import Gaussian
from headstart.integrations.flows import from_torchcfm
from headstart.solver import Heun


def model(t, x):
    """Stands in for your network: the exact velocity for N(0.3, 0.25)."""
    t = t.reshape(-1, 1)
    s = (1 - t) / t
    clean = (s**2 * 0.3 + 0.25 * x / t) / (0.25 + s**2)
    return clean - (x / t - clean) / s


def main():
    denoiser = from_torchcfm(model)
    data = 0.3 + 0.5 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    plan = Sampler(Gaussian.fit(data), Schedule((4.0, 1.0, 0.3, 0.0)), Heun())
    samples = plan.sample(denoiser, 256)
    print(f"{len(samples)} samples of {plan.nfe} evaluations each, mean {samples.mean():.2f}, std {samples.std():.2f}")
    return samples


if __name__ == "__main__":
    main()
