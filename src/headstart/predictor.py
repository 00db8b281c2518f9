r"""The predictor cost: what a deterministic step leaves to the corrector after it, exactly and without matrices.

A step F of the probability-flow ODE carries :math:`p_a`, the law of the data at level a, to :math:`F_\# p_a`, which is
not quite :math:`p_b`. The cost is the Fisher divergence between the two, in the units of a velocity v: the speed at
which a Langevin corrector begins to move what the step left,

.. math::
    L_p(a, b) &= v(b)^2\, E_{x \sim p_a} \|r(x)\|^2, \\
    r(x) &= s(F(x), b) - J^{-\top} \big[ s(x, a) - \nabla_x \log |\det J| \big], \qquad J = \nabla F(x),

with the score :math:`s = (D - x) / \sigma^2`, :math:`\kappa = b / a` and the predictors

.. math::
    F_\text{Euler}(x) &= \kappa x + (1 - \kappa) D(x, a), \\
    F_\text{Heun}(x) &= x + \tfrac{b - a}2 \big[ e(x, a) + e(F_\text{Euler}(x), b) \big], \qquad
    e(x, \sigma) = (x - D(x, \sigma)) / \sigma.

A predictor of order p matches :math:`p_b` up to the (p + 1)-th power of the step, so that the cost is of order 2 p + 2:
**4 for Euler's step and 6 for Heun's**. The paper calls it of second order and takes its square root as the length
element, which gives another grid; the element here is the root that belongs to the order.

**Few dimensions.** J is formed, one pass backwards for each coordinate, and the log determinant is differentiated.

**Many dimensions.** J is only multiplied with: :math:`J^\top w` is a vector-Jacobian product, :math:`J w` the
derivative of one, and :math:`J^\top w = y` is solved by conjugate gradients; directly where J is symmetric and positive
definite, which it is for Euler's step and an exact denoiser (:math:`\nabla D = \mathrm{Cov}(x_0 | x) / a^2`, so that
the eigenvalues are at least :math:`\kappa`), by the normal equations :math:`J J^\top w = J y` otherwise. The gradient
of the log determinant is a mean over probes v of random signs (Hutchinson),

.. math::
    \nabla_x \log |\det J| = E_v\, \nabla_x \big[ w^\top J(x)\, v \big], \qquad
    w = J^{-\top} v \text{ held fixed}.

**One probe is not enough.** The square of an unbiased residual is biased by the residual's variance, which is of the
second order in the step where the cost is of the fourth. Two probes or more, K, give the U-statistic

.. math:: \widehat{\|r\|^2} = \frac{\big\| \sum_k r_k \big\|^2 - \sum_k \|r_k\|^2}{K (K - 1)},

which is unbiased, and so can be negative for a sample: means come first, and are cut at 0 after.

One file, though a long one: the cost, its unbiased estimate and the solver that this needs are one derivation.

References:
    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877 (the cost, and the velocity
    sigma). The order, the U-statistic and the velocity of the noised data are ours.

    Hutchinson, *A stochastic estimator of the trace of the influence matrix*, 1989.

    Hestenes and Stiefel, *Methods of Conjugate Gradients for Solving Linear Systems*, 1952.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from headstart.compute import Compute
from headstart.conditions import Conditions
from headstart.denoiser import Denoiser, denoise, in_evaluation_mode
from headstart.deprecation import gathered
from headstart.errors import DataError, DenoiserError, InputError
from headstart.noise import generator_of
from headstart.profile import Velocity
from headstart.schedule import Length

__all__ = [
    "DENSE",
    "ORDERS",
    "Inversion",
    "Predictor",
    "PredictorCosts",
    "measure_predictor",
    "predictor_costs",
    "predictor_lengths",
]

Curve = NDArray[np.float64]
Predictor = Literal["euler", "heun"]

#: The power of the step that the cost of a predictor falls as.
ORDERS: Mapping[Predictor, int] = {"euler": 4, "heun": 6}

#: The most dimensions in which the Jacobian is formed unless probes are asked for, and the probes in more.
DENSE = 64
PROBES = 4


@dataclass(frozen=True, eq=False)
class PredictorCosts:
    """The predictor cost between neighbouring levels, sample by sample. Made by :func:`measure_predictor`.

    Attributes:
        sigmas: the levels, decreasing, shape (G,).
        values: the cost of each sample, shape (M, G - 1); with probes some are below 0.
        exponent: the power of the step that the cost falls as.
    """

    sigmas: Curve
    values: Curve
    exponent: int

    @property
    def mean(self) -> Curve:
        """The cost of each step, shape (G - 1,), not cut at 0."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def error(self) -> Curve:
        """The standard error of :attr:`mean`."""
        return np.asarray(self.values.std(axis=0, ddof=1) / math.sqrt(len(self.values)))

    def length(self) -> Length:
        """The length by these costs, with means below 0 cut there.

        Raises:
            InputError: if no mean is above 0: there were too few samples or probes to tell the cost from 0.
        """
        if self.mean.max() <= 0:
            raise InputError("no mean of the predictor cost is above 0: take more samples, more probes or longer steps")
        return Length(self.sigmas, np.maximum(self.mean, 0.0), self.exponent)

    def __repr__(self) -> str:
        return (
            f"PredictorCosts({len(self.values)} samples, {len(self.sigmas)} levels from {self.sigmas[0]:.4g} to "
            f"{self.sigmas[-1]:.4g}, order {self.exponent})"
        )


@dataclass(frozen=True)
class Inversion:
    """How the Jacobian of a step is inverted where it is not formed: by conjugate gradients.

    Attributes:
        symmetric: whether it is symmetric and positive definite, as that of Euler's step is for an exact denoiser. This
            takes a third of the products; the residual is checked, so that a Jacobian that is not raises an error.
        iterations: how many at most.
        tolerance: the residual that they end at, relative to the right-hand side; by default 1e-10 in float64, and
            1e-5 otherwise.
    """

    symmetric: bool = False
    iterations: int = 200
    tolerance: float | None = None


def predictor_lengths(denoiser: Denoiser, data: Tensor, sigmas: ArrayLike, **options: Any) -> Length:
    """The length of every stretch of noise levels by the predictor cost, of exponent 4 (Euler) or 6 (Heun).

    Arguments and errors as in :func:`measure_predictor`, and of :meth:`PredictorCosts.length`.
    """
    return measure_predictor(denoiser, data, sigmas, **options).length()


@gathered(inversion=Inversion, compute=Compute)
@in_evaluation_mode
def measure_predictor(
    denoiser: Denoiser,
    data: Tensor,
    sigmas: ArrayLike,
    *,
    predictor: Predictor = "euler",
    velocity: Velocity = "sigma",
    sigma_data: float | None = None,
    probes: int | None = None,
    inversion: Inversion | None = None,
    conditions: Mapping[str, Any] | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> PredictorCosts:
    """The predictor cost between neighbouring levels, on samples and noise that all levels share.

    With the samples and the seed of a :class:`~headstart.profile.Profile`, the noised samples are those of the profile.
    In few dimensions a sample's cost varies by some four times its mean: a mean to a tenth takes a thousand samples or
    two. In many dimensions keep b / a between 0.6 and 0.95: with shorter steps, probes are far noisier than the cost.

    Arguments:
        denoiser: differentiable twice in x. It must treat the samples of a batch independently.
        data: clean samples, shape (M, \\*S).
        sigmas: the levels, decreasing and above 0, shape (G,).
        predictor: the step that is judged.
        velocity: "sigma", the paper's, or "marginal", :math:`\\sqrt{\\sigma^2 + \\sigma_d^2}`. With that one the best
            grids of an isotropic Gaussian are those of least divergence; where data cluster it overstates the cost at
            small noise.
        sigma_data: standard deviation of the data per coordinate; that of ``data`` by default.
        probes: as in :func:`predictor_costs`.
        inversion: as in :func:`predictor_costs`.
        conditions: handed to the denoiser; tensors of length M go with the data.
        seed: of the noise and of the probes.
        compute: where the denoiser works, on what type, how many samples at a time, and who is told of the steps. In
            float32 the cost of a step of Euler's method is lost in rounding where it is below :math:`10^{-13}` d.

    Raises:
        DataError: if the data are fewer than two, or not finite.
        InputError: if an argument is out of its range, or the denoiser cannot be differentiated.
        DenoiserError: if a step cannot be inverted, or the denoiser returns NaN, Inf or the wrong shape.
    """
    if data.ndim < 2 or len(data) < 2 or not torch.isfinite(data).all():
        raise DataError("the predictor cost needs at least two samples in an array (M, ...), without NaN or Inf")
    levels = np.asarray(sigmas, dtype=np.float64)
    if levels.ndim != 1 or len(levels) < 2 or not np.isfinite(levels).all() or (np.diff(levels) >= 0).any():
        raise InputError("the predictor cost needs at least two finite levels, strictly decreasing")
    if levels[-1] <= 0:
        raise InputError(f"the levels must be above 0: the last is {levels[-1]}")
    if sigma_data is None:
        sigma_data = float(data.double().flatten(1).var(dim=0).mean().sqrt())

    compute, generator = compute or Compute(), generator_of(seed)
    eps, place = torch.randn(data.shape, generator=generator), (compute.device, compute.dtype)
    values = np.empty((len(data), len(levels) - 1))
    for level in compute.progress.track(range(len(levels) - 1), "measuring the predictor"):
        for part in compute.batches(len(data)):
            values[part, level] = predictor_costs(
                denoiser,
                data[part].to(*place) + float(levels[level]) * eps[part].to(*place),
                float(levels[level]),
                float(levels[level + 1]),
                predictor=predictor,
                velocity=velocity,
                sigma_data=sigma_data,
                probes=probes,
                inversion=inversion,
                seed=seed + 1 + part.start,  # the same probes at every level, others for every batch
                **Conditions.of(conditions, len(data)).take(part).to(compute.device),
            ).numpy()
    return PredictorCosts(levels, values, ORDERS[predictor])


@gathered(inversion=Inversion)
@in_evaluation_mode
def predictor_costs(
    denoiser: Denoiser,
    x: Tensor,
    a: float,
    b: float,
    *,
    predictor: Predictor = "euler",
    velocity: Velocity = "sigma",
    sigma_data: float | None = None,
    probes: int | None = None,
    inversion: Inversion | None = None,
    seed: int = 0,
    **conditions: Any,
) -> Tensor:
    r""":math:`v(b)^2 \|r(x)\|^2` at each x, or an unbiased estimate of it, shape (B,), float64, on the CPU.

    Arguments:
        denoiser: differentiable twice in x. It must treat the samples of a batch independently.
        x: samples at level a, or points of a quadrature, shape (B, \*S).
        a: the level that the step starts from.
        b: the level that it ends at, below a and above 0.
        predictor: the step that is judged.
        velocity: "sigma" or "marginal"; see :func:`measure_predictor`.
        sigma_data: standard deviation of the data per coordinate, which the velocity "marginal" needs.
        probes: how many random probes, 2 or more, estimate the gradient of the log determinant; 0 forms the Jacobian.
            By default 0 up to 64 dimensions, and 4 above.
        inversion: how the Jacobian is inverted where it is not formed; :class:`Inversion` by default.
        seed: of the probes.
        **conditions: handed to the denoiser.

    Raises:
        InputError: if an argument is out of its range, or the denoiser cannot be differentiated.
        DenoiserError: if the Jacobian cannot be inverted to the tolerance, or a cost is not finite.
    """
    inversion = inversion or Inversion()
    _check(x, a, b, predictor, velocity, sigma_data, probes, inversion.symmetric)
    scale = b**2 + (sigma_data or 0.0) ** 2 if velocity == "marginal" else b**2
    if probes is None:
        probes = 0 if x[0].numel() <= DENSE else PROBES
    step = _Step(denoiser, x, a, b, predictor, conditions)
    try:
        if probes == 0:
            squares = _norm2(step.residual())
        else:
            solver = _Solver(step, inversion)
            squares = u_statistic(probe_residuals(step, solver, probes, seed))
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        raise InputError(
            f"the predictor cost needs a denoiser that can be differentiated twice in x: {error}"
        ) from error
    costs = scale * squares
    if not costs.isfinite().all():
        raise DenoiserError(
            f"the predictor cost of the step from {a:.6g} to {b:.6g} is not finite: its Jacobian is singular"
        )
    return costs


class _Step:
    """F(x) with its graph, and what else the residual is made of; all of shape (B, \\*S)."""

    def __init__(
        self, denoiser: Denoiser, x: Tensor, a: float, b: float, predictor: str, conditions: Mapping[str, Any]
    ) -> None:
        self.a, self.b = a, b
        # The other kernels of attention cannot be differentiated twice.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            self.x = x.detach().requires_grad_()
            clean = denoise(denoiser, self.x, a, **conditions)
            if not clean.requires_grad:
                raise InputError("the predictor cost needs a denoiser that can be differentiated in x: this one cannot")
            self.image = (b / a) * self.x + (1 - b / a) * clean
            if predictor == "heun":
                ahead = (self.image - denoise(denoiser, self.image, b, **conditions)) / b
                self.image = self.x + (b - a) / 2 * ((self.x - clean) / a + ahead)
        with torch.no_grad():
            image = self.image.detach()
            self.score = (clean - self.x) / a**2
            self.score_after = (denoise(denoiser, image, b, **conditions) - image) / b**2

    def residual(self) -> Tensor:
        """r(x) with the Jacobian formed."""
        d = self.x[0].numel()
        units = torch.eye(d, dtype=self.x.dtype, device=self.x.device).reshape(d, 1, *self.x.shape[1:])
        with torch.enable_grad():
            (rows,) = torch.autograd.grad(
                self.image, self.x, units.expand(d, *self.x.shape), create_graph=True, is_grads_batched=True
            )
            jacobian = rows.reshape(d, len(self.x), d).transpose(0, 1)
            slope = _gradient(torch.linalg.slogdet(jacobian).logabsdet.sum(), self.x)
        pushed, singular = torch.linalg.solve_ex(jacobian.detach().mT, (self.score - slope).flatten(1))
        pushed = torch.where(singular[:, None] == 0, pushed, torch.nan)
        return self.score_after - pushed.reshape(self.x.shape)

    def pull(self, w: Tensor) -> Tensor:
        """:math:`J^\\top w`."""
        (product,) = torch.autograd.grad(self.image, self.x, w, retain_graph=True)
        return product

    def slope(self, v: Tensor, w: Tensor) -> Tensor:
        """The gradient in x of :math:`w^\\top J(x) v`."""
        with torch.enable_grad():
            (product,) = torch.autograd.grad(self.image, self.x, w, create_graph=True)
            return _gradient((product * v).sum(), self.x)


class _Solver:
    """Solves :math:`J^\\top w = y` for each sample by conjugate gradients."""

    def __init__(self, step: _Step, inversion: Inversion) -> None:
        self.step, self.symmetric, self.iterations = step, inversion.symmetric, inversion.iterations
        self.tolerance = inversion.tolerance or (1e-10 if step.x.dtype == torch.float64 else 1e-5)
        if not self.symmetric:
            with torch.enable_grad():
                # J^T u is linear in u, and the derivative of v^T J^T u in u is J v: where u is does not matter.
                self._u = torch.zeros_like(step.image).requires_grad_()
                (self._pulled,) = torch.autograd.grad(step.image, step.x, self._u, create_graph=True)

    def push(self, v: Tensor) -> Tensor:
        """:math:`J v`."""
        (product,) = torch.autograd.grad(self._pulled, self._u, v, retain_graph=True)
        return product

    def __call__(self, y: Tensor) -> Tensor:
        pull = self.step.pull
        if self.symmetric:
            w = conjugate_gradients(pull, y, self.iterations, 0.1 * self.tolerance)
        else:
            w = conjugate_gradients(lambda w: self.push(pull(w)), self.push(y), self.iterations, 0.1 * self.tolerance)
        gap, size = _norm2(pull(w) - y).sqrt(), _norm2(y).sqrt()
        worst = float((gap / size.clamp_min(1e-300)).max())
        if not worst <= self.tolerance:
            hint = "the Jacobian may not be symmetric: try symmetric=False" if self.symmetric else "take a shorter step"
            raise DenoiserError(
                f"the Jacobian of the step from {self.step.a:.6g} to {self.step.b:.6g} is not inverted to "
                f"{self.tolerance:.1g} in {self.iterations} iterations (the residual stays at {worst:.2g}): {hint}"
            )
        return w


def conjugate_gradients(apply: Callable[[Tensor], Tensor], y: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Solves A w = y for symmetric positive definite A, each sample of y (B, \\*S) a system of its own."""
    w, residual = torch.zeros_like(y), y.clone()
    direction, square = residual, _dot(residual, residual)
    goal = tolerance**2 * square
    for _ in range(iterations):
        if bool((square <= goal).all()):
            break
        image = apply(direction)
        # A sample that is solved has a direction of 0, and stays where it is.
        rate = _ratio(square, _dot(direction, image))
        w = w + rate * direction
        residual = residual - rate * image
        before, square = square, _dot(residual, residual)
        direction = residual + _ratio(square, before) * direction
    return w


def probe_residuals(step: _Step, solver: _Solver, probes: int, seed: int) -> Tensor:
    """r(x) with one probe each for the log determinant, shape (K, B, \\*S): each is unbiased, its square is not."""
    base = step.score_after - solver(step.score)
    generator = generator_of(seed)
    residuals = []
    for _ in range(probes):
        signs = torch.randint(0, 2, step.x.shape, generator=generator) * 2 - 1
        v = signs.to(step.x.device, step.x.dtype)
        residuals.append(base + solver(step.slope(v, solver(v))))
    return torch.stack(residuals)


def u_statistic(residuals: Tensor) -> Tensor:
    """The unbiased estimate of the squared norm of the mean, from independent residuals (K, B, \\*S), shape (B,)."""
    count = len(residuals)
    squares = sum((_norm2(r) for r in residuals), torch.zeros(residuals.shape[1], dtype=torch.float64))
    return (_norm2(residuals.double().sum(0)) - squares) / (count * (count - 1))


def _check(
    x: Tensor,
    a: float,
    b: float,
    predictor: str,
    velocity: str,
    sigma_data: float | None,
    probes: int | None,
    symmetric: bool,
) -> None:
    if x.ndim < 2 or not len(x) or not x.is_floating_point() or not torch.isfinite(x).all():
        raise InputError("x must hold at least one sample, (B, ...), in floating point and without NaN or Inf")
    if not (math.isfinite(a) and a > b > 0):
        raise InputError(f"a step goes from a finite level down to one above 0: got {a} and {b}")
    if predictor not in get_args(Predictor):
        raise InputError(f"unknown predictor {predictor!r}: expected euler or heun")
    if velocity not in get_args(Velocity):
        raise InputError(f"unknown velocity {velocity!r}: expected sigma or marginal")
    if velocity == "marginal" and not (sigma_data is not None and 0 < sigma_data < math.inf):
        raise InputError(f"the velocity 'marginal' needs a sigma_data that is finite and above 0: got {sigma_data}")
    if probes is not None and (probes < 0 or probes == 1):
        raise InputError(f"probes is {probes}: it must be 0 (form the Jacobian), or 2 or more, since one is biased")
    if symmetric and predictor == "heun":
        raise InputError("the Jacobian of Heun's step is not symmetric, even for an exact denoiser")


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    """The gradient of a number in x, which is 0 where it does not depend on x: an affine step."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient


def _norm2(x: Tensor) -> Tensor:
    return x.detach().flatten(1).cpu().double().square().sum(1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """The inner product of each sample, (B, 1, ..., 1)."""
    return (x * y).flatten(1).sum(1).reshape(-1, *[1] * (x.ndim - 1))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient, and 0 where the denominator is."""
    return torch.where(denominator == 0, 0.0, numerator / torch.where(denominator == 0, 1.0, denominator))
