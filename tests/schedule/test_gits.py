"""GITS against every way there is, closed forms of Gaussians, and the geometry of a chord."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from headstart.denoiser import Counted
from headstart.errors import DenoiserError, InputError
from headstart.noise import Noise
from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.schedule.dynamic import cheapest_ways
from headstart.schedule.gits import GITS
from headstart.solver import Euler, Heun
from headstart.targets import Gaussian, GaussianMixture, gmm25

METRICS = ["deviation", "l1", "l2"]
MEANS = torch.tensor([[1.0, 0.2], [-0.6, 0.8], [0.1, -1.1]], dtype=torch.float64)
LAW = GaussianMixture([0.5, 0.2, 0.3], MEANS, 0.01)


def starts(law, count, sigma, first=0):
    noise = Noise(range(first, first + count), dtype=torch.float64)
    return law.sample(noise) + sigma * noise.normal(law.shape)


def trajectory(teacher, law=LAW, count=32, first=0):
    x = starts(law, count, teacher.horizon, first)
    return [x, *Heun().trajectory(law, x, teacher)]


def measured(teacher, law=LAW, count=32, **options):
    return GITS.of(law, trajectory(teacher, law, count), teacher, **options)


@pytest.fixture(scope="module")
def fine():
    """A teacher of 40 steps, and the programmes of all metrics."""
    teacher = rho_grid(40, 80.0, 0.02, final_zero=False)
    states = trajectory(teacher)
    return teacher, states, {metric: GITS.of(LAW, states, teacher, metric=metric) for metric in METRICS}


def total(programme, way):
    """The costs along a way, each weighted by gamma to the power of how many came before."""
    return sum(programme.gamma**k * programme.costs[i, j] for k, (i, j) in enumerate(itertools.pairwise(way)))


@pytest.mark.parametrize("gamma", [0.8, 1.0, 1.15, 3.0])
@pytest.mark.parametrize("metric", METRICS)
def test_no_way_through_the_teachers_levels_is_cheaper(metric, gamma):
    teacher = rho_grid(8, 20.0, 0.05, rho=4, final_zero=False)
    programme = measured(teacher, metric=metric, gamma=gamma)
    for steps, start in itertools.product(range(1, 9), (0, 3)):
        ways = [(start, *inner, 8) for inner in itertools.combinations(range(start + 1, 8), steps - 1)]
        if not ways:
            continue
        best = min(ways, key=lambda way: total(programme, way))
        horizon = teacher.sigmas[start]
        assert programme.cost(steps, horizon) == pytest.approx(total(programme, best), rel=1e-12)
        levels = programme.schedule(steps, horizon, final_zero=False).sigmas
        assert levels == tuple(teacher.sigmas[i] for i in best)


@pytest.mark.parametrize("seed", range(3))
def test_the_programme_is_right_for_any_costs(seed):
    """Random costs of both signs, as the deviation has them, put in place of the measured ones."""
    costs = np.random.default_rng(seed).normal(size=(8, 8))
    costs[np.tri(8, dtype=bool)] = np.inf
    values, choices = cheapest_ways(costs, len(costs) - 1, 1.15)
    programme = GITS(np.geomspace(8.0, 0.1, 8), costs, "deviation", 1.15, values, choices)
    for steps in range(1, 8):
        ways = [(0, *inner, 7) for inner in itertools.combinations(range(1, 7), steps - 1)]
        best = min(ways, key=lambda way: total(programme, way))
        assert programme.cost(steps) == pytest.approx(total(programme, best), rel=1e-12)
        assert programme.schedule(steps, final_zero=False).sigmas == tuple(programme.sigmas[list(best)])


def test_costs_are_those_of_eulers_steps_from_the_teachers_states():
    """The solver's own step, the distance from a line by the area of a triangle, and norms in plain sums."""
    teacher = rho_grid(5, 10.0, 0.1, final_zero=False)
    states = trajectory(teacher, count=7)
    chord = states[-1] - states[0]

    def deviation(x):
        side = x - states[0]
        return (chord[:, 0] * side[:, 1] - chord[:, 1] * side[:, 0]).abs() / chord.square().sum(1).sqrt()

    programmes = {metric: GITS.of(LAW, states, teacher, metric=metric) for metric in METRICS}
    for i, j in itertools.combinations(range(6), 2):
        euler = Euler().solve(LAW, states[i], Schedule([teacher.sigmas[i], teacher.sigmas[j]]))
        expected = {
            "deviation": (deviation(euler) - deviation(states[j])).mean(),
            "l1": (euler - states[j]).abs().sum(1).mean(),
            "l2": (euler - states[j]).square().sum(1).sqrt().mean(),
        }
        for metric, programme in programmes.items():
            assert programme.costs[i, j] == pytest.approx(float(expected[metric]), rel=1e-9, abs=1e-12)
            assert programme.costs[j, i] == programme.costs[i, i] == math.inf


def exact(levels, x, c):
    """The states of the probability-flow ODE for N(0, c^2)."""
    return [x * math.sqrt((c**2 + s**2) / (c**2 + levels[0] ** 2)) for s in levels]


def test_distances_of_an_isotropic_gaussian_have_a_closed_form():
    c, teacher = 0.7, log_linear(6, 20.0, 0.05, final_zero=False)
    law = Gaussian([0.0, 0.0, 0.0], c**2)
    states = exact(teacher.sigmas, starts(law, 9, 20.0), c)
    programme = GITS.of(law, states, teacher, metric="l2")
    for i, j in itertools.combinations(range(7), 2):
        a, b = teacher.sigmas[i], teacher.sigmas[j]
        share = 1 + (b - a) * a / (c**2 + a**2) - math.sqrt((c**2 + b**2) / (c**2 + a**2))
        size = float(states[i].square().sum(1).sqrt().mean())
        assert programme.costs[i, j] == pytest.approx(abs(share) * size, rel=1e-9)


def test_the_deviation_sees_no_error_along_the_chord():
    """The trajectories of an isotropic Gaussian are straight lines that Euler's method does not leave."""
    teacher = rho_grid(6, 20.0, 0.05, final_zero=False)
    law = Gaussian([0.4, -1.0, 0.0], 0.25)
    states = trajectory(teacher, law)
    upper = np.triu_indices(7, 1)
    assert np.abs(GITS.of(law, states, teacher).costs[upper]).max() < 1e-12
    assert GITS.of(law, states, teacher, metric="l2").costs[upper].min() > 1e-4


@pytest.mark.parametrize("metric", METRICS)
def test_straight_trajectories_cost_nothing(metric):
    """A law of one point: the denoiser never moves, and one step of Euler's method is exact."""
    teacher = rho_grid(6, 20.0, 0.05, final_zero=False)
    point = torch.tensor([0.3, -2.0], dtype=torch.float64)
    eps = Noise(range(5), dtype=torch.float64).normal((2,))
    programme = GITS.of(
        lambda x, sigma: point.expand_as(x), [point + s * eps for s in teacher.sigmas], teacher, metric=metric
    )
    assert np.abs(programme.costs[np.triu_indices(7, 1)]).max() < 1e-12


@pytest.mark.parametrize("metric", ["deviation", "l2"])
def test_turned_and_shifted_data_have_the_same_costs(metric):
    teacher = rho_grid(8, 20.0, 0.05, final_zero=False)
    states = trajectory(teacher)
    turn = torch.tensor([[math.cos(1.0), -math.sin(1.0)], [math.sin(1.0), math.cos(1.0)]], dtype=torch.float64)
    shift = torch.tensor([3.0, -1.0], dtype=torch.float64)
    turned = GaussianMixture([0.5, 0.2, 0.3], MEANS @ turn.T + shift, 0.01)
    before = GITS.of(LAW, states, teacher, metric=metric)
    after = GITS.of(turned, [x @ turn.T + shift for x in states], teacher, metric=metric)
    np.testing.assert_allclose(after.costs, before.costs, rtol=1e-9, atol=1e-12)
    assert after.schedule(5) == before.schedule(5)


def test_the_sum_of_absolute_errors_depends_on_the_axes():
    """So that the invariance above could have failed."""
    teacher = rho_grid(8, 20.0, 0.05, final_zero=False)
    states = trajectory(teacher)
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
    turned = GaussianMixture([0.5, 0.2, 0.3], MEANS @ turn.T, 0.01)
    before = GITS.of(LAW, states, teacher, metric="l1")
    after = GITS.of(turned, [x @ turn.T for x in states], teacher, metric="l1")
    assert np.abs(after.costs[0, -1] / before.costs[0, -1] - 1) > 1e-3


@pytest.mark.parametrize("metric", METRICS)
def test_scaled_data_have_scaled_costs_and_the_same_grid(metric):
    teacher = rho_grid(8, 20.0, 0.05, final_zero=False)
    larger = Schedule([4 * s for s in teacher.sigmas])
    states = trajectory(teacher)
    wide = GaussianMixture([0.5, 0.2, 0.3], 4 * MEANS, 0.16)
    before = GITS.of(LAW, states, teacher, metric=metric)
    after = GITS.of(wide, [4 * x for x in states], larger, metric=metric)
    np.testing.assert_allclose(after.costs, 4 * before.costs, rtol=1e-9)
    assert after.schedule(4).sigmas == tuple(4 * s for s in before.schedule(4).sigmas)


@pytest.mark.parametrize("metric", METRICS)
def test_levels_are_the_teachers(metric, fine):
    teacher, _, programmes = fine
    for steps in (1, 2, 5, 9, 40):
        grid = programmes[metric].schedule(steps, final_zero=False)
        assert grid.steps == steps
        assert (grid.horizon, grid.sigma_min) == (teacher.horizon, teacher.sigma_min)
        assert set(grid.sigmas) <= set(teacher.sigmas)
        assert grid.name == f"GITS {metric}"
    assert programmes[metric].schedule(40, final_zero=False).sigmas == teacher.sigmas


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("steps", [4, 5, 8])
def test_it_beats_the_rho_grid_by_its_own_cost(metric, steps, fine):
    """A rho grid whose number of steps divides the teacher's has levels of the teacher's only."""
    _, _, programmes = fine
    programme = programmes[metric]
    way = range(0, 41, 40 // steps)
    np.testing.assert_allclose(
        programme.sigmas[list(way)], rho_grid(steps, 80.0, 0.02, final_zero=False).sigmas, rtol=1e-9
    )
    assert programme.cost(steps) < 0.8 * total(programme, way)


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_it_beats_the_rho_grid_where_eulers_method_ends(metric, fine):
    """On other starts than those it was measured on."""
    _, _, programmes = fine
    x = starts(LAW, 200, 80.0, first=1000)
    truth = Heun().solve(LAW, x, rho_grid(200, 80.0, 0.02, final_zero=False))
    for steps in (5, 8):
        grids = (programmes[metric].schedule(steps, final_zero=False), rho_grid(steps, 80.0, 0.02, final_zero=False))
        errors = [float((Euler().solve(LAW, x, grid) - truth).square().sum(1).sqrt().mean()) for grid in grids]
        assert errors[0] < 0.8 * errors[1]


def test_on_the_plane_the_deviation_misleads_where_the_distance_does_not():
    """25 modes, five steps: what the docs of the module warn of, on other starts than those it was measured on."""
    law, teacher = gmm25(), rho_grid(60, 80.0, 0.02, final_zero=False)
    states = trajectory(teacher, law, count=128)
    x = starts(law, 300, 80.0, first=1000)
    truth = Heun().solve(law, x, rho_grid(200, 80.0, 0.02, final_zero=False))

    def error(grid):
        return float((Euler().solve(law, x, grid) - truth).square().sum(1).sqrt().mean())

    rho = error(rho_grid(5, 80.0, 0.02, final_zero=False))
    errors = {m: error(GITS.of(law, states, teacher, metric=m).schedule(5, final_zero=False)) for m in METRICS}
    assert max(errors["l1"], errors["l2"]) < 0.7 * rho
    assert errors["deviation"] > 1.1 * rho


def test_a_last_step_to_zero_is_added_and_a_teachers_state_there_is_not_used(fine):
    _, _, programmes = fine
    programme = programmes["deviation"]
    assert programme.schedule(6).sigmas == (*programme.schedule(5, final_zero=False).sigmas, 0.0)
    assert programme.schedule(1).sigmas == (80.0, 0.0)
    teacher = rho_grid(7, 20.0, 0.05)
    states = trajectory(teacher)
    above = GITS.of(LAW, states[:-1], Schedule(teacher.sigmas[:-1]))
    with_zero = GITS.of(LAW, [*states[:-1], states[-1] + 5], teacher)
    assert (with_zero.costs == above.costs).all()
    assert with_zero.schedule(4) == above.schedule(4)


def test_a_lower_horizon_is_a_level_of_the_teacher(fine):
    teacher, _, programmes = fine
    horizon = teacher.sigmas[17]
    grid = programmes["l2"].schedule(4, horizon)
    assert (grid.horizon, grid.steps, grid.sigma_min) == (horizon, 4, 0.02)
    with pytest.raises(InputError, match=f"nearest is {horizon!r}"):
        programmes["l2"].schedule(4, horizon * 1.001)


def test_a_larger_gamma_leaves_smaller_errors_to_the_end():
    """It weighs later steps more, so that less of the cost is theirs."""
    teacher = rho_grid(20, 20.0, 0.05, final_zero=False)
    states = trajectory(teacher)
    shares = []
    for gamma in (0.7, 1.0, 1.15, 2.0):
        programme = GITS.of(LAW, states, teacher, metric="l2", gamma=gamma)
        levels = programme.schedule(5, final_zero=False).sigmas
        way = [teacher.sigmas.index(s) for s in levels]
        costs = [programme.costs[i, j] for i, j in itertools.pairwise(way)]
        shares.append(costs[-1] / sum(costs))
    assert all(after <= before for before, after in itertools.pairwise(shares))
    assert shares[-1] < 0.8 * shares[0]


def test_one_evaluation_a_sample_and_level_and_none_to_plan():
    teacher = rho_grid(9, 20.0, 0.05)
    states = trajectory(teacher, count=6)
    counted = Counted(LAW)
    programme = GITS.of(counted, states, teacher)
    for steps in range(1, 10):
        programme.schedule(steps)
    assert (counted.calls, counted.samples) == (8, 48)


def test_it_is_deterministic_and_keeps_to_the_order_of_samples():
    teacher = rho_grid(8, 20.0, 0.05, final_zero=False)
    states = trajectory(teacher)
    first, again = (GITS.of(LAW, states, teacher) for _ in range(2))
    assert (first.costs == again.costs).all()
    assert first.schedule(4) == again.schedule(4)
    backwards = GITS.of(LAW, [x.flip(0) for x in states], teacher)
    np.testing.assert_allclose(backwards.costs, first.costs, rtol=1e-9, atol=1e-13)


def test_conditions_reach_the_denoiser_and_shapes_of_images_are_taken():
    teacher = rho_grid(4, 20.0, 0.05, final_zero=False)
    label = torch.arange(3.0)

    def denoiser(x, sigma, label):
        return x * 0.1 + label[:, None, None, None]

    states = [torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    programme = GITS.of(denoiser, states, teacher, conditions={"label": label})
    flat = GITS.of(lambda x, sigma: x * 0.1 + label[:, None], [x.flatten(1) for x in states], teacher)
    np.testing.assert_allclose(programme.costs, flat.costs, rtol=1e-6)


def test_repr_says_what_it_is(fine):
    _, _, programmes = fine
    assert repr(programmes["l2"]) == "GITS(l2, gamma 1.15: 41 levels from 80 to 0.02)"


GRID = Schedule([4.0, 2.0, 1.0, 0.0])
ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "linf"}, "unknown metric 'linf'"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"gamma": math.nan}, "gamma is nan"),
        ({"gamma": math.inf}, "gamma is inf"),
        ({"states": [ONES] * 3}, "4 levels.*got 3"),
        ({"states": []}, "4 levels.*got 0"),
        ({"states": [ONES, ONES, ONES, torch.ones(2, 4)]}, "one shape"),
        ({"states": [torch.ones(2)] * 4}, "one shape"),
        ({"states": [torch.ones(0, 3)] * 4}, "one shape"),
        ({"states": [ONES, ONES * math.nan, ONES, ONES]}, "sigma = 2 are not"),
        ({"states": [ONES, ONES, ONES, ONES * math.inf]}, "sigma = 0 are not"),
        ({"states": [ONES.long()] * 4}, "floating-point"),
        ({"states": [ONES * 2, ONES * 3, ONES * 2, ONES]}, "ends where it begins"),
        ({"teacher": Schedule([4.0, 0.0]), "states": [ONES] * 2}, "two levels above 0"),
    ],
    ids=str,
)
def test_bad_input_is_named(options, message):
    good = {"denoiser": lambda x, sigma: 0.1 * x, "states": [ONES * s for s in (5, 3, 2, 1)], "teacher": GRID}
    assert GITS.of(**good).steps == 2
    with pytest.raises(InputError, match=message):
        GITS.of(**{**good, **options})


def test_a_denoiser_that_fails_is_named():
    with pytest.raises(DenoiserError, match="NaN"):
        GITS.of(lambda x, sigma: x * math.nan, [ONES * s for s in (5, 3, 2, 1)], GRID)


@pytest.mark.parametrize(
    ("steps", "horizon", "final_zero"),
    [(0, None, True), (0, None, False), (-1, None, True), (42, None, True), (41, None, False), (2, 81.0, True),
     (2, 0.02, False), (2, math.nan, True), (2, 0.0, True)],
)  # fmt: skip
def test_what_does_not_fit_is_refused(steps, horizon, final_zero, fine):
    _, _, programmes = fine
    with pytest.raises(InputError, match=r"steps|horizon"):
        programmes["l2"].schedule(steps, horizon, final_zero)


def test_steps_that_do_not_fit_below_a_horizon_are_counted(fine):
    teacher, _, programmes = fine
    with pytest.raises(InputError, match="1 to 3 steps above 0: got 4"):
        programmes["l2"].schedule(4, teacher.sigmas[37], final_zero=False)
    assert programmes["l2"].schedule(4, teacher.sigmas[37]).sigmas == (*teacher.sigmas[37:], 0.0)
