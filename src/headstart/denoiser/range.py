r"""The noise levels that a denoiser knows, as far as it says: its attributes ``sigma_min``, ``sigma_max`` and
``sigma_levels``.

A network of a discrete process knows the levels of its table alone, and one that is trained between two levels has
learned nothing outside of them. A half type holds no state at a high level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.errors import InputError

__all__ = ["Range"]

#: Noise that is this many standard deviations from 0 has to be held by the type of the states.
REACH = 16.0


@dataclass(frozen=True, eq=False)
class Range:
    """The levels that a denoiser knows.

    Attributes:
        low: the lowest.
        high: the highest.
        levels: the only ones, rising, or None if it knows all in between.
        why: names what ends it above.
    """

    low: float = 0.0
    high: float = math.inf
    levels: NDArray[np.float64] | None = None
    why: str = "the network knows"

    @classmethod
    def of(cls, denoiser: Any, sigma_max: float | None = None, dtype: torch.dtype = torch.float32) -> Range:
        """The levels that a denoiser says that it knows, as far as the type of the states holds them.

        Arguments:
            denoiser: the denoiser, also inside of :func:`functools.partial`.
            sigma_max: in place of what it says of the highest.
            dtype: the type of the states.

        Raises:
            InputError: if a level is NaN or below 0, or the lowest is above the highest.
        """
        while isinstance(denoiser, partial):
            denoiser = denoiser.func
        low, high = (getattr(denoiser, name, None) for name in ("sigma_min", "sigma_max"))
        low, high = 0.0 if low is None else float(low), math.inf if high is None else float(high)
        high = high if sigma_max is None else sigma_max
        if not 0 <= low <= high:
            raise InputError(f"noise from sigma_min={low:.6g} to sigma_max={high:.6g} is no range of levels above 0")
        held = torch.finfo(dtype).max / REACH
        why = cls.why if high <= held else f"states of {dtype} hold"
        levels = getattr(denoiser, "sigma_levels", None)
        return cls(low, min(high, held), None if levels is None else np.asarray(levels, dtype=np.float64), why)

    def check(self, level: float) -> None:
        """Raise :class:`InputError` for a level outside of it."""
        if level > self.high * (1 + 1e-6):
            raise InputError(f"{self.why} noise up to sigma = {self.high:.6g}: got a level of {level:.6g}")
        if level < self.low * (1 - 1e-6):
            raise InputError(f"the network knows noise from sigma = {self.low:.6g} on: got a level of {level:.6g}")

    def grid(self, highest: float, lowest: float, count: int) -> NDArray[np.float64]:
        """Levels from the highest down to the lowest, log-spaced, as far as it knows them.

        Where it knows a table alone, the nearest ones of the table, each once: fewer than ``count`` perhaps.
        """
        highest = min(highest, self.high)
        spaced = np.geomspace(highest, min(max(lowest, self.low), highest), count)
        if self.levels is None:
            return spaced
        nearest = np.abs(np.log(spaced)[:, None] - np.log(self.levels)).argmin(axis=1)
        # What is asked for lies within the ends.
        above = min(np.searchsorted(self.levels, spaced[0] * (1 - 1e-9)), len(self.levels) - 1)
        below = max(np.searchsorted(self.levels, spaced[-1] * (1 + 1e-9)) - 1, 0)
        return np.array(self.levels[np.unique([*nearest, above, below])][::-1])
