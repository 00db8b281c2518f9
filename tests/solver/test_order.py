"""Convergence orders on the exact Gaussian, and the reference values of its discretization error."""

import math
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from headstart.denoiser import denoise
from headstart.schedule import Schedule, log_linear, rho_grid, tangent
from headstart.solver import (
    DDPM,
    DEIS,
    IPNDM,
    DPMSolverPP2M,
    DPMSolverPP3M,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    UniPC,
)
from headstart.targets import bimodal
from tests.solver.cases import ODE, SDE

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


def eased(schedule):
    """The first step taken in parts, each twice the one before: the low order of the first of them is not felt."""
    first, second, *rest = schedule.sigmas
    parts = 2 * math.ceil(math.log2(schedule.steps))
    return Schedule([first, *(first * (second / first) ** (2.0 ** (k - parts)) for k in range(parts + 1)), *rest])


def two_modes(x, a, b):
    """The exact solution at b of the probability-flow ODE of the bimodal law: the same quantile."""

    def cdf(y, sigma):
        law = norm(scale=math.sqrt(0.04 + sigma**2))
        return 0.3 * law.cdf(y + 1) + 0.7 * law.cdf(y - 1)

    def end(start):
        quantile = cdf(start, a)
        return brentq(lambda y: cdf(y, b) - quantile, -20, 20, xtol=1e-15)

    return torch.tensor([end(start) for start in x.flatten().tolist()], dtype=torch.float64).reshape(x.shape)


#: The parameters that change the order of a solver of several steps, or might.
VARIANTS = [
    UniPC(points=1),
    UniPC(points=2, bh=1),
    UniPC(points=2, bh=2),
    UniPC(points=3),
    DEIS(points=2),
    DEIS(points=3),
    DEIS(points=4),
    DEIS(points=3, power=1),
]


#: The solvers of this library.
OWN = [solver for solver in [*ODE, *VARIANTS] if type(solver).__module__.startswith("headstart.")]


def convergence(solver, law, grid, counts, gaussian):
    """Order from 2 to 0.05, where D varies from the first step on."""
    high, low = 2.0, 0.05
    if law == "gaussian":
        x, denoiser, flow = torch.tensor([[2.2, -1.4, 1.0]], dtype=torch.float64), gaussian, gaussian.flow
    else:
        x, denoiser, flow = torch.tensor([[-2.6], [0.8]], dtype=torch.float64), bimodal(), two_modes
    exact = flow(x, high, low)
    return slope(counts, [(solver.solve(denoiser, x, grid(n, high, low)) - exact).norm() for n in counts])


@pytest.mark.parametrize("solver", dict.fromkeys([*ODE, *VARIANTS]), ids=repr)
@pytest.mark.parametrize(
    ("law", "grid"),
    [("gaussian", log_linear), ("gaussian", rho_grid), ("bimodal", rho_grid)],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_order_where_the_first_steps_are_not_felt(solver, law, grid, gaussian):
    """On a Gaussian the leading error of a solver that is not ours may vanish, as that of the midpoint rule does."""
    counts = (40, 80, 160) if law == "gaussian" else (100, 200, 400)

    def levels(n, high, low):
        return eased(grid(n, high, low, final_zero=False))

    found = convergence(solver, law, levels, counts, gaussian)
    assert found > solver.order - 0.15
    assert found < solver.order + 0.15 or (law == "gaussian" and solver not in OWN)


@pytest.mark.parametrize(
    ("solver", "order"),
    [(DPMSolverPP3M(), 2), (DEIS(points=3), 2), (UniPC(points=2), 3), (UniPC(points=3), 3)],
    ids=str,
)
def test_a_first_step_that_is_felt_limits_the_order(solver, order, gaussian):
    """From a short horizon: Euler's first step adds an error of second order, and UniPC's corrected one of third."""

    def levels(n, high, low):
        return log_linear(n, high, low, final_zero=False)

    assert convergence(solver, "gaussian", levels, (40, 80, 160), gaussian) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("points", [2, 3, 4])
@pytest.mark.parametrize("law", ["gaussian", "bimodal"])
def test_ipndm_is_of_second_order_on_a_graded_grid(points, law, gaussian):
    def levels(n, high, low):
        return log_linear(n, high, low, final_zero=False)

    assert convergence(IPNDM(points=points), law, levels, (80, 160, 320), gaussian) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_ipndm_is_deis_on_equal_steps(points, gaussian):
    """Whose order in sigma is the number of points."""
    x, schedule = torch.tensor([[2.2, -1.4, 1.0]], dtype=torch.float64), Schedule(np.linspace(2, 0, 9))
    states = zip(
        IPNDM(points=points).trajectory(gaussian, x, schedule),
        DEIS(points=points, power=1).trajectory(gaussian, x, schedule),
        strict=True,
    )
    for ours, same in states:
        torch.testing.assert_close(ours, same, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (DEIS(points=1), Euler()),
        (DEIS(points=1, power=0.3), Euler()),
        (IPNDM(points=1), Euler()),
    ],
    ids=str,
)
def test_one_point_is_euler(first, second, gaussian):
    x, schedule = torch.tensor([[2.2, -1.4, 1.0]], dtype=torch.float64), rho_grid(6, 2.0, 0.05)
    torch.testing.assert_close(
        first.solve(gaussian, x, schedule), second.solve(gaussian, x, schedule), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("solver", "degree"), [(DPMSolverPP3M(), 2), (UniPC(points=3), 2)], ids=str)
def test_exact_where_the_denoised_estimate_is_a_polynomial(solver, degree):
    """In lambda = -ln sigma, and whatever the state: by SciPy's quadrature, on an irregular grid, once under way."""
    schedule = Schedule([3.0, 2.9, 2.0, 0.7, 0.6, 0.05])

    def value(level):
        return 1 + 2 * math.log(level) - 0.5 * math.log(level) ** degree

    def denoiser(x, sigma):
        return torch.full_like(x, value(sigma.item() if isinstance(sigma, torch.Tensor) else sigma))

    states = list(solver.trajectory(denoiser, torch.ones(1, 1, dtype=torch.float64), schedule))
    for i in range(2, schedule.steps):
        a, b = schedule.sigmas[i], schedule.sigmas[i + 1]
        integral = quad(lambda u: math.exp(u) * value(math.exp(-u)), -math.log(a), -math.log(b), epsabs=1e-13)[0]
        assert states[i].item() == pytest.approx(b / a * states[i - 1].item() + b * integral, rel=1e-11)


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


def draws_of(solver, denoiser, schedule):
    """How many times it draws noise."""
    counted = 0

    def zeros():
        nonlocal counted
        counted += 1
        return torch.zeros(1, 1, dtype=torch.float64)

    deque(solver.steps(partial(denoise, denoiser), torch.ones(1, 1, dtype=torch.float64), schedule, zeros), maxlen=0)
    return counted


def final_variance(solver, denoiser, schedule, start_variance):
    """Variance at the end of a linear chain, exactly: a gain from the start and one from each draw of noise."""
    draws = draws_of(solver, denoiser, schedule)
    x = torch.zeros(draws + 1, 1, dtype=torch.float64)
    x[0] = 1.0
    gains = solver.solve(denoiser, x, schedule, Pulses(draws + 1)).squeeze(1) ** 2
    return float(start_variance * gains[0] + gains[1:].sum())


def weak_order(solver, denoiser, counts=(100, 200, 400), high=10.0, low=0.05):
    """The order in which the variance converges."""
    errors = []
    for n in counts:
        schedule = log_linear(n, high, low, final_zero=False)
        errors.append(abs(final_variance(solver, denoiser, schedule, 1 + high**2) - (1 + low**2)))
    return slope(counts, errors)


@pytest.mark.parametrize("solver", SDE, ids=repr)
def test_law_converges_at_least_with_the_order(solver, standard_gaussian):
    """The corrections of a predictor-corrector take away errors of before, as long as their own are not felt."""
    assert weak_order(solver, standard_gaussian, (50, 100, 200)) > solver.order - 0.15


@pytest.mark.parametrize("solver", [DDPM(), EulerMaruyama(), DPMSolverPP2M(eta=1), DPMSolverPP2M(eta=0.5)], ids=repr)
def test_weak_order(solver, standard_gaussian):
    assert weak_order(solver, standard_gaussian) == pytest.approx(solver.order, abs=0.15)


def test_predictor_and_corrector_by_hand(standard_gaussian):
    """The variance through every prediction and every step of Langevin's, where s(x, b) = -x / (1 + b^2)."""
    solver = PredictorCorrector(corrections=2, snr=0.3)
    schedule = rho_grid(5, 5.0, 0.05, rho=3, final_zero=False)
    variance = 26.0
    for a, b in schedule.pairs():
        r, epsilon = b**2 / a**2, 2 * 0.3**2 * b**2
        variance = (r + (1 - r) / (1 + a**2)) ** 2 * variance + a**2 - b**2
        for _ in range(2):
            variance = (1 - epsilon / (1 + b**2)) ** 2 * variance + 2 * epsilon
    assert final_variance(solver, standard_gaussian, schedule, 26.0) == pytest.approx(variance, rel=1e-12)


def test_corrections_bring_the_law_to_that_of_the_level(standard_gaussian):
    """Nearer with every correction, up to the bias of Langevin's steps, snr^2 b^2 / (1 + b^2) of the variance."""
    schedule, exact, snr = Schedule([5.0, 1.0]), 1 + 1.0**2, 0.16
    variances = [final_variance(EulerMaruyama(), standard_gaussian, schedule, 26.0)]
    for m in (1, 4, 200):
        solver = PredictorCorrector(corrections=m, snr=snr)
        variances.append(final_variance(solver, standard_gaussian, schedule, 26.0))
    errors = [abs(variance - exact) for variance in variances]
    assert errors == sorted(errors, reverse=True)
    assert variances[-1] / exact - 1 == pytest.approx(snr**2 / 2, rel=0.05)


def test_langevin_steps_are_those_of_the_paper_where_noise_dominates(standard_gaussian):
    """Its step 2 (snr |z| / |s|)^2, with the norms of one sample of 100,000 dimensions, at a level of 20."""
    d, b, snr = 100_000, 20.0, 0.16
    z, x = torch.randn(2, 1, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = math.sqrt(1 + b**2) * x
    score = (standard_gaussian(x, b) - x) / b**2
    step = 2 * (snr * z.norm() / score.norm()).item() ** 2
    assert step == pytest.approx(2 * (snr * b) ** 2, rel=0.02)


@pytest.mark.parametrize(("variance", "solver"), [("ddpm", DDPM()), ("em", EulerMaruyama())])
def test_ddpm_with_the_variances_of_another(variance, solver, standard_gaussian):
    """Those of the posterior and of Euler and Maruyama, given as numbers; and the best, which the exact loss gives."""
    schedule = rho_grid(8, 6.0, 0.1, final_zero=False)
    given, best = [], []
    for a, b in schedule.pairs():
        posterior, loss = b**2 * (1 - b**2 / a**2), a**2 / (1 + a**2)
        given.append(posterior if variance == "ddpm" else a**2 - b**2)
        best.append(posterior * (1 + (b**-2 - a**-2) * loss))
    same = final_variance(DDPM(given), standard_gaussian, schedule, 37.0)
    assert same == pytest.approx(final_variance(solver, standard_gaussian, schedule, 37.0), rel=1e-12)
    # On Gaussian data the kernel with the best variance is the exact one, and so is the law.
    assert final_variance(DDPM(best), standard_gaussian, schedule, 37.0) == pytest.approx(1 + 0.1**2, rel=1e-12)


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
