"""The two bundled networks: a denoiser of Fashion-MNIST, and the features that its samples are judged by.

Both were trained by the scripts in ``training/`` and are stored in float16, as safetensors.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from headstart.errors import DenoiserError, InputError
from headstart.models.classifier import Classifier
from headstart.models.unet import PatchUNet, Preconditioned

__all__ = ["classifier", "denoiser", "features"]

Module = TypeVar("Module", bound=nn.Module)


def denoiser(device: torch.device | str = "cpu") -> Preconditioned:
    """The class-conditional denoiser of Fashion-MNIST (images standardised as in :mod:`headstart.data.fashion_mnist`).

    Called as ``denoiser(x, sigma, label=None)`` with x of shape (B, 1, 28, 28); without labels it is unconditional.

    Raises:
        DenoiserError: if the weights are missing or damaged, or the device cannot be used.
    """
    return _trained(Preconditioned(PatchUNet()), "denoiser.safetensors", device)


def classifier(device: torch.device | str = "cpu") -> Classifier:
    """The classifier of Fashion-MNIST that :func:`features` uses. It raises the errors of :func:`denoiser`."""
    return _trained(Classifier(), "classifier.safetensors", device)


def features(device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """The 64 penultimate features of a classifier of Fashion-MNIST: (B, 1, 28, 28) to (B, 64).

    Raises:
        DenoiserError: as :func:`denoiser`. What is returned raises an InputError for images of another shape.
    """
    model = classifier(device)

    def penultimate(x: Tensor) -> Tensor:
        if x.shape[1:] != (1, 28, 28):
            raise InputError(f"the bundled features are of images (B, 1, 28, 28), got shape {tuple(x.shape)}")
        return model.features(x.to(device, torch.float32))

    return penultimate


def _trained(module: Module, name: str, device: torch.device | str) -> Module:
    """The module with the bundled weights ``name``, in float32, for evaluation only."""
    path = resources.files("headstart.models").joinpath("weights", name)
    try:
        module.load_state_dict(load(path.read_bytes()))
        module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise DenoiserError(f"the bundled weights {name} are missing: reinstall headstart") from error
    except (SafetensorError, RuntimeError, AssertionError) as error:  # PyTorch asserts that it was built for the device
        raise DenoiserError(f"cannot load the bundled weights {name} on {device}: {error}") from error
    return module.eval().requires_grad_(False)
