"""diffusers: a small UNet2DModel that predicts noise or velocity, and DDPMPipeline with its default number of steps."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from experiments.clients.laws import garments
from experiments.clients.network import Calls, Client, Network, Place, descend, package, seeded
from headstart.integrations.diffusers import from_diffusers

__all__ = ["CLIENTS"]


def the_package() -> Any:
    """The package, also beside a torchvision of another build, which cannot be imported: it then does without.

    Raises:
        MissingExtraError: if it cannot be imported.
    """
    found = package("diffusers")
    if importlib.util.find_spec("torchvision") is not None:
        try:
            import torchvision  # type: ignore[import-untyped]  # noqa: F401
        except Exception:
            package("diffusers.utils.import_utils")._torchvision_available = False
    return found


def images(prediction: str) -> Callable[[Place], Network]:
    """A network of images that predicts "epsilon" or "v_prediction"."""

    def make(place: Place) -> Network:
        diffusers = the_package()
        data = garments("train", place.some(14_000, 300))
        with seeded(0):
            blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
            width = place.some(16, 8)
            unet = diffusers.UNet2DModel(
                8, 1, 1, block_out_channels=(width, 2 * width), layers_per_block=1, norm_num_groups=8, **blocks
            )
            scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
            target = scheduler.get_velocity if prediction == "v_prediction" else lambda x, noise, t: noise

            def loss() -> Tensor:
                x = data[torch.randint(len(data), (64,))]
                noise, t = torch.randn_like(x), torch.randint(scheduler.config.num_train_timesteps, (len(x),))
                found = unet(scheduler.add_noise(x, noise, t), t).sample
                return torch.nn.functional.mse_loss(found, target(x, noise, t))

            place.trained(f"diffusers-{prediction}", unet, lambda: descend(unet, loss, place.some(3000, 20), 2e-3))
        pipe = diffusers.DDPMPipeline(unet, scheduler)
        pipe.set_progress_bar_config(disable=True)
        calls = Calls(unet)

        def own(count: int, seed: int) -> Tensor:
            steps = {"num_inference_steps": 20} if place.quick else {}
            found = pipe(count, generator=torch.Generator().manual_seed(seed), output_type="np", **steps).images
            return 2 * torch.from_numpy(found).movedim(-1, 1) - 1

        held_out = garments("test", place.some(1000, 200))
        return Network(from_diffusers(pipe), own, calls, held_out, data, batch=1000, limits=(-1.0, 1.0))

    return make


GARMENTS = "Fashion-MNIST at 8 x 8"

CLIENTS = (
    Client("diffusers UNet2DModel, epsilon", GARMENTS, "DDPMPipeline, 1,000 steps", images("epsilon")),
    Client("diffusers UNet2DModel, v", GARMENTS, "DDPMPipeline, 1,000 steps", images("v_prediction")),
)
