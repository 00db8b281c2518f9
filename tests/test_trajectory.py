"""The local errors of multistep solvers along fine trajectories: closed forms, direct simulation, orders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.compute import Compute
from headstart.denoiser import denoise
from headstart.errors import DenoiserError, InputError
from headstart.noise import Noise
from headstart.schedule import Schedule, log_linear, rho_grid, tangent
from headstart.solver import Euler, Heun, get_solver, is_linear
from headstart.solver.linear import linear_weights
from headstart.targets import Gaussian, gmm25
from headstart.trajectory import GROUPS, Trajectories
from tests.solver.cases import LINEAR


def followed(
    law, count: int = 64, levels: int = 200, high: float = 20.0, low: float = 0.02
) -> tuple[Tensor, Trajectories]:
    noise = Noise(range(count))
    x = law.sample(noise).double()
    x = x + high * noise.normal(law.shape).double()
    sigmas = np.geomspace(high, low, levels)
    return x, Trajectories.measure(law, x, sigmas, compute=Compute(dtype=torch.float64))


@pytest.fixture(scope="module")
def isotropic() -> tuple[Tensor, Trajectories]:
    return followed(Gaussian(torch.zeros(3).double(), torch.ones(3).double()))


@pytest.fixture(scope="module")
def modes() -> tuple[Tensor, Trajectories]:
    return followed(gmm25(), count=400)


def test_eulers_steps_on_a_gaussian_err_as_the_closed_form(isotropic: tuple[Tensor, Trajectories]) -> None:
    """x(s) = sqrt((1 + s^2) / (1 + S^2)) x_S along the ODE, and Euler's step multiplies by (1 + a b) / (1 + a^2)."""
    x, trajectories = isotropic
    schedule = rho_grid(6, 15.0, 0.05, final_zero=False)
    own = float(x.square().sum(1).mean()) / 3 / (1 + 20.0**2)  # 1 up to the draw
    expected = [
        3 * own**2 * (1 + a**2) * ((1 + a * b) / (1 + a**2) - math.sqrt((1 + b**2) / (1 + a**2))) ** 2 / (1 + b**2)
        for a, b in schedule.pairs()
    ]
    np.testing.assert_allclose(trajectories.local_errors(schedule, Euler()).mean(axis=0), expected, rtol=4e-3)


@pytest.mark.parametrize("name", LINEAR)
def test_local_errors_are_those_of_steps_from_the_exact_trajectory(
    name: str, modes: tuple[Tensor, Trajectories]
) -> None:
    """Simulated: the states by a far finer solution, the step by the solver's weights on the estimates there."""
    x, trajectories = modes
    law, solver, schedule = gmm25(), get_solver(name), rho_grid(5, 10.0, 0.1)
    fine = [20.0]
    for level in schedule.sigmas[:-1]:
        fine += np.geomspace(fine[-1], level, 301)[1:].tolist()
    states = [x, *Heun().trajectory(law, x, Schedule(fine))]
    exact = [states[fine.index(level)] for level in schedule.sigmas[:-1]]
    estimates = [denoise(law, state, level) for state, level in zip(exact, schedule.sigmas[:-1], strict=True)]
    weights, expected = linear_weights(solver, schedule), []
    for i, (a, b) in enumerate(list(schedule.pairs())[:-1]):
        step = (b / a) * exact[i] + sum(weights[i, j] * estimates[j] for j in range(i + 1))
        expected.append(
            float((step - exact[i + 1]).square().sum(1).mean())
            / np.interp(-b, -trajectories.sigmas, trajectories.spread)
        )
    found = trajectories.local_errors(schedule, solver).mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-9)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("dpm++2m", 2), ("deis", 2), ("dpm++3m", 3)])
def test_the_divergence_falls_with_twice_the_local_order(
    name: str, order: int, isotropic: tuple[Tensor, Trajectories]
) -> None:
    """A step of a method of order p errs by h^(p + 1), once it has its past; the divergence is the square."""
    costs = [
        isotropic[1].local_errors(log_linear(n, 4.0, 0.25, final_zero=False), get_solver(name)).mean(axis=0)[n // 2]
        for n in (16, 32)
    ]
    assert math.log2(costs[0] / costs[1]) == pytest.approx(2 * (order + 1), abs=0.3)


def test_the_grid_of_least_error_is_the_tangent_for_euler_on_a_gaussian(isotropic: tuple[Tensor, Trajectories]) -> None:
    found = isotropic[1].least_error(Euler(), 6, 15.0, 0.05)
    np.testing.assert_allclose(found.sigmas, tangent(6, 15.0, 0.05, scale=1.0).sigmas, rtol=0.05)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("final_zero", [True, False])
def test_no_usual_grid_has_less_error(name: str, final_zero: bool, modes: tuple[Tensor, Trajectories]) -> None:
    solver = get_solver(name)

    def total(schedule: Schedule) -> float:
        return float(np.sqrt(modes[1].local_errors(schedule, solver).mean(axis=0)).sum())

    found = modes[1].least_error(solver, 5, 10.0, 0.05, final_zero)
    assert (found.steps, found.horizon, found.sigma_min) == (5, 10.0, 0.05)
    for grid in (rho_grid, log_linear, tangent):
        assert total(found) <= total(grid(5, 10.0, 0.05, final_zero=final_zero)) * (1 + 1e-6)


def test_a_single_step_above_zero_leaves_no_choice(isotropic: tuple[Tensor, Trajectories]) -> None:
    assert isotropic[1].least_error(Euler(), 2, 5.0, 0.1).sigmas == (5.0, 0.1, 0.0)
    assert isotropic[1].local_errors(Schedule([5.0, 0.0]), Euler()).shape == (GROUPS, 0)


def test_the_spread_is_that_of_the_fisher_information(
    isotropic: tuple[Tensor, Trajectories], modes: tuple[Tensor, Trajectories]
) -> None:
    """E|score|^2 = d / v: of a Gaussian its variance; of 25 modes, what fresh draws of the noised law say."""
    x, trajectories = isotropic
    own = float(x.square().sum(1).mean()) / 3 / (1 + 20.0**2)  # 1 up to the draw: (x - D)^2 is in proportion to x^2
    np.testing.assert_allclose(trajectories.spread, (1 + trajectories.sigmas**2) / own, rtol=1e-3)
    law, noise = gmm25(), Noise(range(10_000, 14_000))
    for place in (0, -1):
        sigma = float(modes[1].sigmas[place])
        noised = law.sample(noise).double() + sigma * noise.normal(law.shape).double()
        scores = (denoise(law, noised, sigma) - noised) / sigma**2
        assert modes[1].spread[place] == pytest.approx(2 / float(scores.square().sum(1).mean()), rel=0.15)


def test_where_nothing_errs_any_grid_will_do() -> None:
    """A law of one point: every step is exact, and every grid as good."""
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    found = Trajectories.measure(lambda x, sigma: torch.ones_like(x), x, np.geomspace(9.0, 0.1, 20))
    assert found.local_errors(rho_grid(4, 5.0, 0.2), Euler()).max() < 1e-12
    assert found.least_error(Euler(), 4, 5.0, 0.2).steps == 4


def test_batches_and_groups_change_nothing() -> None:
    law, noise = gmm25(), Noise(range(30))
    x = law.sample(noise).double() + 20 * noise.normal((2,)).double()
    sigmas = np.geomspace(20.0, 0.1, 20)
    whole, parts = (
        Trajectories.measure(law, x, sigmas, compute=Compute(dtype=torch.float64, batch_size=size)).products
        for size in (256, 7)
    )
    np.testing.assert_allclose(whole, parts, rtol=1e-12)
    own = Trajectories.measure(law, x[::GROUPS], sigmas, compute=Compute(dtype=torch.float64)).products.shape
    assert (whole.shape, own) == ((GROUPS, 20, 20), (4, 20, 20))
    first = Trajectories.measure(law, x[::GROUPS], sigmas, compute=Compute(dtype=torch.float64)).products
    np.testing.assert_allclose(first.mean(axis=0), whole[0], rtol=1e-12)  # of four trajectories each


def test_conditions_go_with_their_trajectories() -> None:
    def shifted(x: Tensor, sigma: Tensor, label: Tensor, scale: float) -> Tensor:
        return (scale * label)[:, None].to(x) + 0 * x

    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    given = {"label": torch.arange(6), "scale": 2.0}
    found = Trajectories.measure(shifted, x, [4.0, 2.0, 1.0], given, compute=Compute(batch_size=4))
    expected = [2 * (2.0 * label) ** 2 for label in range(6)]  # two coordinates of 2 label, squared
    np.testing.assert_allclose(found.products[:, 0, 1], expected)


def test_what_cannot_be_followed_is_refused(isotropic: tuple[Tensor, Trajectories]) -> None:
    x, trajectories = isotropic
    for levels in ([30.0, 1.0, 0.0], [5.0, 0.001, 0.0]):
        with pytest.raises(InputError, match="measured from 20 down"):
            trajectories.local_errors(Schedule(levels), Euler())
    assert not is_linear(Heun())
    with pytest.raises(InputError, match="one evaluation a step"):
        trajectories.local_errors(Schedule([5.0, 1.0, 0.0]), Heun())
    with pytest.raises(InputError, match="at least two trajectories"):
        Trajectories.measure(gmm25(), x[:1, :2], [2.0, 1.0])
    with pytest.raises(InputError, match="decreasing"):
        Trajectories.measure(gmm25(), x[:, :2], [1.0, 2.0])
    with pytest.raises(DenoiserError, match="NaN"):
        Trajectories.measure(lambda x, sigma: x * math.nan, x, [2.0, 1.0])
