r"""Denoisers from networks that see or predict something else.

Such networks see :math:`z = \alpha x`, a noise level :math:`\alpha \sigma` and a time of their own, and predict
something else than :math:`x_0`. :func:`adapt` takes what they see from a :class:`Process` and what they predict from a
name:

============  ======================================  =======================================================
prediction    the network estimates                   denoiser
============  ======================================  =======================================================
``x0``        :math:`x_0`                             :math:`F`
``epsilon``   :math:`\varepsilon`                     :math:`x - \sigma F`
``score``     :math:`\nabla_z \log p(z)`              :math:`x + \alpha \sigma^2 F`
``v``         :math:`(\varepsilon - \sigma x_0) / r`  :math:`(x - \sigma r F) / r^2`, :math:`r^2 = 1 + \sigma^2`
``flow``      :math:`\varepsilon - x_0`               :math:`(x - \sigma F) / (1 + \sigma)`
============  ======================================  =======================================================

A velocity is the derivative of z by the network's own time: where that runs from noise to data,
``RectifiedFlow(data_at=1)``, the sign of ``flow`` is the other one.

References:
    Salimans and Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, ICLR 2022 (``v``).

    Lipman et al., *Flow Matching for Generative Modeling*, ICLR 2023 (``flow``).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from headstart.denoiser.contract import checked, expand
from headstart.errors import DenoiserError, HeadstartError, InputError, unknown

__all__ = [
    "Adapted",
    "DiscreteVariancePreserving",
    "Prediction",
    "Process",
    "RectifiedFlow",
    "VarianceExploding",
    "VariancePreserving",
    "adapt",
]

Prediction = Literal["x0", "epsilon", "score", "v", "flow"]

#: The names that diffusers has for predictions.
ALIASES: dict[str, Prediction] = {"sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}

#: The highest rate of noise: at twice it, the level at t = 1 is still a number.
HIGHEST_RATE = 700.0

#: Words of the errors of a network that looks its time up in a table, and was handed a fraction.
OF_INDICES = re.compile(r"\b(indices|index|long|longtensor|int64|integers?)\b", re.IGNORECASE)


class Process(Protocol):
    r"""How a network was trained to see noise: :math:`z = \alpha x` at a time of its own."""

    @property
    def sigma_min(self) -> float:
        """The lowest noise level that it knows. At lower ones the network is asked at this one."""
        ...

    @property
    def sigma_max(self) -> float:
        """The highest noise level that it knows."""
        ...

    def scale(self, sigma: Tensor) -> Tensor:
        r""":math:`\alpha` at a noise-to-signal ratio sigma."""
        ...

    def time(self, sigma: Tensor) -> Tensor:
        """The time that the network takes as its second argument."""
        ...


def _check_range(low: float, high: float) -> None:
    if not 0 <= low < high:
        raise InputError(f"a network knows levels from 0 or more up to a higher one: got {low:g} to {high:g}")


@dataclass(frozen=True)
class VarianceExploding:
    r""":math:`z = x_0 + \sigma \varepsilon`; the network's time is sigma."""

    sigma_max: float = math.inf
    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        _check_range(self.sigma_min, self.sigma_max)

    def scale(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)

    def time(self, sigma: Tensor) -> Tensor:
        return sigma


@dataclass(frozen=True)
class VariancePreserving:
    r""":math:`z = (x_0 + \sigma \varepsilon) / \sqrt{1 + \sigma^2}` in continuous time, with a linear rate of noise.

    :math:`\ln(1 + \sigma^2) = \tfrac12 \beta_d t^2 + \beta_{\min} t` for t in [0, 1] (Song et al., ICLR 2021, Equation
    32).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max <= HIGHEST_RATE:
            raise InputError(
                f"the rate of noise rises from above 0 to at most {HIGHEST_RATE:g}: got {self.beta_min:g} to "
                f"{self.beta_max:g}"
            )
        _check_range(self.sigma_min, self.sigma_max)

    @property
    def sigma_max(self) -> float:
        """The noise level at t = 1."""
        return math.sqrt(math.expm1(0.5 * (self.beta_max + self.beta_min)))

    def scale(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return (
            2 * torch.log1p(sigma**2) / (self.beta_min + (self.beta_min**2 + 2 * slope * torch.log1p(sigma**2)).sqrt())
        )


@dataclass(frozen=True)
class DiscreteVariancePreserving:
    r""":math:`z = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t} \varepsilon` at integer times (DDPM).

    Arguments:
        alphas_cumprod: :math:`\bar\alpha_t` for t = 0, 1, ..., decreasing, in (0, 1). A 0 at its end, where nothing of
            the data is left and sigma is infinite (zero terminal SNR), is left out with a warning.
        rounded: the network knows integer times alone, and is asked at the level of the table that is nearest in ln
            sigma; otherwise at a fractional time, linear in ln sigma in between.
    """

    alphas_cumprod: Sequence[float]
    rounded: bool = False

    def __post_init__(self) -> None:
        a = torch.as_tensor(self.alphas_cumprod, dtype=torch.float64, device="cpu")
        if a.ndim == 1 and len(a) > 2 and a[-1] == 0:
            a = a[:-1]
            warnings.warn(
                f"the last of {len(a) + 1} alphas_cumprod is 0, where sigma is infinite (zero terminal SNR): it is "
                f"left out, and the network is used up to time {len(a) - 1}",
                stacklevel=3,
            )
        if a.ndim != 1 or len(a) < 2 or not ((a > 0) & (a < 1)).all() or not (a.diff() < 0).all():
            rising = a.ndim == 1 and len(a) > 1 and bool((a.diff() > 0).all())
            hint = "; these rise: are they betas? then torch.cumprod(1 - betas, 0)" if rising else ""
            raise InputError(
                f"alphas_cumprod must be at least two numbers in (0, 1), strictly decreasing from the least noise{hint}"
            )
        object.__setattr__(self, "alphas_cumprod", tuple(a.tolist()))

    @property
    def sigma_min(self) -> float:
        """The noise level at time 0."""
        return math.exp(float(self._log_levels[0]))

    @property
    def sigma_max(self) -> float:
        """The noise level at the last time."""
        return math.sqrt((1 - self.alphas_cumprod[-1]) / self.alphas_cumprod[-1])

    @cached_property
    def _log_levels(self) -> Tensor:
        a = torch.tensor(self.alphas_cumprod, dtype=torch.float64)
        return 0.5 * ((1 - a) / a).log()

    @property
    def sigma_levels(self) -> tuple[float, ...] | None:
        """The only levels that the network knows, rising, or None for fractional times."""
        return tuple(self._log_levels.exp().tolist()) if self.rounded else None

    def nearest(self, sigma: Tensor) -> Tensor:
        """The level that the network is asked at."""
        if not self.rounded:
            return sigma.clamp_min(self.sigma_min)
        return self._log_levels.exp()[self.time(sigma).cpu()].to(sigma)

    def scale(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        levels = self._log_levels
        target = sigma.cpu().double().log().clamp(levels[0], levels[-1])  # some devices have no float64
        right = torch.searchsorted(levels, target).clamp(1, len(levels) - 1)
        share = (target - levels[right - 1]) / (levels[right] - levels[right - 1])
        time = right - 1 + share
        return (time.round().long() if self.rounded else time.to(sigma.dtype)).to(sigma.device)


@dataclass(frozen=True)
class RectifiedFlow:
    r""":math:`z = (1 - t) x_0 + t \varepsilon`, so that :math:`\sigma = t / (1 - t)`.

    Arguments:
        time_scale: what the network's time is multiplied by (1,000 in many text-to-image networks).
        sigma_max: the highest noise level that the network knows.
        sigma_min: the lowest.
        data_at: the time of clean data: 0, or 1 for networks whose time is 1 - t (those of torchcfm and flow_matching).
    """

    time_scale: float = 1.0
    sigma_max: float = math.inf
    sigma_min: float = 0.0
    data_at: Literal[0, 1] = 0

    def __post_init__(self) -> None:
        if self.data_at not in (0, 1):
            raise InputError(f"clean data are at time 0 or 1: got data_at={self.data_at!r}")
        if not 0 < self.time_scale < math.inf:
            raise InputError(f"time is multiplied by a number above 0: got time_scale={self.time_scale!r}")
        _check_range(self.sigma_min, self.sigma_max)

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def time(self, sigma: Tensor) -> Tensor:
        return self.time_scale * (1 if self.data_at else sigma) / (1 + sigma)


@dataclass(frozen=True)
class Adapted:
    """A network as a denoiser. Made by :func:`adapt`.

    Attributes:
        network: called as ``network(z, time, **conditions)``.
        prediction: what it estimates.
        process: what it sees.
    """

    network: Callable[..., Tensor]
    prediction: Prediction
    process: Process

    @property
    def sigma_min(self) -> float:
        """The lowest noise level that the network knows."""
        return float(getattr(self.process, "sigma_min", 0.0))

    @property
    def sigma_max(self) -> float:
        """The highest noise level that the network knows."""
        return self.process.sigma_max

    @property
    def sigma_levels(self) -> Sequence[float] | None:
        """The only noise levels that the network knows, rising, or None if it knows all in between."""
        levels: Sequence[float] | None = getattr(self.process, "sigma_levels", None)
        return levels

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        # Levels and coefficients in float32 at least: squares of noise levels overflow float16.
        dtype = torch.promote_types(x.dtype, torch.float32)
        level = torch.as_tensor(sigma, dtype=dtype, device=x.device).expand(len(x))
        if bool((level > self.sigma_max * (1 + 1e-6)).any()):
            raise InputError(
                f"the network knows noise up to sigma = {self.sigma_max:.6g}: got {float(level.max()):.6g}"
            )
        level = self._nearest(level)
        alpha = self.process.scale(level)
        keep, add = self.coefficients(level, alpha)
        z = expand(alpha, x) * x
        out = checked(self._network(z, self.process.time(level), conditions), z, "the adapted network")
        wide = x.to(dtype)
        return (expand(keep, wide) * wide + expand(add, wide) * out).to(x.dtype)

    def _nearest(self, level: Tensor) -> Tensor:
        """The nearest levels that the network knows."""
        nearest = getattr(self.process, "nearest", None)
        if nearest is not None:
            found: Tensor = nearest(level)
            return found
        return level.clamp_min(self.sigma_min) if self.sigma_min > 0 else level

    def _network(self, z: Tensor, time: Tensor, conditions: dict[str, Any]) -> Any:
        """The network's answer; an error that a fractional time may be the cause of says so."""
        try:
            return self.network(z, time, **conditions)
        except HeadstartError:
            raise
        except Exception as error:
            if not time.is_floating_point() or not OF_INDICES.search(str(error)):
                raise
            raise DenoiserError(
                f"the adapted network failed at a fractional time ({type(error).__name__}: {error}): if it takes "
                "integer times, say so by DiscreteVariancePreserving(alphas_cumprod, rounded=True)"
            ) from error

    def coefficients(self, sigma: Tensor, alpha: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """D = keep x + add F: the table at the top of this module."""
        one = torch.ones_like(sigma)
        if self.prediction == "x0":
            return 0 * one, one
        if self.prediction == "epsilon":
            return one, -sigma
        if self.prediction == "score":
            return one, (self.process.scale(sigma) if alpha is None else alpha) * sigma**2
        if self.prediction == "v":
            return 1 / (1 + sigma**2), -sigma * (1 + sigma**2).rsqrt()
        forward = -1 if getattr(self.process, "data_at", 0) else 1
        return 1 / (1 + sigma), -forward * sigma / (1 + sigma)


def adapt(
    network: Callable[..., Tensor],
    prediction: Prediction | Literal["sample", "v_prediction", "flow_prediction"],
    process: Process | None = None,
) -> Adapted:
    """A denoiser from a network that sees or predicts something else: the table at the top of this module.

    Arguments:
        network: called as ``network(z, time, **conditions)`` with z of shape (B, \\*S) and time of shape (B,).
        prediction: what the network estimates: "x0", "epsilon", "score", "v" or "flow"; or diffusers' names for them,
            "sample", "v_prediction" and "flow_prediction".
        process: what the network sees; :class:`VarianceExploding` by default, :class:`RectifiedFlow` for "flow".

    Returns:
        A denoiser, which raises an InputError for noise above what the process knows (its ``sigma_max``), and a
        DenoiserError if the network returns anything but a floating-point tensor of z's shape.

    Raises:
        InputError: if the prediction is unknown.
    """
    named: Any = ALIASES.get(prediction, prediction)
    if named not in get_args(Prediction):
        raise InputError(unknown("prediction", prediction, (*get_args(Prediction), *ALIASES)))
    if process is None:
        process = RectifiedFlow() if named == "flow" else VarianceExploding()
    return Adapted(network, named, process)
