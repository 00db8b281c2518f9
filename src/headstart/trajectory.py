r"""The error of a multistep ODE solver on any grid, from one fine solution and without calling the network.

Along the probability-flow ODE :math:`d(x / \sigma) / d\sigma = -D / \sigma^2`. A solver with one evaluation a step goes
from a level a to b by its weights on the estimates so far (:func:`~headstart.solver.linear.linear_weights`). Put on the
exact states :math:`x(s_j)`, it errs by a combination of what the network says along the trajectory,

.. math:: \hat x_b - x_b = \sum_j w_j\, D\big(x(s_j), s_j\big) - b \int_b^a D\big(x(s), s\big)\, \frac{ds}{s^2},

and where these estimates are interpolated in :math:`\ln \sigma` between the levels :math:`\sigma_g` of the fine
solution, by splines, that is :math:`\sum_g e_g D_g` with coefficients e of the solver and the levels. So all there is
to know of the trajectories is the mean product of their estimates at every two levels, and the divergence that a step
adds is a quadratic form in it,

.. math:: K(a, b) = \frac{E\,\|\hat x_b - x_b\|^2}{v_b} = \frac1{v_b} \sum_{gh} e_g e_h\, E \langle D_g, D_h \rangle,
    \qquad v_b = \frac{d}{J(b)} = \frac{d\, b^4}{E\,\|x(b) - D(x(b), b)\|^2},

with the Fisher information :math:`J = E\,\|s\|^2` of the noised data, by the network's own score: a shift costs more
nats where the density is steeper. For a Gaussian, v is its variance, and K is to leading order the divergence, and the
defect cost of :mod:`headstart.profile`. For data of many modes, v is near the variance of all data at high levels, and
near that of a single mode at low ones. With the variance of all data everywhere, a giant step down to a low level,
which leaves samples between the modes, would count for little: on 25 modes the grid of five Euler steps with the least
error is then off by 0.71 nats, and by 0.33 as it stands (0.36 for equal defects).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from headstart.compute import Compute
from headstart.conditions import Conditions, to_device
from headstart.denoiser import Denoiser, answer, cast_input, in_evaluation_mode
from headstart.deprecation import gathered
from headstart.errors import InputError
from headstart.schedule import Schedule, log_linear
from headstart.solver import DPMSolverPP2M, Solver
from headstart.solver.linear import is_linear, linear_weights
from headstart.solver.polynomial import gauss_legendre

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

__all__ = ["Trajectories"]

Curve = NDArray[np.float64]

#: The products are kept for as many parts of the trajectories, which tell the Monte-Carlo error.
GROUPS = 8

#: Numbers that are held at a time.
MEMORY = 2**26

#: Nodes of the rule for the integral between two neighbouring levels.
NODES = 8


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Fine solutions of the ODE, as the mean products of their estimates. Made by :meth:`measure`.

    Attributes:
        sigmas: the levels of the fine solution, decreasing, shape (G,).
        products: :math:`E \\langle D_g, D_h \\rangle` in each group of trajectories, shape (K, G, G).
        spread: :math:`v` at each level, shape (G,).
    """

    sigmas: Curve
    products: Curve
    spread: Curve

    def __post_init__(self) -> None:
        for name in ("sigmas", "products", "spread"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64, order="C"))

    @classmethod
    @gathered(compute=Compute)
    @in_evaluation_mode
    @torch.no_grad()
    def measure(
        cls,
        denoiser: Denoiser,
        x: Tensor,
        sigmas: ArrayLike,
        conditions: Mapping[str, Any] | None = None,
        *,
        compute: Compute | None = None,
    ) -> Trajectories:
        """Follow the ODE from states x, by DPM-Solver++(2M) on the levels: one evaluation a level and trajectory.

        Arguments:
            denoiser: the network, on the device.
            x: noised data of the highest level, shape (T, \\*S).
            sigmas: the levels, decreasing and above 0, each within a tenth or two of the next.
            conditions: handed to the denoiser; tensors of length T go with the trajectories.
            compute: where the denoiser works, on states of what type, and who is told of the batches. The solution
                itself is followed in float32 at least, in smaller batches if its estimates would not fit in 256 MB.

        Raises:
            InputError: if there are fewer than two trajectories, or the levels are not decreasing.
            DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
        """
        compute, levels = compute or Compute(), np.asarray(sigmas, dtype=np.float64)
        given, shared = Conditions.of(conditions, len(x)).apart()
        denoiser = partial(denoiser, **to_device(shared, compute.device))
        fine = Schedule(np.append(levels, 0.0))
        if len(x) < 2:
            raise InputError(f"at least two trajectories are needed: got {len(x)}")
        count = min(GROUPS, len(x))
        products = torch.zeros(count, len(levels), len(levels), dtype=torch.float64)
        size = max(1, min(compute.batch_size, MEMORY // (len(levels) * x[0].numel())))
        left = np.zeros(len(levels))

        def followed(rows: slice) -> tuple[Tensor, Curve]:
            states, own = x[rows].to(compute.device), given.take(rows).to(compute.device)
            estimates, noise = _followed(denoiser, states, fine, own, compute.dtype)
            return estimates @ estimates.mT, noise

        found = replace(compute, batch_size=size).spread(len(x), followed, "following the network")
        group = torch.arange(len(x)) % count
        for own, (each, noise) in zip(torch.split(group, size), found, strict=True):
            products.index_add_(0, own, each)
            left += noise
        members = torch.arange(len(x)).remainder(count).bincount()
        spread = levels**4 * x.numel() / np.maximum(left, 1e-300)
        return cls(levels, (products / members[:, None, None]).numpy(), spread)

    def local_errors(self, schedule: Schedule, solver: Solver) -> Curve:
        """The divergence K in nats that each step adds, a step to 0 left out: one row for each group, shape (K, n).

        Raises:
            InputError: if the schedule leaves the levels, or the solver has no
                :func:`~headstart.solver.linear.linear_weights`.
        """
        levels = np.array([s for s in schedule.sigmas if s > 0])
        high, low = self.sigmas[0], self.sigmas[-1]
        if levels[0] > high * (1 + 1e-9) or levels[-1] < low * (1 - 1e-9):
            raise InputError(f"trajectories were measured from {high:.6g} down to {low:.6g}: got {schedule!r}")
        weights = linear_weights(solver, schedule)[: len(levels) - 1, : len(levels) - 1]
        place = np.log(np.clip(levels, low, high))
        target = levels[1:, None] * np.diff(self._integral(place), axis=0)
        error = weights @ self._spline(place[:-1]) - target
        norms = np.einsum("ng,kgh,nh->kn", error, self.products, error)
        spread = np.interp(place[1:], np.log(self.sigmas[::-1]), np.log(self.spread[::-1]))
        return np.asarray(np.maximum(norms, 0.0) / np.exp(spread))

    def follows(self, solver: Solver) -> bool:
        """Whether the error of this solver is known from them: of the ODE, with one evaluation a step."""
        return is_linear(solver)

    def least_error(
        self, solver: Solver | None, steps: int, horizon: float, sigma_min: float, final_zero: bool = True
    ) -> Schedule:
        r"""The grid with the smallest :math:`\sum_i \sqrt{K_i}` of this solver, by descent from the log-linear one.

        It takes 0.01 to 3 seconds with 4 to 30 steps, once: the grid is remembered. The sum of the roots is what the
        steps add to the root of the divergence (:class:`headstart.budget.Budget`).

        Arguments:
            solver: of the ODE, with one evaluation a step; DPM-Solver++(2M) if None.
            steps: number of steps; with ``final_zero`` the last one goes to 0.
            horizon: the first level.
            sigma_min: the last level above 0.
            final_zero: whether a last step goes to 0.

        Raises:
            InputError: as :meth:`local_errors` and :func:`~headstart.schedule.log_linear`.
        """
        key = (solver or DPMSolverPP2M(), steps, horizon, sigma_min, final_zero)
        if key not in self._least:
            self._least[key] = self._least_error(*key)
        return self._least[key]

    @cached_property
    def _least(self) -> dict[tuple[Solver, int, float, float, bool], Schedule]:
        return {}

    def _least_error(self, solver: Solver, steps: int, horizon: float, sigma_min: float, final_zero: bool) -> Schedule:
        from scipy.optimize import minimize

        first = log_linear(steps, horizon, sigma_min, final_zero)
        inner = steps - final_zero
        if inner < 2:
            return Schedule(first.sigmas, "least error")

        def grid(shares: Curve) -> Schedule:
            gaps = np.exp(shares - shares.max())
            levels = horizon * np.exp(np.append(0.0, gaps.cumsum() / gaps.sum()) * np.log(sigma_min / horizon))
            levels[-1] = sigma_min
            return Schedule([*levels, 0.0] if final_zero else levels, "least error")

        def cost(shares: Curve) -> float:
            roots = np.sqrt(self.local_errors(grid(shares), solver).mean(axis=0)).sum()
            return float(np.log(max(roots, 1e-150)))

        bounds = [(-3.0, 3.0)] * inner
        return grid(minimize(cost, np.zeros(inner), method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-6}).x)

    @cached_property
    def _spline(self) -> CubicSpline:
        """The estimate at ln sigma in those at the levels."""
        from scipy.interpolate import CubicSpline

        return CubicSpline(np.log(self.sigmas[::-1]), np.eye(len(self.sigmas))[::-1])

    @cached_property
    def _integrals(self) -> Curve:
        """The integral from the highest level to each level, shape (G, G)."""
        place = np.log(self.sigmas)
        return np.concatenate([np.zeros((1, len(place))), self._pieces(place[:-1], place[1:]).cumsum(axis=0)])

    def _integral(self, place: Curve) -> Curve:
        """:math:`\\int D s^{-2} ds` from each place, in ln sigma, up to the highest level, in the estimates there."""
        levels = np.log(self.sigmas)
        above = np.clip(np.searchsorted(-levels, -place, side="right") - 1, 0, len(levels) - 1)
        return np.asarray(self._integrals[above] + self._pieces(levels[above], place))

    def _pieces(self, upper: Curve, lower: Curve) -> Curve:
        """The integral between two places with no level in between."""
        half, middle = (upper - lower)[:, None] / 2, (upper + lower)[:, None] / 2
        places, masses = gauss_legendre(NODES)
        nodes = middle + half * places
        return np.asarray(np.einsum("nm,nmg->ng", half * masses * np.exp(-nodes), self._spline(nodes)))


def _followed(
    denoiser: Denoiser, x: Tensor, fine: Schedule, conditions: Mapping[str, Any], dtype: torch.dtype
) -> tuple[Tensor, Curve]:
    """Estimates along the trajectories, in float64 on the CPU, shape (B, G, d), and the sum of the squares
    of the noise estimates at each level, shape (G,).
    """
    said, noise = torch.empty(len(x), fine.steps, x[0].numel(), dtype=torch.float64), list[float]()
    cast = cast_input(denoiser, dtype)

    def kept(state: Tensor, sigma: Any, /, **own: Any) -> Tensor:
        found = answer(cast, state, sigma, **own)
        said[:, len(noise)] = found.flatten(1)
        noise.append(float((state.to(dtype) - found).cpu().double().square().sum()))
        return found

    DPMSolverPP2M().solve(kept, x.to(torch.promote_types(dtype, torch.float32)), fine, **conditions)
    return said, np.array(noise)
