r"""Features of a DINOv2 network of transformers, in which FD-DINOv2 is measured.

Images are resized to 224 x 224 (bicubic, antialiased), standardised by ImageNet's means and deviations, and represented
by the class token behind the last normalization: 1,024 features of ``facebook/dinov2-large``, in which the published
scores are measured.

References:
    Stein et al., *Exposing Flaws of Generative Model Evaluation Metrics and Their Unfair Treatment of Diffusion
    Models*, NeurIPS 2023, arXiv 2306.04675.

    Oquab et al., *DINOv2: Learning Robust Visual Features without Supervision*, TMLR 2024, arXiv 2304.07193.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from headstart.errors import DenoiserError
from headstart.extras import needed

__all__ = ["dinov2", "prepared"]

#: Side of the images that the network sees, and ImageNet's mean and standard deviation of each channel.
SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dinov2(name: str, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """The class token's features, of images (B, 3, H, W) as bytes.

    Arguments:
        name: a folder that transformers saved a network to, or its name on the Hugging Face hub, such as
            ``facebook/dinov2-large``.
        device: where the network is put.

    Raises:
        MissingExtraError: if transformers is not installed.
        DenoiserError: if the network cannot be found, read or put on the device.
    """
    with needed("transformers", "dinov2", "a DINOv2 network"):
        from transformers import Dinov2Model
    try:
        network = Dinov2Model.from_pretrained(name).to(device).eval()
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DenoiserError(f"cannot load the DINOv2 network {name} on {device}: {reason}") from error

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        features: Tensor = network(pixel_values=prepared(images)).last_hidden_state[:, 0]
        return features

    return extract


def prepared(images: Tensor) -> Tensor:
    """Bytes (B, 3, H, W) as the network takes them: (B, 3, 224, 224), standardised."""
    x = functional.interpolate(images.float() / 255, size=(SIDE, SIDE), mode="bicubic", antialias=True)
    mean, deviation = (torch.tensor(values, device=x.device).reshape(3, 1, 1) for values in (MEAN, DEVIATION))
    return (x - mean) / deviation
