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
:mod:`headstart.initialization.subspace`. From :data:`GAUSSIAN` degrees of freedom on, a law is taken for the Gaussian
that it then is to 1e-4 nats a coordinate.

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
from headstart.initialization.subspace import Subspace, moments
from headstart.noise import Noise, generator_of
from headstart.saved import Saved
from headstart.targets.student import ProductT, scale_nodes

__all__ = ["Elliptical", "Independent", "StudentT"]

#: The least degrees of freedom that a fit finds, and those from which a law is a Gaussian: the largest that it finds.
HEAVIEST, GAUSSIAN = 1.05, 200.0

#: Fewer samples than this say nothing of a tail: they get a Gaussian.
FEW = 20

#: A fit takes at most so many samples: a parameter then costs 1 / (2 * 131072) nats, and more would gain less.
MOST = 2**17

#: How many numbers a computation holds at a time, and how many steps a maximisation may take.
NUMBERS, STEPS = 2**22, 100

#: How often the directions of a multivariate law are found anew, with the weights of the law before.
SWEEPS = 3

#: A maximum is found when the next step would gain less than this, in nats over all samples: far below one, which is
#: what a standard error is worth.
GAIN = 1e-3


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
        r"""On clean data (N, \*S), by maximum likelihood in float64, with degrees of freedom from 1.05 to 200.

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
            return cls(data.shape[1:], _fit_independent(chosen, mean, variances))
        return cls(data.shape[1:], _fit_elliptical(chosen, data, components))

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
        """Noised samples (B, d), of the precision of the draws of kappa."""
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
        """Noised samples (B, d), of the precision of the draws of kappa."""
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


# Independent coordinates: Fisher scoring, many coordinates at once.


def _fit_independent(data: Tensor, mean: Tensor, variances: Tensor) -> Independent:
    """By maximum likelihood, on samples (N, \\*S) whose moments (d,) are those of the normal coordinates."""
    locations, scales, nu = mean.clone(), variances.sqrt(), torch.full_like(mean, GAUSSIAN)
    if len(data) < FEW:
        return Independent(locations, scales, nu)
    flat = data.flatten(1)
    for columns in torch.split(torch.arange(len(mean)), max(1, NUMBERS // len(data))):
        x = flat[:, columns.to(flat.device)].cpu().double()
        middle = x.median(dim=0).values
        spread = (x - middle).abs().median(dim=0).values
        # Where half of the values are the same there is no maximum: the likelihood grows as the scale shrinks.
        kept = spread > 0
        if not kept.any():
            continue
        middle, spread, columns = middle[kept], spread[kept], columns[kept]
        location, log_scale, log_nu = _maximum((x[:, kept] - middle) / spread)
        heavy = log_nu < math.log(GAUSSIAN) - 1e-3
        locations[columns[heavy]] = (middle + spread * location)[heavy]
        scales[columns[heavy]] = (spread * log_scale.exp())[heavy]
        nu[columns[heavy]] = log_nu.exp()[heavy]
    return Independent(locations, scales, nu)


def _maximum(x: Tensor) -> Tensor:
    """Location, log scale and log nu of the maximum of each likelihood, (3, C), for samples (N, C) of spread 1.

    Fisher scoring: its steps are near Newton's and always point upwards; where one goes too far, the next is shorter.
    """
    theta = torch.zeros(3, x.shape[1], dtype=torch.float64)
    theta[1], theta[2] = math.log(1.35), math.log(5.0)
    value, gradient = _likelihood(x, theta)
    pace = torch.ones_like(value)
    for _ in range(STEPS):
        step = _scoring_step(theta, gradient)
        unfinished = (0.5 * len(x) * (gradient * step).sum(0) > GAIN) & (pace > 1e-6)
        i = unfinished.nonzero()[:, 0]
        if not len(i):
            break
        trial = (theta + pace * step)[:, i]
        trial[2].clamp_(math.log(HEAVIEST), math.log(GAUSSIAN))
        higher, slope = _likelihood(x[:, i], trial)
        better = higher >= value[i]
        theta[:, i], gradient[:, i] = (
            torch.where(better, trial, theta[:, i]),
            torch.where(better, slope, gradient[:, i]),
        )
        value[i], pace[i] = (
            torch.maximum(higher, value[i]),
            torch.where(better, (2 * pace[i]).clamp(max=1.0), pace[i] / 4),
        )
    return theta


def _likelihood(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Mean log likelihood (C,) up to a constant, and its gradient (3, C) in location, log scale and log nu."""
    location, log_scale, nu = theta[0], theta[1], theta[2].exp()
    y = (x - location) / log_scale.exp()
    ratio = y.square() / nu
    log_term = ratio.log1p().mean(0)
    weighted = (nu + 1) / nu / (1 + ratio)
    pull, share = (weighted * y).mean(0), (weighted * y.square()).mean(0)
    value = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * nu.log() - log_scale - 0.5 * (nu + 1) * log_term
    by_nu = 0.5 * (torch.digamma((nu + 1) / 2) - torch.digamma(nu / 2) - 1 / nu - log_term + share / nu)
    return value, torch.stack([pull / log_scale.exp(), share - 1, nu * by_nu])


def _scoring_step(theta: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the inverse of the Fisher information, at most 1 (for the location, one scale) a step, (3, C)."""
    scale, nu = theta[1].exp(), theta[2].exp()
    by_scale = 2 * nu / (nu + 3)
    mixed = -2 * nu / ((nu + 1) * (nu + 3))
    trigamma = torch.polygamma(1, nu / 2) - torch.polygamma(1, (nu + 1) / 2)
    by_nu = nu**2 * (trigamma / 4 - (nu + 5) / (2 * nu * (nu + 1) * (nu + 3)))
    determinant = by_scale * by_nu - mixed**2
    location = gradient[0] * scale**2 * (nu + 3) / (nu + 1)
    log_scale = (by_nu * gradient[1] - mixed * gradient[2]) / determinant
    log_nu = (by_scale * gradient[2] - mixed * gradient[1]) / determinant
    # Where nu stands at a bound and would leave it, the scale moves alone.
    low, high = math.log(HEAVIEST) + 1e-9, math.log(GAUSSIAN) - 1e-9
    stuck = ((theta[2] <= low) & (log_nu < 0)) | ((theta[2] >= high) & (log_nu > 0))
    log_scale = torch.where(stuck, gradient[1] / by_scale, log_scale)
    log_nu = torch.where(stuck, 0.0, log_nu)
    # One factor for both, so that the step still points upwards.
    longest = torch.maximum(log_scale.abs(), log_nu.abs()).clamp_min(1.0)
    location = torch.minimum(torch.maximum(location, -scale), scale)
    return torch.stack([location, log_scale / longest, log_nu / longest])


# Coordinates that share their tail: expectation maximisation.


def _fit_elliptical(chosen: Tensor, data: Tensor, components: int) -> Elliptical:
    """By maximum likelihood over scales and nu in given directions, and these from samples weighted by the law.

    The first directions are those of the samples' signs :math:`(x - m) / \\|x - m\\|` about their median m, which are
    the same for every elliptical law, with or without a variance.
    """
    gaussian = Elliptical(Subspace.fit(data, components), torch.tensor(GAUSSIAN, dtype=torch.float64))
    if len(chosen) < FEW:
        return gaussian
    flat = chosen.cpu().flatten(1)
    flat = flat if flat.is_floating_point() else flat.double()
    mean = _median(flat)
    squares = _squared_distances(flat, mean)
    typical = float(squares.median()) or float(squares.mean())
    if typical == 0:
        return gaussian
    weights = typical / squares.clamp_min(1e-12 * typical)
    scales, nu = Tensor(), 5.0
    for sweep in range(SWEEPS):
        if sweep:
            mean = _weighted_mean(flat, weights)
        found = Subspace.fit(_weighted(flat, mean, weights), components)
        subspace = Subspace(mean, found.basis, found.variances, found.residual)
        scales, nu, weights = _expectation_maximisation(flat, subspace, nu)
    if nu > GAUSSIAN * (1 - 1e-3):
        return gaussian
    law = Subspace(mean, subspace.basis, scales[:-1], scales[-1])
    return Elliptical(law, torch.tensor(nu, dtype=torch.float64))


def _expectation_maximisation(flat: Tensor, subspace: Subspace, nu: float) -> tuple[Tensor, float, Tensor]:
    r"""Squared scales along the leading directions and of the rest (k + 1,), nu, and the weights of the samples (N,).

    With Mahalanobis distances :math:`\delta_i` and weights :math:`w_i = (\nu + d) / (\nu + \delta_i)`, the squared
    scales become :math:`\sum_i w_i z_{ij}^2 / \sum_i w_i` (with N below, which is the plain algorithm, it is slower),
    and nu the maximum of the likelihood itself. Directions without variance are left out.
    """
    parts = [subspace.split(part) for part in torch.split(flat, max(1, NUMBERS // flat.shape[1]))]
    squares = torch.cat([torch.cat([z.square(), rest[:, None]], dim=1) for z, rest in parts])
    counts = torch.ones(squares.shape[1], dtype=torch.float64)
    counts[-1] = subspace.dimension - len(subspace.variances)
    first = torch.cat([subspace.variances, subspace.residual[None]])
    own = (first > 1e-12 * first.max()) & (counts > 0)
    squares, counts, first = squares[:, own], counts[own], first[own]
    # A likelihood without a maximum, of samples many of which are the same, must not draw the scales to 0.
    variances, d, before = first, int(counts.sum()), -math.inf
    for _ in range(STEPS):
        distances = squares @ (1 / variances)
        nu, value = _best_nu(distances, d)
        value -= 0.5 * float(counts @ variances.log())
        weights = (nu + d) / (nu + distances)
        if len(squares) * (value - before) < GAIN:
            break
        variances, before = torch.maximum(weights @ squares / (counts * weights.sum()), 1e-3 * first), value
    scales = torch.zeros(len(own), dtype=torch.float64)
    scales[own] = variances
    return scales, nu, weights


def _best_nu(distances: Tensor, d: int) -> tuple[float, float]:
    """The nu of the largest mean log likelihood of squared distances (N,) in d dimensions, and the latter, up to a
    constant."""
    from scipy.optimize import minimize_scalar

    def loss(log_nu: float) -> float:
        nu = math.exp(log_nu)
        constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - 0.5 * d * log_nu
        return 0.5 * (nu + d) * float((distances / nu).log1p().mean()) - constant

    found = minimize_scalar(loss, bounds=(math.log(HEAVIEST), math.log(GAUSSIAN)), method="bounded")
    return math.exp(float(found.x)), -float(found.fun)


def _median(flat: Tensor) -> Tensor:
    """Of every coordinate, (d,), a few of them at a time."""
    blocks = torch.split(flat, max(1, NUMBERS // len(flat)), dim=1)
    return torch.cat([block.double().median(dim=0).values for block in blocks])


def _squared_distances(flat: Tensor, centre: Tensor) -> Tensor:
    """Of samples (N, d) from a centre (d,): (N,)."""
    parts = torch.split(flat, max(1, NUMBERS // flat.shape[1]))
    return torch.cat([(part.double() - centre).square().sum(1) for part in parts])


def _weighted_mean(flat: Tensor, weights: Tensor) -> Tensor:
    """Of samples (N, d) with weights (N,): (d,)."""
    rows = max(1, NUMBERS // flat.shape[1])
    sums = [w @ part.double() for part, w in zip(torch.split(flat, rows), torch.split(weights, rows), strict=True)]
    return torch.stack(sums).sum(0) / weights.sum()


def _weighted(flat: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
    """Centred samples (N, d) times the roots of their weights, scaled so that their covariance is the weighted one.

    They stay in the dtype of the data: this is one more array as large as they are.
    """
    roots = (weights * (len(weights) / weights.sum())).sqrt()
    out = torch.empty_like(flat)
    rows = max(1, NUMBERS // flat.shape[1])
    for i in range(0, len(flat), rows):
        out[i : i + rows] = roots[i : i + rows, None] * (flat[i : i + rows].double() - mean)
    return out
