"""Convergence orders on the exact Gaussian, and the reference values of its discretization error."""

import math

import numpy as np
import pytest
import torch

from headstart.schedule import log_linear, rho_grid, tangent
from headstart.solver import DDPM, DPMSolverPP2M, Euler, Heun

GRIDS = {
    "rho7": lambda n: rho_grid(n, 80.0, 0.002, rho=7, final_zero=False),
    "rho3": lambda n: rho_grid(n, 80.0, 0.002, rho=3, final_zero=False),
    "loglin": lambda n: log_linear(n, 80.0, 0.002, final_zero=False),
    "tan": lambda n: tangent(n, 80.0, 0.002, scale=1, final_zero=False),
}


def slope(counts, errors):
    """Order of convergence: minus the slope of log error against log N."""
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMSolverPP2M()], ids=repr)
@pytest.mark.parametrize("grid", [log_linear, rho_grid, tangent])
def test_order_of_the_ode_solvers(solver, grid, gaussian):
    high, low, counts = 10.0, 0.05, (40, 80, 160)
    x = torch.tensor([[11.0, -7.0, 5.0], [-9.0, 13.0, 8.0]], dtype=torch.float64)
    exact = gaussian.flow(x, high, low)
    errors = [(solver.solve(gaussian, x, grid(n, high, low, final_zero=False)) - exact).norm() for n in counts]
    assert slope(counts, errors) == pytest.approx(solver.order, abs=0.15)


class Pulses:
    """In place of noise: the k-th draw is 1 for sample k + 1, and 0 for all others."""

    def __init__(self, samples):
        self.rows = torch.eye(samples, dtype=torch.float64)
        self.draws = 0

    def __len__(self):
        return len(self.rows)

    def normal(self, shape):
        self.draws += 1
        return self.rows[self.draws].reshape(-1, *shape)


def final_variance(solver, denoiser, schedule, start_variance):
    """Variance at the end of a linear chain, exactly: a gain from the start and one from each draw of noise."""
    draws = schedule.steps
    x = torch.zeros(draws + 1, 1, dtype=torch.float64)
    x[0] = 1.0
    gains = solver.solve(denoiser, x, schedule, Pulses(draws + 1)).squeeze(1) ** 2
    return float(start_variance * gains[0] + gains[1:].sum())


def test_weak_order_of_ddpm(standard_gaussian):
    high, low, counts = 10.0, 0.05, (100, 200, 400)
    errors = []
    for n in counts:
        schedule = log_linear(n, high, low, final_zero=False)
        variance = final_variance(DDPM(), standard_gaussian, schedule, 1 + high**2)
        errors.append(abs(variance - (1 + low**2)))
    assert slope(counts, errors) == pytest.approx(DDPM.order, abs=0.15)


def test_law_of_ddpm_is_the_recursion_of_its_moments(standard_gaussian):
    """Method.md 2.3 on N(0, 1), where D(x, a) = x / (1 + a^2), written out by hand."""
    schedule = rho_grid(7, 5.0, 0.05, rho=3, final_zero=False)
    variance = 1 + 5.0**2
    for a, b in schedule.pairs():
        r = b**2 / a**2
        variance = (r + (1 - r) / (1 + a**2)) ** 2 * variance + r * (a**2 - b**2)
    assert final_variance(DDPM(), standard_gaussian, schedule, 26.0) == pytest.approx(variance, rel=1e-12)


def final_kl(solver, denoiser, schedule):
    """KL(p_min || law of the sampler) for data N(0, 1) and an exact start."""
    variance = (1 + schedule.horizon**2) * solver.solve(
        denoiser, torch.ones(1, 1, dtype=torch.float64), schedule
    ).item() ** 2
    w = (1 + schedule.sigmas[-1] ** 2) / variance
    return (w - 1 - math.log(w)) / 2


@pytest.mark.parametrize(
    ("solver", "grid", "steps", "expected"),
    [
        (Euler(), "rho7", 10, "7.903e-02"),
        (Euler(), "rho3", 10, "1.337e-01"),
        (Euler(), "loglin", 10, "8.421e-02"),
        (Euler(), "tan", 10, "1.606e-02"),
        (Heun(), "rho7", 10, "1.574e-02"),
        (Heun(), "rho3", 10, "2.366e-02"),
        (Heun(), "loglin", 10, "2.651e-02"),
        (Heun(), "tan", 10, "2.426e-02"),
        (Euler(), "rho7", 20, "1.807e-02"),
        (Euler(), "tan", 20, "3.827e-03"),
        (Heun(), "rho7", 20, "9.615e-04"),
        (Heun(), "tan", 20, "7.197e-04"),
    ],
)
def test_discretization_error_of_the_isotropic_gaussian(solver, grid, steps, expected, standard_gaussian):
    """Method.md 6.2, table E, to all digits given."""
    assert f"{final_kl(solver, standard_gaussian, GRIDS[grid](steps)):.3e}" == expected


def test_tangent_is_the_best_grid_of_euler(standard_gaussian):
    """Align Your Steps, Theorem 3.1: moving any inner level of the tangent grid makes the error larger."""
    best = GRIDS["tan"](8)
    for i in range(1, 8):
        for factor in (0.98, 1.02):
            moved = list(best.sigmas)
            moved[i] *= factor
            assert final_kl(Euler(), standard_gaussian, type(best)(moved)) > final_kl(Euler(), standard_gaussian, best)
