"""The experiment on the Cantor law: exact costs, scores, annealed Langevin dynamics, and what a quick run finds."""

from __future__ import annotations

import csv
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from torch import Tensor

from experiments.cantor.run import (
    EIGHT,
    HARD,
    REFERENCE,
    Case,
    Costs,
    Langevin,
    cantor,
    distance,
    equal,
    first,
    on_the_line,
    quadrature,
    quantiles,
    recovered,
    reference_error,
    separated,
    summary,
    verdict,
)
from experiments.common import Run, drawn, record
from headstart.noise import Noise
from headstart.predictor import measure_predictor
from headstart.profile import Profile
from headstart.progress import Progress
from headstart.schedule import Schedule, equidistribute
from headstart.targets import Gaussian, GaussianMixture

Double = torch.float64


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What a quick run finds, written as the command writes it and read again: NaN and Inf would be refused."""
    folder = tmp_path_factory.mktemp("cantor")
    run = Run(folder, quick=True, seeds=1, device="cpu", progress=Progress())
    record(run, "cantor", cantor, verdict)
    return folder, json.loads((folder / "results.json").read_text())


# What a run finds.


def test_every_table_and_figure_is_written(found: tuple[Path, dict[str, Any]]) -> None:
    folder, results = found
    assert results["seeds"] == 1
    for table in ("rows", "means", "equal", "floor", "first"):
        with (folder / f"{table}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len((folder / f"{table}.md").read_text().splitlines()) - 2 > 0
    for figure in ("modes", "w1"):
        assert "</svg>" in (folder / f"{figure}.svg").read_text()


def test_the_linear_schedule_misses_modes_that_the_others_recover(found: tuple[Path, dict[str, Any]]) -> None:
    results = found[1]
    at = {(r["solver"], r["schedule"], r["steps"]): r for r in results["means"]}
    for solver in ("euler", "dpm++2m", "heun", "ddpm", "langevin"):
        for schedule in ("corrector", "defect", "log-linear", "rho 7", "tangent"):
            assert at[solver, schedule, 20]["modes"] == 8 > at[solver, "linear", 20]["modes"]
            assert at[solver, schedule, 20]["w1"] < 0.5 * at[solver, "linear", 20]["w1"]
        assert at[solver, "linear", 20]["separated"] == 0
    assert at["euler", "corrector", 20]["separated"] == 8
    assert [results["floor"][0][score] for score in ("modes", "separated")] == [8, 8]
    assert results["summary"]["linear_always_fails"]
    assert results["summary"]["corrector_always_recovers"]


def test_evaluations_are_counted_and_shortest_paths_are_for_stochastic_solvers(
    found: tuple[Path, dict[str, Any]],
) -> None:
    rows = found[1]["means"]
    each = {"euler": 1, "dpm++2m": 1, "heun": 2, "ddpm": 1, "langevin": 2}
    assert all(row["nfe"] == each[row["solver"]] * row["steps"] for row in rows)
    assert {row["solver"] for row in rows if row["schedule"] == "shortest paths"} == {"ddpm", "langevin"}
    assert all(len(grid["levels"]) == 11 for grid in found[1]["ten_steps"])


# Exact costs.


def test_the_best_ten_steps_by_corrector_cost_are_the_reference() -> None:
    costs = Costs.of(EIGHT.law, EIGHT.sigma_min, 200)
    grid = equidistribute(costs.corrector, 10, 20.0, 0.002, final_zero=False)
    np.testing.assert_allclose(grid.sigmas, REFERENCE, rtol=0.02)
    assert reference_error(costs) < 0.01


def test_exact_costs_are_those_that_a_measuring_pass_estimates() -> None:
    """Within 4.5 standard errors at every level, and so for all that schedules are made from."""
    law, costs = EIGHT.law, Costs.of(EIGHT.law, 0.002, 24)
    sigmas, data = costs.corrector.sigmas, drawn(EIGHT.law.sample, 2000, 9, 0).double()
    profile = Profile.measure(law, data, sigmas=sigmas, samples=2000, cost_samples=2000, batch_size=2000, dtype=Double)
    predictor = measure_predictor(law, data, sigmas, dtype=Double, batch_size=2000)
    for values, exact in (
        (profile.losses, costs.loss),
        (profile.corrector, costs.corrector.costs),
        (predictor.values, costs.predictor.costs),
    ):
        assert (np.abs(values.mean(0) - exact) < 4.5 * values.std(0) / math.sqrt(len(values))).all()
    # The profile divides by the variance of its samples, which is off by a little.
    scale = (sigmas[1:] ** 2 + profile.sigma_data**2) / (sigmas[1:] ** 2 + 0.125 + 0.005**2)
    defect = profile.defect * scale
    gap = np.abs(defect.mean(0) - costs.defect.costs)
    assert (gap < 4.5 * defect.std(0) / math.sqrt(len(defect))).all()


def test_quadrature_is_fine_enough_for_every_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of half the size change nothing, where those of four times it would be off by 8 per cent."""
    costs = Costs.of(EIGHT.law, 0.002, 60)
    monkeypatch.setattr("experiments.cantor.run.quadrature", partial(quadrature, step=0.025))
    finer = Costs.of(EIGHT.law, 0.002, 60)
    np.testing.assert_allclose(costs.loss, finer.loss, rtol=1e-9)
    for kind in ("corrector", "defect", "predictor"):
        np.testing.assert_allclose(getattr(costs, kind).costs, getattr(finer, kind).costs, rtol=2e-5)


@pytest.mark.parametrize(
    ("a", "b", "mmse", "corrector"),
    [(0.2, 0.1, 0.024194355, 0.57661202), (0.05, 0.03, 1.5725022e-3, 0.27124863)],
)
def test_quadrature_gives_reference_values(a: float, b: float, mmse: float, corrector: float) -> None:
    law = EIGHT.law
    x, mass = quadrature(law, a)
    loss = a**2 - a**4 * float(mass @ law.score(x, a).square())
    assert loss == pytest.approx(mmse, rel=1e-6)
    assert b**2 * float(mass @ (law.score(x, b) - law.score(x, a)).square()) == pytest.approx(corrector, rel=1e-7)


@pytest.mark.parametrize("case", [EIGHT, HARD], ids=lambda case: case.name)
@pytest.mark.parametrize("sigma", [2e-4, 0.1, 20.0])
def test_the_denoiser_on_the_line_is_that_of_the_law(case: Case, sigma: float) -> None:
    law = case.law
    x = (law.sample(Noise(range(50))) + sigma * Noise(range(50, 100)).normal((1,))).double()
    torch.testing.assert_close(on_the_line(law)(x, sigma), law(x, sigma), rtol=0, atol=1e-11)
    levels = sigma * (1 + torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=Double))
    torch.testing.assert_close(on_the_line(law)(x, levels), law(x, levels), rtol=0, atol=1e-11)


# Scores.


@pytest.mark.parametrize("case", [EIGHT, HARD], ids=lambda case: case.name)
def test_exact_samples_recover_and_separate_every_mode(case: Case) -> None:
    samples = drawn(case.law.sample, 4000, 9, 1)
    assert recovered(samples, case.law).all()
    assert separated(samples, case.law).all()


def test_even_samples_recover_all_of_eight_modes_and_separate_none() -> None:
    """Windows of 6 x 0.014 hold 0.08 or so of them, between half and twice an eighth."""
    samples = torch.linspace(-0.03, 1.03, 3001, dtype=Double)[:, None]
    assert recovered(samples, EIGHT.law).all()
    assert not separated(samples, EIGHT.law).any()


def test_a_mode_with_too_few_or_too_many_samples_is_not_recovered() -> None:
    law = GaussianMixture([0.25] * 4, [[0.0], [1.0], [2.0], [3.0]], 1e-4)

    def counts(*each: int) -> list[bool]:
        samples = torch.cat([torch.full((n, 1), float(k)) for k, n in enumerate(each)])
        which: list[bool] = recovered(samples, law).tolist()
        return which

    assert counts(25, 25, 25, 25) == [True] * 4
    assert counts(13, 37, 25, 25) == [True] * 4
    assert counts(12, 38, 25, 25) == [False, True, True, True]
    assert counts(0, 51, 24, 25) == [False, False, True, True]


def test_a_filled_valley_joins_the_modes_on_both_of_its_sides() -> None:
    law = GaussianMixture([0.25] * 4, [[0.0], [1.0], [2.0], [3.0]], 1e-4)
    modes = torch.cat([torch.full((20, 1), float(k)) for k in range(4)])
    assert separated(modes, law).all()
    few, many = (torch.cat([modes, torch.full((n, 1), 1.5)]) for n in (10, 11))
    assert separated(few, law).tolist() == [True] * 4
    assert separated(many, law).tolist() == [True, False, False, True]


def test_distances_are_those_of_closed_forms() -> None:
    """A shift by c is c, a scale s of N(0, 1) is |s - 1| sqrt(2 / pi), a point at the median its mean deviation."""
    law = GaussianMixture([1.0], [[0.0]], 1.0)
    exact = quantiles(law, 4000)
    x = torch.from_numpy(ndtri((np.arange(1000) + 0.5) / 1000))[:, None]
    torch.testing.assert_close(exact, torch.from_numpy(ndtri((np.arange(4000) + 0.5) / 4000)), rtol=0, atol=1e-5)
    deviation = math.sqrt(2 / math.pi)
    assert distance(x, exact) < 3e-3
    assert distance(x + 0.7, exact) == pytest.approx(0.7, abs=1e-3)
    assert distance(x.flip(0) * 1.5, exact) == pytest.approx(0.5 * deviation, abs=3e-3)
    assert distance(0 * x, exact) == pytest.approx(deviation, abs=1e-3)


# Annealed Langevin dynamics.


def test_langevin_steps_carry_the_variance_of_a_gaussian_as_the_recursion_says() -> None:
    """v <- (1 - 2 snr^2 b^2 / (l + b^2))^2 v + 4 snr^2 b^2, at each level after the first."""
    variance, solver, grid = 0.3, Langevin(corrections=3, snr=0.4), Schedule([3.0, 1.0, 0.4])
    law, calls = Gaussian([0.0], [variance]), []

    def denoiser(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        calls.append(float(sigma[0]))
        return law(x, sigma)

    x = drawn(lambda noise: solver.solve(denoiser, 3.0 * noise.normal((1,)).double(), grid, noise), 8000, 9, 2)
    expected = 9.0
    for b in (1.0, 0.4):
        for _ in range(3):
            expected = (1 - 0.32 * b**2 / (variance + b**2)) ** 2 * expected + 0.64 * b**2
    assert float(x.var()) == pytest.approx(expected, rel=4.5 * math.sqrt(2 / 8000))
    assert abs(float(x.mean())) < 4.5 * math.sqrt(expected / 8000)
    assert calls == [1.0] * 3 + [0.4] * 3
    assert solver.nfe(grid) == 6


# Tables.


def row(solver: str, schedule: str, nfe: int, modes: float, w1: float = 1.0) -> dict[str, Any]:
    named = {"law": "law", "solver": solver, "schedule": schedule, "steps": nfe, "nfe": nfe}
    return named | {"modes": modes, "separated": modes - 1, "w1": w1}


MEAN = [
    *(row("euler", "linear", n, m) for n, m in ((5, 2.0), (10, 8.0), (20, 3.0))),
    *(row("euler", "corrector", n, m, w) for n, m, w in ((5, 7.7, 0.5), (10, 8.0, 0.2), (20, 8.0, 0.1))),
]


def test_what_is_reached_is_reached_from_there_on() -> None:
    least = first(MEAN, [{"law": "law", "modes": 8.0, "separated": 8.0, "w1": 0.1}])
    assert [r["modes"] for r in least] == [None, 10]  # the linear schedule reaches 8 modes at 10, and loses them
    assert [r["separated"] for r in least] == [None, None]
    assert [r["w1"] for r in least] == [None, 10]
    said = summary(MEAN, least)
    assert said["linear_always_fails"]
    assert said["corrector_always_recovers"]
    assert said["findings"] == [
        "law: on the linear schedule at most 8.0 are recovered, by euler in 10 evaluations, "
        "and at most 7.0 are separated.",
        "law, euler: all are recovered from so many evaluations on: corrector 10, linear never.",
    ]


def test_schedules_are_compared_at_equal_evaluations() -> None:
    assert equal([*MEAN, row("heun", "linear", 20, 1.0)]) == [
        {"law": "law", "schedule": "linear", "euler": "3.0 (2.0)", "heun": "1.0 (0.0)"},
        {"law": "law", "schedule": "corrector", "euler": "8.0 (7.0)"},
    ]
