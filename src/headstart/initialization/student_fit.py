r"""Maximum likelihood of Student-t laws, in float64: independent coordinates, and coordinates that share their tail.

For independent ones, Fisher scoring in location, log scale and log nu, of many coordinates at once. Its steps are near
Newton's and always point upwards. For those that share their tail, expectation maximisation in given directions: with
Mahalanobis distances :math:`\delta_i` and weights :math:`w_i = (\nu + d) / (\nu + \delta_i)`, the squared scales
become :math:`\sum_i w_i z_{ij}^2 / \sum_i w_i`, and :math:`\nu` the maximum of the likelihood itself. The directions
are found anew, from samples weighted by the law, a few times.

References:
    Lange, Little and Taylor, *Robust Statistical Modeling Using the t Distribution*, Journal of the American
    Statistical Association, 1989 (likelihood and Fisher information).

    Liu and Rubin, *ML Estimation of the t Distribution Using EM and Its Extensions, ECM and ECME*, Statistica Sinica,
    1995; Liu, Rubin and Wu, *Parameter Expansion to Accelerate EM*, Biometrika, 1998 (several coordinates).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headstart.initialization.subspace import Subspace

__all__ = ["GAUSSIAN", "fit_elliptical", "fit_independent"]

#: The least degrees of freedom that a fit finds, and the largest, from which on a law is a Gaussian.
HEAVIEST, GAUSSIAN = 1.05, 200.0

#: With fewer samples than this, which say nothing of a tail, the law is a Gaussian.
FEW = 20

#: How many numbers a computation holds at a time, and how many steps a maximisation may take.
NUMBERS, STEPS = 2**22, 100

#: How often the directions of a multivariate law are found anew, with the weights of the law before.
SWEEPS = 3

#: A maximum is found when the next step would gain less than this, in nats over all samples: far below one, which is
#: what a standard error is worth.
GAIN = 1e-3


# Independent coordinates: Fisher scoring, many coordinates at once.


def fit_independent(data: Tensor, mean: Tensor, variances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Locations, scales and degrees of freedom, each (d,), of independent coordinates.

    Arguments:
        data: samples, shape (N, \\*S).
        mean: the location of a coordinate that turns out normal, shape (d,).
        variances: the square of its scale, shape (d,).
    """
    locations, scales, nu = mean.clone(), variances.sqrt(), torch.full_like(mean, GAUSSIAN)
    if len(data) < FEW:
        return locations, scales, nu
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
    return locations, scales, nu


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


def fit_elliptical(chosen: Tensor, data: Tensor, components: int) -> tuple[Subspace, float]:
    """Location, directions and squares of the scales, and the degrees of freedom, of coordinates that share their tail.

    Arguments:
        chosen: the samples that are fitted to, shape (N, \\*S).
        data: all samples, whose covariance counts if the law is normal.
        components: leading directions, at most.

    The first directions are those of the samples' signs :math:`(x - m) / \\|x - m\\|` about their median m, which are
    the same for every elliptical law, with or without a variance.
    """
    gaussian = Subspace.fit(data, components), GAUSSIAN
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
    return Subspace(mean, subspace.basis, scales[:-1], scales[-1]), nu


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
