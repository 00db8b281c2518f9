r"""Align Your Steps: levels that minimise the Kullback-Leibler upper bound (KLUB) of a stochastic sampler.

Within a step from level a to b < a, Stochastic DDIM keeps the estimate that it made at a. By Girsanov's theorem the
path that it follows then diverges from the exact one by

.. math:: K(a, b) = \int_b^a s^{-3}\, E\,\|D(x_s, s) - D(x_a, a)\|^2\, ds, \qquad
    x_s = x_0 + s \varepsilon, \quad x_a = x_s + \sqrt{a^2 - s^2}\, z

nats, and the levels that minimise the sum over all steps are found one at a time, since a level occurs in two terms
only. With :math:`u = s^{-2}` and

.. math:: \rho(u) = \frac{c^2 (u - u_a)}{1 + c^2 u_a}, \qquad
    E\,\|D(x_s, s) - D(x_a, a)\|^2 = \frac{d\, c^2}{1 + c^2 u_a}\, \frac{\rho}{1 + \rho}, \qquad
    K(a, b) = \frac d2\, [\rho_b - \ln(1 + \rho_b)]

for data :math:`N(0, c^2 I)` in d dimensions. So s is drawn with a density in proportion to that integrand, whose
distribution function is :math:`[\rho - \ln(1 + \rho)] / [\rho_b - \ln(1 + \rho_b)]`, and K is :math:`\tfrac12 [\rho_b
- \ln(1 + \rho_b)]` times the mean of :math:`\|D(x_s, s) - D(x_a, a)\|^2` over its expectation per coordinate: exact
for any data, and of little variance for those that are somewhat like a Gaussian.

With an exact denoiser K differs from the ``ddpm`` term of :mod:`headstart.schedule.dynamic` by what no choice of
levels changes, and :class:`~headstart.schedule.ShortestPaths` finds the minimum from the loss alone, for all horizons
and numbers of steps. This is the method as it was published, for comparison.

References:
    Sabour, Fidler and Kreis, *Align Your Steps: Optimizing Sampling Schedules in Diffusion Models*, ICML 2024, arXiv
    2404.14507, Algorithms 1 and 2, and Table 3.

    Where we differ. The constant of its Equations 8 and 9 is twice that of Girsanov's theorem, which is the one of its
    Equation 10 and ours; and its Equation 13 prints a square that its own proof, Appendix A.3, does not have. Its
    Algorithm 2 averages without the total mass of the density that s is drawn with. That mass depends on the level
    that is being moved, so that for Gaussian data all candidates would do equally well: we multiply by it. The two
    terms of a level are estimated apart, and with one set of random numbers for all candidates. The paper stops the
    descent early by an image metric, for which there is none here: see :func:`align_your_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.compute import Compute
from headstart.conditions import Conditions, to_device
from headstart.denoiser import Denoiser, denoise, expand, in_evaluation_mode
from headstart.deprecation import gathered
from headstart.errors import DataError, DenoiserError, InputError
from headstart.noise import generator_of
from headstart.progress import Progress
from headstart.schedule.base import Schedule
from headstart.schedule.classic import rho_grid
from headstart.schedule.rule import RULES, Kind

__all__ = ["AlignYourSteps", "AlignedModel", "Descent", "align_your_steps", "interpolate", "klub", "published_steps"]

Curve = NDArray[np.float64]
AlignedModel = Literal["stable-diffusion-1.5", "stable-diffusion-xl", "deepfloyd-if", "stable-video-diffusion"]

#: How far towards each neighbour a level is tried: with itself, the paper's 11 candidates. It does not say which.
REACH = (0.03, 0.1, 0.25, 0.5, 0.85)

#: Table 3 of the paper.
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "stable-diffusion-1.5": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "stable-diffusion-xl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "deepfloyd-if": (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006),
    "stable-video-diffusion": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}


@RULES.register
class AlignYourSteps(Kind):
    """Levels that minimise an upper bound on the divergence of a stochastic sampler."""

    name = "align_your_steps"
    cites = ("sabour2024align",)


@dataclass(frozen=True)
class Descent:
    """How much goes into the descent of :func:`align_your_steps`.

    Attributes:
        samples: how many of the data the bound is estimated on, at most all of them. The paper takes 8,192.
        sigma_data: c, the standard deviation of the data per coordinate; measured by default, and 0.5 in the paper. It
            changes the variance of the estimate and not its expectation.
        coarse: steps above 0 of the first grid, 2 or more.
        subdivisions: how often its steps are halved.
        sweeps: how often at most all levels are moved, before and after each halving.

    Raises:
        InputError: if there are fewer than 2 coarse steps or 1 sweep, or a negative number of subdivisions.
    """

    samples: int = 1024
    sigma_data: float | None = None
    coarse: int = 10
    subdivisions: int = 2
    sweeps: int = 100

    def __post_init__(self) -> None:
        if self.coarse < 2 or self.subdivisions < 0 or self.sweeps < 1:
            raise InputError(
                "there must be 2 coarse steps or more, no negative number of subdivisions and 1 sweep or more: got "
                f"{self.coarse}, {self.subdivisions} and {self.sweeps}"
            )


@gathered(descent=Descent, compute=Compute)
@in_evaluation_mode
def align_your_steps(
    denoiser: Denoiser,
    data: Tensor,
    steps: int,
    horizon: float,
    sigma_min: float,
    final_zero: bool = True,
    *,
    descent: Descent | None = None,
    conditions: Mapping[str, Any] | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Schedule:
    """The grid of Align Your Steps, from EDM's by coordinate descent on the bound.

    As in the paper, all levels between the ends of a coarse grid are moved, each to the best of 11 candidates between
    its neighbours, until none moves. Then every step is cut at its geometric middle and only the new levels are
    moved, twice; and the grid that is found is interpolated linearly in ln sigma to the number of steps.

    The bound is of the path and not of the samples, and the paper stops the first descent by an image metric, or by
    eye, before it is at its end. We know no metric and go to the end, so that this is the minimum of the bound.
    :attr:`Descent.sweeps` stops it earlier.

    It is expensive: a sweep evaluates the denoiser up to 40 times for each sample and each level that moves, and on
    mixtures of Gaussians the whole took some 15,000 evaluations a sample. With ``Descent(coarse=5, subdivisions=3)``,
    which is not the paper's, it took 4,000, for a bound as low. To try several numbers of steps, ask for 40 steps and
    no final zero, and :func:`interpolate` them.

    Arguments:
        denoiser: the network.
        data: clean samples, shape (N, \\*S).
        steps: number of steps; with ``final_zero`` the last one goes from ``sigma_min`` to 0, and is no part of the
            bound.
        horizon: the first level.
        sigma_min: the last level above 0.
        final_zero: whether a last step goes to 0.
        descent: how much goes into it; by default :class:`Descent` as it is.
        conditions: handed to the denoiser; tensors of length N go with the data.
        seed: of the choice of samples and of the noise.
        compute: where the denoiser works, on what type, how many samples at a time, and who is told of the sweeps.

    Raises:
        DataError: if the data are fewer than two, not finite, or all equal.
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape, or the same at all levels.
        InputError: if a number is out of its range, or the levels are out of order.
    """
    if steps < 1:
        raise InputError(f"a grid has 1 step or more: got {steps}")
    descent, compute = descent or Descent(), compute or Compute()
    first = rho_grid(descent.coarse, horizon, sigma_min, final_zero=False)
    bound = _Estimate.of(denoiser, data, descent.samples, descent.sigma_data, conditions, seed, compute)
    known: dict[tuple[float, float], float] = {}

    def cost(a: float, b: float) -> float:
        if (a, b) not in known:
            known[a, b] = float(bound(a, b).mean())
        return known[a, b]

    if sum(cost(a, b) for a, b in first.pairs()) == 0:
        raise DenoiserError("the denoiser returns the same at all noise levels: there is nothing to align")
    levels = list(first.sigmas)
    _descend(cost, levels, range(1, descent.coarse), descent.sweeps, compute.progress)
    for _ in range(descent.subdivisions):
        halves = [math.sqrt(a * b) for a, b in pairwise(levels)]
        levels = [level for pair in zip(levels, halves, strict=False) for level in pair] + levels[-1:]
        _descend(cost, levels, range(1, len(levels), 2), descent.sweeps, compute.progress)
    return interpolate(Schedule(levels, "align your steps"), steps, final_zero)


@gathered(compute=Compute)
@in_evaluation_mode
def klub(
    denoiser: Denoiser,
    data: Tensor,
    a: float,
    b: float,
    *,
    samples: int = 1024,
    sigma_data: float | None = None,
    conditions: Mapping[str, Any] | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Curve:
    """Estimates of K(a, b) in nats, one for each sample, shape (M,). Their mean is the estimate of the bound.

    Calls with the same data, numbers and seed share their random numbers, so that a difference between two steps has
    little noise. Each sample has a stratum of the step of its own: the standard error that their deviation gives is
    too large rather than too small.

    Arguments:
        a: the level that the step starts from.
        b: the level that it ends at, below a and above 0.
        samples: as in :class:`Descent`.
        sigma_data: as in :class:`Descent`.

    The other arguments, and the errors, are those of :func:`align_your_steps`.
    """
    if not (math.isfinite(a) and a > b > 0):
        raise InputError(f"a step goes from a finite level down to one above 0: got {a} and {b}")
    return _Estimate.of(denoiser, data, samples, sigma_data, conditions, seed, compute or Compute())(a, b)


def interpolate(schedule: Schedule, steps: int, final_zero: bool = True) -> Schedule:
    """A grid with another number of steps: the levels above 0, linearly interpolated in ln sigma over their place.

    Arguments:
        schedule: the grid; a step to 0 is left out of it.
        steps: number of steps; with ``final_zero`` the last one goes from the last level to 0.
        final_zero: whether a last step goes to 0.

    Raises:
        InputError: if steps is below 1.

    >>> interpolate(Schedule([8.0, 2.0, 1.0]), 4, final_zero=False)
    Schedule(custom: 4 steps, 8 > 4 > 2 > 1.414 > 1)
    """
    if steps < 1:
        raise InputError(f"a grid has 1 step or more: got {steps}")
    known = np.array([s for s in schedule.sigmas if s > 0])
    place = np.linspace(0, len(known) - 1, steps + (not final_zero))
    levels = np.exp(np.interp(place, np.arange(len(known)), np.log(known)))
    levels[-1], levels[0] = known[-1], known[0]  # in this order: a single level is the horizon
    return Schedule([*levels, 0.0] if final_zero else levels, schedule.name)


def published_steps(model: AlignedModel, steps: int = 10, final_zero: bool = True, scale: float = 1.0) -> Schedule:
    """The grid that the paper found for a public model, in 10 steps, or interpolated to another number.

    With ``final_zero`` the last level, 0.029 or less, is replaced by 0 after the interpolation, which in 10 steps gives
    the tables of diffusers. So the lowest level above 0 depends on the number of steps, while in the other grids of
    this package it stays.

    Arguments:
        model: "stable-diffusion-1.5", "stable-diffusion-xl", "deepfloyd-if" or "stable-video-diffusion".
        steps: number of steps.
        final_zero: whether the grid ends at 0, or at the last level of the table.
        scale: multiplies the levels. They are in units of the model's own data, or latents: for data that are k times
            as large, the scale is k.

    Raises:
        InputError: if the model is unknown, or a number is out of its range.

    References:
        Sabour, Fidler and Kreis, *Align Your Steps*, ICML 2024, arXiv 2404.14507, Table 3.

    >>> published_steps("stable-diffusion-xl", 4)
    Schedule(align your steps stable-diffusion-xl: 4 steps, 14.62 > 2.868 > 0.862 > 0.2982 > 0)
    """
    if model not in PUBLISHED:
        raise InputError(f"unknown model {model!r}: the paper has {', '.join(PUBLISHED)}")
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"the scale is {scale}: it must be finite and above 0")
    table = Schedule(scale * np.array(PUBLISHED[model]), f"align your steps {model}")
    grid = interpolate(table, steps, final_zero=False)
    return Schedule([*grid.sigmas[:-1], 0.0], grid.name) if final_zero else grid


def _descend(
    cost: Callable[[float, float], float], levels: list[float], places: Sequence[int], sweeps: int, progress: Progress
) -> None:
    """Algorithm 1, in place: each of the levels that may move goes to its best candidate, until none does."""
    for _ in progress.track(range(sweeps), "aligning the steps"):
        before = list(levels)
        for i in places:
            high, level, low = levels[i - 1 : i + 2]
            # The level itself comes first: it stays where no other is strictly better.
            candidates = [level, *(level * (end / level) ** share for end in (high, low) for share in REACH)]
            levels[i] = min(candidates, key=lambda s, a=high, b=low: cost(a, s) + cost(s, b))  # type: ignore[misc]
        if levels == before:
            break


@dataclass(frozen=True, eq=False)
class _Estimate:
    """K(a, b) by importance sampling, on random numbers drawn once. Made by :meth:`of`.

    Attributes:
        x0, eps, z: the clean samples and the noises of the formulas, shape (M, \\*S), on the CPU.
        quantiles: where in the step each sample is, by its share of the density of s, in (0, 1], shape (M,).
    """

    denoiser: Denoiser
    x0: Tensor
    eps: Tensor
    z: Tensor
    quantiles: Tensor
    sigma_data: float
    conditions: Conditions
    compute: Compute

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        data: Tensor,
        samples: int,
        sigma_data: float | None,
        conditions: Mapping[str, Any] | None,
        seed: int,
        compute: Compute,
    ) -> _Estimate:
        """Check the input, and draw."""
        if data.ndim < 2 or len(data) < 2 or not torch.isfinite(data).all():
            raise DataError("the bound needs at least two samples in an array (N, ...), without NaN or Inf")
        if samples < 2:
            raise InputError(f"the bound needs at least 2 samples: got {samples}")
        deviation = float(data.double().flatten(1).var(dim=0).mean().sqrt())
        if deviation == 0:
            raise DataError("all samples are equal: there is nothing to generate")
        scale = deviation if sigma_data is None else sigma_data
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"sigma_data is {sigma_data}: it must be finite and above 0")
        generator = generator_of(seed)
        index = torch.randperm(len(data), generator=generator)[:samples]
        x0 = data.cpu()[index].to(compute.dtype)
        eps, z = (torch.randn(x0.shape, generator=generator) for _ in range(2))
        # 1 - U is never 0, where the density of s, which the estimate divides by, vanishes.
        uniform = 1 - torch.rand(len(x0), generator=generator, dtype=torch.float64)
        given, shared = Conditions.of(conditions, len(data)).to("cpu").apart()
        return cls(
            denoiser=partial(denoiser, **to_device(shared, compute.device)),
            x0=x0,
            eps=eps,
            z=z,
            quantiles=(torch.arange(len(x0)) + uniform) / len(x0),
            sigma_data=scale,
            conditions=given.take(index),
            compute=compute,
        )

    def __call__(self, a: float, b: float) -> Curve:
        """One estimate for each sample, in nats: see the top of this module."""
        c2, u_a = self.sigma_data**2, a**-2
        prior = 1 + c2 * u_a
        end = c2 * (b**-2 - u_a) / prior
        whole = end - math.log1p(end)
        if not whole > 0:
            raise InputError(f"the levels {a} and {b} are too close to each other for sigma_data = {self.sigma_data}")
        rho = _inverse(whole * self.quantiles)
        expected = c2 / prior * rho / (1 + rho)
        du = prior * rho / c2
        u = u_a + du
        # sqrt(a^2 - s^2), without the cancellation.
        change = self._change(u.rsqrt(), a, (du / (u_a * u)).sqrt())
        return np.asarray((0.5 * whole * change / expected).numpy())

    @torch.no_grad()
    def _change(self, s: Tensor, a: float, rest: Tensor) -> Tensor:
        """|D(x_s, s) - D(x_a, a)|^2 of each sample, for levels s of shape (M,)."""
        parts, (device, dtype) = [], (self.compute.device, self.compute.dtype)
        for part in self.compute.batches(len(self.x0)):
            x0, eps, z = (t[part].to(device, dtype) for t in (self.x0, self.eps, self.z))
            conds = self.conditions.take(part).to(device)
            x_s = x0 + expand(s[part], x0) * eps
            x_a = x_s + expand(rest[part], x0) * z
            change = _denoise_each(self.denoiser, x_s, s[part], conds) - denoise(self.denoiser, x_a, a, **conds)
            parts.append(change.flatten(1).cpu().double().square().sum(1))
        return torch.cat(parts)


def _denoise_each(denoiser: Denoiser, x: Tensor, sigmas: Tensor, conditions: Mapping[str, Any]) -> Tensor:
    """:func:`~headstart.denoiser.denoise`, and its checks, with a noise level of each sample's own."""
    levels = sigmas.to(x.device, torch.promote_types(x.dtype, torch.float32))

    def at_levels(y: Tensor, _: Any, /, **given: Any) -> Tensor:
        return denoiser(y, levels, **given)

    return denoise(at_levels, x, float(sigmas.mean()), **conditions)


def _inverse(y: Tensor) -> Tensor:
    """The rho > 0 with rho - ln(1 + rho) = y, by Newton's method.

    The function is convex and the first guess too large (Chatzigeorgiou, IEEE Communications Letters, 2013), so that
    every iterate is closer, from above.
    """
    rho = y + (2 * y).sqrt()
    for _ in range(8):
        rho = rho - (rho - rho.log1p() - y) * (1 + rho) / rho
    return rho
