"""Samplers of other packages, each driven as its own users drive it; none is needed, and a missing one is said."""

from headstart.compare.peers.packages import load

__all__ = ["load"]
