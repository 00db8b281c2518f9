"""Choose a plan: measure the network once, fit the starts, screen in nats, and let a pilot decide."""

from headstart.choose.data import own_samples
from headstart.choose.fit import fit
from headstart.choose.levels import __getattr__ as __getattr__
from headstart.choose.levels import build_schedule
from headstart.choose.starts import fit_starts
from headstart.conditions import hold_out

__all__ = ["build_schedule", "fit", "fit_starts", "hold_out", "own_samples"]
