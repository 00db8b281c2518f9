r"""Gaussian data, where every solver of the ODE is a linear map and every divergence a closed form.

For data :math:`N(0, \operatorname{diag} \lambda)` the denoiser is :math:`D(x, \sigma)_j = \lambda_j x_j / (\lambda_j +
\sigma^2)`, and a solver multiplies each coordinate by a number :math:`k_j`, which is found by running it on the vector
of ones. From a start of variances :math:`\nu_j` to the last level,

.. math:: KL(p_{\sigma_N} \,\|\, \hat p) = \tfrac12 \sum_j (w_j - 1 - \ln w_j), \qquad
    w_j = \frac{\lambda_j + \sigma_N^2}{k_j^2\, \nu_j}.

**One dimension**, :math:`\lambda = 1`, from the exact law at 80 down to 0.002: Euler's and Heun's methods, and the
divergences of the path of Euler and Maruyama's method and of ``ddpm``,

.. math:: \sum_i \tfrac12 [-\ln(1 - \rho_i) - \rho_i], \quad \rho_i = \frac{a^2 - b^2}{1 + a^2}, \qquad
    \sum_i \tfrac12 [\rho_i - \ln(1 + \rho_i)], \quad \rho_i = \frac{b^{-2} - a^{-2}}{1 + a^{-2}}.

The lengths of short steps are :math:`\int \sigma^{1/2} (1 + \sigma^2)^{-5/4}\, d\sigma` for the predictor and
:math:`\operatorname{asinh} \sigma - \sigma (1 + \sigma^2)^{-1/2}` for the corrector.

**A thousand dimensions**, :math:`\lambda_j = j^{-2}`, from :math:`N(0, 80^2)` and from the exact law at twice the
data's standard deviation per coordinate, with costs that are sums over the spectrum and no Monte Carlo,

.. math::
    L_c = v^2 (a^2 - b^2)^2 \sum_j \frac1{(\lambda_j + a^2) (\lambda_j + b^2)^2}, \qquad
    L_p = b^2 (a - b)^4 \sum_j \frac{\lambda_j^2}{(\lambda_j + a^2) (\lambda_j + ab)^2 (\lambda_j + b^2)^2},

except for the trajectories of GITS and of the constant rate, which are 64 exact ones.

References:
    Sabour et al., *Align Your Steps*, ICML 2024, arXiv 2404.14507, Theorem 3.1 (the tangent grid is the best one for
    Euler's method in one dimension).

    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877 (the costs).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.common import Run
from experiments.schedules.cells import best, lines
from experiments.schedules.grids import HAND, ODE, SOLVERS, Grids, class_of, fits, teacher_of
from headstart.denoiser import Denoiser, expand
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import Length, Schedule, equidistribute, log_linear, rho_grid, tangent
from headstart.solver import Euler, Heun, Solver
from headstart.trajectory import Trajectories

__all__ = ["divergence", "exact_denoiser", "exact_profile", "gaussians", "one_dimension", "predictor_cost"]

Curve = NDArray[np.float64]

HORIZON, SIGMA_MIN = 80.0, 0.002

#: Evaluations in a thousand dimensions.
NFE = (4, 6, 10, 20)


def exact_denoiser(variances: Tensor) -> Denoiser:
    """The denoiser of a Gaussian with a diagonal covariance."""

    def denoiser(x: Tensor, sigma: Any, /, **_: Any) -> Tensor:
        return variances / (variances + expand(torch.as_tensor(sigma, dtype=x.dtype), x) ** 2) * x

    return denoiser


def divergence(variances: Tensor, start: Tensor, solver: Solver, grid: Schedule) -> float:
    """The divergence in nats from the data at the last level to what a solver of the ODE makes of a Gaussian start.

    Arguments:
        variances: of the data, shape (d,), float64.
        start: the variances of the start.
        solver: of the ODE.
        grid: the levels, without a step to 0.
    """
    k = solver.solve(exact_denoiser(variances), torch.ones_like(variances)[None], grid)[0]
    w = (variances + grid.sigmas[-1] ** 2) / (k.square() * start)
    return float(0.5 * (w - 1 - w.log()).sum())


def predictor_cost(variances: Curve, a: Curve, b: Curve) -> Curve:
    """The predictor's cost of Euler's steps between levels, with v = sigma: (n,) and (n,) to (n,)."""
    v, a, b = variances[:, None], a[None], b[None]
    terms = v**2 / ((v + a**2) * (v + a * b) ** 2 * (v + b**2) ** 2)
    return np.asarray((b**2 * (a - b) ** 4)[0] * terms.sum(axis=0))


def corrector_cost(variances: Curve, a: Curve, b: Curve) -> Curve:
    """The corrector's cost between levels, with v = sigma: (n,) and (n,) to (n,)."""
    v, a, b = variances[:, None], a[None], b[None]
    return np.asarray((b**2 * (a**2 - b**2) ** 2)[0] * (1 / ((v + a**2) * (v + b**2) ** 2)).sum(axis=0))


def defect_cost(variances: Curve, a: Curve, b: Curve, sigma_data: float) -> Curve:
    """The defect's cost between levels: (n,) and (n,) to (n,)."""
    v, a, b = variances[:, None], a[None], b[None]
    euler = (v + a * b) / (v + a**2)
    bend = 0.5 * (b - a) * (b / (v + b**2) * euler - a / (v + a**2))
    return np.asarray((bend**2 * (v + a**2)).sum(axis=0) / (b[0] ** 2 + sigma_data**2))


def _length(sigmas: Curve, costs: Curve, exponent: int) -> Length:
    """By the roots of the costs: as they stand the smallest ones would be cut off (:attr:`Length.cumulative`)."""
    return Length(sigmas, costs ** (1 / exponent), 1)


# One dimension.


def one_dimension(steps: int) -> list[dict[str, Any]]:
    """Every schedule's divergences in one dimension, none of them with a step to 0."""
    one, at_start = torch.ones(1, dtype=torch.float64), torch.tensor([1 + HORIZON**2], dtype=torch.float64)
    rows = []
    for grid in _one_dimension_grids(steps):
        s = np.array(grid.sigmas)
        rows.append(
            {
                "schedule": grid.name,
                "steps": steps,
                "euler": divergence(one, at_start, Euler(), grid),
                "heun": divergence(one, at_start, Heun(), grid),
                "em_path": _em_path(s[:-1], s[1:]),
                "ddpm_path": _ddpm_path(s[:-1], s[1:]),
            }
        )
    return rows


def _one_dimension_grids(steps: int) -> Iterator[Schedule]:
    ends = steps, HORIZON, SIGMA_MIN
    yield rho_grid(*ends, rho=7, final_zero=False)
    yield rho_grid(*ends, rho=3, final_zero=False)
    yield log_linear(*ends, final_zero=False)
    yield Schedule(tangent(*ends, scale=1.0, final_zero=False).sigmas, "tangent")
    sigmas = np.geomspace(HORIZON, SIGMA_MIN, 20_001)
    sigmas[0], sigmas[-1] = HORIZON, SIGMA_MIN
    middle = np.sqrt(sigmas[:-1] * sigmas[1:])
    predictor = Length(sigmas, middle**1.5 * (1 + middle**2) ** -1.25, 1)
    corrector = Length(sigmas, -np.diff(np.arcsinh(sigmas) - sigmas / np.sqrt(1 + sigmas**2)), 1)
    yield equidistribute(predictor, *ends, final_zero=False, name="predictor")
    yield equidistribute(corrector, *ends, final_zero=False, name="corrector")
    yield _between(np.sqrt(np.geomspace(1 + HORIZON**2, 1 + SIGMA_MIN**2, steps + 1) - 1), "em-opt")
    yield _between(1 / np.sqrt(np.geomspace(1 + HORIZON**-2, 1 + SIGMA_MIN**-2, steps + 1) - 1), "ddpm-opt")


def _between(sigmas: Curve, name: str) -> Schedule:
    return Schedule([HORIZON, *sigmas[1:-1], SIGMA_MIN], name)


def _em_path(a: Curve, b: Curve) -> float:
    rho = (a**2 - b**2) / (1 + a**2)
    return float(0.5 * (-np.log1p(-rho) - rho).sum())


def _ddpm_path(a: Curve, b: Curve) -> float:
    rho = (b**-2 - a**-2) / (1 + a**-2)
    return float(0.5 * (rho - np.log1p(rho)).sum())


# A thousand dimensions.


def exact_profile(variances: Curve, levels: int = 160) -> Profile:
    """The profile of an endless measuring pass."""
    sigmas = np.geomspace(HORIZON, SIGMA_MIN, levels)
    sigmas[0], sigmas[-1] = HORIZON, SIGMA_MIN
    v, a, b = variances[:, None], sigmas[:-1], sigmas[1:]
    sigma_data = float(np.sqrt(variances.mean()))
    losses = (v * sigmas**2 / (v + sigmas**2)).sum(axis=0)
    said = v / np.sqrt(v + sigmas**2)  # what the network says along the trajectory of one standard deviation
    products = said.T @ said
    spread = len(variances) / (1 / (v + sigmas**2)).sum(axis=0)  # d / J, J the Fisher information
    return Profile(
        sigmas=sigmas,
        losses=losses[None],
        corrector=corrector_cost(variances, a, b)[None],
        defect=defect_cost(variances, a, b, sigma_data)[None],
        sigma_data=sigma_data,
        shape=(len(variances),),
        seed=0,
        trajectories=Trajectories(sigmas, products[None], spread),
    )


def _exact_grids(variances: Tensor, profile: Profile, short: float, trajectories: int) -> Grids:
    teacher = teacher_of([HORIZON, short], SIGMA_MIN)
    xi = Noise(range(trajectories)).normal((len(variances),)).double()
    states = [(variances + s**2).sqrt() * xi for s in teacher.sigmas]
    a, b = profile.sigmas[:-1], profile.sigmas[1:]
    lengths = {
        "corrector marginal": profile.length("corrector", velocity="marginal"),
        "predictor": _length(profile.sigmas, predictor_cost(variances.numpy(), a, b), 4),
    }
    return Grids.of(exact_denoiser(variances), profile, teacher, states, lengths)


def gaussians(run: Run) -> dict[str, Any]:
    """Both parts: their tables, their figure, and what ``results.json`` holds of them."""
    one = [row for steps in (10, 20) for row in one_dimension(steps)]
    run.table("gaussian", one)
    dimension = 50 if run.quick else 1000
    variances = torch.arange(1, dimension + 1, dtype=torch.float64) ** -2
    profile = exact_profile(variances.numpy(), 60 if run.quick else 160)
    short = 2 * profile.sigma_data
    grids = _exact_grids(variances, profile, short, 64)
    starts = {
        "noise": (HORIZON, torch.full_like(variances, HORIZON**2)),
        "exact": (short, variances + short**2),
    }
    combinations = [
        (start, nfe, solver, kind)
        for start in starts
        for nfe in (NFE[:1] if run.quick else NFE)
        for solver in ODE
        for kind in (*HAND, *grids.measured)
        if fits(kind, SOLVERS[solver])
    ]
    rows = []
    for start, nfe, solver, kind in run.progress.track(combinations, "Gaussians"):
        horizon, before = starts[start]
        steps = nfe // 2 if solver == "heun" else nfe
        grid = Schedule(grids(kind, steps + 1, horizon, SIGMA_MIN, SOLVERS[solver]).sigmas[:-1], kind)
        row = {"start": start, "horizon": horizon, "nfe": nfe, "solver": solver, "class": class_of(kind)}
        rows.append(row | {"schedule": kind, "divergence": divergence(variances, before, SOLVERS[solver], grid)})
    first = best(rows, "divergence", "start", "nfe", "solver", "class")
    run.table("spectrum", rows)
    run.table("spectrum-best", first)
    of_all = best(rows, "divergence", "start", "nfe", "class")
    run.figure("spectrum", lines(of_all, "divergence", "divergence, nats", {}))
    return {"one_dimension": one, "spectrum": {"dimension": dimension, "short": short, "best": first}}
