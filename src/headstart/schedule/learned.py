"""Schedules that are learned by gradients through the network: their names, and what to cite for them.

:mod:`headstart.distill` learns them.

References:
    Tong et al., *Learning to Discretize Denoising Diffusion ODEs* (LD3), ICLR 2025, arXiv 2405.15506.
"""

from __future__ import annotations

from headstart.schedule.rule import RULES, Kind

__all__ = ["LD3", "Distilled"]


@RULES.register
class LD3(Kind):
    """Levels learned from fine trajectories."""

    name = "ld3"
    cites = ("tong2025learning",)


@RULES.register
class Distilled(Kind):
    """Levels learned together with a solver's coefficients, "from trajectory" or "from data"."""

    name = "distilled"
    cites = ("tong2025learning",)

    @classmethod
    def cited(cls, *parameters: str) -> tuple[str, ...]:
        distances = ("szekely2013energy", "bellemare2017cramer") if parameters == ("from", "data") else ()
        return (*cls.cites, *distances)
