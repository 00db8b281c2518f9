r"""Student-t starts: heavy tails that a Gaussian start lacks, and that noise does not remove.

With scale matrix :math:`\Lambda`, degrees of freedom :math:`\nu` and :math:`\kappa \sim \Gamma(\nu / 2, \text{rate }
\nu / 2)`,

.. math:: x_T = \mu + \Lambda^{1/2} z / \sqrt{\kappa} + \sigma_T \varepsilon, \qquad
    x_T \mid \kappa \sim N(\mu,\ \Lambda / \kappa + \sigma_T^2 I), \qquad
    \log p_\theta(x) = \log \sum_n w_n\, N(x;\ \mu,\ e^{-t_n} \Lambda + \sigma_T^2 I),

by the quadrature of :func:`headstart.targets.student.scale_nodes`. It is a *noised* Student-t, and not a Student-t of
the noised data's scale: noise widens the middle of a law and leaves its tail what it was, so that no plain Student-t
has both. For independent coordinates with 3 degrees of freedom at twice their scale, the plain one loses 0.02 to 0.04
nats a coordinate, and one that fits the tail misses the middle. So the law is fitted once, by maximum likelihood on
clean data, and convolved with noise of any level.

Either every coordinate has its own :math:`\kappa`, scale and :math:`\nu` (``"diagonal"``), or all share one
(``"multivariate"``) and :math:`\Lambda` has the leading directions and the common rest of
:mod:`headstart.initialization.subspace`. From :data:`GAUSSIAN` degrees of freedom on, a law is replaced by the
Gaussian, from which it then differs by less than 1e-4 nats a coordinate.

References:
    Lange, Little and Taylor, *Robust Statistical Modeling Using the t Distribution*, Journal of the American
    Statistical Association, 1989 (likelihood and Fisher information).

    Liu and Rubin, *ML Estimation of the t Distribution Using EM and Its Extensions, ECM and ECME*, Statistica Sinica,
    1995; Liu, Rubin and Wu, *Parameter Expansion to Accelerate EM*, Biometrika, 1998 (several coordinates).

    Pandey et al., *Heavy-Tailed Diffusion Models*, 2024, arXiv 2410.14171 (Student-t noise and prior, for which the
    network is trained anew; here it is not, and the noise stays Gaussian).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.errors import InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.gaussian import log_normal
from headstart.initialization.memory import owned
from headstart.initialization.student_fit import GAUSSIAN, fit_elliptical, fit_independent
from headstart.initialization.subspace import Subspace, moments
from headstart.noise import Noise, generator_of
from headstart.saved import Saved
from headstart.targets.student import ProductT, scale_nodes

__all__ = ["Elliptical", "Independent", "StudentT"]

#: A fit takes at most so many samples: a parameter then costs 1 / (2 * 131072) nats, and more would gain less.
MOST = 2**17

#: How many numbers a density holds at a time.
NUMBERS = 2**22


@INITIALIZATIONS.register
class StudentT(Initialization):
    """A noised Student-t law.

    Arguments:
        shape: the shape of one sample.
        law: of independent coordinates, or of coordinates that share their heavy tail.

    Raises:
        InputError: if the law has another dimension than the shape.
    """

    name = "student-t"
    cites = ("fassina2026initialization", "lange1989robust", "liu1995ml", "liu1998parameter", "pandey2024heavy")

    def __init__(self, shape: Sequence[int], law: Independent | Elliptical) -> None:
        self.shape = tuple(shape)
        self.law = law
        if law.dimension != math.prod(self.shape):
            raise InputError(
                f"the law has {law.dimension} dimensions, and a sample of shape {self.shape} another number"
            )

    @classmethod
    def fit(
        cls,
        data: Tensor,
        structure: Literal["diagonal", "multivariate"] = "diagonal",
        components: int = 256,
        seed: int = 0,
    ) -> StudentT:
        r"""Fit to clean data (N, \*S), by maximum likelihood in float64, with degrees of freedom from 1.05 to 200.

        Arguments:
            data: the samples.
            structure: "diagonal" for independent coordinates, "multivariate" for one heavy tail that all share.
            components: leading directions of a multivariate law, at most.
            seed: of the choice of samples, where there are more than :data:`MOST`.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
            InputError: if the structure is unknown or ``components`` is below 1.
        """
        if structure not in ("diagonal", "multivariate"):
            raise InputError(f"unknown structure {structure!r}: expected diagonal or multivariate")
        if components < 1:
            raise InputError(f"a subspace needs at least 1 component: got {components}")
        mean, variances = moments(data)
        chosen = data
        if len(data) > MOST:
            generator = generator_of(seed)
            chosen = data[torch.randperm(len(data), generator=generator)[:MOST].sort().values.to(data.device)]
        if structure == "diagonal":
            return cls(data.shape[1:], Independent(*fit_independent(chosen, mean, variances)))
        subspace, nu = fit_elliptical(chosen, data, components)
        return cls(data.shape[1:], Elliptical(subspace, torch.tensor(nu, dtype=torch.float64)))

    @property
    def structure(self) -> str:
        """Either "diagonal" or "multivariate"."""
        return self.law.structure

    @property
    def nu(self) -> Tensor:
        """Degrees of freedom: of every coordinate, shape (d,), or of all, shape ()."""
        return self.law.nu

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        return self.law.sample(noise, sigma).to(noise.dtype).reshape(-1, *self.shape)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        return self.law.log_prob(x.cpu().flatten(1).double(), sigma)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape), "structure": self.structure}, self.law.tensors()

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StudentT:
        laws: dict[str, type[Independent] | type[Elliptical]] = {
            law.structure: law for law in (Independent, Elliptical)
        }
        saved = Saved(values, tensors)
        structure = saved.value("structure")
        if not isinstance(structure, str) or structure not in laws:
            raise InputError(f"unknown structure {structure!r}: expected {' or '.join(laws)}")
        return cls(saved.shape(), laws[structure].from_tensors(tensors))

    def __repr__(self) -> str:
        low, high = float(self.nu.min()), float(self.nu.max())
        nu = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        return f"StudentT(shape={self.shape}, structure={self.structure!r}, nu={nu})"


@dataclass(frozen=True, eq=False)
class Independent:
    """Independent coordinates, Student-t or constant. From :data:`GAUSSIAN` degrees of freedom on, they are normal.

    Attributes:
        locations: shape (d,).
        scales: shape (d,), at least 0; the standard deviation of a normal coordinate.
        nu: degrees of freedom, shape (d,).
    """

    locations: Tensor
    scales: Tensor
    nu: Tensor

    structure = "diagonal"

    def __post_init__(self) -> None:
        for name, tensor in self.tensors().items():
            object.__setattr__(self, name, owned(tensor))

    @property
    def dimension(self) -> int:
        """The dimension d of the data."""
        return len(self.locations)

    @property
    def _heavy(self) -> Tensor:
        """Which coordinates have a tail, (d,)."""
        return (self.nu < GAUSSIAN) & (self.scales > 0)

    def sample(self, noise: Noise, sigma: float) -> Tensor:
        """Noised samples (B, d), in the dtype of the draws of kappa."""
        normal = noise.normal((self.dimension,))
        kappa = noise.gamma((self.nu / 2).numpy(), (self.dimension,))
        kappa = torch.where(self._heavy.to(kappa.device), kappa / (self.nu / 2).to(kappa), 1.0)
        # Given kappa, the sum of the law's own normal number and the noise is one normal number.
        deviations = (self.scales.square().to(kappa) / kappa + sigma**2).sqrt()
        return self.locations.to(kappa) + deviations * normal

    def log_prob(self, x: Tensor, sigma: float) -> Tensor:
        """Log density (B,) of noised samples (B, d)."""
        heavy = self._heavy
        light = log_normal((x - self.locations)[:, ~heavy], self.scales[~heavy].square() + sigma**2)
        if not heavy.any():
            return light
        tails = ProductT(self.nu[heavy], self.scales[heavy], self.locations[heavy])
        return tails.log_prob(x[:, heavy], sigma) + light

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to save."""
        return {"locations": self.locations, "scales": self.scales, "nu": self.nu}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Independent:
        """The law that :meth:`tensors` describes."""
        saved = Saved({}, tensors)
        locations = saved.tensor("locations", None)
        scales = saved.tensor("scales", len(locations), low=0.0)
        nu = saved.tensor("nu", len(locations), low=1.0)
        return cls(locations.double(), scales.double(), nu.double())


@dataclass(frozen=True, eq=False)
class Elliptical:
    r"""Coordinates that share one :math:`\kappa`. From :data:`GAUSSIAN` degrees of freedom on, they are normal.

    Given :math:`\kappa`, the noised covariance is :math:`U \operatorname{diag}(\lambda / \kappa + \sigma^2)\, U^T +
    (\rho / \kappa + \sigma^2)(I - U U^T)`.

    Attributes:
        subspace: location, leading directions, and squares of the scales instead of variances.
        nu: degrees of freedom, shape ().
    """

    subspace: Subspace
    nu: Tensor

    structure = "multivariate"

    def __post_init__(self) -> None:
        object.__setattr__(self, "nu", owned(self.nu))

    @property
    def dimension(self) -> int:
        """The dimension d of the data."""
        return self.subspace.dimension

    def sample(self, noise: Noise, sigma: float) -> Tensor:
        """Noised samples (B, d), in the dtype of the draws of kappa."""
        normal, half = noise.normal((self.dimension,)), float(self.nu) / 2
        kappa = noise.gamma(half, (1,)) / half
        kappa = kappa if float(self.nu) < GAUSSIAN else torch.ones_like(kappa)
        normal, basis = normal.to(kappa), self.subspace.basis.to(kappa)
        z = normal @ basis
        # Given kappa, the sum of the law's own normal numbers and the noise is as many normal numbers.
        rest = (self.subspace.residual.to(kappa) / kappa + sigma**2).sqrt()
        leading = (self.subspace.variances.to(kappa) / kappa + sigma**2).sqrt()
        return self.subspace.mean.to(kappa) + rest * normal + ((leading - rest) * z) @ basis.T

    def log_prob(self, x: Tensor, sigma: float) -> Tensor:
        """Log density (B,) of noised samples (B, d)."""
        squares, clean, counts = self._directions(x)
        t, log_weights = self._nodes(squares.detach(), clean, counts, sigma)
        noised = clean[:, None] * (-t).exp() + sigma**2
        offsets = log_weights - 0.5 * (counts @ (2 * math.pi * noised).log())
        parts = torch.split(squares, max(1, NUMBERS // len(t)))
        return torch.cat([(offsets - 0.5 * part @ (1 / noised)).logsumexp(1) for part in parts])

    def _directions(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Squared coordinates (B, c) of points (B, d), and squared scale and number of directions (c,) of each.

        These are the leading directions, and the rest together if there is one. Its square is not the difference of
        two squares: far out in a tail, that would have no digits left.
        """
        centred = x - self.subspace.mean
        z = centred @ self.subspace.basis
        squares, clean, counts = z.square(), self.subspace.variances, torch.ones(z.shape[1], dtype=torch.float64)
        if left := self.dimension - z.shape[1]:
            rest = (centred - z @ self.subspace.basis.T).square().sum(1, keepdim=True)
            squares = torch.cat([squares, rest], dim=1)
            clean = torch.cat([clean, self.subspace.residual[None]])
            counts = torch.cat([counts, torch.tensor([left], dtype=torch.float64)])
        return squares, clean, counts

    def _nodes(self, squares: Tensor, clean: Tensor, counts: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Nodes and log weights (n,) that serve points of these squares (B, c), in the directions with a scale."""
        own = clean > 0
        if float(self.nu) >= GAUSSIAN or not own.any():
            return torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        distances = ((squares + counts * sigma**2) / clean)[:, own].sum(1)
        reach = float(distances.max()) if len(distances) else 0.0
        return scale_nodes(float(self.nu), int(counts[own].sum()), reach)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to save."""
        return {**self.subspace.tensors(), "nu": self.nu}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Elliptical:
        """The law that :meth:`tensors` describes."""
        return cls(Subspace.from_tensors(tensors), Saved({}, tensors).tensor("nu", low=1.0).double())
