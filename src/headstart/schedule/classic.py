r"""Grids made by hand: equal steps of a fixed function of the noise level, whatever the data and the network.

A grid from :math:`\sigma_{\max}` to :math:`\sigma_{\min}` in n equal steps of an increasing function w has the levels

.. math:: \sigma_i = w^{-1}\big((1 - \tfrac in)\, w(\sigma_{\max}) + \tfrac in\, w(\sigma_{\min})\big),

==================  ==========================================
grid                :math:`w(\sigma)`
==================  ==========================================
:func:`rho_grid`    :math:`\sigma^{1/\rho}`
:func:`log_linear`  :math:`\ln \sigma`
:func:`tangent`     :math:`\arctan(\sigma / c)`
:func:`cosine`      :math:`\arctan \sigma`
:func:`linear_vp`   :math:`t(\sigma)`, the inverse of its formula
==================  ==========================================

With ``final_zero``, EDM's convention, one more step goes from :math:`\sigma_{\min}` to 0.

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022, Equation 5 (rho).

    Song et al., *Denoising Diffusion Implicit Models*, ICLR 2021; Lu et al., *DPM-Solver*, NeurIPS 2022 (log-linear).

    Sabour et al., *Align Your Steps*, ICML 2024, Theorem 3.1 (tangent).

    Nichol and Dhariwal, *Improved Denoising Diffusion Probabilistic Models*, ICML 2021, Equation 17 (cosine).

    Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, ICLR 2021, Equation 32
    (linear_vp).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError
from headstart.schedule.base import Schedule
from headstart.schedule.rule import RULES, Measured, Rule

__all__ = [
    "Cosine",
    "LinearVP",
    "LogLinear",
    "Rho",
    "Tangent",
    "cosine",
    "linear_vp",
    "log_linear",
    "rho_grid",
    "tangent",
]

Levels = NDArray[np.float64]

#: EDM's highest and lowest level above 0, and the standard deviation of the images that they are for.
EDM_MAX, EDM_MIN, EDM_DEVIATION = 80.0, 0.002, 0.5


def rho_grid(steps: int, sigma_max: float, sigma_min: float, rho: float = 7.0, final_zero: bool = True) -> Schedule:
    """EDM's grid: equal steps of sigma^(1/rho). A larger rho puts more of the levels near ``sigma_min``.

    Arguments:
        steps: number of steps, of which ``final_zero`` spends the last from ``sigma_min`` to 0. One such step goes
            from ``sigma_max`` straight to 0.
        sigma_max: the first level.
        sigma_min: the last level above 0.
        rho: the power, above 0.
        final_zero: whether the grid ends at 0, or at ``sigma_min``.

    Raises:
        InputError: if an argument is out of its range.

    >>> rho_grid(4, 80.0, 0.002)
    Schedule(rho 7: 4 steps, 80 > 9.723 > 0.47 > 0.002 > 0)
    """
    _check_above_0(rho, "rho")

    # In units of sigma_max, so that no power overflows.
    return _equal_steps(
        name=f"rho {rho:g}",
        warp=lambda sigma: (sigma / sigma_max) ** (1 / rho),
        unwarp=lambda w: sigma_max * w**rho,
        steps=steps,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        final_zero=final_zero,
    )


@RULES.register
@dataclass(frozen=True)
class Rho(Rule):
    """EDM's levels: equal steps of sigma^(1/rho).

    Arguments:
        rho: the power, finite and above 0.
    """

    name = "rho"
    cites = ("karras2022elucidating",)
    usual = True

    rho: float = 7.0

    def __post_init__(self) -> None:
        _check_above_0(self.rho, "rho")

    def levels(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any) -> Schedule:
        return rho_grid(steps, horizon, sigma_min, self.rho)


def log_linear(steps: int, sigma_max: float, sigma_min: float, final_zero: bool = True) -> Schedule:
    """Equal steps of ln sigma, that is of the log signal-to-noise ratio. Arguments and errors as in :func:`rho_grid`.

    >>> log_linear(3, 10.0, 0.01, final_zero=False)
    Schedule(log-linear: 3 steps, 10 > 1 > 0.1 > 0.01)
    """
    return _equal_steps("log-linear", np.log, np.exp, steps, sigma_max, sigma_min, final_zero)


@RULES.register
class LogLinear(Rule):
    """Equal steps of the logarithm of the noise level."""

    name = "log_linear"
    cites = ("song2021denoising", "lu2022dpm")

    def levels(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any) -> Schedule:
        return log_linear(steps, horizon, sigma_min)


def tangent(steps: int, sigma_max: float, sigma_min: float, scale: float = 0.5, final_zero: bool = True) -> Schedule:
    """Equal steps of arctan(sigma / scale), the best grid for Euler's method on an isotropic Gaussian.

    Arguments and errors as in :func:`rho_grid`, and:

    Arguments:
        scale: standard deviation of the data, above 0; 0.5 for the images of EDM.

    >>> tangent(2, 2.0, 0.125, final_zero=False)
    Schedule(tangent 0.5: 2 steps, 2 > 0.5 > 0.125)
    """
    _check_above_0(scale, "the scale")

    return _equal_steps(
        name=f"tangent {scale:g}",
        warp=lambda sigma: np.arctan(sigma / scale),
        unwarp=lambda w: scale * np.tan(w),
        steps=steps,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        final_zero=final_zero,
    )


@RULES.register
@dataclass(frozen=True)
class Tangent(Rule):
    """Equal steps of arctan(sigma / scale).

    Arguments:
        scale: finite and above 0; the profile's standard deviation of the data by default.
    """

    name = "tangent"
    cites = ("sabour2024align",)
    usual = True

    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None:
            _check_above_0(self.scale, "the scale")

    def levels(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any) -> Schedule:
        return tangent(steps, horizon, sigma_min, profile.sigma_data if self.scale is None else self.scale)


def cosine(steps: int, sigma_max: float, sigma_min: float, final_zero: bool = True) -> Schedule:
    r"""Equal steps of the time t of the cosine schedule. Arguments and errors as in :func:`rho_grid`.

    In variance-preserving units its signal is the cosine, and its noise the sine, of one angle, so that

    .. math:: \sigma(t) = \tan\Big( \frac{t + s}{1 + s}\, \frac \pi 2 \Big).

    The offset s = 0.008 says which level has the time 0, and nothing about the levels between two given ones: the grid
    is that of :func:`tangent` with the scale 1. The paper also divides the signal's square by its value at t = 0, which
    makes that level 0 and multiplies every :math:`1 + \sigma^2` by 0.99984. We leave it out: of ten steps from 80, it
    moves no level by more than 0.2 % down to 0.1, and by 6 % down to 0.002.

    >>> cosine(2, 1.0, 0.01, final_zero=False)
    Schedule(cosine: 2 steps, 1 > 0.4201 > 0.01)
    """
    return _equal_steps("cosine", np.arctan, np.tan, steps, sigma_max, sigma_min, final_zero)


@RULES.register
class Cosine(Rule):
    """Equal steps of the time of the cosine schedule."""

    name = "cosine"
    cites = ("nichol2021improved",)

    def levels(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any) -> Schedule:
        return cosine(steps, horizon, sigma_min)


def linear_vp(
    steps: int,
    sigma_max: float,
    sigma_min: float,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    final_zero: bool = True,
) -> Schedule:
    r"""Equal steps of the time t of the variance-preserving process whose rate of noise grows linearly (DDPM).

    .. math::
        \sigma(t) = \sqrt{\exp(\tfrac12 \beta_d t^2 + \beta_{\min} t) - 1}, \qquad
        \beta_d = \beta_{\max} - \beta_{\min}.

    Arguments and errors as in :func:`rho_grid`, and:

    Arguments:
        beta_min: the rate of noise at t = 0, at least 0.
        beta_max: the rate at t = 1, above 0 and at least ``beta_min``. The level there is 152 by default; above it, t
            is above 1.

    >>> linear_vp(3, 152.0, 0.01, final_zero=False)
    Schedule(linear VP: 3 steps, 152 > 9.397 > 1.461 > 0.01)
    """
    if not (0 <= beta_min <= beta_max < math.inf and beta_max > 0):
        raise InputError(
            "the rate of noise goes from beta_min, at least 0, up to a finite beta_max above 0: got "
            f"{beta_min} and {beta_max}"
        )
    slope = beta_max - beta_min

    def time(sigma: Levels) -> Levels:
        # The root of the quadratic without a difference of nearly equal numbers.
        exponent = np.log1p(sigma**2)
        return np.asarray(2 * exponent / (beta_min + np.sqrt(beta_min**2 + 2 * slope * exponent)))

    return _equal_steps(
        name="linear VP",
        warp=time,
        unwarp=lambda t: np.sqrt(np.expm1(0.5 * slope * t**2 + beta_min * t)),
        steps=steps,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        final_zero=final_zero,
    )


@RULES.register
class LinearVP(Rule):
    """Equal steps of the time of the variance-preserving process whose rate of noise grows linearly."""

    name = "linear_vp"
    cites = ("song2021score",)

    def levels(self, profile: Measured, steps: int, horizon: float, sigma_min: float, solver: Any) -> Schedule:
        return linear_vp(steps, horizon, sigma_min)


def _check_above_0(value: float, said: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{said} is {value}: it must be finite and above 0")


def _equal_steps(
    name: str,
    warp: Callable[[Levels], Levels],
    unwarp: Callable[[Levels], Levels],
    steps: int,
    sigma_max: float,
    sigma_min: float,
    final_zero: bool,
) -> Schedule:
    """The formula at the top of this module, with both ends pinned and the 0 appended."""
    if not isinstance(steps, Integral) or steps < 1:
        raise InputError(f"a grid has a whole number of steps, 1 or more: got {steps}")
    if not (math.isfinite(sigma_max) and sigma_max > sigma_min > 0):
        raise InputError(
            f"levels go from a finite sigma_max down to a sigma_min above 0: got {sigma_max} and {sigma_min}"
        )
    ends = np.array([sigma_max, sigma_min], dtype=np.float64)
    levels = unwarp(np.linspace(*warp(ends), num=int(steps) + (not final_zero)))
    levels[-1], levels[0] = ends[1], ends[0]  # in this order: a single level is sigma_max
    return Schedule([*levels, 0.0] if final_zero else levels, name)
