r"""The features that samples are judged by, by name: what maps samples (B, \*S) to features (B, F).

==============================  ======================================================================================
spec                            features
==============================  ======================================================================================
``raw``                         the samples themselves, as rows
``builtin:fashion-mnist``       64 penultimate features of the bundled classifier of Fashion-MNIST
``torchscript:PATH``            a TorchScript file, such as the Inception network that EDM measures FID with
``dinov2:NAME``                 a DINOv2 network of transformers: a folder, or a name on the Hugging Face hub
``python:module:factory``       what a factory returns, in any importable module: samples to features
==============================  ======================================================================================

Images are floating-point numbers in [-1, 1] with channels first, and networks of photographs are given what their
published scores were measured on: bytes, :math:`\lfloor 127.5\,x + 128 \rfloor` within 0 and 255 as EDM stores images,
with a grey channel repeated to three.

A TorchScript file whose ``forward`` has an argument ``return_features`` follows the convention of NVIDIA's Inception
file (``inception-2015-12-05.pt``): it is called as ``network(bytes, return_features=True)`` and resizes for itself; its
2,048 features are those of FID. Any other file is called with the samples as they are.

References:
    Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, NeurIPS 2017.

    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022, arXiv 2206.00364.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from headstart.errors import DenoiserError, HeadstartError, InputError
from headstart.files import check_regular
from headstart.models import bundled
from headstart.models.load import build, place, split_path

__all__ = ["as_bytes", "load_features"]

Features = Callable[[Tensor], Tensor]

EXPECTED = "expected raw, builtin:fashion-mnist, torchscript:PATH, dinov2:NAME or python:package.module:factory"


def load_features(spec: str, device: torch.device | str = "cpu", *, images_as_bytes: bool | None = None) -> Features:
    """The features that ``spec`` names: see the module.

    Arguments:
        spec: one of the table at the top of this module.
        device: where the network is put; samples are moved there.
        images_as_bytes: whether a TorchScript file is given images as bytes; by default if it has an argument
            ``return_features``.

    Returns:
        A function of samples (B, \\*S) that returns features (B, F), in the network's dtype and on its device. It
        raises an InputError where bytes are made of what is no image, and a DenoiserError where the network fails.

    Raises:
        InputError: if the spec is none of these.
        DenoiserError: if what it names cannot be read, imported, built or put on the device.
        MissingExtraError: if it is a DINOv2 network, and transformers is not installed.
    """
    kind, _, name = spec.partition(":")
    if spec == "raw":
        return lambda x: x.flatten(1)
    if spec == "builtin:fashion-mnist":
        return bundled.features(device)
    if kind == "torchscript" and name:
        return _torchscript(name, device, images_as_bytes)
    if kind == "dinov2" and name:
        from headstart.models.dinov2 import dinov2

        network = dinov2(name, device)
        return lambda x: network(as_bytes(x).to(device))
    if kind == "python" and (path := split_path(name)) is not None:
        found: Features = place(build(*path, "features"), spec, device, "features, callable as (x)")
        return lambda x: _called(found, x.to(device), spec)
    raise InputError(f"unknown features {spec!r}: {EXPECTED}")


def as_bytes(x: Tensor) -> Tensor:
    """Images (B, 1 or 3, H, W) in [-1, 1] as bytes (B, 3, H, W); what lies outside is clipped.

    Raises:
        InputError: if they have another shape, hold NaN or Inf, or have values from 0 on to far above 1.

    >>> as_bytes(torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)).flatten(1).tolist()
    [[0, 0, 0], [128, 128, 128], [255, 255, 255]]
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise InputError(f"these features are of images (B, 3, H, W) or (B, 1, H, W), got shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise InputError("these features are of images in [-1, 1]: these hold NaN or infinite values")
    if len(x) and x.min() >= 0 and x.max() > 2:  # white all over, were they clipped
        raise InputError(f"these features are of images in [-1, 1]: these are from {x.min():.3g} to {x.max():.3g}")
    return (x.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)


def _torchscript(path: str, device: torch.device | str, images_as_bytes: bool | None) -> Features:
    try:
        check_regular(Path(path))
        network = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DenoiserError(f"cannot load the TorchScript file {path} on {device}: {reason}") from error
    if not hasattr(network, "forward"):
        raise DenoiserError(f"the TorchScript file {path} has no method forward: expected a network")
    features = any(argument.name == "return_features" for argument in network.forward.schema.arguments)
    of_bytes = features if images_as_bytes is None else images_as_bytes
    options = {"return_features": True} if features else {}

    def extract(x: Tensor) -> Tensor:
        return _called(lambda y: network(y, **options), (as_bytes(x) if of_bytes else x).to(device), path)

    return extract


@torch.no_grad()
def _called(network: Features, x: Tensor, name: str) -> Tensor:
    """The network's features, (B, F); more than two axes are flattened."""
    try:
        found = network(x)
    except HeadstartError:
        raise
    except Exception as error:  # a network of others may raise anything
        reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[-1:]])
        raise DenoiserError(
            f"{name} fails on samples of shape {tuple(x.shape)} and type {x.dtype}: {reason}"
        ) from error
    if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(x):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise DenoiserError(f"{name} returned {shape} for {len(x)} samples: expected features (B, F)")
    return found.flatten(1)
