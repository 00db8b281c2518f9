"""Samplers side by side, on one network with the same seeds and scores: ours, and other packages as they are."""

import warnings
from typing import Any

from headstart.compare.arms import Arm, Prepared
from headstart.compare.cells import Cells
from headstart.compare.ours import saved
from headstart.compare.run import ARMS, NFE, compare
from headstart.compare.setting import QUICK, Setting, Sizes

__all__ = ["ARMS", "NFE", "QUICK", "Arm", "Cells", "Prepared", "Setting", "Sizes", "compare", "saved"]


def __getattr__(name: str) -> Any:
    """The old name of :class:`Prepared`."""
    if name == "Sampler":
        warnings.warn(f"{__name__}.Sampler is now Prepared", DeprecationWarning, stacklevel=2)
        return Prepared
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
