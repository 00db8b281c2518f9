# %% [markdown]
# # diffusers
#
# A pipeline of diffusers becomes a denoiser, a plan is fitted, and the pipeline then samples by it, unchanged for its
# user. A tiny UNet of 8 x 8 images stands for yours; it is trained here in some seconds.

# %%
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

torch.manual_seed(0)


def squares(n):
    """Bright squares of 3 to 5 pixels on dark ground, in [-1, 1]."""
    x = -torch.ones(n, 1, 8, 8)
    for image in x:
        size = int(torch.randint(3, 6, ()))
        top, left = torch.randint(0, 9 - size, (2,)).tolist()
        image[:, top : top + size, left : left + size] = 0.4 + 0.6 * torch.rand(())
    return x + 0.05 * torch.randn_like(x)


blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
unet = UNet2DModel(8, 1, 1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **blocks)
scheduler, data = DDIMScheduler(clip_sample=False), squares(500)
optimiser = torch.optim.Adam(unet.parameters(), 2e-3)
for step in range(300):
    x, noise = data[torch.randint(len(data), (32,))], torch.randn(32, 1, 8, 8)
    times = torch.randint(0, 1000, (32,))
    loss = (unet(scheduler.add_noise(x, noise, times), times).sample - noise).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

pipe = DDPMPipeline(unet.eval(), scheduler)
pipe.set_progress_bar_config(disable=True)

# %% [markdown]
# ## In
#
# What the pipeline's scheduler says decides what the network is handed: its process, its times, its prediction.

# %%
from headstart import fit
from headstart.integrations.diffusers import from_diffusers

denoiser = from_diffusers(pipe)
plan = fit(denoiser, data, nfe=5, pilot_samples=32, solver="dpm++2m")
print(plan)

# %% [markdown]
# ## Out
#
# The pipeline itself, first with its own sampler and as many steps, then by the plan.

# %%
from headstart.integrations.pipeline import apply

usual = pipe(8, generator=torch.manual_seed(1), num_inference_steps=5, output_type="np").images
with apply(plan, pipe):
    planned = pipe(8, generator=torch.manual_seed(1), output_type="np").images

# %%
import matplotlib.pyplot as plt

figure, panels = plt.subplots(3, 8, figsize=(5.2, 2.3))
real = (data[:8, 0] / 2 + 0.5).clamp(0, 1)
rows = {"data": real, "DDIM, 5": usual[..., 0], "plan, 5": planned[..., 0]}
for row, (name, images) in zip(panels, rows.items()):
    for panel, image in zip(row, images):
        panel.imshow(image, cmap="gray", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure

# %% [markdown]
# `apply` is undone where the block ends. For latent pipelines, guidance and prompts see
# [latent models](../guides/latents.md) and [integrations](../integrations.md).
