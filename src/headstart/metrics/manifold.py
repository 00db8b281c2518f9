r"""Are samples like data, and are all data covered? Precision and recall, density and coverage.

Both sets of features are taken for the union of balls around their points, each as wide as the distance to the k-th
nearest other point of its set. With samples :math:`y_1 \dots y_M`, real points :math:`x_1 \dots x_N`, and balls
:math:`B(\cdot)` of their own sets,

.. math:: \text{precision} = \frac1M \sum_j \mathbf 1\Big[ y_j \in \bigcup_i B(x_i) \Big], \qquad
    \text{recall} = \frac1N \sum_i \mathbf 1\Big[ x_i \in \bigcup_j B(y_j) \Big],

.. math:: \text{density} = \frac{1}{k M} \sum_j \sum_i \mathbf 1[y_j \in B(x_i)], \qquad
    \text{coverage} = \frac1N \sum_i \mathbf 1\Big[ \min_j |x_i - y_j| \le r(x_i) \Big].

In the first pair one outlier's wide ball can cover much of the space; the second counts how many balls a sample is in,
and never takes balls around samples. For samples of the data's own law the second pair has known means,

.. math:: E\,\text{density} = 1, \qquad E\,\text{coverage} = 1 - \prod_{i = 1}^k \frac{N - i}{N + M - i},

while precision and recall depend on the law. All are of N and M points: compare at equal counts, and with the floor.

Errors are standard errors for samples drawn again, the real data held fixed: precision and density are means over the
samples; recall and coverage take the delete-a-group jackknife.

No matrix of all distances is made. They are computed for blocks of both sets, around the mean of the real data, in the
features' own precision (float32 at least): rounding moves points that lie on the edge of a ball to 7 digits.

References:
    Kynkäänniemi, Karras, Laine, Lehtinen and Aila, *Improved Precision and Recall Metric for Assessing Generative
    Models*, NeurIPS 2019, arXiv 1904.06991.

    Naeem, Oh, Uh, Choi and Yoo, *Reliable Fidelity and Diversity Metrics for Generative Models*, ICML 2020,
    arXiv 2002.09797.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics.checks import check_same_shape, check_samples
from headstart.metrics.jackknife import groups_of, jackknife
from headstart.metrics.metric import METRICS, Comparison, Metric, Value
from headstart.progress import Progress

__all__ = ["Coverage", "Density", "Manifold", "Precision", "Recall", "manifold"]

#: Neighbours whose distances are the radii, as in the papers.
K, K_DENSITY = 3, 5
#: Points of either set whose distances are worked on at a time, which bounds the memory.
BLOCK = 4096
#: Neighbours beyond 2 k that are kept, so that k are left without any one group.
SPARE = 10


@dataclass(frozen=True)
class Manifold:
    """The result of :func:`manifold`: four scores, of which larger is better, each with its standard error.

    Attributes:
        precision: share of the samples that are like data.
        recall: share of the data that are like samples.
        density: how many balls of the data a sample is in, over k; it may exceed 1.
        coverage: share of the balls of the data that have a sample in them.
        errors: the standard error of each, by its name.
        k: neighbour whose distance is the radius, for precision and recall.
        k_density: the same for density and coverage.
        n: samples.
        n_reference: real samples.
        seed: of the groups of the jackknife.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    errors: dict[str, float]
    k: int
    k_density: int
    n: int
    n_reference: int
    seed: int

    def __repr__(self) -> str:
        names = ("precision", "recall", "density", "coverage")
        scores = ", ".join(f"{name} {getattr(self, name):.3f} +- {self.errors[name]:.2g}" for name in names)
        return f"Manifold({scores}; n = {self.n} against {self.n_reference}, k = {self.k} and {self.k_density})"


def least(k: int = K, k_density: int = K_DENSITY) -> int:
    """The points of either set that so many neighbours ask for."""
    return 2 * max(k, k_density) + 2


@torch.no_grad()
def manifold(
    features: Tensor,
    real: Tensor,
    *,
    k: int = K,
    k_density: int = K_DENSITY,
    seed: int = 0,
    progress: Progress | None = None,
) -> Manifold:
    """Precision, recall, density and coverage of samples, from their features and those of real data.

    Arguments:
        features: of the samples, shape (M, F).
        real: of the real data, shape (N, F).
        k: neighbour whose distance is the radius, for precision and recall; 3 as in the paper.
        k_density: the same for density and coverage; 5 as in the paper.
        seed: of the groups of the jackknife.
        progress: told of the blocks.

    Raises:
        DataError: if a set has fewer than 2 k + 2 points, NaN or Inf, or if the numbers of features differ.
        InputError: if k is below 1 or the seed is out of range.
    """
    features, real = check_samples(features, "features"), check_samples(real, "real features")
    check_same_shape(features.shape[1:], real.shape[1:], "features")
    widest, rows = max(k, k_density), least(k, k_density)
    if min(k, k_density) < 1:
        raise InputError(f"the neighbours are number {k} and {k_density}: expected at least 1")
    if features.ndim != 2 or min(len(features), len(real)) < rows:
        raise DataError(
            f"the features have shapes {tuple(features.shape)} and {tuple(real.shape)}: "
            f"neighbour {widest} asks for at least {rows} rows"
        )
    progress = progress or Progress()
    dtype = torch.promote_types(features.dtype, real.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    centre = real.mean(0, dtype=dtype)
    space = _Space(centre)

    groups = groups_of(len(features), seed)
    radii = space.neighbours(real, widest, "neighbours of the data", progress)[0]
    balls = _balls(*space.neighbours(features, 2 * k + SPARE, "neighbours of the samples", progress), k, groups)
    tally = _Tally.of(len(features), len(real), len(groups), centre)
    tally.count(space, features, real, groups, (radii[:, k - 1], radii[:, k_density - 1]), balls, progress)

    nearest, edge = tally.nearest, radii[:, k_density - 1]
    scores = {
        "precision": _mean(tally.precise),
        "recall": (_share(tally.recalled[:, -1]), jackknife([_share(hit) for hit in tally.recalled[:, :-1].T])),
        "density": _mean(tally.inside.double() / k_density),
        "coverage": (
            _share(nearest.min(1).values <= edge),
            jackknife([_share(_without(nearest, g).min(1).values <= edge) for g in range(len(groups))]),
        ),
    }
    values = {name: value for name, (value, _) in scores.items()}
    errors = {name: error for name, (_, error) in scores.items()}
    return Manifold(
        **values, errors=errors, k=k, k_density=k_density, n=len(features), n_reference=len(real), seed=seed
    )


class _Space:
    """Squared distances between rows, around a centre where they cancel less."""

    def __init__(self, centre: Tensor) -> None:
        self.centre = centre

    def squares(self, x: Tensor, y: Tensor) -> Tensor:
        """All squared distances between the rows of two blocks."""
        x, y = x.to(self.centre) - self.centre, y.to(self.centre) - self.centre
        found = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)
        return found.add_(x.square().sum(1)[:, None]).clamp_(min=0)

    def neighbours(self, x: Tensor, count: int, what: str, progress: Progress) -> tuple[Tensor, Tensor]:
        """Squared distances of each row to its nearest other rows, ascending, and which these are: (N, count) both."""
        count = min(count, len(x) - 1)
        values, indices = [], []
        starts = range(0, len(x), BLOCK)
        for i in progress.track(starts, what, len(starts)):
            rows = x[i : i + BLOCK]
            best = torch.full((len(rows), 0), math.inf).to(self.centre)
            which = torch.zeros(len(rows), 0, dtype=torch.long, device=best.device)
            for j in range(0, len(x), BLOCK):
                squares = self.squares(rows, x[j : j + BLOCK])
                if i == j:
                    squares.fill_diagonal_(math.inf)
                near = squares.topk(min(count, squares.shape[1]), largest=False)
                best, which = torch.cat([best, near.values], 1), torch.cat([which, near.indices + j], 1)
                kept = best.topk(min(count, best.shape[1]), largest=False)
                best, which = kept.values, which.gather(1, kept.indices)
            values.append(best)
            indices.append(which)
        return torch.cat(values), torch.cat(indices)


def _balls(squares: Tensor, indices: Tensor, k: int, groups: Sequence[Tensor]) -> Tensor:
    """The squared radius of each sample's ball without each group, and last with all, shape (M, groups + 1).

    A ball whose own centre is left out contains nothing, -1. Where fewer than k of the kept neighbours are left, which
    random groups do not bring about, the last of them gives the radius.
    """
    group = torch.empty(len(squares), dtype=torch.long)
    for g, members in enumerate(groups):
        group[members] = g
    group = group.to(squares.device)
    radii = torch.empty(len(squares), len(groups) + 1).to(squares)
    for g in range(len(groups)):
        left = (group[indices] != g).cumsum(1)
        place = (left < k).sum(1).clamp_max(squares.shape[1] - 1)
        radii[:, g] = squares.gather(1, place[:, None])[:, 0].masked_fill(group == g, -1)
    radii[:, -1] = squares[:, k - 1]
    return radii


@dataclass
class _Tally:
    """The counts of each point, from which :func:`manifold` computes its scores.

    Attributes:
        precise: whether each sample is in a ball of the data, shape (M,).
        inside: how many balls of the data each sample is in, shape (M,).
        recalled: whether each real point is in a ball of the samples without each group, and with all.
        nearest: squared distance of each real point to the nearest sample of each group, shape (N, groups).
    """

    precise: Tensor
    inside: Tensor
    recalled: Tensor
    nearest: Tensor

    @classmethod
    def of(cls, samples: int, real: int, groups: int, like: Tensor) -> _Tally:
        return cls(
            torch.zeros(samples, dtype=torch.bool, device=like.device),
            torch.zeros(samples, dtype=torch.long, device=like.device),
            torch.zeros(real, groups + 1, dtype=torch.bool, device=like.device),
            torch.full((real, groups), math.inf).to(like),
        )

    def count(
        self,
        space: _Space,
        features: Tensor,
        real: Tensor,
        groups: Sequence[Tensor],
        edges: tuple[Tensor, Tensor],
        balls: Tensor,
        progress: Progress,
    ) -> None:
        """Go through the distances between both sets, block by block; ``edges`` are for precision and for density."""
        tiles = [(g, tile) for g, group in enumerate(groups) for tile in torch.split(group.to(real.device), BLOCK)]
        starts = range(0, len(real), BLOCK)
        for i in progress.track(starts, "samples among data", len(starts)):
            rows = slice(i, i + BLOCK)
            for g, tile in tiles:
                squares = space.squares(real[rows], features[tile.to(features.device)])
                self.precise[tile] |= (squares <= edges[0][rows, None]).any(0)
                self.inside[tile] += (squares <= edges[1][rows, None]).sum(0)
                self.nearest[rows, g] = torch.minimum(self.nearest[rows, g], squares.min(1).values)
                for column, radii in enumerate(balls[tile].T):
                    if column != g:
                        self.recalled[rows, column] |= (squares <= radii).any(1)


def _mean(values: Tensor) -> tuple[float, float]:
    """The mean of independent values, and its standard error."""
    x = values.double()
    return float(x.mean()), float(x.std()) / math.sqrt(len(x))


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())


def _without(columns: Tensor, g: int) -> Tensor:
    return torch.cat([columns[:, :g], columns[:, g + 1 :]], 1)


def _neighbours(compared: Comparison) -> Manifold:
    return manifold(compared.rows, compared.real_rows, seed=compared.reference.seed, progress=compared.progress)


class _Share(Metric):
    """One of the four scores, which are computed together."""

    cost = "(N + M)² F"
    of_features = True
    smaller = False
    least = least()

    @classmethod
    def score(cls, compared: Comparison) -> Value:
        found = compared.once(_neighbours)
        return Value(getattr(found, cls.name), found.errors[cls.name])


@METRICS.register
class Precision(_Share):
    """Share of the samples that are like data."""

    name = "precision"
    cites = ("kynkaanniemi2019improved",)


@METRICS.register
class Recall(_Share):
    """Share of the data that are like samples."""

    name = "recall"
    cites = ("kynkaanniemi2019improved",)


@METRICS.register
class Density(_Share):
    """Number of the data's balls that a sample is in: precision, less moved by outliers."""

    name = "density"
    cites = ("naeem2020reliable",)


@METRICS.register
class Coverage(_Share):
    """Share of the data's balls with a sample in them: recall, less moved by outliers."""

    name = "coverage"
    cites = ("naeem2020reliable",)
