r"""Any forward process: :math:`z_t = \alpha_t x_0 + \sigma_t \varepsilon`, given by two functions of time.

In variance-exploding units the level is the noise-to-signal ratio :math:`\sigma_t / \alpha_t`, which rises with noise,
and what a network sees is :math:`z = \alpha_t x`. The time of a level is found by bisection, in float64.

>>> import math
>>> cosine = Path(lambda t: torch.cos(t * math.pi / 2), lambda t: torch.sin(t * math.pi / 2), last=0.99)
>>> cosine.time(torch.tensor([1.0])).item()
0.5
>>> round(cosine.sigma_max, 3)
63.657
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headstart.errors import InputError

__all__ = ["Path"]

#: Halvings of the range of time: more than float64 has digits.
HALVINGS = 64

#: Places where the level is looked at when a path is made.
LOOKED_AT = 1001


@dataclass(frozen=True)
class Path:
    """A process of :func:`headstart.adapt` from its two coefficients.

    Arguments:
        alpha: what multiplies the data, above 0 below ``last``: float64 times (B,) to (B,).
        sigma: what multiplies the noise, likewise.
        first: the time of the lowest level; it may be above that of the highest, where time runs to the data.
        last: the time of the highest level.
        time_scale: what the network's time is multiplied by.

    Raises:
        InputError: if the level does not rise from the first time to the last.
    """

    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    first: float = 0.0
    last: float = 1.0
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        levels = self._level(torch.linspace(0, 1, LOOKED_AT, dtype=torch.float64))
        if not (levels[:-1].isfinite().all() and (levels.diff() > 0).all() and levels[0] >= 0):
            raise InputError(
                f"sigma(t) / alpha(t) must rise from time {self.first:g}, where the noise is least, to {self.last:g}: "
                f"it goes from {levels[0]:.4g} over {levels[LOOKED_AT // 2]:.4g} to {levels[-1]:.4g}"
            )

    def _time(self, share: Tensor) -> Tensor:
        return self.first + (self.last - self.first) * share

    def _level(self, share: Tensor) -> Tensor:
        """The level at a share of the way from the first time to the last."""
        t = self._time(share)
        return torch.as_tensor(self.sigma(t)).double() / torch.as_tensor(self.alpha(t)).double()

    @cached_property
    def sigma_min(self) -> float:
        """The level at the first time."""
        return float(self._level(torch.zeros(1, dtype=torch.float64)))

    @cached_property
    def sigma_max(self) -> float:
        """The level at the last time."""
        return float(self._level(torch.ones(1, dtype=torch.float64)))

    def _share(self, sigma: Tensor) -> Tensor:
        target = sigma.detach().cpu().double()  # some devices have no float64
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = self._level(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def scale(self, sigma: Tensor) -> Tensor:
        r""":math:`\alpha` at the time of a level."""
        return torch.as_tensor(self.alpha(self._time(self._share(sigma)))).to(sigma)

    def time(self, sigma: Tensor) -> Tensor:
        """The network's time at a level."""
        return (self.time_scale * self._time(self._share(sigma))).to(sigma)
