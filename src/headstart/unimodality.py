r"""The horizon at which the noised data have one mode, in every direction that was examined.

The dip of a law on the line with distribution function F is its distance from the unimodal ones,

.. math:: \operatorname{dip}(F) = \min_{G \in \mathcal{U}} \sup_x |F(x) - G(x)|,

where G is unimodal if for some m it is convex up to m and concave from m on (a jump at m is allowed). The horizon is

.. math:: \sigma_T = \max_u \min \{ \sigma : z(\langle u, x_0 \rangle + \sigma \varepsilon) < 0 \}, \qquad
    z(y) = \frac{\operatorname{dip}(y) - \mu_n}{s_n},

with :math:`\mu_n` and :math:`s_n` the mean and standard deviation of the dip of n uniform numbers, the unimodal law
that is hardest to tell from a bimodal one.

    >>> two = torch.cat([torch.full((500, 1), -1.0), torch.full((500, 1), 1.0)])
    >>> bool(0.4 < unimodal_horizon(two, directions=1).sigma < 1.2)
    True

References:
    Hartigan and Hartigan, *The Dip Test of Unimodality*, Annals of Statistics 13(1), 1985 (the dip, its algorithm).

    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (the horizon, in its
    second version).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.noise import generator_of
from headstart.progress import Progress

__all__ = ["UnimodalHorizon", "dip", "unimodal_horizon"]

Curve = NDArray[np.float64]

#: Halvings of the search interval on the log scale, and uniform samples that the null is measured on: the paper's.
HALVINGS, NULL = 12, 500
#: Draws of the noise that a dip is the mean of.
DRAWS = 4
#: The search range by default, in units of standard deviations of the data: per coordinate, and along the directions.
LOWEST, HIGHEST = 0.01, 10.0
#: With fewer samples than this, a dip sees no modes that matter.
FEWEST = 50


@dataclass(frozen=True, eq=False)
class UnimodalHorizon:
    """The result of :func:`unimodal_horizon`.

    Attributes:
        sigma: the horizon, in the data's units. It is the low end of the range if no direction needs noise.
        low: the low end of the range that was searched.
        high: its high end.
        worst: which direction needs the most noise, or None if none needs any.
        direction: that direction, shape (d,), or None.
        verified: share of fresh directions along which fresh data, noised at sigma, have a dip below the null's mean.
        directions: their number.
        samples: samples that each dip is of.
        seed: of samples, directions and noise.
    """

    sigma: float
    low: float
    high: float
    worst: int | None
    direction: Tensor | None
    verified: float
    directions: int
    samples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The values without the direction, plain."""
        return {name: value for name, value in vars(self).items() if name != "direction"}

    def __repr__(self) -> str:
        at = "<= " if self.worst is None else ""
        return (
            f"UnimodalHorizon(sigma {at}{self.sigma:.3g}; {self.verified:.1%} of {self.directions} fresh directions "
            f"unimodal, n = {self.samples})"
        )


def dip(x: ArrayLike) -> float:
    """Hartigan's dip of the numbers x, shape (n,): from 0, all equal, to 1/4, two equal atoms; 1 / 2n without ties.

    The algorithm of the 1985 paper: take the greatest convex minorant and the least concave majorant of the empirical
    distribution function, go to where they are furthest apart, and repeat in between, until what lies outside the modal
    interval is further from its envelope than the envelopes from each other. A convex minorant is the integral of the
    isotonic regression of the slopes, so that each round is linear in n; the rounds are few.

    Arguments:
        x: numbers in any order. Ties are atoms, which only the mode may have.

    Raises:
        DataError: if there are no numbers, or NaN or Inf among them, or they are not of shape (n,).

    >>> dip([0, 0, 1, 1]), dip([1, 2]), dip([7, 7, 7])
    (0.25, 0.25, 0.0)
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(np.ptp(x)):
        raise DataError(f"a dip is of at least one finite number, shape (n,): got shape {x.shape}, or NaN or Inf")
    if not (width := np.ptp(x)):
        return 0.0
    # In units of the range: no two different points are so close that a slope would overflow.
    points, counts = np.unique((x - x.min()) / width, return_counts=True)
    above = np.cumsum(counts) / len(x)  # F and its limits from the left: the two corners of every step
    below = above - counts / len(x)
    found = 0.0
    while len(points) > 1:
        minorant, touches_below = _minorant(points, below)
        majorant, touches_above = _minorant(points, -above)
        majorant = -majorant
        gap = np.where(touches_below | touches_above, majorant - minorant, 0.0)
        widest = int(gap.argmax())
        if gap[widest] <= found:
            break
        start = widest if touches_below[widest] else int(np.flatnonzero(touches_below[:widest])[-1])
        end = widest if touches_above[widest] else widest + int(np.flatnonzero(touches_above[widest:])[0])
        left, right = (above - minorant)[:start], (majorant - below)[end + 1 :]
        found = max(found, left.max(initial=0.0), right.max(initial=0.0))
        points, above, below = (values[start : end + 1] for values in (points, above, below))
    return float(found / 2)


def _minorant(points: Curve, values: Curve) -> tuple[Curve, NDArray[np.bool_]]:
    """The greatest convex minorant at the points, and where it touches the values (its corners)."""
    from scipy.optimize import isotonic_regression

    widths = np.diff(points)
    slopes = isotonic_regression(np.diff(values) / widths, weights=widths).x
    minorant = values[0] + np.concatenate([[0.0], np.cumsum(slopes * widths)])
    return minorant, np.concatenate([[True], np.diff(slopes) > 0, [True]])


def unimodal_horizon(
    data: Tensor,
    *,
    directions: int | Tensor = 200,
    seed: int = 0,
    samples: int = 2000,
    low: float | None = None,
    high: float | None = None,
    progress: Progress | None = None,
) -> UnimodalHorizon:
    r"""The smallest noise at which every one of the directions sees one mode: the paper's rule for the horizon.

    Direction by direction, sigma is bisected on the log scale, 12 times, with the same noise at every sigma. A
    direction that is already unimodal at the largest sigma so far cannot raise the maximum, and is not bisected. The
    result is verified on fresh samples, directions and noise.

    What differs from the paper. It searches [0.1, 5] for data of unit variance, with 50,000 or 100,000 samples and up
    to 20,000 directions, in 2 and 10 dimensions. Here the range is in units of the data's standard deviation and wider,
    so that it also fits images; each direction's noise is drawn by itself, since noise projected on a unit vector is a
    standard normal number; directions can be given; and a dip is the mean over 4 draws of the noise. With n = 2,000 one
    draw in 200 of nothing but Gaussian noise has a dip above the null's mean, so that one of 200 directions would
    look as if no noise could hide its modes; the mean of 4 draws never was above in 2,000 trials.

    How many samples matters, in two ways. Two atoms at -1 and 1 have one mode from sigma = 1 on; with few samples the
    last trace of two modes is below the null's mean, and the rule says 0.7 to 0.9. But a flat top is as hard to
    tell from two modes as the uniform law is, and the maximum over many directions finds the one where chance made two.

    Random directions see little in many dimensions: most projections of high-dimensional data are nearly Gaussian
    (Diaconis and Freedman, *Asymptotics of Graphical Projection Pursuit*, Annals of Statistics 1984), however many
    modes the data have. On images give directions that separate, such as principal axes or differences of class means.

    Arguments:
        data: clean data, shape (N, \*S); half of them, at most, are kept for the verification.
        directions: their number, drawn uniformly on the unit sphere, or vectors of shape (directions, d), which are
            normalised, and then are also those of the verification.
        seed: of samples, directions and noise.
        samples: samples that each dip is of; at most N / 2.
        low: low end of the search range, in the data's units; by default 0.01 standard deviations per coordinate.
        high: high end; by default 10 standard deviations, per coordinate or along the direction that has the most.
        progress: told of the directions.

    Raises:
        DataError: if there are fewer than 100 samples, or NaN or Inf among them, or they are all equal.
        InputError: if a number is out of its range, or the data still have several modes at the high end.

    References:
        Fassina et al., arXiv 2603.00772, Algorithm 3 of the second version.
    """
    flat = _check(data)
    n = min(samples, len(flat) // 2)
    if n < FEWEST or not 0 <= seed < 2**63:
        raise InputError(
            f"{samples} samples from seed {seed}: expected at least {FEWEST}, and a seed from 0 to 2^63 - 1"
        )
    generator = generator_of(seed)
    chosen = torch.randperm(len(flat), generator=generator)[: 2 * n].to(flat.device)
    first, second = torch.split(flat[chosen].detach().cpu().double(), n)
    limit = _uniform_dip(n, generator)
    progress = progress or Progress()

    u = _directions(directions, flat.shape[1], generator)
    low, high = _range(low, high, first, u)
    sigma, worst = low, None
    lines = _projections(first, u, generator)
    for index, (line, noise) in enumerate(progress.track(lines, "modes", len(u))):
        if _dip(line, noise, sigma) >= limit:
            if _dip(line, noise, high) >= limit:
                raise InputError(f"there are several modes even at noise {high:.3g}: search higher than that")
            sigma, worst = _bisect(line, noise, sigma, high, limit), index
    fresh = u if isinstance(directions, Tensor) else _directions(directions, flat.shape[1], generator)
    lines = _projections(second, fresh, generator)
    dips = [_dip(line, noise, sigma) for line, noise in progress.track(lines, "verifying", len(fresh))]
    verified = float(np.mean(np.array(dips) < limit))
    direction = None if worst is None else u[worst]
    return UnimodalHorizon(sigma, low, high, worst, direction, verified, len(u), n, seed)


def _check(data: Tensor) -> Tensor:
    """The data with one row a sample, if they can be used."""
    if data.ndim < 2 or len(data) < 2 * FEWEST or not data[0].numel():
        raise DataError(f"the data have shape {tuple(data.shape)}: expected (N, ...) with N of at least {2 * FEWEST}")
    if not data.is_floating_point() or not torch.isfinite(data).all():
        raise DataError("the data must be finite floating-point numbers")
    return data.flatten(1)


def _directions(directions: int | Tensor, d: int, generator: torch.Generator) -> Tensor:
    """Unit vectors, shape (directions, d), in float64 and on the CPU."""
    if not isinstance(directions, Tensor):
        if directions < 1:
            raise InputError(f"{directions} directions: expected at least 1")
        directions = torch.randn(directions, d, generator=generator, dtype=torch.float64)
    u = directions.detach().cpu().double()
    if u.ndim != 2 or not len(u) or u.shape[1] != d or not torch.isfinite(u).all() or not u.any(1).all():
        raise InputError(f"the directions have shape {tuple(u.shape)}: expected (K, {d}), finite and none of them zero")
    return torch.nn.functional.normalize(u, dim=1)


def _range(low: float | None, high: float | None, rows: Tensor, u: Tensor) -> tuple[float, float]:
    """The search range, by default in units of the rows' standard deviations."""
    scale = float(rows.var(0).mean().sqrt())
    if not 0 < scale < math.inf:
        raise DataError("the data are all equal, or too large: their standard deviation must be positive and finite")
    widest = max(scale, float((rows @ u.T).std(0).max()))
    low, high = LOWEST * scale if low is None else low, HIGHEST * widest if high is None else high
    if not 0 < low < high < math.inf:
        raise InputError(f"the search range must be 0 < low < high, got {low} and {high}")
    return low, high


def _projections(rows: Tensor, u: Tensor, generator: torch.Generator) -> list[tuple[Curve, Curve]]:
    """For each direction, the projections of the samples, shape (n,), and normal numbers, shape (draws, n)."""
    seen = (rows @ u.T).T.contiguous().numpy()
    noise = torch.randn(len(u), DRAWS, len(rows), generator=generator, dtype=torch.float64).numpy()
    return list(zip(seen, noise, strict=True))


def _dip(line: Curve, noise: Curve, sigma: float) -> float:
    """The mean dip over the draws of the noise."""
    return float(np.mean([dip(line + sigma * draw) for draw in noise]))


def _bisect(line: Curve, noise: Curve, low: float, high: float, limit: float) -> float:
    """The smallest sigma, up to the last halving, at which the dip is below its limit; it is below at ``high``."""
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        if _dip(line, noise, middle) < limit:
            high = middle
        else:
            low = middle
    return high


def _uniform_dip(n: int, generator: torch.Generator) -> float:
    """The mean dip of n uniform numbers: z < 0 says that a dip is below it."""
    uniform = torch.rand(NULL, n, generator=generator, dtype=torch.float64).numpy()
    return float(np.mean([dip(row) for row in uniform]))
