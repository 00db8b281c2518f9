"""A pipeline of diffusers that samples by a plan: the pipeline stays, three lines are added.

A tiny untrained network stands in for yours, ``DDPMPipeline.from_pretrained(...)``.
"""

import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

from headstart import Sampler, Schedule
from headstart.initialization import Gaussian
from headstart.integrations.diffusers import from_diffusers
from headstart.integrations.pipeline import apply
from headstart.solver import DPMSolverPP2M


def main():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DModel(8, 1, 1, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, **blocks)
    pipe = DDPMPipeline(unet.eval(), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)

    # With a trained network: plan = fit(from_diffusers(pipe), images, nfe=6)
    denoiser = from_diffusers(pipe)
    start = Gaussian.fit(torch.randn(100, 1, 8, 8))
    plan = Sampler(start, Schedule((8.0, 3.0, 1.0, 0.3, 0.05, 0.0)), DPMSolverPP2M())

    with apply(plan, pipe):
        images = pipe(4, generator=torch.manual_seed(1), output_type="np").images
    print(f"{len(images)} images of {plan.nfe} evaluations each, of a network that knows sigma up to", end=" ")
    print(f"{denoiser.sigma_max:.4g}; the scheduler is again {type(pipe.scheduler).__name__}")
    return images


if __name__ == "__main__":
    main()
