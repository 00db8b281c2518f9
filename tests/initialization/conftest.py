"""Starts with parameters of every kind, and what their laws are in dense matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from headstart.initialization import (
    Diagonal,
    Empirical,
    Gaussian,
    Initialization,
    Isotropic,
    Mixture,
    Shifted,
    Subspace,
    Teleportation,
)
from headstart.initialization.student import Elliptical, Independent, StudentT

Double = torch.float64


@dataclass(frozen=True)
class Law:
    """A Gaussian mixture in dense matrices: weights (K,), means (K, d), covariances (K, d, d), noise included."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        law = MixtureSameFamily(Categorical(self.weights), MultivariateNormal(self.means, self.covariances))
        log_prob: Tensor = law.log_prob(x.flatten(1).double())  # type: ignore[no-untyped-call]
        return log_prob

    def mean(self) -> Tensor:
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        shift = self.means - self.mean()
        return torch.einsum("k,kij->ij", self.weights, self.covariances + shift[:, :, None] * shift[:, None])

    def characteristic(self, frequencies: Tensor) -> Tensor:
        """E exp(i w.x) at frequencies (F, d), complex (F,)."""
        widths = torch.einsum("fi,kij,fj->fk", frequencies, self.covariances, frequencies)
        return torch.exp(-0.5 * widths + 1j * (frequencies @ self.means.T)) @ self.weights.to(torch.complex128)

    def root(self) -> Tensor:
        """The symmetric square roots of the covariances (K, d, d)."""
        values, vectors = torch.linalg.eigh(self.covariances)
        root: Tensor = vectors @ torch.diag_embed(values.clamp_min(0).sqrt()) @ vectors.mT
        return root


def dense_law(start: Initialization, sigma: float, label: int | None = None) -> Law:
    """The law at horizon sigma, written out from a start's parameters, for all samples or those of one class."""
    d = torch.Size(start.shape).numel()
    eye = torch.eye(d, dtype=Double)
    if isinstance(start, Diagonal):
        return Law(torch.ones(1, dtype=Double), start.mean[None], (start.variances.diag() + sigma**2 * eye)[None])
    if isinstance(start, Empirical):
        kept = slice(None) if label is None or start.labels is None else start.labels == label
        points = start.data.flatten(1).double()[kept]
        n = len(points)
        return Law(torch.full((n,), 1 / n, dtype=Double), points, (sigma**2 * eye).expand(n, d, d))
    assert isinstance(start, (Gaussian, Mixture, Teleportation))
    u, k = start.subspace.basis, len(start.subspace.variances)
    rest = start.subspace.residual * (eye - u @ u.T)
    if isinstance(start, Gaussian):
        covariance = u @ start.subspace.variances.diag() @ u.T + rest + sigma**2 * eye
        return Law(torch.ones(1, dtype=Double), start.subspace.mean[None], covariance[None])
    if isinstance(start, Teleportation):
        values, vectors = torch.linalg.eigh(u @ start.subspace.variances.diag() @ u.T + rest)
        far = start.sigma_max**2
        shares = (values + sigma**2) / (values + far)
        pulled = vectors @ (shares.sqrt() * (start.subspace.mean @ vectors))
        covariances = vectors @ (far * shares).diag() @ vectors.T
        return Law(torch.ones(1, dtype=Double), (start.subspace.mean - pulled)[None], covariances[None])
    m = start.means.shape[1]
    inner = start.eigenvectors @ torch.diag_embed(start.eigenvalues) @ start.eigenvectors.mT
    minor = u[:, m:] @ start.subspace.variances[m:].diag() @ u[:, m:].T if m < k else torch.zeros_like(eye)
    covariances = u[:, :m] @ inner @ u[:, :m].T + minor + rest + sigma**2 * eye
    weights, means = start.weights, start.subspace.mean + start.means @ u[:, :m].T
    if label is not None and start.owners is not None:
        own = start.owners == label
        weights, means, covariances = weights[own] / weights[own].sum(), means[own], covariances[own]
    return Law(weights, means, covariances)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=Double)


def subspace(d: int, k: int) -> Subspace:
    spectrum = torch.linspace(3.0, 0.5, k, dtype=Double)
    residual = torch.tensor(0.2 if k < d else 0.0, dtype=Double)
    return Subspace(random(d, seed=1), torch.linalg.qr(random(d, k, seed=2)).Q, spectrum, residual)


def mixture(
    shape: tuple[int, ...], k: int, m: int, count: int = 4, owners: tuple[int, ...] | None = (3, 8, 8, 3)
) -> Mixture:
    return Mixture(
        shape,
        subspace(torch.Size(shape).numel(), k),
        weights=torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=Double)[:count],
        means=1.5 * random(count, m, seed=3),
        eigenvectors=torch.linalg.qr(random(count, m, m, seed=4)).Q,
        eigenvalues=random(count, m, seed=5).square() + 0.01,
        owners=None if owners is None else torch.tensor(owners),
    )


def every_start(shape: tuple[int, ...]) -> dict[str, Initialization]:
    """One start of each kind, for samples of the given shape, of at least 3 numbers."""
    d = torch.Size(shape).numel()
    return {
        "isotropic": Isotropic(shape),
        "shifted": Shifted(shape, random(d, seed=1)),
        "diagonal": Diagonal(shape, random(d, seed=1), random(d, seed=2).square()),
        "gaussian": Gaussian(shape, subspace(d, d)),
        "gaussian in a subspace": Gaussian(shape, subspace(d, d - 2)),
        "teleportation": Teleportation(shape, subspace(d, d - 2), sigma_max=1e7),
        "mixture": mixture(shape, d, d),
        "mixture of leading directions": mixture(shape, d, 2),
        "mixture in a subspace": mixture(shape, d - 1, 2, owners=None),
        "empirical": Empirical(random(6, *shape, seed=6), torch.tensor([3, 8, 8, 3, 8, 3])),
    }


def student_starts(shape: tuple[int, ...]) -> dict[str, Initialization]:
    """Starts that are no mixture of finitely many Gaussians, and have no fourth moments."""
    d = torch.Size(shape).numel()
    own = Independent(random(d, seed=1), random(d, seed=2).abs(), torch.full((d,), 4.0, dtype=Double))
    common = Elliptical(subspace(d, d - 2), torch.tensor(4.0, dtype=Double))
    return {"student-t": StudentT(shape, own), "multivariate student-t": StudentT(shape, common)}


KINDS = list(every_start((5,)))
SMOOTH = [kind for kind in KINDS if kind != "empirical"]
CLASSED = ["mixture", "mixture of leading directions", "empirical"]


@pytest.fixture(params=KINDS)
def start(request: pytest.FixtureRequest) -> Initialization:
    """A start in 5 dimensions, with data as far apart as they are wide."""
    return every_start((5,))[request.param]


@pytest.fixture(params=SMOOTH)
def smooth(request: pytest.FixtureRequest) -> Initialization:
    """A start in 5 dimensions that has a density."""
    return every_start((5,))[request.param]


@pytest.fixture(params=CLASSED)
def classed(request: pytest.FixtureRequest) -> Initialization:
    """A start in 5 dimensions with the classes 3 and 8."""
    return every_start((5,))[request.param]


@pytest.fixture(params=[*KINDS, *student_starts((5,))])
def image_start(request: pytest.FixtureRequest) -> Initialization:
    """A start for images of 1 x 6 x 6."""
    shape = (1, 6, 6)
    return {**every_start(shape), **student_starts(shape)}[request.param]


@pytest.fixture
def dense() -> Callable[..., Law]:
    return dense_law
