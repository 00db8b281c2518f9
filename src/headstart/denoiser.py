r"""The contract everything stands on, and what turns other networks into it.

A **denoiser** estimates the clean sample from a noisy one, in variance-exploding units:

.. math:: D(x, \sigma) \approx E[x_0 \mid x_0 + \sigma \varepsilon = x], \qquad \varepsilon \sim N(0, I),

and is called as ``denoiser(x, sigma, **conditions)`` with ``x`` of shape (B, \*S), ``sigma`` a scalar or of shape
(B,), and the return of x's shape. EDM and k-diffusion networks obey it as they are. Its score is :math:`(D(x, \sigma)
- x) / \sigma^2` (Tweedie).

Other networks see :math:`z = \alpha x`, a noise level :math:`\alpha \sigma` and a time of their own, and predict
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

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022.

    Salimans and Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, ICLR 2022 (``v``).

    Lipman et al., *Flow Matching for Generative Modeling*, ICLR 2023 (``flow``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from headstart.deprecation import renamed
from headstart.errors import DenoiserError, HeadstartError, InputError

__all__ = [
    "Adapted",
    "Counted",
    "Denoiser",
    "DiscreteVariancePreserving",
    "Guided",
    "Prediction",
    "Process",
    "RectifiedFlow",
    "VarianceExploding",
    "VariancePreserving",
    "adapt",
    "answer",
    "cast_input",
    "denoise",
    "expand",
    "guide",
    "is_finite",
]

#: Names of an earlier version.
__getattr__ = renamed(
    __name__,
    {
        "called_in": "headstart.denoiser:cast_input",
        "labelled": "headstart.conditions:labelled",
        "moved": "headstart.conditions:to_device",
        "rows_of": "headstart.conditions:take",
        "split_conditions": "headstart.conditions:split_conditions",
    },
)

Prediction = Literal["x0", "epsilon", "score", "v", "flow"]


class Denoiser(Protocol):
    """Anything that can be called as ``denoiser(x, sigma, **conditions)``."""

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor: ...


def expand(sigma: Tensor | float, x: Tensor) -> Tensor:
    """``sigma`` (a scalar or of shape (B,)) as a tensor that multiplies ``x`` (B, \\*S), in x's dtype and device."""
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    return s.reshape(-1, *[1] * (x.ndim - 1))


def denoise(denoiser: Denoiser, x: Tensor, sigma: float, **conditions: Any) -> Tensor:
    """Call a denoiser with one noise level for the whole batch, and check what it returns.

    Every call that the library makes goes through here or through :func:`answer`, so that a wrong shape, NaN or Inf
    stops where it arises.

    Raises:
        DenoiserError: if the denoiser fails, or what it returns is not a finite tensor of x's shape.
    """
    level = torch.promote_types(x.dtype, torch.float32)  # a half type would round the noise level
    out = answer(denoiser, x, torch.full((len(x),), sigma, dtype=level, device=x.device), **conditions)
    if not is_finite(out):
        raise DenoiserError(f"the denoiser returned NaN or Inf at sigma = {sigma:.6g}")
    return out


def is_finite(x: Tensor) -> bool:
    """Whether x holds neither NaN nor Inf. Either would make the sum one, so that a finite sum is a quick proof."""
    return math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())


def answer(denoiser: Denoiser, x: Tensor, sigma: Tensor, **conditions: Any) -> Tensor:
    """Call a denoiser with a noise level for each sample, shape (B,), and check the shape of what it returns.

    For training, whose descent ends where numbers are no longer finite.

    Raises:
        DenoiserError: if the denoiser fails, or what it returns is not a tensor of x's shape.
    """
    try:
        out = denoiser(x, sigma, **conditions)
    except HeadstartError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise DenoiserError(f"the denoiser failed on an input of shape {tuple(x.shape)} ({reason})") from error
    if not isinstance(out, Tensor) or out.shape != x.shape:
        got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise DenoiserError(
            f"the denoiser returned {got} for an input of shape {tuple(x.shape)}: it must keep the shape"
        )
    if out.device != x.device:
        raise DenoiserError(f"the denoiser returned a tensor on {out.device} for an input on {x.device}")
    return out.to(x.dtype)


def cast_input(denoiser: Denoiser, dtype: torch.dtype) -> Denoiser:
    """Cast the states that a denoiser is called with to ``dtype``; what it returns is unchanged.

    For measuring a network in a half type: differences of small numbers are then taken in a type that holds them.
    """

    def called(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        return denoiser(x.to(dtype), sigma, **conditions)

    return called


class Counted:
    """A denoiser that counts its calls, so that the number of function evaluations (NFE) is measured.

    Attributes:
        calls: how often the denoiser was called.
        samples: how many samples it was called on, over all calls.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.calls = 0
        self.samples = 0

    @property
    def sigma_max(self) -> float:
        """The highest noise level that the denoiser knows, as far as it says."""
        return float(getattr(self.denoiser, "sigma_max", math.inf))

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        self.calls += 1
        self.samples += len(x)
        return self.denoiser(x, sigma, **conditions)

    def __repr__(self) -> str:
        return f"Counted({self.calls} calls, {self.samples} samples)"


@dataclass(frozen=True)
class Guided:
    """A denoiser with classifier-free guidance. Made by :func:`guide`.

    Attributes:
        denoiser: takes the conditions that it is guided by.
        scale: the guidance scale; 1 means no guidance.
        unconditional: the conditions that make the denoiser unconditional.
    """

    denoiser: Denoiser
    scale: float
    unconditional: Mapping[str, Any]

    @property
    def sigma_max(self) -> float:
        """The highest noise level that the denoiser knows, as far as it says."""
        return float(getattr(self.denoiser, "sigma_max", math.inf))

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        plain = self.denoiser(x, sigma, **{**conditions, **self.unconditional})
        return plain + self.scale * (self.denoiser(x, sigma, **conditions) - plain)


def guide(denoiser: Denoiser, scale: float, unconditional: Mapping[str, Any] | None = None) -> Denoiser:
    r"""Classifier-free guidance: :math:`D = D_u + s\,(D_c - D_u)`, where a scale :math:`s` of 1 means no guidance.

    Each evaluation then costs two of the network. A guided denoiser is no longer an estimate of E[x0 | x], so that the
    loss of one, and an error budget drawn from it, mean little: fit without guidance, and sample with it. In the
    convention :math:`(1 + w) D_c - w D_u`, :math:`s = 1 + w`.

    Arguments:
        denoiser: takes the conditions that it is guided by.
        scale: the guidance scale s. At 1 the denoiser is returned as it is, at one evaluation per call.
        unconditional: the conditions that make the denoiser unconditional; by default ``{"label": None}``.

    References:
        Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv 2207.12598.
    """
    if not math.isfinite(scale):
        raise InputError(f"the guidance scale is {scale}: it must be finite (1 means no guidance)")
    without = {"label": None} if unconditional is None else dict(unconditional)
    return denoiser if scale == 1 else Guided(denoiser, scale, without)


class Process(Protocol):
    r"""How a network was trained to see noise: :math:`z = \alpha x` at a time of its own."""

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


@dataclass(frozen=True)
class VarianceExploding:
    r""":math:`z = x_0 + \sigma \varepsilon`; the network's time is sigma."""

    sigma_max: float = math.inf

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
        alphas_cumprod: :math:`\bar\alpha_t` for t = 0, 1, ..., decreasing, in (0, 1).
        rounded: hand the network the nearest integer time; otherwise a fractional one, linear in ln sigma in between.
    """

    alphas_cumprod: Sequence[float]
    rounded: bool = False

    def __post_init__(self) -> None:
        a = torch.as_tensor(self.alphas_cumprod, dtype=torch.float64)
        if a.ndim != 1 or len(a) < 2 or not ((a > 0) & (a < 1)).all() or not (a.diff() < 0).all():
            raise InputError("alphas_cumprod must be at least two numbers in (0, 1), strictly decreasing")

    @property
    def sigma_max(self) -> float:
        """The noise level at the last time."""
        return math.sqrt((1 - float(self.alphas_cumprod[-1])) / float(self.alphas_cumprod[-1]))

    def scale(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        a = torch.as_tensor(self.alphas_cumprod, dtype=torch.float64, device="cpu")
        levels = 0.5 * ((1 - a) / a).log()
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
    """

    time_scale: float = 1.0
    sigma_max: float = math.inf

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def time(self, sigma: Tensor) -> Tensor:
        return self.time_scale * sigma / (1 + sigma)


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
    def sigma_max(self) -> float:
        """The highest noise level that the network knows."""
        return self.process.sigma_max

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        # Levels and coefficients in float32 at least: squares of noise levels overflow float16.
        dtype = torch.promote_types(x.dtype, torch.float32)
        level = torch.as_tensor(sigma, dtype=dtype, device=x.device).expand(len(x))
        if bool((level > self.sigma_max * (1 + 1e-6)).any()):
            raise InputError(
                f"the network knows noise up to sigma = {self.sigma_max:.6g}: got {float(level.max()):.6g}"
            )
        alpha = self.process.scale(level)
        keep, add = self._coefficients(alpha, level)
        out = self.network(expand(alpha, x) * x, self.process.time(level), **conditions)
        wide = x.to(dtype)
        return (expand(keep, wide) * wide + expand(add, wide) * out).to(x.dtype)

    def _coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = keep x + add F: the table at the top of this module."""
        one = torch.ones_like(sigma)
        if self.prediction == "x0":
            return 0 * one, one
        if self.prediction == "epsilon":
            return one, -sigma
        if self.prediction == "score":
            return one, alpha * sigma**2
        if self.prediction == "v":
            return 1 / (1 + sigma**2), -sigma * (1 + sigma**2).rsqrt()
        return 1 / (1 + sigma), -sigma / (1 + sigma)


def adapt(network: Callable[..., Tensor], prediction: Prediction, process: Process | None = None) -> Adapted:
    """A denoiser from a network that sees or predicts something else: the table at the top of this module.

    Arguments:
        network: called as ``network(z, time, **conditions)`` with z of shape (B, \\*S) and time of shape (B,).
        prediction: what the network estimates: "x0", "epsilon", "score", "v" or "flow".
        process: what the network sees; :class:`VarianceExploding` by default, :class:`RectifiedFlow` for "flow".

    Returns:
        A denoiser, which raises an InputError for noise above what the process knows (its ``sigma_max``).

    Raises:
        InputError: if the prediction is unknown.
    """
    if prediction not in ("x0", "epsilon", "score", "v", "flow"):
        raise InputError(f"unknown prediction {prediction!r}: expected x0, epsilon, score, v or flow")
    if process is None:
        process = RectifiedFlow() if prediction == "flow" else VarianceExploding()
    return Adapted(network, prediction, process)
