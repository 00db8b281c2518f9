"""Samplers side by side, on one network with the same seeds and scores: ours, and other packages as they are."""

from headstart.compare.arms import Arm, Prepared
from headstart.compare.cells import Cells
from headstart.compare.ours import saved
from headstart.compare.run import ARMS, compare
from headstart.compare.setting import NFE, QUICK, Draws, Setting, Sizes
from headstart.deprecation import renamed

__all__ = ["ARMS", "NFE", "QUICK", "Arm", "Cells", "Draws", "Prepared", "Setting", "Sizes", "compare", "saved"]

#: Names of an earlier version.
__getattr__ = renamed(__name__, {"Sampler": "headstart.compare:Prepared"})
