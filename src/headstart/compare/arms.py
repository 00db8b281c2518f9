"""The name that :mod:`headstart.compare.methods` had in an earlier version."""

from __future__ import annotations

from headstart.deprecation import renamed

__all__: list[str] = []

METHODS = "headstart.compare.methods"
NAMES = ("Drawn", "Prepared", "draw", "even", "from_noise", "odd", "of_plan", "of_sampler", "scored", "solving")

__getattr__ = renamed(__name__, {"Arm": f"{METHODS}:Method", **{name: f"{METHODS}:{name}" for name in NAMES}})
