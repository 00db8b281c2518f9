r"""A Gaussian mixture in the leading principal components, every other direction Gaussian.

Noised at level sigma, each of its K components keeps its mean and eigenvectors and widens:

.. math:: p_\theta(z) = \sum_k w_k N(z;\ m_k,\ Q_k (\Lambda_k + \sigma^2 I) Q_k^T).

It is fitted once, by expectation maximisation on clean data, and is then exact at every horizon. With labels, each
class has components of its own; without a label the classes are mixed as in the data.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from headstart.errors import InputError
from headstart.initialization.base import Initialization
from headstart.initialization.gaussian import log_normal
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise

__all__ = ["Mixture"]


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
        self.weights, self.means = weights, means
        self.eigenvectors, self.eigenvalues = eigenvectors, eigenvalues
        self.owners = owners

    @classmethod
    def fit(
        cls,
        data: Tensor,
        components: int = 60,
        dimensions: int = 40,
        *,
        labels: Tensor | None = None,
        subspace: Subspace | None = None,
        seed: int = 0,
    ) -> Mixture:
        """On clean data (N, \\*S), by expectation maximisation in float64.

        Arguments:
            data: the samples.
            components: number of components K, shared out over the classes by their size if there are labels; fewer
                where there are not 20 samples for each.
            dimensions: number of leading directions m that the mixture models.
            labels: classes, shape (N,); each class then gets components of its own.
            subspace: the leading directions, at least as many; by default 256 are fitted.
            seed: of the k-means start.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
            InputError: if the numbers are below 1, or the labels do not fit the data.
        """
        if components < 1 or dimensions < 1:
            raise InputError(f"a mixture needs at least 1 component and 1 dimension: got {components} and {dimensions}")
        if labels is not None and len(labels) != len(data):
            raise InputError(f"there are {len(labels)} labels for {len(data)} samples")
        subspace = Subspace.fit(data, max(dimensions, 256)) if subspace is None else subspace
        m = min(dimensions, len(subspace.variances))
        z = subspace.split(data)[0][:, :m]
        groups = [(None, z)] if labels is None else [(int(c), z[labels == c]) for c in sorted(set(labels.tolist()))]
        parts = []
        for owner, points in groups:
            share = len(points) / len(z)
            parts.append((owner, share, _expectation_maximisation(points, round(share * components), seed)))
        covariances = torch.cat([torch.from_numpy(em.covariances_) for _, _, em in parts])
        eigenvalues, eigenvectors = torch.linalg.eigh(covariances)
        owners = [torch.full((em.n_components,), owner) for owner, _, em in parts if owner is not None]
        return cls(
            data.shape[1:],
            subspace,
            weights=torch.cat([share * torch.from_numpy(em.weights_) for _, share, em in parts]),
            means=torch.cat([torch.from_numpy(em.means_) for _, _, em in parts]),
            eigenvectors=eigenvectors,
            eigenvalues=eigenvalues.clamp_min(0.0),
            owners=torch.cat(owners) if owners else None,
        )

    def sample(self, noise: Noise, sigma: float, label: Tensor | None = None) -> Tensor:
        normal = noise.normal((self.subspace.dimension,))
        chances = self._log_weights(label).exp().cumsum(-1).expand(len(noise), -1)
        share = noise.uniform((1,)).double().cpu() * chances[:, -1:]
        pick = (chances <= share).sum(-1).clamp_max(len(self.weights) - 1)
        z = normal @ self.subspace.basis.to(normal)
        coordinates = (self.subspace.variances + sigma**2).sqrt().to(normal) * z
        m = self.means.shape[1]
        q, scales = self.eigenvectors[pick].to(normal), (self.eigenvalues[pick] + sigma**2).sqrt().to(normal)
        turned = torch.einsum("bij,bj->bi", q, scales * torch.einsum("bij,bi->bj", q, z[:, :m]))
        coordinates[:, :m] = self.means[pick].to(normal) + turned
        return self.subspace.compose(normal, coordinates, sigma).reshape(-1, *self.shape)

    def log_prob(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        z, rest = self.subspace.split(x.cpu())
        m = self.means.shape[1]
        parts = []
        for i in range(0, len(z), 1024):
            centred = z[i : i + 1024, None, :m] - self.means
            turned = torch.einsum("bki,kij->bkj", centred, self.eigenvectors)
            chosen = None if label is None else label[i : i + 1024]
            component = log_normal(turned, self.eigenvalues + sigma**2)
            parts.append(torch.logsumexp(self._log_weights(chosen) + component, dim=-1))
        minor = log_normal(z[:, m:], self.subspace.variances[m:] + sigma**2)
        return torch.cat(parts) + minor + self.subspace.log_prob_rest(rest, sigma)

    def _log_weights(self, label: Tensor | None) -> Tensor:
        """Log weights of the components: (1, K), or (B, K) given classes (B,)."""
        log_weights = self.weights.log()[None]
        if label is None or self.owners is None:
            return log_weights
        own = label.cpu()[:, None] == self.owners
        if not own.any(dim=1).all():
            raise InputError(f"labels must be among the classes fitted on: {sorted(set(self.owners.tolist()))}")
        return torch.log_softmax(log_weights.expand(len(own), -1).masked_fill(~own, -torch.inf), dim=-1)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        names = ("weights", "means", "eigenvectors", "eigenvalues", "owners")
        tensors = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {"shape": list(self.shape)}, {**self.subspace.tensors(), **tensors}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Mixture:
        named = {name: tensors[name].double() for name in ("weights", "means", "eigenvectors", "eigenvalues")}
        return cls(values["shape"], Subspace.from_tensors(tensors), **named, owners=tensors.get("owners"))

    def __repr__(self) -> str:
        components, dimensions = self.means.shape
        classes = "" if self.owners is None else f", classes={len(set(self.owners.tolist()))}"
        return f"Mixture(shape={self.shape}, components={components}, dimensions={dimensions}{classes})"


def _expectation_maximisation(points: Tensor, components: int, seed: int) -> GaussianMixture:
    """Full covariances, from a k-means start; at least 20 points for each component, or a single component.

    Few iterations are enough: held-out likelihood on images at the horizons of interest is flat after the third.
    """
    components = max(1, min(components, len(points) // 20))
    points = points if len(points) > 1 else points.expand(2, -1)  # of a class with a single sample
    floor = 1e-3 * float(points.var(dim=0).mean()) or 1e-12  # points that are all the same have no variance
    em = GaussianMixture(components, max_iter=4, tol=1e-2, reg_covar=floor, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return em.fit(points.numpy())
