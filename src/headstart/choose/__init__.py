"""Choose a plan: measure the network once, fit the starts, screen in nats, and let a pilot decide."""

from headstart.choose.data import own_samples
from headstart.choose.fit import fit
from headstart.choose.levels import SCHEDULES, build_schedule
from headstart.choose.starts import fit_starts
from headstart.conditions import hold_out

__all__ = ["SCHEDULES", "build_schedule", "fit", "fit_starts", "hold_out", "own_samples"]
