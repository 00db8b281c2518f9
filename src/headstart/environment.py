"""The environment of a result: versions and the machine, without names that identify it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["environment"]


def environment(device: torch.device | str, peers: Sequence[str] = ()) -> dict[str, str | int]:
    """Versions, the device and the number of cores and threads.

    Arguments:
        device: where networks work.
        peers: distributions whose versions are told too, or that they are not installed.
    """
    found: dict[str, str | int] = {}
    for name in ("headstart", "torch", "numpy", "scipy", "scikit-learn", *peers):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {
        **found,
        "python": platform.python_version(),
        "device": str(device),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }
