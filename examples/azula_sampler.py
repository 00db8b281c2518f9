"""A denoiser of azula comes in, and a plan goes out to azula's own sampler."""

import azula.denoise
import azula.noise
import torch
from azula.linalg.covariance import IsotropicCovariance

from headstart import Noise, Sampler, Schedule
from headstart.initialization import Gaussian
from headstart.integrations.azula import from_azula, to_azula
from headstart.solver import Euler


def main():
    theirs = azula.denoise.GaussianDenoiser(
        torch.full((2,), 0.3), IsotropicCovariance(torch.tensor(0.25)), azula.noise.VPSchedule()
    )
    denoiser = from_azula(theirs)
    data = 0.3 + 0.5 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    plan = Sampler(Gaussian.fit(data), Schedule((4.0, 1.0, 0.3, 0.0)), Euler())

    sampler, evaluations = to_azula(plan, denoiser)
    samples = sampler(plan.initialization.sample(Noise(range(64)), plan.horizon))
    name = type(sampler).__name__
    print(f"{len(samples)} samples by {name}, {evaluations} evaluations each, mean {samples.mean():.2f}")
    return samples


if __name__ == "__main__":
    main()
