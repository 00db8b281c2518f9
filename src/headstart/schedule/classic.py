r"""Grids made by hand: equal steps of a fixed function of the noise level, whatever the data and the network.

A grid from :math:`\sigma_{\max}` to :math:`\sigma_{\min}` in n equal steps of an increasing function w has the levels

.. math:: \sigma_i = w^{-1}\big((1 - \tfrac in)\, w(\sigma_{\max}) + \tfrac in\, w(\sigma_{\min})\big),

==================  =============================
grid                :math:`w(\sigma)`
==================  =============================
:func:`rho_grid`    :math:`\sigma^{1/\rho}`
:func:`log_linear`  :math:`\ln \sigma`
:func:`tangent`     :math:`\arctan(\sigma / c)`
==================  =============================

With ``final_zero``, EDM's convention, one more step goes from :math:`\sigma_{\min}` to 0.

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022, Equation 5 (rho).

    Song et al., *Denoising Diffusion Implicit Models*, ICLR 2021; Lu et al., *DPM-Solver*, NeurIPS 2022 (log-linear).

    Sabour et al., *Align Your Steps*, ICML 2024, Theorem 3.1 (tangent).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError
from headstart.schedule.base import Schedule

__all__ = ["log_linear", "rho_grid", "tangent"]

Levels = NDArray[np.float64]


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
    if not (math.isfinite(rho) and rho > 0):
        raise InputError(f"rho is {rho}: it must be finite and above 0")

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


def log_linear(steps: int, sigma_max: float, sigma_min: float, final_zero: bool = True) -> Schedule:
    """Equal steps of ln sigma, that is of the log signal-to-noise ratio. Arguments and errors as in :func:`rho_grid`.

    >>> log_linear(3, 10.0, 0.01, final_zero=False)
    Schedule(log-linear: 3 steps, 10 > 1 > 0.1 > 0.01)
    """
    return _equal_steps("log-linear", np.log, np.exp, steps, sigma_max, sigma_min, final_zero)


def tangent(steps: int, sigma_max: float, sigma_min: float, scale: float = 0.5, final_zero: bool = True) -> Schedule:
    """Equal steps of arctan(sigma / scale), the best grid for Euler's method on an isotropic Gaussian.

    Arguments and errors as in :func:`rho_grid`, and:

    Arguments:
        scale: standard deviation of the data, above 0; 0.5 for the images of EDM.

    >>> tangent(2, 2.0, 0.125, final_zero=False)
    Schedule(tangent 0.5: 2 steps, 2 > 0.5 > 0.125)
    """
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"the scale is {scale}: it must be finite and above 0")

    return _equal_steps(
        name=f"tangent {scale:g}",
        warp=lambda sigma: np.arctan(sigma / scale),
        unwarp=lambda w: scale * np.tan(w),
        steps=steps,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        final_zero=final_zero,
    )


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
