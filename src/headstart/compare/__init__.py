"""Samplers side by side, on one network with the same seeds and scores: ours, and other packages as they are."""

from headstart.compare.arms import Arm, Sampler
from headstart.compare.cells import Cells
from headstart.compare.ours import saved
from headstart.compare.run import ARMS, NFE, compare
from headstart.compare.setting import QUICK, Setting, Sizes

__all__ = ["ARMS", "NFE", "QUICK", "Arm", "Cells", "Sampler", "Setting", "Sizes", "compare", "saved"]
