r"""The max-sliced 2-Wasserstein distance, by gradient ascent on the direction,

.. math:: \text{max-}SW_2 = \max_{|u| = 1} W_2(\langle u, a \rangle, \langle u, b \rangle).

In d dimensions a random direction has a cosine of about :math:`d^{-1/2}` with the worst one, from where the ascent ends
in one of many local maxima. So it starts from where moments differ. Of samples z that are whitened together, these are
the difference of the means, the principal axes of both sets, the directions in which the variances differ by the
largest ratio, and, where neither means nor covariances differ,

.. math:: \Delta E\big[(|z|^2 - d)\, z\big], \qquad
    \text{the extreme eigenvectors of } \Delta E\big[(|z|^2 - d)\, z z^T\big],

along which a skewed or a split direction stands out. The best few of these and of random directions, and the last three
in any case, are improved by Adam, in rounds, until a round raises the largest distance by less than a thousandth: then
the search has converged. That the maximum is the largest one is not known; how many starts have come to within a
hundredth of it says how likely that is. Two modes instead of a normal of the same moments, in one of a hundred
directions, are found among 20,000 samples, and not among 4,000.

The search may use a part of the samples; the value is that of all. It is a maximum over directions fitted to these very
samples, and large without any difference of the laws, of the order of :math:`(d / n)^{1/2}`: compare it with the floor.

References:
    Deshpande et al., *Max-Sliced Wasserstein Distance and its Use for GANs*, CVPR 2019, arXiv 1904.05877 (the distance;
    the starts and the check are ours).

    Cardoso, *Source Separation Using Higher Order Moments*, ICASSP 1989 (the weighted fourth moments).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from headstart.errors import InputError
from headstart.metrics.checks import check_same_shape, check_samples, evenly
from headstart.metrics.frechet import ROWS, GaussianMoments, GaussianStatistics
from headstart.metrics.jackknife import groups_of, jackknife, others
from headstart.metrics.metric import METRICS, Comparison, Metric, Value
from headstart.metrics.wasserstein import CHUNK, compare, directions_of, project, quantile_steps, squares

__all__ = ["AscendedSliced", "MaxSliced", "max_sliced"]

#: First step of Adam in each round, of a coordinate and of the whole direction at most; it falls to 0 as a cosine.
STEP, STRIDE = 0.05, 0.5
#: Relative gain of a round below which the search has converged, and relative distance of starts that agree.
GAIN, AGREE = 1e-3, 1e-2

Steps = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class MaxSliced:
    """The result of :func:`max_sliced`.

    Attributes:
        value: the largest 2-Wasserstein distance of projections that was found, in the data's units.
        error: its standard error along that direction, by the jackknife over the first set.
        direction: where it is, a unit vector of shape (d,), in float64.
        converged: whether the last round raised the distance by less than a thousandth.
        agreeing: how many of the starts came to within a hundredth of the best.
        starts: how many directions were improved.
        n: samples of the first set.
        n_reference: samples of the second.
        seed: of the random directions and of the jackknife.
    """

    value: float
    error: float
    direction: Tensor
    converged: bool
    agreeing: int
    starts: int
    n: int
    n_reference: int
    seed: int

    def __repr__(self) -> str:
        verdict = "" if self.converged else "not converged, "
        return (
            f"MaxSliced({self.value:.3g} +- {self.error:.2g}; {verdict}{self.agreeing} of {self.starts} starts agree; "
            f"n = {self.n} against {self.n_reference})"
        )


def max_sliced(
    a: Tensor,
    b: Tensor,
    *,
    levels: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    searched: int = 10_000,
    random: int = 256,
    ascents: int = 4,
    steps: int = 60,
    rounds: int = 10,
    by_moments: bool = True,
) -> MaxSliced:
    """The max-sliced 2-Wasserstein distance of two sets of samples.

    Arguments:
        a: samples of shape (N, \\*S).
        b: samples of shape (M, \\*S); M need not be N.
        levels: from where to where quantiles are compared: (0.1, 0.9) is the bulk alone, for heavy tails.
        seed: of the random directions and of the jackknife.
        searched: the search uses so many samples of each set, evenly spaced: they may be sorted.
        random: how many random directions are tried.
        ascents: how many directions, the best of all that are tried, are improved.
        steps: of Adam in a round.
        rounds: at most.
        by_moments: whether to start where second, third and fourth moments differ, too; without it, the random
            directions, the difference of the means and the principal axes are tried alone.

    Raises:
        DataError: if a set has fewer than two samples, NaN or Inf, or if the shapes of a sample differ.
        InputError: if the levels, the seed or a count is out of range.
    """
    a, b = check_samples(a, "first samples"), check_samples(b, "second samples")
    check_same_shape(a.shape[1:], b.shape[1:], "samples")
    if searched < 2 or min(random, ascents, steps, rounds) < 1:
        raise InputError(
            f"searched, random, ascents, steps and rounds are {searched}, {random}, {ascents}, {steps} and {rounds}: "
            "expected at least 2 samples, and 1 of everything else"
        )
    x, y = (evenly(side, searched).detach().flatten(1).cpu().double() for side in (a, b))
    pairs = quantile_steps(len(x), len(y), levels)
    tried = _candidates(x, y, random, seed)
    moments = _moments(x, y) if by_moments else (tried[:, :0], tried[:, :0])
    tried = torch.cat([tried, moments[0]], dim=1)
    chosen = _values(x, y, tried, pairs).topk(min(ascents, tried.shape[1])).indices
    best = torch.cat([tried[:, chosen], moments[1]], dim=1)
    found, values, converged = best, _values(x, y, best, pairs), False
    for _ in range(rounds):
        largest = float(values.max())
        found, values = _keep_better(found, values, x, y, _ascend(x, y, found, pairs, steps), pairs)
        if converged := float(values.max()) <= (1 + GAIN) * largest:
            break
    agreeing = int((values >= (1 - AGREE) * values.max()).sum())
    both = torch.cat([best, found], dim=1)
    ends = squares(project(a, both), project(b, both), quantile_steps(len(a), len(b), levels)).sqrt()
    u = both[:, int(ends.argmax())]
    error = _error(a, b, u, levels, seed)
    return MaxSliced(float(ends.max()), error, u, converged, agreeing, best.shape[1], len(a), len(b), seed)


def _candidates(x: Tensor, y: Tensor, random: int, seed: int) -> Tensor:
    """Random directions, the difference of the means, and the principal axes, of shape (d, K)."""
    d = x.shape[1]
    shift = functional.normalize((x.mean(0) - y.mean(0))[:, None], dim=0)
    axes = [torch.linalg.eigh(GaussianStatistics.of(side).covariance)[1] for side in (x, y)]
    return torch.cat([directions_of(d, random, seed), shift, *axes], dim=1)


def _moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where second moments differ, shape (d, d), and where third and fourth do, shape (d, 3), of whitened samples."""
    moments = GaussianMoments()
    moments.update(x)
    own = moments.statistics()
    moments.update(y)
    both = moments.statistics()
    values, vectors = torch.linalg.eigh(both.covariance)
    whiten = vectors * values.clamp_min(1e-6 * float(values[-1]) or 1.0).rsqrt()
    second = torch.linalg.eigh(whiten.T @ own.covariance @ whiten)[1]
    (third, fourth), (third_y, fourth_y) = (_weighted(side, both.mean, whiten) for side in (x, y))
    extreme = torch.linalg.eigh(fourth - fourth_y)[1][:, [0, -1]]
    return functional.normalize(whiten @ second, dim=0), functional.normalize(
        whiten @ torch.cat([(third - third_y)[:, None], extreme], dim=1), dim=0
    )


def _weighted(x: Tensor, mean: Tensor, whiten: Tensor) -> tuple[Tensor, Tensor]:
    """E[(|z|^2 - d) z] and E[(|z|^2 - d) z z^T] of whitened samples z, of shapes (d,) and (d, d), part by part."""
    d = x.shape[1]
    third, fourth = x.new_zeros(d), x.new_zeros(d, d)
    for part in torch.split(x, ROWS):
        z = (part - mean) @ whiten
        away = (z.square().sum(1, keepdim=True) - d) * z
        third += away.sum(0)
        fourth += away.T @ z
    return third / len(x), fourth / len(x)


def _ascend(x: Tensor, y: Tensor, start: Tensor, pairs: Steps, steps: int) -> Tensor:
    """Unit vectors that Adam has improved, each on its own."""
    i, j, weights = pairs
    free = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=min(STEP, STRIDE / math.sqrt(len(start))))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        u = functional.normalize(free, dim=0)
        gap = (x @ u).sort(dim=0).values[i] - (y @ u).sort(dim=0).values[j]
        (-(weights @ gap.square()).sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        decay.step()
    return functional.normalize(free.detach(), dim=0)


def _keep_better(old: Tensor, values: Tensor, x: Tensor, y: Tensor, new: Tensor, pairs: Steps) -> tuple[Tensor, Tensor]:
    """Of each start the better direction, before or after a round, and its distance."""
    gained = _values(x, y, new, pairs)
    return torch.where(gained > values, new, old), torch.maximum(gained, values)


def _values(x: Tensor, y: Tensor, u: Tensor, pairs: Steps) -> Tensor:
    """The distance along each direction, shape (K,)."""
    chunks = torch.split(u, CHUNK, dim=1)
    return torch.cat([squares(project(x, part), project(y, part), pairs) for part in chunks]).sqrt()


def _error(a: Tensor, b: Tensor, u: Tensor, levels: tuple[float, float], seed: int) -> float:
    """The jackknife's error at a fixed direction: at a maximum, its own changes make no difference of first order."""
    along, real = (side.detach().flatten(1).to(torch.promote_types(side.dtype, torch.float32)) for side in (a, b))
    along, real = along @ u.to(along), real @ u.to(real)
    groups = groups_of(len(a), seed)
    rest = [along[others(groups, g).to(along.device)].sort().values[None].cpu() for g in range(len(groups))]
    fixed = real.sort().values[None].cpu()
    return jackknife([compare(part, fixed, levels).mean for part in rest])


@METRICS.register
class AscendedSliced(Metric):
    """Max-sliced Wasserstein distance, by ascent from several starts, with a check of convergence."""

    name = "max_sliced"
    cites = ("deshpande2019max",)
    cost = "N d per step of the ascent"

    @classmethod
    def score(cls, compared: Comparison) -> Value:
        real = compared.reference.samples
        if real is None:
            raise InputError("the reference keeps no samples: make it with keep=True")
        found = max_sliced(compared.samples, real, seed=compared.reference.seed)
        return Value(found.value, found.error, found.converged)
