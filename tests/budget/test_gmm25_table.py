"""The budget's two criteria against the exact divergence of Euler's method, on 25 modes of unequal weight.

The reference table holds the divergence from the data at 0.02 to the samples, over horizons and starts, on grids that
make the predictor's cost equal (its fourth root as the length). It was drawn up by Monte Carlo with 4,000 points: each
figure is good to 0.01 nat or a tenth. Here the expectation is a quadrature.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.budget import (
    Budget,
    Estimate,
    discretization_error,
    euler_divergence,
    invert_euler,
    path_objective,
)
from headstart.initialization import Gaussian, Isotropic
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise
from headstart.predictor import predictor_lengths
from headstart.profile import Profile
from headstart.schedule import Length, Schedule, ShortestPaths, equidistribute
from headstart.targets import gmm25

SIGMA_MIN = 0.02
HORIZONS = (0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 20.0, 80.0)
LAW = gmm25(weights="chi2")
# KL(p_T || the Gaussian of equal moments) by quadrature.
E_INIT = (0.306965, 0.114565, 0.0319567, 0.0036879, 4.7903e-4, 2.8678e-5, 8.2e-9, 2.0e-12)

MATCHED_5 = (0.2457, 0.0926, 0.0553, 0.0831, 0.1352, 0.2146, 0.3753, 0.4313)
NOISE_5 = (7.55, 2.55, 1.02, 0.4244, 0.3055, 0.2892, 0.3823, 0.4319)
PERFECT_5 = (0.0174, 0.0316, 0.0491, 0.0867, 0.1373, 0.2155, 0.3754, 0.4313)
MATCHED_10 = (0.2698, 0.0930, 0.0301, 0.0220, 0.0338, 0.0519, 0.0855, 0.0965)
MATCHED_20 = (0.2870, 0.0999, 0.0261, 0.0063, 0.0078, 0.0122, 0.0204, 0.0230)
# The same from the matched Gaussian, on grids of equal defect.
DEFECT_5 = (0.263, 0.098, 0.053, 0.079, 0.127, 0.196, 0.319, 0.359)


def matched() -> Gaussian:
    mean = LAW.weights @ LAW.means
    centred = LAW.means - mean
    covariance = (LAW.weights[:, None] * centred).T @ centred + 0.0625 * torch.eye(2)
    variances, basis = torch.linalg.eigh(covariance)
    return Gaussian((2,), Subspace(mean, basis, variances, torch.tensor(0.0, dtype=torch.float64)))


MATCHED = matched()


def points() -> tuple[Tensor, Tensor]:
    """Points (G, 2) of the trapezoid rule at the last level, and their masses; what weighs nothing is left out."""
    axis = torch.linspace(-3.5, 3.5, 38, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    mass = LAW.log_prob(x, SIGMA_MIN).exp()
    kept = mass > 1e-6 * mass.max()
    return x[kept], mass[kept] / mass[kept].sum()


X, MASS = points()


def divergences(grid: Schedule) -> dict[str, float]:
    """Of Euler's method from three starts, which share the way back."""
    before, log_det = invert_euler(LAW, grid, X)
    common = LAW.log_prob(X, SIGMA_MIN) + log_det
    starts = {"matched": MATCHED, "noise": Isotropic((2,)), "perfect": LAW}
    return {name: float(MASS @ (common - start.log_prob(before, grid.horizon))) for name, start in starts.items()}


@pytest.fixture(scope="module")
def profile() -> Profile:
    data = LAW.sample(Noise(range(1500)))
    sigmas = np.geomspace(80.0, SIGMA_MIN, 120)
    more = {"samples": 1500, "cost_samples": 1500, "batch_size": 1500}
    return Profile.measure(LAW, data, sigmas=sigmas, dtype=torch.float64, **more)


@pytest.fixture(scope="module")
def predictor(profile: Profile) -> Length:
    sigmas = np.geomspace(80.0, SIGMA_MIN, 130)
    assert profile.samples is not None
    return predictor_lengths(LAW, profile.samples[:700], sigmas, dtype=torch.float64, batch_size=700)


def grid(length: Length, steps: int, horizon: float) -> Schedule:
    return equidistribute(length, steps, horizon, SIGMA_MIN, final_zero=False)


def close(value: float, expected: float) -> bool:
    return abs(value - expected) < max(0.01, 0.1 * expected)


@pytest.mark.parametrize("place", range(8), ids=map(str, HORIZONS))
def test_five_steps_from_every_horizon_and_start(predictor: Length, place: int) -> None:
    found = divergences(grid(predictor, 5, HORIZONS[place]))
    assert close(found["matched"], MATCHED_5[place])
    assert close(found["noise"], NOISE_5[place])
    assert close(found["perfect"], PERFECT_5[place])


@pytest.mark.parametrize(("steps", "place"), [(10, 3), (10, 7), (20, 3)])
def test_more_steps_from_the_matched_gaussian(predictor: Length, steps: int, place: int) -> None:
    table = {10: MATCHED_10, 20: MATCHED_20}[steps]
    assert close(divergences(grid(predictor, steps, HORIZONS[place]))["matched"], table[place])


def test_monte_carlo_agrees_with_quadrature(predictor: Length) -> None:
    steps = grid(predictor, 5, 1.2)
    estimate = euler_divergence(LAW, LAW, MATCHED, steps, Noise(range(1500)))
    assert abs(estimate.value - divergences(steps)["matched"]) < 3 * estimate.error < 0.05


@pytest.fixture(scope="module")
def defect(profile: Profile) -> list[float]:
    """The exact divergence in five steps of equal defect."""
    return [divergences(grid(profile.length("defect"), 5, horizon))["matched"] for horizon in HORIZONS]


def budgets(profile: Profile, steps: int) -> list[float]:
    totals = []
    for horizon, e_init in zip(HORIZONS, E_INIT, strict=True):
        schedule = grid(profile.length("defect"), steps, horizon)
        totals.append(Budget(Estimate(e_init, 0.0), discretization_error(profile, schedule)).total)
    return totals


def test_grids_of_equal_defect(defect: list[float]) -> None:
    for found, expected in zip(defect, DEFECT_5, strict=True):
        assert close(found, expected)


def test_the_ode_budget_is_level_with_the_divergence(profile: Profile, defect: list[float]) -> None:
    """Within a factor of 2 at every horizon, those of 20 and 80 with their long single steps included."""
    for found, exact in zip(budgets(profile, 5), defect, strict=True):
        assert 0.5 < found / exact < 2


@pytest.mark.parametrize(("steps", "best"), [(5, 1.2), (10, 2.0), (20, 2.0)])
def test_the_ode_budget_picks_the_best_horizon_within_one_node(profile: Profile, steps: int, best: float) -> None:
    assert abs(int(np.argmin(budgets(profile, steps))) - HORIZONS.index(best)) <= 1


@pytest.mark.parametrize(
    ("start", "steps", "best"),
    [(MATCHED, 5, 0.8), (MATCHED, 20, 1.2), (Isotropic((2,)), 5, 2.0), (Isotropic((2,)), 20, 3.0)],
    ids=str,
)
def test_the_path_picks_the_best_horizon_within_one_node(
    profile: Profile, start: Gaussian | Isotropic, steps: int, best: float
) -> None:
    """Of Euler and Maruyama's method, each horizon on its own best grid."""
    programme = ShortestPaths.of(profile.sigmas, profile.loss, 2, steps, "em")
    grids = [programme.schedule(steps, horizon, final_zero=False) for horizon in HORIZONS]
    values = [path_objective(profile, start, schedule, "em").value for schedule in grids]
    assert abs(int(np.argmin(values)) - HORIZONS.index(best)) <= 1
