r"""A Gaussian mixture in the leading principal components, every other direction Gaussian.

Noised at level sigma, each of its K components keeps its mean and eigenvectors and widens:

.. math:: p_\theta(z) = \sum_k w_k N(z;\ m_k,\ Q_k (\Lambda_k + \sigma^2 I) Q_k^T).

It is fitted once, by expectation maximisation on clean data, and is then exact at every horizon. With labels, each
class has components of its own; without a label the classes are mixed as in the data.

**Expectation maximisation, truncated.** In tens of dimensions a point belongs to one component, or to a few that are
near each other. So only the :data:`CANDIDATES` components whose k-means centres are nearest to a point share it, which
costs :math:`O(n\, m^2)` for n points in m dimensions, whatever the number of components. Covariances are drawn towards
:math:`\bar\Sigma`, that of all points about their k-means centres, with the weight of m / 8 points,

.. math:: \Sigma_k = \frac{\sum_n r_{nk} (z_n - m_k)(z_n - m_k)^T + \frac m8 \bar\Sigma}{\sum_n r_{nk} + \frac m8},

so that a class of one sample gets a component as wide as the others, and does not hand that sample back.

References:
    Lücke and Eggert, *Expectation Truncation and the Benefits of Preselection in Training Generative Models*, JMLR,
    2010 (expectations over a few preselected causes).

    Fraley and Raftery, *Bayesian Regularization for Normal Mixture Estimation and Model-Based Clustering*, Journal of
    Classification, 2007 (the common prior of the covariances).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.errors import InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.gaussian import log_normal
from headstart.initialization.memory import owned
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise, generator_of
from headstart.saved import SQUARE, Saved

__all__ = ["Mixture", "components_of", "picked", "searched", "stretched"]

#: Numbers of components, and of dimensions, among which the held-out likelihood chooses.
COMPONENTS, DIMENSIONS = (1, 25, 50, 100, 200, 400), (128, 64, 32)

#: The noise at which it chooses, in units of the data's standard deviation: that of the shortest horizons of use.
CHOSEN_AT = 0.5

#: Points that a component needs at least.
POINTS = 20

#: Components that share a point.
CANDIDATES = 8

#: Expectation maximisation's iterations: held-out likelihood on images is flat after the second.
ITERATIONS = 3

#: Numbers that densities are worked on with at a time, which bounds the memory.
NUMBERS = 2**23

#: Points that are fitted on at most, and points that k-means sees at most.
MOST, CLUSTERED = 200_000, 20_000


@INITIALIZATIONS.register
class Mixture(Initialization):
    """A Gaussian mixture in a subspace.

    Arguments:
        shape: the shape of one sample.
        subspace: the leading directions; the mixture models the first m of them.
        weights: shape (K,), positive, summing to 1.
        means: shape (K, m).
        eigenvectors: of the covariances, shape (K, m, m), in columns.
        eigenvalues: of the covariances, shape (K, m).
        owners: the class of each component, shape (K,), or None.
    """

    name = "mixture"
    cites = ("fassina2026initialization", "lucke2010expectation", "fraley2007bayesian")
    usual = True

    def __init__(
        self,
        shape: Sequence[int],
        subspace: Subspace,
        weights: Tensor,
        means: Tensor,
        eigenvectors: Tensor,
        eigenvalues: Tensor,
        owners: Tensor | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.subspace = subspace
        self.weights, self.means = owned(weights), owned(means)
        self.eigenvectors, self.eigenvalues = owned(eigenvectors), owned(eigenvalues)
        self.owners = None if owners is None else owned(owners)
        self.knows = () if owners is None else ("label",)

    @classmethod
    def fit(
        cls,
        data: Tensor,
        components: int | None = None,
        dimensions: int | None = None,
        *,
        labels: Tensor | None = None,
        subspace: Subspace | None = None,
        seed: int = 0,
    ) -> Mixture:
        """Fit to clean data (N, \\*S), by expectation maximisation in float64, on at most 200,000 of them.

        Arguments:
            data: the samples.
            components: number of components K, shared out over the classes by their size if there are labels; fewer
                where there are not 20 samples for each. By default the number up to 400 with the best likelihood on
                samples held out from the fit, noised at half the data's standard deviation.
            dimensions: number of leading directions m that the mixture models; by default 32, 64 or 128, chosen
                likewise.
            labels: classes, shape (N,); each class then gets components of its own.
            subspace: the leading directions, at least as many; by default 256 are fitted.
            seed: of the k-means start and of what is held out.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
            InputError: if the numbers are below 1, or the labels do not fit the data.
        """
        for number in (components, dimensions):
            if number is not None and number < 1:
                raise InputError(
                    f"a mixture needs at least 1 component and 1 dimension: got {components} and {dimensions}"
                )
        if labels is not None and labels.shape != (len(data),):
            raise InputError(f"there are {labels.numel()} labels for {len(data)} samples")
        subspace = Subspace.fit(data, max(dimensions or 0, 256)) if subspace is None else subspace
        order = _some(len(data), labels, generator_of(seed))
        z = torch.cat([subspace.split(data[part])[0] for part in torch.split(order, 4096)])
        points = _Points(z, None if labels is None else labels.cpu()[order], subspace, seed)
        if components is None or dimensions is None:
            components, dimensions = points.best_size(components, dimensions)
        return points.fitted(data.shape[1:], components, dimensions)

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        normal = noise.normal((self.subspace.dimension,))
        pick = picked(self._chances(given.get("label")), noise)
        z = self.subspace.leading(normal)
        coordinates = (self.subspace.variances + sigma**2).sqrt().to(normal) * z
        m = self.means.shape[1]
        q, scales = self.eigenvectors[pick].to(normal), (self.eigenvalues[pick] + sigma**2).sqrt().to(normal)
        coordinates[:, :m] = self.means[pick].to(normal) + stretched(z[:, :m], q, scales)
        return self.subspace.compose(normal, z, coordinates, sigma).reshape(-1, *self.shape)

    def _chances(self, label: Tensor | None) -> Tensor:
        """The sums of the weights up to each component: (1, K), or (B, K) given classes (B,)."""
        if label is None or self.owners is None:
            return self._unconditional
        return self._log_weights(label).exp().cumsum(-1)

    @cached_property
    def _unconditional(self) -> Tensor:
        return self._log_weights(None).exp().cumsum(-1)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        z, rest = self.subspace.split(x)
        return self.log_prob_leading(z, sigma, given.get("label")) + self.subspace.log_prob_rest(rest, sigma)

    def log_prob_leading(self, z: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        """Log density of the leading coordinates (B, k) of noised data alone, in nats."""
        m = self.means.shape[1]
        density = torch.empty(len(z), dtype=torch.float64)
        for rows, own in self._own_components(len(z), label):
            log_weights = self.weights[own].log()
            log_weights = log_weights if len(own) == len(self.weights) else torch.log_softmax(log_weights, dim=0)
            means, variances = self.means[own], self.eigenvalues[own] + sigma**2
            eigenvectors = self.eigenvectors[own].double()
            for some in torch.split(rows, max(1, min(1024, NUMBERS // means.numel()))):
                turned = torch.einsum("bki,kij->bkj", z[some, None, :m] - means, eigenvectors)
                density[some] = torch.logsumexp(log_weights + log_normal(turned, variances), dim=-1)
        return density + log_normal(z[:, m:], self.subspace.variances[m:] + sigma**2)

    def _own_components(self, count: int, label: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices of samples that have the same components, and those of the components."""
        if label is None or self.owners is None:
            yield torch.arange(count), torch.arange(len(self.weights))
            return
        for owner in sorted(set(label.tolist())):
            own = (self.owners == owner).nonzero()[:, 0]
            if not len(own):
                raise InputError(self._unknown())
            yield (label.cpu() == owner).nonzero()[:, 0], own

    def _log_weights(self, label: Tensor | None) -> Tensor:
        """Log weights of the components: (1, K), or (B, K) given classes (B,)."""
        log_weights = self.weights.log()[None]
        if label is None or self.owners is None:
            return log_weights
        own = label.cpu()[:, None] == self.owners
        if not own.any(dim=1).all():
            raise InputError(self._unknown())
        return torch.log_softmax(log_weights.expand(len(own), -1).masked_fill(~own, -torch.inf), dim=-1)

    def _unknown(self) -> str:
        assert self.owners is not None, "a mixture without classes takes any label"
        return f"labels must be among the classes fitted on: {sorted(set(self.owners.tolist()))}"

    def settings(self) -> dict[str, Any]:
        components, dimensions = self.means.shape
        return {"components": components, "dimensions": dimensions}

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        names = ("weights", "means", "eigenvectors", "eigenvalues", "owners")
        tensors = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {"shape": list(self.shape)}, {**self.subspace.tensors(), **tensors}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Mixture:
        saved = Saved(values, tensors)
        shape = saved.shape()
        subspace = Subspace.from_tensors(tensors, math.prod(shape))
        weights, means = saved.tensor("weights", None, low=0.0, high=1.001), saved.tensor("means", None, None)
        k, m = means.shape
        if m > len(subspace.variances) or len(weights) != k or not weights.sum() > 0.5:
            raise InputError(f"the weights and means of {k} components in {m} dimensions do not fit the rest")
        eigenvalues = saved.tensor("eigenvalues", k, m, low=-SQUARE, high=SQUARE)
        if eigenvalues.min() < -1e-9 * eigenvalues.max().clamp_min(0.0):  # zero up to rounding
            raise InputError(f"eigenvalues are at least 0: got {float(eigenvalues.min()):g}")
        return cls(
            shape,
            subspace,
            weights.double(),
            means.double(),
            saved.tensor("eigenvectors", k, m, m, low=-1.001, high=1.001),
            eigenvalues.double(),
            saved.classes("owners", k),
        )

    def __repr__(self) -> str:
        components, dimensions = self.means.shape
        classes = "" if self.owners is None else f", classes={len(set(self.owners.tolist()))}"
        return f"Mixture(shape={self.shape}, components={components}, dimensions={dimensions}{classes})"


def picked(chances: Tensor, noise: Noise) -> Tensor:
    """A component for each sample (B,), by the sums of the weights up to each: (1, K), or (B, K)."""
    share = noise.uniform((1,)).cpu().double() * chances[:, -1:]
    return (chances <= share).sum(-1).clamp_max(chances.shape[1] - 1)


def stretched(z: Tensor, q: Tensor, scales: Tensor) -> Tensor:
    """Q diag(scales) Q^T z of each row of z (B, m), for the eigenvectors (B, m, m) and scales (B, m) of each."""
    # As products of rows: with columns, these batches of small matrices take up to ten times as long.
    return torch.bmm(scales[:, None] * torch.bmm(z[:, None], q), q.mT).squeeze(1)


def components_of(points: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (K,), means (K, m) and covariances (K, m, m) of a mixture of points (n, m), in random order."""
    group = _Group(points, count / len(points), seed)
    return group.fitted(group.scatter() / len(points))


class _Points:
    """The points that a mixture is fitted on: leading coordinates (N, k), in random order, and classes (N,)."""

    def __init__(self, z: Tensor, labels: Tensor | None, subspace: Subspace, seed: int) -> None:
        self.z, self.labels, self.subspace, self.seed = z, labels, subspace, seed

    def fitted(self, shape: Sequence[int], components: int, dimensions: int) -> Mixture:
        """The mixture of a given size."""
        z = self.z[:, :dimensions]
        classes = [None] if self.labels is None else sorted(set(self.labels.tolist()))
        groups = [_Group(z if c is None else z[self.labels == c], components / len(z), self.seed) for c in classes]
        common = torch.stack([group.scatter() for group in groups]).sum(0) / len(z)
        parts = []
        for owner, group in zip(classes, groups, strict=True):
            weights, means, covariances = group.fitted(common)
            parts.append((len(group.z) / len(z) * weights, means, covariances, torch.full(weights.shape, owner or 0)))
        weights, means, covariances, owners = (torch.cat(column) for column in zip(*parts, strict=True))
        eigenvalues, eigenvectors = torch.linalg.eigh(covariances)
        return Mixture(
            shape,
            self.subspace,
            weights,
            means,
            eigenvectors.float(),  # they are most of a start's memory, and orthonormal to 1e-7
            eigenvalues.clamp_min(0.0),
            None if self.labels is None else owners,
        )

    def best_size(self, components: int | None, dimensions: int | None) -> tuple[int, int]:
        """The numbers of components and of dimensions with the best likelihood of a tenth that is held out."""
        held = max(1, len(self.z) // 10)
        noised, labels, kept = self.z[:held][:2000], self.labels, None
        if labels is not None:
            labels, kept = labels[:held][:2000], labels[held:]
            known = torch.isin(labels, kept)
            noised, labels = noised[known], labels[known]
        sigma = CHOSEN_AT * math.sqrt(float(self.subspace.total_variance) / self.subspace.dimension)
        if len(noised) == 0 or sigma == 0:
            return components or 1, dimensions or 1
        noised = noised + sigma * torch.randn(noised.shape, generator=generator_of(self.seed), dtype=noised.dtype)
        rest = _Points(self.z[held:], kept, self.subspace, self.seed)

        def loss(size: tuple[int, int]) -> float:
            start = rest.fitted((), *size)
            return -float(start.log_prob_leading(noised, sigma, labels).mean())

        return searched(loss, components, dimensions, rest.z.shape)


def _some(count: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
    """Indices of the samples to fit on, in random order: at most :data:`MOST`, and one of every class."""
    order = torch.randperm(count, generator=generator)
    some, left = order[:MOST], order[MOST:]
    if labels is None or not len(left):
        return some
    classes = labels.cpu()
    missing = set(classes.tolist()) - set(classes[some].tolist())
    return torch.cat([some, *(left[classes[left] == label][:1] for label in sorted(missing))])


def searched(
    loss: Callable[[tuple[int, int]], float], components: int | None, dimensions: int | None, shape: Sequence[int]
) -> tuple[int, int]:
    """The numbers of components and of dimensions with the smallest loss, of those that are not given.

    First the components in the most dimensions, up to the first number that is no better; then the dimensions.

    Arguments:
        loss: of a number of components and one of dimensions.
        components: as given, or None.
        dimensions: as given, or None.
        shape: how many points there are to fit on, and in how many dimensions.
    """
    count, most = shape
    widest = min(dimensions or DIMENSIONS[0], most)
    if components is None:
        numbers = [n for n in COMPONENTS if n <= max(1, count // POINTS)]
        components = _descend([(n, widest) for n in numbers], loss)[0]
    if dimensions is None:
        narrower = [m for m in DIMENSIONS if m < widest]
        dimensions = _descend([(components, m) for m in (widest, *narrower)], loss)[1]
    return components, dimensions


def _descend(sizes: Sequence[tuple[int, int]], loss: Callable[[tuple[int, int]], float]) -> tuple[int, int]:
    """The size with the smallest loss, in order, up to the first that is no better than the one before it."""
    best, least = sizes[0], loss(sizes[0])
    for size in sizes[1:]:
        if (value := loss(size)) >= least:
            break
        best, least = size, value
    return best


class _Group:
    """Points (n, m) that share components: a class, or all. There are ``rate`` of them a point, 20 points each."""

    def __init__(self, z: Tensor, rate: float, seed: int) -> None:
        self.z = z
        count = max(1, min(round(rate * len(z)), len(z) // POINTS))
        centres = z.mean(dim=0, keepdim=True) if count == 1 else _k_means(z, count, seed)
        distances = torch.cat([torch.cdist(part, centres) for part in torch.split(z, 8192)])
        near = distances.topk(min(CANDIDATES, count), largest=False).indices
        # Pairs of a point and a candidate, sorted by candidate.
        self.order = near.flatten().argsort(stable=True)
        self.point = self.order // near.shape[1]
        ends = near.flatten().bincount(minlength=count).cumsum(0).tolist()
        self.pairs = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self.shares = torch.zeros(near.shape, dtype=z.dtype)
        self.shares[:, 0] = 1.0

    def scatter(self) -> Tensor:
        """The sum of the squares of the points about the means of their nearest centres, shape (m, m)."""
        mass, _, covariances = _maximise(self.z, self.point, self.pairs, self.shares.flatten()[self.order])
        return len(self.z) * torch.einsum("k,kij->ij", mass, covariances)

    def fitted(self, common: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (K,), means (K, m) and covariances (K, m, m) by expectation maximisation."""
        z, count = self.z, len(self.pairs)
        floor = max(1e-3 * float(common.diagonal().mean()), 1e-12 * float(z.var(dim=0, correction=0).mean()), 1e-300)
        for iteration in range(ITERATIONS):
            shares = self.shares.flatten()[self.order]
            weights, means, covariances = _maximise(z, self.point, self.pairs, shares, common)
            if iteration == ITERATIONS - 1 or count == 1:
                break
            eigenvalues, eigenvectors = torch.linalg.eigh(covariances)
            densities = torch.empty(len(self.order), dtype=z.dtype)
            for k, pair in enumerate(self.pairs):
                turned = (z[self.point[pair]] - means[k]) @ eigenvectors[k]
                log_density = log_normal(turned, eigenvalues[k].clamp_min(0.0) + floor)
                densities[self.order[pair]] = weights[k].log() + log_density
            self.shares = torch.softmax(densities.view(self.shares.shape), dim=1)
            self.shares = torch.where(
                self.shares < 1e-4, 0.0, self.shares
            )  # most of the pairs, next to none of the mass
            self.shares = self.shares / self.shares.sum(dim=1, keepdim=True)
        kept = weights > 0
        return weights[kept], means[kept], covariances[kept]


def _maximise(
    z: Tensor, point: Tensor, pairs: list[slice], shares: Tensor, common: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The maximisation step: pairs[k] are those of component k, with points z[point] that it has a share of."""
    n, m = z.shape
    masses, means, scatters = [], [], []
    for pair in pairs:
        share = shares[pair]
        own, share = z[point[pair][share > 0]], share[share > 0]
        mass = share.sum()
        mean = share @ own / mass.clamp_min(1e-300)
        masses.append(mass)
        means.append(mean)
        scatters.append((own - mean).T @ (share[:, None] * (own - mean)))
    mass, scatter = torch.stack(masses), torch.stack(scatters)
    prior = 0.0 if common is None else m / 8
    total = scatter if common is None else scatter + prior * common
    return mass / n, torch.stack(means), total / (mass + prior).clamp_min(1e-300)[:, None, None]


def _k_means(z: Tensor, count: int, seed: int) -> Tensor:
    """Centres (count, m), from a k-means++ start on at most 20,000 of the points.

    It has tolerances of its own that are absolute: the points come in units of their spread, to a power of two, which
    rounds nothing.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    spread = float(z.var(dim=0, correction=0).mean().sqrt())
    unit = 2.0 ** round(math.log2(spread)) if spread > 0 else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than centres
        model = KMeans(count, n_init=1, max_iter=20, random_state=seed).fit((z[:CLUSTERED] / unit).float().numpy())
    return torch.from_numpy(model.cluster_centers_).double() * unit
