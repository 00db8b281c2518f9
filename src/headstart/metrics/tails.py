r"""Are the tails of a start as heavy as those of the noised data? Along unit vectors u, with medians m_u,

.. math:: Q(q, u) = \text{the } q \text{-quantile of } |\langle u, x \rangle - m_u|, \qquad
    g(q) = \operatorname*{mean}_u\, \ln \frac{Q_\text{start}(q, u)}{Q_\text{data}(q, u)},

at q = 0.99, 0.999 and 0.9999; the criterion is the g of largest absolute value. It is negative where the start misses
tails. The Kullback-Leibler divergence cannot replace it, since it is blind to tails: for t_3 data, unit scale, noised
by sigma = 7, the Gaussian of the same moments is 0.0014 nats away, and its 0.999999 quantile is a third of the data's.

The mean over directions leaves out the lower and the upper quarter, so that one direction whose largest value is an
accident says nothing. A start that misses the tail of one direction in a hundred passes: give that direction.

The standard error is a bootstrap's, over samples, each with all its directions, since neighbouring pixels are large
together. Quantiles are median-unbiased ones (Hyndman and Fan, *Sample Quantiles in Statistical Packages*, The American
Statistician, 1996, number 8), so that two sample sizes can be compared, and a level counts only if both sets
have samples beyond it: 2 along each direction, and 10 over all of them.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (quantiles of heavy
    tails by level; the criterion, its levels and its error are ours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics.checks import check_same_shape, check_samples
from headstart.noise import generator_of

__all__ = ["Quantile", "TailGap", "TailLevel", "quantile_table", "tail_gap"]

#: What is said of data without tails.
EQUAL = "the values along some direction are nearly all equal: they have no tails to compare"
#: The levels at which tails are compared.
LEVELS = (0.99, 0.999, 0.9999)
#: Coordinates that are looked along by default; of more, those of the largest variance.
DIRECTIONS = 128
#: Samples beyond a level, along one direction and over all of them, from which its quantile counts.
EACH, POOLED = 2, 10
#: Bootstrap samples that a standard error is of.
BOOTSTRAP = 100
#: The largest |gap| that is no concern: a tenth, of which a plot of quantiles shows nothing.
LIMIT = 0.1


@dataclass(frozen=True)
class TailLevel:
    """One level of a comparison of tails.

    Attributes:
        level: q.
        start: geometric mean over directions of the start's quantile of \\|x - median\\|, in the data's units.
        data: that of the data.
        gap: mean logarithm of their ratio; negative where the start misses tails.
        error: its standard error.
    """

    level: float
    start: float
    data: float
    gap: float
    error: float


@dataclass(frozen=True)
class TailGap:
    """The result of :func:`tail_gap`.

    Attributes:
        value: the gap that is largest in absolute value; negative where the start misses tails.
        error: its standard error.
        level: where it is.
        table: all levels that both sets resolve.
        n: samples of the start.
        n_data: samples of the data.
        directions: how many directions the quantiles are along.
    """

    value: float
    error: float
    level: float
    table: tuple[TailLevel, ...]
    n: int
    n_data: int
    directions: int

    def misses(self, limit: float = LIMIT) -> bool:
        """Whether at some level the start is lighter-tailed than the data by more than ``limit``, two errors aside.

        Raises:
            InputError: if the limit is negative or not finite.
        """
        if not 0 <= limit < math.inf:
            raise InputError(f"the limit of a tail gap must be from 0, got {limit}")
        return any(row.gap + 2 * row.error < -limit for row in self.table)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the verdict at the default limit."""
        return {**asdict(self), "misses": self.misses()}

    def __repr__(self) -> str:
        verdict = "misses tails: " if self.misses() else ""
        return (
            f"TailGap({verdict}{self.value:+.3f} +- {self.error:.3f} at {self.level:g}; "
            f"n = {self.n} against {self.n_data}, {self.directions} directions)"
        )


@dataclass(frozen=True)
class Quantile:
    """A quantile of each coordinate: its mean and standard deviation over the coordinates."""

    level: float
    mean: float
    std: float


def tail_gap(
    samples: Tensor,
    data: Tensor,
    *,
    levels: Sequence[float] = LEVELS,
    directions: Tensor | None = None,
    seed: int = 0,
) -> TailGap:
    """How much lighter (negative) or heavier the tails of a start are than those of the noised data.

    Arguments:
        samples: samples of the start at a noise level, shape (N, \\*S).
        data: held-out data with noise of that level, shape (M, \\*S).
        levels: quantiles q between 0.5 and 1; those that the sample sizes do not resolve are left out.
        directions: vectors to look along, shape (K, d); by default the coordinates, or the 128 of the data's largest
            variance.
        seed: of the bootstrap.

    Raises:
        DataError: if there are fewer than two samples, or NaN or Inf, or shapes that differ, or if along some direction
            more than a level of the values are equal.
        InputError: if a level is out of range, or none is resolved; directions do not fit; the seed is out of range.
    """
    samples, data = check_samples(samples, "start's samples"), check_samples(data, "data")
    check_same_shape(data.shape[1:], samples.shape[1:], "data and the start's samples")
    if not levels or not all(0.5 < level < 1 for level in levels):
        raise InputError(f"the levels of tails must be between 0.5 and 1, got {tuple(levels)}")
    start, real = _along(samples, data, directions)
    n = min(len(samples), len(data))
    beyond = max(EACH, POOLED / start.shape[1])
    resolved = [level for level in levels if _enough(n * (1 - level), beyond)]
    if not resolved:
        least = math.ceil(round(beyond / (1 - min(levels)), 6))
        raise InputError(f"{n} samples do not resolve the {min(levels):g} quantile: at least {least} do")

    generator = generator_of(seed)
    sides = [_Top(side, resolved) for side in (start, real)]
    q_start, q_data = (side.log_quantiles() for side in sides)
    draws = torch.stack(
        [_mean(sides[0].resampled(generator) - sides[1].resampled(generator)) for _ in range(BOOTSTRAP)]
    )
    if not torch.isfinite(draws).all():  # a bootstrap rank lies among values that are equal
        raise DataError(EQUAL)
    columns = (_mean(q_start).exp(), _mean(q_data).exp(), _mean(q_start - q_data), draws.std(0))
    table = tuple(TailLevel(*row) for row in zip(resolved, *(column.tolist() for column in columns), strict=True))
    largest = max(table, key=lambda row: abs(row.gap))
    return TailGap(largest.gap, largest.error, largest.level, table, len(samples), len(data), start.shape[1])


def quantile_table(samples: Tensor, levels: Sequence[float]) -> tuple[Quantile, ...]:
    """The quantiles of the coordinates themselves, from bulk to tail, as mean and standard deviation over coordinates.

    Arguments:
        samples: shape (N, \\*S).
        levels: between 0 and 1, and such that at least one sample is expected on either side.

    Raises:
        DataError: if there are fewer than two samples, or NaN or Inf.
        InputError: if a level is out of range or not resolved.

    >>> quantile_table(torch.arange(101.0)[:, None].repeat(1, 3), [0.5])
    (Quantile(level=0.5, mean=50.0, std=0.0),)

    References:
        Fassina et al., arXiv 2603.00772, Figure 2 of the first version.
    """
    samples = check_samples(samples, "samples")
    n = len(samples)
    for level in levels:
        if not 0 < level < 1 or not _enough(n * min(level, 1 - level), 1):
            raise InputError(f"{n} samples do not resolve the {level:g} quantile: expected one on either side")
    x = samples.detach().flatten(1).double().cpu().numpy()
    found = np.quantile(x, levels, axis=0, method="median_unbiased")
    return tuple(Quantile(q, float(row.mean()), float(row.std())) for q, row in zip(levels, found, strict=True))


class _Top:
    """The largest of \\|x - median\\| along each direction, from which quantiles are read, also of weighted samples."""

    def __init__(self, x: Tensor, levels: Sequence[float]) -> None:
        away = (x - x.median(0).values).abs()
        self.n = len(x)
        tails = torch.tensor([1 - level for level in levels], dtype=torch.float64)
        self.ranks = tails * (self.n + 1 / 3) + 1 / 3  # counted from the largest: number 8 of Hyndman and Fan
        deepest = float(self.ranks.max())
        keep = min(self.n, math.ceil(deepest + 10 * math.sqrt(deepest)) + 10)  # beyond any bootstrap rank
        values, self.order = away.T.topk(keep, dim=1)
        if not (values[:, min(self.n - 1, math.ceil(deepest))] > 0).all():
            raise DataError(EQUAL)
        self.logs = values.log()

    def log_quantiles(self) -> Tensor:
        """Logarithms of the quantiles, shape (directions, levels)."""
        return self._read(torch.ones(self.n, dtype=torch.float64))

    def resampled(self, generator: torch.Generator) -> Tensor:
        """The same of n samples drawn with replacement."""
        index = torch.randint(self.n, (self.n,), generator=generator)
        return self._read(torch.bincount(index, minlength=self.n).double())

    def _read(self, counts: Tensor) -> Tensor:
        """Between the two order statistics next to each rank, of samples that occur ``counts`` times."""
        seen = counts[self.order].cumsum(1)
        above = self.ranks.floor()
        index = [torch.searchsorted(seen, rank.repeat(len(seen), 1)) for rank in (above, above + 1)]
        upper, lower = (self.logs.gather(1, i.clamp_max(seen.shape[1] - 1)) for i in index)
        return upper + (self.ranks - above) * (lower - upper)


def _along(samples: Tensor, data: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both sets along the directions, in float64 and on the CPU, shapes (N, directions) and (M, directions)."""
    x, y = (side.detach().flatten(1).cpu().double() for side in (samples, data))
    if directions is None:
        chosen = torch.arange(x.shape[1])
        if x.shape[1] > DIRECTIONS:
            chosen = y.var(0).topk(DIRECTIONS).indices
        return x[:, chosen], y[:, chosen]
    u = directions.detach().cpu().double()
    if u.ndim != 2 or not len(u) or u.shape[1] != x.shape[1] or not torch.isfinite(u).all() or not u.any(1).all():
        raise InputError(
            f"directions have shape {tuple(u.shape)}: expected (K, {x.shape[1]}), finite, none of them zero"
        )
    u = torch.nn.functional.normalize(u, dim=1)
    return x @ u.T, y @ u.T


def _mean(values: Tensor) -> Tensor:
    """The mean over the first axis of the middle half of the values, of whole values, at least one."""
    cut = (len(values) - 1) // 4
    return values.sort(0).values[cut : len(values) - cut].mean(0)


def _enough(count: float, least: float) -> bool:
    return count >= least * (1 - 1e-9)  # 1 - 0.999 is not 0.001
