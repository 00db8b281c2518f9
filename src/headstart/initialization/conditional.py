r"""A Gaussian mixture of samples and conditions together: given the condition, a mixture of local regressions.

The mixture is fitted on the joint vector :math:`[\psi(c); z]` of a few features of the condition and the leading
coordinates of the sample. With the blocks of its means and covariances,

.. math::
    w_k(c) &\propto w_k\, N(\psi(c);\ m_{k,\psi}, S_{k,\psi\psi}), \\
    m_k(c) &= m_{k,z} + S_{k,z\psi} S_{k,\psi\psi}^{-1} (\psi(c) - m_{k,\psi}), \\
    S_k &= S_{k,zz} - S_{k,z\psi} S_{k,\psi\psi}^{-1} S_{k,\psi z}, \qquad
    p_\theta(z, \sigma \mid c) = \sum_k w_k(c)\, N(z;\ m_k(c), S_k + \sigma^2 I).

Noise is added to z alone, so that it stays exact at every horizon. Up to 32 features of the conditions
(:mod:`headstart.initialization.features`) are taken as they are, in their principal directions; of more, the up to 32
directions that explain most of z by ridge regression (reduced-rank regression), at what they explain of samples that
are left out.

References:
    Ghahramani and Jordan, *Supervised Learning from Incomplete Data via an EM Approach*, NeurIPS 1993.

    Izenman, *Reduced-Rank Regression for the Multivariate Linear Model*, Journal of Multivariate Analysis, 1975.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.errors import InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.features import Features
from headstart.initialization.gaussian import log_normal
from headstart.initialization.memory import owned
from headstart.initialization.mixture import CHOSEN_AT, MOST, components_of, picked, searched, stretched
from headstart.initialization.regression import Ridge
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise, generator_of
from headstart.saved import SQUARE, Saved

__all__ = ["ConditionalMixture"]

#: The most directions of the conditions that are looked at.
DIRECTIONS = 32

#: Directions of the conditions that vary by less than this share of the widest are left out.
NARROW = 1e-5

#: Samples that are worked on at a time.
TOGETHER = 256


@INITIALIZATIONS.register
class ConditionalMixture(Initialization):
    """A mixture whose weights and means follow the condition. Made by :meth:`fit`, or of a joint law by :meth:`of`.

    Arguments:
        shape: the shape of one sample.
        subspace: the leading directions of the samples; the mixture models the first m of them.
        features: of the conditions.
        directions: of the features in columns, shape (p, q).
        weights: shape (K,), positive, summing to 1.
        centres: means of the features along the directions, shape (K, q).
        precisions: inverses of their covariances, shape (K, q, q).
        means: of the leading coordinates, shape (K, m).
        slopes: of the local regressions, shape (K, q, m).
        eigenvectors: of the covariances that are left, in columns, shape (K, m, m).
        eigenvalues: of the covariances that are left, shape (K, m).
    """

    name = "conditional-mixture"
    cites = ("fassina2026initialization", "ghahramani1993supervised", "izenman1975reduced")
    usual = True
    conditional = True

    def __init__(
        self,
        shape: Sequence[int],
        subspace: Subspace,
        features: Features,
        directions: Tensor,
        weights: Tensor,
        centres: Tensor,
        precisions: Tensor,
        means: Tensor,
        slopes: Tensor,
        eigenvectors: Tensor,
        eigenvalues: Tensor,
    ) -> None:
        self.shape = tuple(shape)
        self.subspace, self.features, self.knows = subspace, features, features.names
        self.directions, self.weights, self.centres = owned(directions), owned(weights), owned(centres)
        self.precisions, self.means, self.slopes = owned(precisions), owned(means), owned(slopes)
        self.eigenvectors, self.eigenvalues = owned(eigenvectors), owned(eigenvalues)

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        subspace: Subspace,
        features: Features,
        directions: Tensor,
        joint: tuple[Tensor, Tensor, Tensor],
    ) -> ConditionalMixture:
        """The law of leading coordinates given the features along the directions, of a mixture of both together.

        Arguments:
            shape: the shape of one sample.
            subspace: its leading directions.
            features: of the conditions.
            directions: of the features, shape (p, q).
            joint: weights (K,), means (K, q + m) and covariances (K, q + m, q + m), features first.
        """
        weights, means, covariances = joint
        q = directions.shape[1]
        seen, across, own = covariances[:, :q, :q], covariances[:, :q, q:], covariances[:, q:, q:]
        slopes = torch.linalg.solve(seen, across)
        left = own - across.mT @ slopes
        eigenvalues, eigenvectors = torch.linalg.eigh((left + left.mT) / 2)
        precisions = torch.linalg.inv(seen)
        return cls(
            shape,
            subspace,
            features,
            directions,
            weights,
            means[:, :q],
            (precisions + precisions.mT) / 2,
            means[:, q:],
            slopes,
            eigenvectors,
            eigenvalues.clamp_min(0.0),
        )

    @classmethod
    def fit(
        cls,
        data: Tensor,
        components: int | None = None,
        dimensions: int | None = None,
        *,
        conditions: Mapping[str, Any] | None = None,
        subspace: Subspace | None = None,
        seed: int = 0,
    ) -> ConditionalMixture:
        """On clean data (N, \\*S) and their conditions, by expectation maximisation, on at most 200,000 of them.

        Arguments:
            data: the samples.
            components: number of components K; by default the one up to 400 with the best conditional likelihood of
                samples that are held out from the fit, noised at half the data's standard deviation.
            dimensions: number of leading directions m that the mixture models, by default chosen likewise.
            conditions: of the samples.
            subspace: the leading directions; by default 256 are fitted.
            seed: of the k-means start and of what is held out.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
            InputError: if a number is below 1, or there are no conditions that can be described.
        """
        if any(number is not None and number < 1 for number in (components, dimensions)):
            raise InputError(f"a mixture needs at least 1 component and 1 dimension: got {components} and {dimensions}")
        given = Conditions.of(conditions, len(data)).settled()
        subspace = Subspace.fit(data, max(dimensions or 0, 256)) if subspace is None else subspace
        features = Features.fit(given)
        if not features.blocks:
            raise InputError("a conditional mixture needs conditions that go with the samples: there are none it knows")
        order = torch.randperm(len(data), generator=generator_of(seed))[:MOST]
        z = torch.cat([subspace.split(data[part])[0] for part in torch.split(order, 4096)])
        directions, psi = _directions(features(given)[order], z)
        points = _Points(psi, z, subspace, features, directions, seed)
        if components is None or dimensions is None:
            components, dimensions = points.best_size(components, dimensions)
        return points.fitted(data.shape[1:], components, dimensions)

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        normal = noise.normal((self.subspace.dimension,))
        log_weights, offsets = self._gates(self.features(given) @ self.directions)
        pick = picked(log_weights.exp().cumsum(-1), noise)
        rows = torch.arange(len(pick))
        means = self.means[pick] + torch.einsum("bq,bqm->bm", offsets[rows, pick], self.slopes[pick].double())
        z = self.subspace.leading(normal)
        coordinates = (self.subspace.variances + sigma**2).sqrt().to(normal) * z
        m = self.means.shape[1]
        q, scales = self.eigenvectors[pick].to(normal), (self.eigenvalues[pick] + sigma**2).sqrt().to(normal)
        coordinates[:, :m] = means.to(normal) + stretched(z[:, :m], q, scales)
        return self.subspace.compose(normal, z, coordinates, sigma).reshape(-1, *self.shape)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        z, rest = self.subspace.split(x)
        psi = self.features(given) @ self.directions
        return self.log_prob_leading(z, sigma, psi) + self.subspace.log_prob_rest(rest, sigma)

    def log_prob_leading(self, z: Tensor, sigma: float, psi: Tensor) -> Tensor:
        """Log density of leading coordinates (B, k) given features along the directions (B, q), in nats: (B,)."""
        m, slopes, eigenvectors = self.means.shape[1], self.slopes.double(), self.eigenvectors.double()
        parts = []
        for i in range(0, len(z), TOGETHER):
            log_weights, offsets = self._gates(psi[i : i + TOGETHER])
            centred = z[i : i + TOGETHER, None, :m] - self.means - torch.einsum("bkq,kqm->bkm", offsets, slopes)
            turned = torch.einsum("bki,kij->bkj", centred, eigenvectors)
            parts.append(torch.logsumexp(log_weights + log_normal(turned, self.eigenvalues + sigma**2), dim=-1))
        leading = torch.cat(parts) if parts else z.new_zeros(0)
        return leading + log_normal(z[:, m:], self.subspace.variances[m : z.shape[1]] + sigma**2)

    def _gates(self, psi: Tensor) -> tuple[Tensor, Tensor]:
        """Log weights (B, K) of the components, and the features less their centres (B, K, q)."""
        offsets = psi[:, None] - self.centres
        squares = torch.einsum("bki,kij,bkj->bk", offsets, self.precisions, offsets)
        widths = torch.linalg.slogdet(self.precisions)[1]
        return torch.log_softmax(self.weights.log() + 0.5 * widths - 0.5 * squares, dim=-1), offsets

    def settings(self) -> dict[str, Any]:
        components, dimensions = self.means.shape
        return {"components": components, "dimensions": dimensions}

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        features, tensors = self.features.state()
        own = {name: getattr(self, name) for name in ("directions", "weights", "centres", "precisions", "means")}
        own |= {name: getattr(self, name) for name in ("slopes", "eigenvectors", "eigenvalues")}
        own |= {f"features.{name}": tensor for name, tensor in tensors.items()}
        own |= {f"subspace.{name}": tensor for name, tensor in self.subspace.tensors().items()}
        return {"shape": list(self.shape), "features": features}, own

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ConditionalMixture:
        saved = Saved(values, tensors)
        shape = saved.shape()
        subspace = Subspace.from_tensors(saved.group("subspace").tensors, math.prod(shape))
        features = Features.from_state(saved.value("features"), saved.group("features").tensors)
        directions, means = saved.tensor("directions", features.width, None), saved.tensor("means", None, None)
        (k, m), q = means.shape, directions.shape[1]
        weights = saved.tensor("weights", k, low=0.0, high=1.001).double()
        if m > len(subspace.variances) or not weights.sum() > 0.5:
            raise InputError(f"the weights and means of {k} components in {m} dimensions do not fit the rest")
        precisions = saved.tensor("precisions", k, q, q, low=-SQUARE, high=SQUARE).double()
        if not float(torch.linalg.eigvalsh(precisions).min()) > 0:
            raise InputError("the precisions of the features must be positive definite")
        return cls(
            shape,
            subspace,
            features,
            directions.double(),
            weights,
            saved.tensor("centres", k, q).double(),
            precisions,
            means.double(),
            saved.tensor("slopes", k, q, m),
            saved.tensor("eigenvectors", k, m, m, low=-1.001, high=1.001),
            saved.tensor("eigenvalues", k, m, low=0.0, high=SQUARE).double(),
        )

    def __repr__(self) -> str:
        k, m = self.means.shape
        on = ", ".join(map(repr, self.features.blocks))
        return f"ConditionalMixture(on {on} in {self.centres.shape[1]} directions; components={k}, dimensions={m})"


class _Points:
    """Features along the directions (n, q) and leading coordinates (n, k) of samples, in random order."""

    def __init__(
        self, psi: Tensor, z: Tensor, subspace: Subspace, features: Features, directions: Tensor, seed: int
    ) -> None:
        self.psi, self.z, self.subspace = psi, z, subspace
        self.features, self.directions, self.seed = features, directions, seed

    def fitted(self, shape: Sequence[int], components: int, dimensions: int) -> ConditionalMixture:
        """The mixture of a given size."""
        joint = components_of(torch.cat([self.psi, self.z[:, :dimensions]], dim=1), components, self.seed)
        return ConditionalMixture.of(shape, self.subspace, self.features, self.directions, joint)

    def best_size(self, components: int | None, dimensions: int | None) -> tuple[int, int]:
        """The numbers of components and of dimensions with the best conditional likelihood of a tenth held out."""
        held = max(1, len(self.z) // 10)
        sigma = CHOSEN_AT * math.sqrt(float(self.subspace.total_variance) / self.subspace.dimension)
        if sigma == 0 or len(self.z) - held < 2:
            return components or 1, dimensions or 1
        noised, psi = self.z[:held][:2000], self.psi[:held][:2000]
        noised = noised + sigma * torch.randn(noised.shape, generator=generator_of(self.seed), dtype=noised.dtype)
        rest = _Points(self.psi[held:], self.z[held:], self.subspace, self.features, self.directions, self.seed)

        def loss(size: tuple[int, int]) -> float:
            return -float(rest.fitted((), *size).log_prob_leading(noised, sigma, psi).mean())

        return searched(loss, components, dimensions, rest.z.shape)


def _directions(c: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Directions of the features (p, q), and the points (n, q) along them that a mixture is fitted on.

    Few features are taken in their principal directions, as wide together as the samples. Of many, those directions
    that explain most of the samples are as wide as what they explain; and what they say of a sample is what they would
    if it had been left out of the regression, since in the fit they say too much.
    """
    ridge = Ridge.fit(c, z) if c.shape[1] > DIRECTIONS else None
    if ridge is None or math.isinf(ridge.penalty):
        squares, axes = torch.linalg.eigh(c.mT @ c / len(c))
        kept = (squares > NARROW**2 * squares.max().clamp_min(1e-300)).nonzero()[-DIRECTIONS:, 0]
        unit = float(z.var(0, correction=0).max().sqrt()) or 1.0
        directions = unit * axes[:, kept] / squares[kept].mean().sqrt()
        return directions, c @ directions
    _, widths, axes = torch.linalg.svd(ridge(c) - ridge.intercept, full_matrices=False)
    turn = axes[:DIRECTIONS][widths[:DIRECTIONS] > NARROW * widths[0]].mT
    left_out = z - ridge.intercept - (z - ridge(c)) / (1 - ridge.leverage).clamp_min(1e-9)[:, None]
    return ridge.coefficients @ turn, left_out @ turn
