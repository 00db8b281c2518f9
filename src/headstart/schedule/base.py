r"""Which noise levels the reverse process visits: a grid :math:`\sigma_T = s_0 > s_1 > \dots > s_N \ge 0`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A grid of noise levels, as a value.

    Arguments:
        sigmas: the levels, strictly decreasing, finite; the last may be 0.
        name: how the grid was made.

    Raises:
        InputError: if there are fewer than two levels, or they are not finite, not decreasing or negative.

    >>> Schedule((2.0, 0.5, 0.02, 0.0), name="by hand")
    Schedule(by hand: 3 steps, 2 > 0.5 > 0.02 > 0)
    """

    sigmas: tuple[float, ...]
    name: str = "custom"

    def __init__(self, sigmas: Sequence[float] | NDArray[np.float64], name: str = "custom") -> None:
        try:
            levels = np.asarray(sigmas, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"the levels of a schedule are numbers: {error}") from error
        if levels.ndim != 1 or len(levels) < 2:
            raise InputError(f"a schedule needs at least two levels in one row, got shape {levels.shape}")
        if not np.isfinite(levels).all() or (np.diff(levels) >= 0).any() or levels[-1] < 0:
            raise InputError(
                f"the levels of a schedule must be finite, strictly decreasing and at least 0: got {levels.tolist()}"
            )
        object.__setattr__(self, "sigmas", tuple(levels.tolist()))
        object.__setattr__(self, "name", name)

    @property
    def steps(self) -> int:
        """Number of steps, one less than the number of levels."""
        return len(self.sigmas) - 1

    @property
    def horizon(self) -> float:
        """The level that the reverse process starts from, sigma_T."""
        return self.sigmas[0]

    @property
    def sigma_min(self) -> float:
        """The last level above 0."""
        return self.sigmas[-1] if self.sigmas[-1] > 0 else self.sigmas[-2]

    def pairs(self) -> Iterator[tuple[float, float]]:
        """The steps, as pairs (from, to)."""
        return zip(self.sigmas[:-1], self.sigmas[1:], strict=True)

    def __repr__(self) -> str:
        levels = [f"{s:.4g}" for s in self.sigmas]
        if len(levels) > 9:
            levels = [*levels[:4], "...", *levels[-4:]]
        return f"Schedule({self.name}: {self.steps} step{'s' * (self.steps > 1)}, {' > '.join(levels)})"
