"""What all tests share: one thread for each process of theirs, and for every process that they start."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def diffusers():
    """The package, also beside a torchvision of another build, which cannot be imported: it then does without."""
    package = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: peers)")
    try:
        import torchvision  # noqa: F401
    except Exception:
        package.utils.import_utils._torchvision_available = False
    return package
