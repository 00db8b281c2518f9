"""A diffusion of denoising-diffusion-pytorch: trained by its own loss, sampled by itself and by a plan.

A few steps of training stand in for yours, and blots of light for your images.
"""

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet

from headstart import Sampler, Schedule
from headstart.initialization import Gaussian
from headstart.integrations.lucidrains import from_lucidrains
from headstart.solver import DPMSolverPP2M


def blots(count):
    """Images (count, 1, 8, 8) in [0, 1], each with one bright blot."""
    centres = 7 * torch.rand(count, 2, 1, generator=torch.Generator().manual_seed(0))
    down, across = (-((torch.arange(8) - centres[:, i]) ** 2) / 4 for i in (0, 1))
    return (down[:, :, None] + across[:, None, :]).exp()[:, None]


def main(steps=20):
    torch.manual_seed(0)
    images = blots(400)
    diffusion = GaussianDiffusion(Unet(8, dim_mults=(1, 2), channels=1), image_size=8, sampling_timesteps=25)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=2e-3)
    for _ in range(steps):
        diffusion(images[torch.randint(len(images), (32,))]).backward()
        optimizer.step()
        optimizer.zero_grad()
    own = diffusion.sample(batch_size=8)

    # The network sees images in [-1, 1]. With a trained one: plan = fit(denoiser, 2 * images - 1, nfe=4)
    denoiser = from_lucidrains(diffusion)
    plan = Sampler(Gaussian.fit(2 * images - 1), Schedule((4.0, 1.0, 0.3, 0.1, 0.0)), DPMSolverPP2M())
    samples = ((plan.sample(denoiser, len(own)) + 1) / 2).clamp(0, 1)
    print(f"{len(samples)} images of {plan.nfe} evaluations each, beside {len(own)} of {diffusion.sampling_timesteps}")
    return samples


if __name__ == "__main__":
    main()
