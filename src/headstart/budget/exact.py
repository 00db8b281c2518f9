r"""The exact divergence of Euler's method in few dimensions: the standard that estimates are compared with.

One Euler step of the probability-flow ODE from a to b < a is :math:`F(x) = \kappa x + (1 - \kappa) D(x, a)` with
:math:`\kappa = b / a`. For an exact denoiser :math:`\nabla D = \mathrm{Cov}(x_0 | x) / a^2`, so that the Jacobian
:math:`J_F = \kappa I + (1 - \kappa) \nabla D` is symmetric with eigenvalues of at least :math:`\kappa`: F is the
gradient of a strictly convex function, and so one-to-one. Going back from :math:`x_N \sim p_{\sigma_{\min}}` by
:math:`x_i = F_i^{-1}(x_{i+1})`, a change of variables gives the density of the samples, and

.. math::
    KL(p_{\sigma_{\min}} \,\|\, \hat p) =
    E \Big[ \log p_{\sigma_{\min}}(x_N) - \log p_\theta(x_0) + \sum_i \log \det J_{F_i}(x_i) \Big].

Every step is inverted by Newton's method with the exact Jacobian. Since F is strictly monotone, the step that is halved
until the residual falls leads to the solution from anywhere; the residual is checked all the same. A learned denoiser
need not be a gradient, nor F one-to-one. Where there is no solution, or F turns volumes inside out, it is refused; that
the solution is unique is assumed.

References:
    Chen et al., *Neural Ordinary Differential Equations*, NeurIPS 2018 (change of variables along an ODE; here that of
    the discrete steps, without any error).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headstart.budget.base import Estimate, finite, steps_above_zero
from headstart.denoiser import Denoiser, denoise, in_evaluation_mode
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Initialization
from headstart.noise import Noise
from headstart.schedule import Schedule
from headstart.targets import Target

__all__ = ["euler_divergence", "euler_log_ratios", "invert_euler"]

#: The largest residual of an inverted step in units of 1 + |x|, and the one that Newton's method tries for.
RESIDUAL, GOAL = 1e-9, 1e-12
ITERATIONS, HALVINGS = 60, 30


@in_evaluation_mode
def euler_divergence(
    denoiser: Denoiser,
    law: Target,
    start: Initialization | Target,
    schedule: Schedule,
    noise: Noise,
    **conditions: Any,
) -> Estimate:
    """The divergence in nats from the data at the last level above 0 to the samples of Euler's method, by Monte Carlo.

    Equal seeds give equal samples of the data, so that differences between plans are sharper than the errors.

    Arguments:
        denoiser: the sampler's, differentiable in x. It must treat the samples of a batch independently.
        law: of the clean data, known exactly.
        start: of the sampler; a target stands for the perfect start, its own law at the horizon.
        schedule: the levels; a step to 0 is left out.
        noise: one stream for each Monte Carlo sample.
        **conditions: handed to the denoiser; one for all samples.

    Raises:
        InputError: if the denoiser cannot be differentiated, or the shapes do not fit.
        DenoiserError: if a step cannot be inverted, or a density is not finite.
    """
    x = (law.sample(noise) + schedule.sigma_min * noise.normal(law.shape)).double()
    return Estimate.of(euler_log_ratios(denoiser, law, start, schedule, x, **conditions).numpy())


@in_evaluation_mode
def euler_log_ratios(
    denoiser: Denoiser,
    law: Target,
    start: Initialization | Target,
    schedule: Schedule,
    x: Tensor,
    **conditions: Any,
) -> Tensor:
    r""":math:`\log p_{\sigma_{\min}} - \log \hat p` at x (B, \*S), shape (B,). The points may be those of a quadrature.

    Arguments and errors as in :func:`euler_divergence`.
    """
    before, log_det = invert_euler(denoiser, schedule, x, **conditions)
    ratios = law.log_prob(x, schedule.sigma_min) - start.log_prob(before, schedule.horizon).to(x.device) + log_det
    return finite(ratios, "a log ratio of densities").cpu()


@in_evaluation_mode
def invert_euler(denoiser: Denoiser, schedule: Schedule, x: Tensor, **conditions: Any) -> tuple[Tensor, Tensor]:
    r"""Where Euler's method must start to end at x (B, \*S), and :math:`\sum_i \log \det J_{F_i}` on the way.

    It does not depend on the start, so that one call serves all. Of shapes (B, \*S) and (B,), in float64.

    Raises:
        InputError: if the denoiser cannot be differentiated.
        DenoiserError: if a step cannot be inverted with a residual below 1e-9, or turns volumes inside out.
    """
    x = x.detach().double()
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for a, b in reversed(steps_above_zero(schedule)):
        x, log_det = _inverted(denoiser, x, a, b, conditions)
        total = total + log_det
    return x, total


def _inverted(denoiser: Denoiser, y: Tensor, a: float, b: float, conditions: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The x with F(x) = y, and log det J_F there, by Newton's method with steps that are halved where needed."""
    # An Euler step upwards is the first guess.
    x = y + (a / b - 1) * (y - denoise(denoiser, y, b, **conditions).detach())
    log_det = torch.full((len(y),), torch.nan, dtype=y.dtype, device=y.device)
    left = torch.arange(len(y), device=y.device)
    for _ in range(ITERATIONS):
        image, jacobian = _euler_with_jacobian(denoiser, x[left], a, b, conditions)
        residual = (image - y[left]).flatten(1)
        sign, log_abs = torch.linalg.slogdet(jacobian)
        log_det[left] = torch.where(sign > 0, log_abs, torch.nan)
        norm = residual.norm(dim=1)
        far = norm > GOAL * (a + y[left].flatten(1).norm(dim=1))
        left, residual, norm = left[far], residual[far], norm[far]
        if not len(left):
            break
        direction = torch.linalg.solve(jacobian[far], residual).reshape(-1, *y.shape[1:])
        x[left] = _searched(denoiser, x[left], direction, y[left], norm, a, b, conditions)
    gap = (_euler(denoiser, x, a, b, conditions) - y).flatten(1).norm(dim=1)
    worst = float((gap / (a + y.flatten(1).norm(dim=1))).max())
    if not worst < RESIDUAL or not log_det.isfinite().all():
        raise DenoiserError(
            f"the Euler step from {a:.6g} to {b:.6g} cannot be inverted: the residual stays at {worst:.3g}, or volumes "
            "are turned inside out. The exact divergence needs a step that is one-to-one: take smaller ones"
        )
    return x, log_det


def _searched(
    denoiser: Denoiser,
    x: Tensor,
    direction: Tensor,
    y: Tensor,
    norm: Tensor,
    a: float,
    b: float,
    conditions: dict[str, Any],
) -> Tensor:
    """x less the largest of 1, 1/2, 1/4, ... times the direction that lowers the residual."""
    scale = torch.ones_like(norm)
    rest = torch.arange(len(x), device=x.device)
    out = x.clone()
    for _ in range(HALVINGS):
        trial = x[rest] - scale[rest].reshape(-1, *[1] * (x.ndim - 1)) * direction[rest]
        after = (_euler(denoiser, trial, a, b, conditions) - y[rest]).flatten(1).norm(dim=1)
        good = after < (1 - 0.1 * scale[rest]) * norm[rest]
        out[rest[good]] = trial[good]
        rest = rest[~good]
        if not len(rest):
            break
        scale[rest] /= 2
    return out


def _euler(denoiser: Denoiser, x: Tensor, a: float, b: float, conditions: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return (b / a) * x + (1 - b / a) * denoise(denoiser, x, a, **conditions)


def _euler_with_jacobian(
    denoiser: Denoiser, x: Tensor, a: float, b: float, conditions: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """F(x), and its Jacobian (B, d, d): one pass backwards for each coordinate of the image, batched."""
    d = x[0].numel()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        clean = denoise(denoiser, x, a, **conditions)
    if not clean.requires_grad:
        raise InputError("the exact divergence needs a denoiser that can be differentiated in x: this one cannot")
    units = torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, 1, *x.shape[1:]).expand(d, *x.shape)
    (rows,) = torch.autograd.grad(clean, x, units, is_grads_batched=True)
    slopes = rows.reshape(d, len(x), d).transpose(0, 1)
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    image = (b / a) * x + (1 - b / a) * clean
    return image.detach(), (b / a) * eye + (1 - b / a) * slopes
