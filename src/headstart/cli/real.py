"""Real samples and features for the commands that score samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headstart.errors import InputError

if TYPE_CHECKING:
    from headstart.data import Dataset
    from headstart.metrics import Features

__all__ = ["FASHION_MNIST", "FeaturesSpec", "ReferenceCount", "feature_network", "split"]

FASHION_MNIST = "builtin:fashion-mnist"

FeaturesSpec = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="What the Frechet distance is measured in: raw, builtin:fashion-mnist, torchscript:PATH, dinov2:NAME, "
        "python:package.module:factory, none, or auto: what fits DATA.",
    ),
]
ReferenceCount = Annotated[int, typer.Option(metavar="N", help="Compare with at most N real samples.")]


def split(data: str, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """At most ``count`` real samples to compare with, and others to measure the floor on.

    Raises:
        InputError: if the count is below 2.
        DataError: as :func:`headstart.data.load_data`.
    """
    if count < 2:
        raise InputError(f"--reference-count is {count}: expected at least 2")
    import torch

    from headstart.data import load_data
    from headstart.noise import generator_of

    if data.startswith("builtin:"):
        other = load_data(data.partition("/")[0], "test" if data.endswith("/train") else "train")
        return load_data(data, "test").rows(slice(count)), other
    real = load_data(data)
    order = torch.randperm(len(real), generator=generator_of(seed))
    half = len(real) // 2
    return real.rows(order[:half][:count]), real.rows(order[half:])


def feature_network(name: str, data: str, device: str, batch_size: int) -> Features | None:
    """The network that maps samples to features, ``batch_size`` at a time; None without features."""
    if name == "none" or (name == "auto" and not data.startswith(FASHION_MNIST)):
        return None
    import torch

    from headstart.models import load_features

    network = load_features(FASHION_MNIST if name == "auto" else name, device)
    return lambda x: torch.cat([network(part) for part in torch.split(x, batch_size)])
