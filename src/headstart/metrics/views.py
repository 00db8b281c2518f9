"""The name that :mod:`headstart.metrics.multiscale` had in an earlier version."""

from __future__ import annotations

from headstart.deprecation import renamed

__all__: list[str] = []

__getattr__ = renamed(
    __name__,
    {
        "ViewReference": "headstart.metrics.multiscale:MultiscaleReference",
        "Views": "headstart.metrics.multiscale:Multiscale",
    },
)
