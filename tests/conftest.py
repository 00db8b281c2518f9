"""What all tests share: one thread for each process of theirs, and for every process that they start."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import importlib
import importlib.util
import re
from pathlib import Path

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


@pytest.fixture(scope="session")
def torchvision():
    """The package, also of another build than PyTorch's: its operators, which no test uses, are then only declared."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        pytest.skip("torchvision is not installed")
    try:
        yield importlib.import_module("torchvision")
    except RuntimeError:
        text = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
        declared = torch.library.Library("torchvision", "DEF")
        for name in set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', text)):
            declared.define(f"{name}(Tensor x) -> Tensor")
        yield importlib.import_module("torchvision")
