r"""The best estimate of clean data that is linear in noisy ones, which every denoiser has to reach.

Along a direction in which the data have variance v, it is :math:`m + v / (v + \sigma^2) (x - m)`, and errs by
:math:`v \sigma^2 / (v + \sigma^2)`. E[x0 | x] errs by no more, whatever the law, and by as much for a Gaussian. The
directions are the coordinates, or the leading principal directions with one variance for the rest: whichever errs less.
Both are fitted on other samples than they are compared with, so that they never err less by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Linear"]

#: Principal directions at most, and samples for each.
MOST, EACH = 64, 4


@dataclass(frozen=True, eq=False)
class Linear:
    """The mean of data and their variances along directions. Made by :meth:`fit`.

    Attributes:
        mean: shape (d,).
        variances: of the coordinates, shape (d,).
        basis: principal directions, shape (d, k).
        leading: the variances along them, shape (k,).
        rest: the variance along any other direction.
    """

    mean: Tensor
    variances: Tensor
    basis: Tensor
    leading: Tensor
    rest: float

    @classmethod
    def fit(cls, x: Tensor, seed: int) -> Linear:
        """Of samples (N, d), in float64."""
        mean, variances = x.mean(0), x.var(0)
        count = min(MOST, len(x) // EACH, x.shape[1])
        with torch.random.fork_rng(devices=[]):  # the decomposition draws from the global generator
            torch.manual_seed(seed)
            _, singular, basis = torch.svd_lowrank((x - mean).float(), q=max(count, 1), niter=3)
        leading, basis = singular.double()[:count] ** 2 / (len(x) - 1), basis.double()[:, :count]
        rest = float(variances.sum() - leading.sum()) / max(x.shape[1] - count, 1)
        return cls(mean, variances, basis, leading, max(rest, 0.0))

    def losses(self, x0: Tensor, x: Tensor, sigma: float) -> Tensor:
        """The squared errors of the better of both estimates, shape (B,), for clean and noisy samples (B, d)."""
        y, squared = x - self.mean, sigma**2
        by_coordinate = self.variances / (self.variances + squared) * y
        gains, rest = self.leading / (self.leading + squared), self.rest / (self.rest + squared)
        by_direction = rest * y + ((y @ self.basis) * (gains - rest)) @ self.basis.T
        both = [(self.mean + part - x0).square().sum(1) for part in (by_coordinate, by_direction)]
        return min(both, key=lambda loss: float(loss.mean()))
