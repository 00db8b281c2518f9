"""Levels that are learned with a network: sums over a grid against known values, and a small run of everything."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.bimodal.run import (
    bimodal,
    deviation,
    differences,
    distances,
    entropy,
    equal_costs,
    path_divergence,
    samples_law,
    score_error,
    verdict,
)
from experiments.common import Blocks, Run, drawn, record
from headstart import budget
from headstart.denoiser import expand
from headstart.errors import DenoiserError
from headstart.progress import Progress
from headstart.schedule import OnlineSchedule, Schedule, log_linear, rho_grid
from headstart.solver import EulerMaruyama
from training.online import LAW, bound_terms, errors, exact_losses, noised, step_costs, train

Results = Mapping[str, Any]

#: A few steps, long and short ones.
GRID = Schedule([5.0, 2.0, 1.0, 0.5, 0.3, 0.1])

#: What method.md has of this law: level, next level, entropy, loss and corrector cost.
KNOWN = [
    (2.0, 1.5, 2.211122, 0.71299329, 0.1813644),
    (1.0, 0.8, 1.7226645, 0.41561529, 0.092828998),
    (0.5, 0.4, 1.3359895, 0.098093635, 0.10617549),
    (0.2, 0.1, 0.76639814, 0.020143247, 0.045106189),
]


def off(x: torch.Tensor, sigma: Any, /, **conditions: Any) -> torch.Tensor:
    """A denoiser that is off by a tenth of the noise level at every x."""
    return LAW(x, sigma) + 0.1 * expand(torch.as_tensor(sigma, dtype=x.dtype), x)


# Sums over a grid of x.


@pytest.mark.parametrize(("a", "b", "h", "loss", "cost"), KNOWN)
def test_entropy_loss_and_cost_are_the_known_ones(a: float, b: float, h: float, loss: float, cost: float) -> None:
    assert entropy(a) == pytest.approx(h, abs=1e-6)
    assert exact_losses([a])[0] == pytest.approx(loss, rel=1e-7)
    assert step_costs(LAW, Schedule([a, b]))[0] == pytest.approx(cost, rel=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_masses_sum_to_one_and_a_law_is_no_distance_from_itself(sigma: float) -> None:
    x, mass = noised(sigma)
    found = distances(x, mass, sigma)
    assert float(mass.sum()) == pytest.approx(1, abs=1e-12)
    assert found["kl"] == pytest.approx(0, abs=1e-11)
    assert found["w1"] == pytest.approx(0, abs=1e-11)
    assert found["nll"] == pytest.approx(entropy(sigma))


def test_distances_of_a_law_that_is_moved() -> None:
    """By 0.25: that is the 1-Wasserstein distance; and of a wide Gaussian the divergence is a quarter of its square."""
    x, _ = noised(0.5, 4001)
    moved = LAW.log_prob(x - 0.25, 0.5).exp() * float(x[1, 0] - x[0, 0])
    assert distances(x, moved, 0.5)["w1"] == pytest.approx(0.25, rel=1e-4)
    x, _ = noised(20.0, 4001)
    moved = LAW.log_prob(x - 1, 20.0).exp() * float(x[1, 0] - x[0, 0])
    assert distances(x, moved, 20.0)["kl"] == pytest.approx(0.5 / (20**2 + 0.88), rel=1e-3)


def test_the_error_of_a_denoiser_that_is_off_by_a_share_of_the_noise() -> None:
    """By 0.1 sigma at every x: the error over all levels is 0.01 times the logarithm of the ends' ratio."""
    sigmas = np.geomspace(10.0, 0.1, 7)
    np.testing.assert_allclose(errors(off, sigmas.tolist()), 0.01 * sigmas**2, rtol=1e-10)
    assert score_error(off, sigmas) == pytest.approx(0.01 * math.log(100))
    assert score_error(LAW, sigmas) == 0


def test_bounds_are_those_of_the_budget() -> None:
    """The library's own estimates, by Monte Carlo, of the error of the score."""
    _, own = bound_terms(off, GRID)
    found = budget.score_error(off, LAW, GRID, Blocks(range(4), 1000), "em")
    assert float(own.sum()) == pytest.approx(found.value, abs=4 * found.error + 1e-12)
    weights = [(a**2 - b**2) / a**4 for a, b in GRID.pairs()]
    gaps = np.square(0.1 * np.array(GRID.sigmas[:-1]))
    assert float(own.sum()) == pytest.approx(0.5 * float(weights @ gaps))


@pytest.mark.parametrize("grid", [GRID, log_linear(8, 20.0, 0.05, final_zero=False)], ids=["by hand", "log-linear"])
def test_the_law_of_the_samples_is_that_of_the_sampler(grid: Schedule) -> None:
    """Shares of 20,000 samples below ten points, against the sum of masses."""
    x, mass = samples_law(off, grid)
    n, solver = 20_000, EulerMaruyama()

    def sample(noise: Any) -> torch.Tensor:
        start = (LAW.sample(noise) + grid.horizon * noise.normal((1,))).double()
        return solver.solve(off, start, grid, noise)

    samples = drawn(sample, n, 2, 0)
    below = mass.cumsum(0) - mass / 2
    for place in np.interp(np.linspace(0.05, 0.95, 10), below.numpy(), x[:, 0].numpy()):
        share = float(np.interp(place, x[:, 0].numpy(), below.numpy()))
        error = math.sqrt(share * (1 - share) / n)
        assert float((samples < place).double().mean()) == pytest.approx(share, abs=4.5 * error)


def test_the_law_of_the_samples_does_not_depend_on_its_points() -> None:
    grid = log_linear(20, 20.0, 0.05, final_zero=False)
    coarse, fine = (distances(*samples_law(LAW, grid, count), 0.05) for count in (501, 801))
    assert coarse["kl"] == pytest.approx(fine["kl"], rel=1e-6)
    assert coarse["w1"] == pytest.approx(fine["w1"], rel=1e-2)


def test_short_steps_with_the_exact_denoiser_give_the_data() -> None:
    few, many = (
        distances(*samples_law(LAW, log_linear(steps, 20.0, 0.1, final_zero=False), 601), 0.1)["kl"]
        for steps in (15, 60)
    )
    assert 0 < many < few / 8 < 0.02


def test_the_path_diverges_more_than_its_end() -> None:
    for denoiser in (LAW, off):
        found = distances(*samples_law(denoiser, GRID), GRID.sigma_min)
        assert 0 < found["kl"] < path_divergence(denoiser, GRID)


def test_samples_that_leave_the_points_are_refused() -> None:
    with pytest.raises(DenoiserError, match="away from 1"):
        samples_law(lambda x, sigma: 10 * x, GRID)


# Levels.


def test_levels_of_equal_cost_have_equal_costs_and_a_smaller_sum() -> None:
    grid = equal_costs(12, 20.0, 0.05)
    costs = step_costs(LAW, grid)
    assert (grid.steps, grid.horizon, grid.sigma_min) == (12, 20.0, 0.05)
    assert costs.max() / costs.min() < 1.01
    for other in (log_linear(12, 20.0, 0.05, final_zero=False), rho_grid(12, 20.0, 0.05, final_zero=False)):
        assert costs.sum() < step_costs(LAW, other).sum()
        assert np.abs(deviation(other, grid)).max() > 0.5
    assert deviation(grid, grid).tolist() == [0.0] * 13


def test_training_is_a_function_of_its_seed_and_levels_move_only_where_asked() -> None:
    data = drawn(LAW.sample, 500, 1, 0)
    first = log_linear(6, 20.0, 0.05, final_zero=False)
    before = torch.get_rng_state()
    fixed, moving, again, other = (OnlineSchedule(first, blending=0.1, visits=4) for _ in range(4))
    networks = [
        train(online, data, online is not fixed, 20, 128, seed)
        for online, seed in ((fixed, 0), (moving, 0), (again, 0), (other, 1))
    ]
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    outputs = [network(x, torch.tensor(0.5, dtype=torch.float64)).detach() for network in networks]
    assert torch.equal(torch.get_rng_state(), before)
    assert fixed.schedule == first
    assert fixed.moves == 0 < moving.moves
    assert moving.schedule == again.schedule != other.schedule
    assert torch.equal(outputs[1], outputs[2])
    assert not any(torch.equal(a, b) for a, b in pairwise([outputs[0], outputs[1], outputs[3]]))


# The whole of it.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a quick run, with what it found written as the command writes it: NaN and Inf would be refused."""
    out = tmp_path_factory.mktemp("bimodal")
    run = Run(out, quick=True, seeds=1, device="cpu", progress=Progress())
    record(run, "bimodal", bimodal, verdict)
    return out


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    found: Results = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.parametrize(
    ("table", "rows"),
    [("floor", 4), ("methods", 6), ("crossed", 24), ("summary", 6), ("differences", 8), ("levels", 9)],
)
def test_every_table_is_written(table: str, rows: int, folder: Path) -> None:
    with (folder / f"{table}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == rows
    assert len((folder / f"{table}.md").read_text().splitlines()) == rows + 2


def test_the_figure_is_written(folder: Path) -> None:
    text = (folder / "bimodal.svg").read_text()
    assert text.startswith("<?xml")
    assert "</svg>" in text


def test_levels_that_move_equalise_the_costs_of_the_network(results: Results) -> None:
    for row in results["methods"]:
        if row["moving"]:
            assert row["moves"] > 20
            assert row["spread_after_network"] < 0.2 * row["spread_before_network"]
        else:
            assert row["moves"] == 0
            assert row["spread_after_network"] == row["spread_before_network"]


def test_networks_err_and_the_exact_denoiser_is_their_floor(results: Results) -> None:
    floor = {row["levels"]: row for row in results["floor"]}
    for row in results["methods"]:
        assert min(row["score_all_levels"], row["score_own_levels"]) > 0
        assert row["path"] > row["kl"] > 0
        assert row["nll"] == pytest.approx(row["kl"] + results["entropy"])
        if not row["moving"]:
            assert row["path"] > floor[row["method"]]["path"]
            assert row["kl_floor"] == floor[row["method"]]["kl"]


def test_on_its_own_levels_a_network_is_found_alike_in_both_tables(results: Results) -> None:
    crossed = {(row["method"], row["levels"]): row for row in results["crossed"]}
    for row in results["methods"]:
        if not row["moving"]:
            own = crossed[row["method"], row["method"]]
            assert (own["kl"], own["score"]) == (row["kl"], row["score_own_levels"])


def test_differences_are_those_of_the_same_seeds() -> None:
    keys = ("score_all_levels", "score_own_levels", "kl", "nll", "w1", "path")
    rows = [
        {"method": method, "seed": seed, "moving": moving} | dict.fromkeys(keys, value + 10.0 * seed)
        for method, moving, value in (("a", False, 3.0), ("b", True, 2.0))
        for seed in range(3)
    ]
    (found,) = differences(rows)
    assert (found["method"], found["less"], found["kl"], found["kl_error"]) == ("b", "a", -1.0, 0.0)
