r"""Student-t laws, exact at every noise level: heavy tails, which no amount of noise removes.

A Student-t vector with :math:`\nu` degrees of freedom is a normal one divided by the root of a gamma number, and noised
it is a continuous mixture of Gaussians that share their mean and their axes:

.. math::
    x_0 = \mu + L z / \sqrt{\kappa}, \quad \kappa \sim \Gamma(\tfrac\nu2, \text{rate } \tfrac\nu2), \qquad
    p_\sigma(x) = \int \Gamma(\kappa)\, N(x;\ \mu,\ L L^\top / \kappa + \sigma^2 I)\, d\kappa.

The integral over :math:`t = \ln \kappa` is that of a smooth function which falls off at both ends, so that the
trapezoid rule converges faster than any power of its step, and turns the law into a mixture of a few hundred Gaussians:

.. math:: p_\sigma(x) = \sum_n w_n\, N(x;\ \mu,\ e^{-t_n} L L^\top + \sigma^2 I), \qquad
    w_n = h\, \frac{a^a}{\Gamma(a)}\, e^{a t_n - a e^{t_n}}, \quad a = \nu / 2.

Score and denoiser are those of this mixture, in the forms of :mod:`headstart.targets.mixture`, and lose no digits.

References:
    Andrews and Mallows, *Scale Mixtures of Normal Distributions*, Journal of the Royal Statistical Society B, 1974.

    Trefethen and Weideman, *The Exponentially Convergent Trapezoidal Rule*, SIAM Review, 2014.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.targets.base import Target
from headstart.targets.mixture import GaussianMixture

__all__ = ["ProductT", "StudentTMixture", "scale_nodes"]

#: What the quadrature may miss of a density, as a power of e: both the ends it leaves out and the step's own error.
DIGITS = 37.0

#: How many numbers of one kind an evaluation holds at a time.
NUMBERS = 2**22

#: Degrees of freedom: below, single precision overflows; above, the law is Gaussian to six digits.
LEAST, MOST = 0.5, 1e6


def scale_nodes(nu: Tensor | float, dimension: int = 1, reach: float = 1e6) -> tuple[Tensor, Tensor]:
    r"""The quadrature over :math:`t = \ln \kappa` by which a Student-t law becomes a mixture of Gaussians.

    Without noise, and at squared distance r, what is integrated is a gamma density of shape
    :math:`A = (\nu + d) / 2` and rate :math:`(\nu + r) / 2`, and noise only makes it wider. That gives the ends, by
    Chernoff's bounds, and the step h: by Poisson's summation formula the rule's relative error is
    :math:`2\, |\Gamma(A + 2 \pi i / h) / \Gamma(A)|`. Nodes are multiples of h, so that a farther reach adds nodes and
    moves none.

    Arguments:
        nu: degrees of freedom, of any shape S; the nodes serve all of them.
        dimension: how many coordinates share one :math:`\kappa`; 0 for distribution functions.
        reach: the largest squared distance to serve, in units of the scale and with noise counted as distance,
            :math:`\sum_j (y_j^2 + \sigma^2) / \lambda_j`.

    Returns:
        The nodes t, shape (n,), and log weights, shape (\*S, n), in float64 on the CPU.
    """
    a = np.asarray(torch.as_tensor(nu, dtype=torch.float64).cpu(), dtype=np.float64) / 2
    shape = a + dimension / 2
    low = np.log(shape / (a + 0.5 * min(reach, 1e200))) - 3 - DIGITS / shape
    high = np.log((shape + np.sqrt(2 * DIGITS * shape) + DIGITS) / a)
    h = 2 * math.pi / _frequency(float(shape.max()))
    t = h * torch.arange(math.floor(float(low.min()) / h), math.ceil(float(high.max()) / h) + 1, dtype=torch.float64)
    b = torch.as_tensor(a)[..., None]
    return t, b * b.log() - torch.lgamma(b) + b * (t - t.exp()) + math.log(h)


def _frequency(shape: float) -> float:
    """Where the Fourier transform of a log gamma number of this shape has fallen to exp(-DIGITS), and 15 % beyond."""
    from scipy.optimize import brentq
    from scipy.special import gammaln, loggamma

    def left(omega: float) -> float:
        return float(loggamma(complex(shape, omega)).real - gammaln(shape)) + DIGITS

    high = 40.0
    while left(high) > 0:
        high *= 2
    return 1.15 * float(brentq(left, 0.0, high, xtol=1e-6))


@dataclass(frozen=True)
class _Table:
    """The Gaussians of one noise level, for C components (or coordinates), d axes each, and n nodes.

    Attributes:
        offsets: log weights less half the log determinants of the noised covariances, shape (C, n).
        rates: inverse noised variances, shape (C, d, n).
        shares: clean by noised variances, shape (C, d, n).
    """

    offsets: Tensor
    rates: Tensor
    shares: Tensor

    @classmethod
    def at(cls, level: float, nu: Tensor, y: Tensor, variances: Tensor) -> _Table:
        """At the level sigma, for coordinates y (B, C, d) of squared scales ``variances`` (C, d); nu is () or (C,)."""
        distances = ((y.detach().square() + level**2) / variances).sum(-1)
        t, log_weights = scale_nodes(nu, variances.shape[-1], float(distances.max()) if len(y) else 0.0)
        t, log_weights = t.to(y.device), log_weights.to(y.device)
        clean = variances[..., None] * (-t).exp()
        noised = clean + level**2
        return cls(log_weights - 0.5 * (2 * math.pi * noised).log().sum(1), 1 / noised, clean / noised)

    def log_terms(self, y: Tensor) -> Tensor:
        """Log of every weighted Gaussian at y (B, C, d): (B, C, n)."""
        return self.offsets - 0.5 * torch.einsum("bcd,cdn->bcn", y.square(), self.rates)


class _ScaleMixture(Target):
    """The common part of both laws: one table of Gaussians for each level of a batch, and rows that fit in memory."""

    nu: Tensor

    @abstractmethod
    def _coordinates(self, z: Tensor) -> Tensor:
        """Centred points z (B, d) in the axes of the components: (B, C, axes)."""

    @abstractmethod
    def _variances(self) -> Tensor:
        """Squared scales along these axes, (C, axes)."""

    @abstractmethod
    def _log_density(self, y: Tensor, table: _Table) -> Tensor: ...

    @abstractmethod
    def _slope(self, y: Tensor, table: _Table) -> Tensor: ...

    @abstractmethod
    def _mean(self, y: Tensor, table: _Table) -> Tensor: ...

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        return self._evaluate(x, sigma, "_log_density")

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self._evaluate(x, sigma, "_slope").to(x.dtype)

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        return self._evaluate(x, sigma, "_mean").to(x.dtype)

    def _evaluate(self, x: Tensor, sigma: Tensor | float, name: str) -> Tensor:
        """A formula, level by level and a bounded number of rows at a time."""
        z, s = self._inputs(x, sigma)
        formula, levels, variances = getattr(self, name), s.flatten().expand(len(z)), self._variances().to(z.device)
        rows, values = [], []
        for level in sorted(set(s.flatten().tolist())):
            own = (levels == level).nonzero()[:, 0]
            y = self._coordinates(z[own])
            table = _Table.at(level, self.nu, y, variances)
            count = max(1, NUMBERS // table.offsets.numel())
            rows.append(own)
            values += [formula(part, table) for part in torch.split(y, count)]
        together: Tensor = torch.cat(values)[torch.cat(rows).argsort()]
        return together


class StudentTMixture(_ScaleMixture):
    r"""A mixture of M multivariate Student-t laws in d dimensions; the coordinates of one share their :math:`\kappa`.

    A batch with as many noise levels as samples costs one small evaluation a sample: call it level by level.

    Arguments:
        weights: shape (M,), not negative; they are divided by their sum.
        locations: shape (M, d).
        scales: the matrices :math:`L L^\top`, of shape (M, d, d); or (M, d), their diagonals; or a scalar, the square
            of the scale of every coordinate. Where :math:`\nu > 2` the covariances are these times
            :math:`\nu / (\nu - 2)`.
        nu: degrees of freedom, from 0.5 to 1e6.

    Raises:
        InputError: if the shapes do not fit, a value is NaN or infinite, the weights are negative or all 0, a scale
            matrix is not symmetric and positive definite, or nu is out of its range.

    >>> StudentTMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.04, nu=3)
    StudentTMixture(2 components, 2 dimensions, nu=3)
    """

    def __init__(self, weights: ArrayLike, locations: ArrayLike, scales: ArrayLike, nu: float) -> None:
        try:
            #: The Gaussians of kappa = 1, whose axes are those of every kappa.
            self.normal = GaussianMixture(weights, locations, scales)
        except InputError as error:
            raise InputError(f"{error} (the means are the locations, the covariances the scale matrices)") from error
        if (self.normal.variances <= 0).any():
            raise InputError("the scale matrices must be positive definite")
        self.nu = _checked_nu(nu)
        if self.nu.ndim:
            raise InputError(f"nu has shape {tuple(self.nu.shape)}: a mixture has one number of degrees of freedom")
        self.shape = self.normal.shape

    def __repr__(self) -> str:
        count, d = self.normal.means.shape
        return f"StudentTMixture({count} components, {d} dimensions, nu={float(self.nu):g})"

    def sample(self, noise: Noise) -> Tensor:
        law, u, z = self.normal, noise.uniform().double(), noise.normal(self.shape).double()
        kappa = noise.gamma(float(self.nu) / 2).double() / (float(self.nu) / 2)
        component = torch.searchsorted(law.weights.cumsum(0).to(u.device), u, right=True).clamp(
            max=len(law.weights) - 1
        )
        x = law.means.to(u.device)[component]
        z = law.variances.to(u.device).sqrt()[component] * z / kappa.sqrt()[:, None]
        if law.axes is None:
            return (x + z).to(noise.dtype)
        # Axis by axis, in a fixed order: the last bits of a matrix product would depend on the batch.
        for axis, amount in zip(law.axes.to(u.device).unbind(-1), z.unbind(-1), strict=True):
            x = x + axis[component] * amount[:, None]
        return x.to(noise.dtype)

    def _coordinates(self, z: Tensor) -> Tensor:
        y = z[:, None] - self.normal.means.to(z.device)
        return y if self.normal.axes is None else torch.einsum("bmd,mde->bme", y, self.normal.axes.to(z.device))

    def _variances(self) -> Tensor:
        return self.normal.variances

    def _log_density(self, y: Tensor, table: _Table) -> Tensor:
        return self._log_terms(y, table).flatten(1).logsumexp(1)

    def _slope(self, y: Tensor, table: _Table) -> Tensor:
        return -self._average(self._shares(y, table), table.rates, y)

    def _mean(self, y: Tensor, table: _Table) -> Tensor:
        r = self._shares(y, table)
        return r.sum(2) @ self.normal.means.to(y.device) + self._average(r, table.shares, y)

    def _log_terms(self, y: Tensor, table: _Table) -> Tensor:
        return self.normal.weights.to(y.device).log()[:, None] + table.log_terms(y)

    def _shares(self, y: Tensor, table: _Table) -> Tensor:
        """The share of each Gaussian in the density, (B, M, n)."""
        log_r = self._log_terms(y, table)
        return log_r.flatten(1).softmax(1).reshape(log_r.shape)

    def _average(self, r: Tensor, factors: Tensor, y: Tensor) -> Tensor:
        """Coordinates y (B, M, d) times factors (M, d, n) averaged with weights r (B, M, n), rotated back: (B, d)."""
        y = torch.einsum("bmn,mdn->bmd", r, factors) * y
        return y.sum(1) if self.normal.axes is None else torch.einsum("bme,mde->bd", y, self.normal.axes.to(y.device))


class ProductT(_ScaleMixture):
    r"""Independent coordinates, each Student-t with its own :math:`\kappa`. One evaluation takes time of order B d n.

    Arguments:
        nu: degrees of freedom, a scalar or of shape (d,), from 0.5 to 1e6.
        scales: a scalar or of shape (d,), above 0. Where :math:`\nu > 2` the variances are
            :math:`\text{scale}^2\, \nu / (\nu - 2)`.
        locations: a scalar or of shape (d,).

    Raises:
        InputError: if the shapes do not fit, a value is NaN or infinite, or nu or a scale is out of its range.

    >>> ProductT(3.0, 1.0, [0.0, 5.0])
    ProductT(2 dimensions, nu=3)
    """

    def __init__(self, nu: ArrayLike, scales: ArrayLike, locations: ArrayLike) -> None:
        given = [_checked_nu(nu), *(torch.as_tensor(a, dtype=torch.float64) for a in (scales, locations))]
        d = max((a.numel() for a in given), default=1)
        if not all(tuple(a.shape) in ((), (d,)) for a in given) or d == 0:
            shapes = ", ".join(str(tuple(a.shape)) for a in given)
            raise InputError(f"nu, scales and locations have shapes {shapes}: expected scalars or (d,)")
        self.nu, self.scales, self.locations = (a.expand(d) for a in given)
        if not all(torch.isfinite(a).all() for a in (self.scales, self.locations)) or (self.scales <= 0).any():
            raise InputError("scales must be finite and above 0, and locations finite")
        self.shape = (d,)

    def __repr__(self) -> str:
        low, high = float(self.nu.min()), float(self.nu.max())
        return f"ProductT({self.shape[0]} dimensions, nu={low:g}{'' if low == high else f' to {high:g}'})"

    def sample(self, noise: Noise) -> Tensor:
        z, a = noise.normal(self.shape).double(), self.nu / 2
        kappa = noise.gamma(a.numpy(), self.shape).double() / a.to(z.device)
        return (self.locations.to(z.device) + self.scales.to(z.device) * z / kappa.sqrt()).to(noise.dtype)

    def quantile(self, q: float, sigma: float = 0.0, coordinate: int = 0) -> float:
        """The value below which a noised coordinate lies with probability q, to a relative 1e-10 of its distance from
        the location, in the far tails too.

        Raises:
            InputError: if q is not between 0 and 1, sigma is negative or not finite, or there is no such coordinate.
        """
        if not 0 < q < 1 or not 0 <= sigma < math.inf or not 0 <= coordinate < self.shape[0]:
            raise InputError(
                f"q is {q}, sigma {sigma} and coordinate {coordinate}: expected q between 0 and 1, "
                f"a finite sigma of at least 0, and a coordinate from 0 to {self.shape[0] - 1}"
            )
        from scipy.optimize import brentq

        nu, scale = self.nu[coordinate], float(self.scales[coordinate])
        wanted = math.log(min(q, 1 - q))

        def excess(y: float) -> float:
            return _log_survival(y, nu, scale, sigma) - wanted

        low, high = 0.0, math.hypot(scale, sigma)
        while excess(high) > 0:
            low, high = high, 2 * high
        distance = brentq(excess, low, high, xtol=1e-13 * high, rtol=1e-13) if q != 0.5 else 0.0
        return float(self.locations[coordinate]) + math.copysign(distance, q - 0.5)

    def _coordinates(self, z: Tensor) -> Tensor:
        return (z - self.locations.to(z.device))[..., None]

    def _variances(self) -> Tensor:
        return self.scales.square()[:, None]

    def _log_density(self, y: Tensor, table: _Table) -> Tensor:
        return table.log_terms(y).logsumexp(2).sum(1)

    def _slope(self, y: Tensor, table: _Table) -> Tensor:
        return -self._average(y, table, table.rates)

    def _mean(self, y: Tensor, table: _Table) -> Tensor:
        return self.locations.to(y.device) + self._average(y, table, table.shares)

    def _average(self, y: Tensor, table: _Table, factors: Tensor) -> Tensor:
        """Coordinates y (B, d, 1) times factors (d, 1, n), averaged over the Gaussians: (B, d)."""
        return torch.einsum("bdn,dn->bd", table.log_terms(y).softmax(2), factors[:, 0]) * y[..., 0]


def _log_survival(y: float, nu: Tensor, scale: float, sigma: float) -> float:
    """Log of the probability that a noised coordinate exceeds its location by more than y."""
    # Below the nodes that a density needs, the normal tails no longer fall: a distribution function has dimension 0.
    t, log_weights = scale_nodes(nu, 0, (y**2 + sigma**2) / scale**2)
    deviations = (scale**2 * (-t).exp() + sigma**2).sqrt()
    return float((log_weights + torch.special.log_ndtr(-y / deviations)).logsumexp(0))


def _checked_nu(nu: ArrayLike) -> Tensor:
    values = torch.as_tensor(nu, dtype=torch.float64)
    if not ((values >= LEAST) & (values <= MOST)).all():
        raise InputError(f"nu is {nu!r}: degrees of freedom must lie from {LEAST:g} to {MOST:g}")
    return values
