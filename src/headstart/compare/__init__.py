"""Samplers side by side, on one network with the same seeds and scores: ours, and other packages as they are."""

from headstart.compare.cells import Cells
from headstart.compare.methods import Method, Prepared
from headstart.compare.ours import saved
from headstart.compare.run import METHODS, compare
from headstart.compare.setting import NFE, QUICK, Draws, Setting, Sizes
from headstart.deprecation import renamed

__all__ = ["METHODS", "NFE", "QUICK", "Cells", "Draws", "Method", "Prepared", "Setting", "Sizes", "compare", "saved"]

#: Names of an earlier version.
__getattr__ = renamed(
    __name__,
    {
        "ARMS": "headstart.compare:METHODS",
        "Arm": "headstart.compare:Method",
        "Sampler": "headstart.compare:Prepared",
    },
)
