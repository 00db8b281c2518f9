"""The packages of others, imported when a method needs them.

Of k-diffusion only the samplers are loaded: the package as a whole imports torchvision, for image transforms that no
sampler uses and that do not load beside every build of PyTorch, and a dozen others. While its samplers are imported,
empty modules stand in for these.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType

from headstart.extras import needed

__all__ = ["load"]

#: What each package is called where it is installed from.
DISTRIBUTIONS = {"diffusers": "diffusers", "k_diffusion": "k-diffusion", "azula": "azula"}


@cache
def load(package: str) -> ModuleType:
    """The module of a package: ``diffusers``, ``azula``, or ``k_diffusion.sampling`` for "k_diffusion".

    Raises:
        MissingExtraError: if it is not installed, or cannot be imported here.
    """
    with needed(DISTRIBUTIONS[package], "peers", "this comparison"):
        return _samplers_of_k_diffusion() if package == "k_diffusion" else importlib.import_module(package)


def _samplers_of_k_diffusion() -> ModuleType:
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        raise ModuleNotFoundError("No module named 'k_diffusion'", name="k_diffusion")
    package, vision, transforms = map(ModuleType, ("k_diffusion", "torchvision", "torchvision.transforms"))
    package.__path__ = list(spec.submodule_search_locations or ())
    vision.transforms = transforms  # type: ignore[attr-defined]
    transforms.functional = ModuleType("torchvision.transforms.functional")  # type: ignore[attr-defined]
    stand_ins = {module.__name__: module for module in (package, vision, transforms)}
    named = [*stand_ins, "k_diffusion.sampling", "k_diffusion.utils"]
    before = {name: sys.modules.pop(name) for name in named if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name in named:
            sys.modules.pop(name, None)
        sys.modules.update(before)
