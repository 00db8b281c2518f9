"""The experiment on schedules and solvers: closed forms, cells that survive a cut, and what a quick run finds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.common import Run, record
from experiments.schedules.cells import Cells, best
from experiments.schedules.gaussians import (
    corrector_cost,
    divergence,
    exact_denoiser,
    exact_profile,
    one_dimension,
    predictor_cost,
)
from experiments.schedules.grids import SOLVERS, aligned_length, class_of, fits, teacher_of
from experiments.schedules.images import QUICK, Sizes, bars, evaluations, swept
from experiments.schedules.modes import LAW, SIGMA_MIN, divergences, modes, points
from experiments.schedules.run import schedules, verdict
from headstart.budget import euler_divergence
from headstart.errors import InputError
from headstart.initialization import Isotropic
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.progress import Progress
from headstart.schedule import Schedule, equidistribute, interpolate, rho_grid
from headstart.solver import DPMSolverPP2M, Euler, Heun
from headstart.targets import Gaussian

#: Divergences of Euler's and Heun's methods and of the path of Euler and Maruyama's in ten steps, from an independent
#: computation, to all the digits that are known.
TEN = {
    "rho 7": ("7.903e-02", "1.574e-02", "1.906e+00"),
    "rho 3": ("1.337e-01", "2.366e-02", "1.668e+00"),
    "log-linear": ("8.421e-02", "2.651e-02", "2.343e+00"),
    "tangent": ("1.606e-02", "2.426e-02", "2.600e+00"),
    "predictor": ("2.109e-02", "6.869e-03", "2.406e+00"),
    "corrector": ("7.517e-01", "3.930e-02", "1.481e+00"),
    "em-opt": ("3.486e-01", "1.399e-02", "1.463e+00"),
}
TWENTY = {
    "rho 7": ("1.807e-02", "9.615e-04"),
    "tangent": ("3.827e-03", "7.197e-04"),
    "predictor": ("5.213e-03", "2.134e-04"),
}


# Gaussians.


def test_the_table_of_one_dimension_is_met_to_every_digit() -> None:
    ten = {row["schedule"]: row for row in one_dimension(10)}
    twenty = {row["schedule"]: row for row in one_dimension(20)}
    columns = ("euler", "heun", "em_path")
    assert {name: tuple(f"{ten[name][key]:.3e}" for key in columns) for name in TEN} == TEN
    assert {name: tuple(f"{twenty[name][key]:.3e}" for key in columns[:2]) for name in TWENTY} == TWENTY
    assert f"{ten['em-opt']['em_path']:.4f}" == "1.4635"
    assert f"{ten['ddpm-opt']['ddpm_path']:.4f}" == "6.1138"
    assert f"{twenty['ddpm-opt']['ddpm_path']:.4f}" == "2.4018"


def test_each_best_grid_of_one_dimension_is_best_at_what_it_is_best_for() -> None:
    rows = one_dimension(10)
    assert min(rows, key=lambda row: row["euler"])["schedule"] == "tangent"
    assert min(rows, key=lambda row: row["em_path"])["schedule"] == "em-opt"
    assert min(rows, key=lambda row: row["ddpm_path"])["schedule"] == "ddpm-opt"


@pytest.mark.parametrize(
    ("a", "b", "corrector", "predictor"),
    [(10.0, 5.0, 5.867624981, 0.001074255597), (2.0, 1.5, 0.4119351375, 0.0003446850338)],
)
def test_costs_of_a_spectrum(a: float, b: float, corrector: float, predictor: float) -> None:
    variances, levels = np.array([0.25, 1.0, 4.0]), (np.array([a]), np.array([b]))
    assert corrector_cost(variances, *levels)[0] == pytest.approx(corrector, rel=1e-8)
    assert predictor_cost(variances, *levels)[0] == pytest.approx(predictor, rel=1e-8)


def test_the_divergence_is_that_of_the_product_of_eulers_factors() -> None:
    variances, start = torch.tensor([0.04, 2.0]).double(), torch.tensor([90.0, 85.0]).double()
    grid = rho_grid(6, 9.0, 0.05, final_zero=False)
    k = torch.ones(2).double()
    for a, b in grid.pairs():
        k = k * (variances + a * b) / (variances + a**2)
    w = (variances + 0.05**2) / (k**2 * start)
    assert divergence(variances, start, Euler(), grid) == pytest.approx(float((w - 1 - w.log()).sum() / 2), rel=1e-12)


def test_many_steps_of_heun_from_the_exact_law_lose_nothing() -> None:
    variances = torch.tensor([0.01, 1.0]).double()
    grid = rho_grid(400, 5.0, 0.05, final_zero=False)
    assert divergence(variances, variances + 25, Heun(), grid) < 1e-6


def test_the_exact_profile_is_what_an_endless_measuring_pass_finds() -> None:
    variances = torch.tensor([1.0, 0.25, 0.01]).double()
    exact = exact_profile(variances.numpy(), 40)
    law = Gaussian(torch.zeros(3).double(), variances)
    data = law.sample(Noise(range(4000)))
    counts = {"samples": 4000, "cost_samples": 4000, "batch_size": 4000}
    found = Profile.measure(exact_denoiser(variances), data, sigmas=exact.sigmas, dtype=torch.float64, **counts)
    np.testing.assert_allclose(found.loss, exact.loss, rtol=0.1)
    for cost in ("corrector", "defect"):
        places = exact.length(cost).inverse(np.linspace(0, exact.length(cost).cumulative[-1], 5))
        measured = found.length(cost).inverse(np.linspace(0, found.length(cost).cumulative[-1], 5))
        np.testing.assert_allclose(measured, places, atol=0.05)
    assert found.trajectories is not None
    assert exact.trajectories is not None
    grid = rho_grid(5, 20.0, 0.05)
    errors = (t.local_errors(grid, DPMSolverPP2M()).mean(axis=0) for t in (found.trajectories, exact.trajectories))
    np.testing.assert_allclose(*errors, rtol=0.2)


# 25 modes.


def test_the_quadrature_agrees_with_monte_carlo_and_with_the_known_value() -> None:
    grid = rho_grid(5, 80.0, SIGMA_MIN, final_zero=False)
    found = divergences(Isotropic((2,)), grid, *points(38))
    assert found == pytest.approx(0.874, abs=0.05)
    estimate = euler_divergence(LAW, LAW, Isotropic((2,)), grid, Noise(range(1000)))
    assert abs(estimate.value - found) < 4 * estimate.error


# Grids.


def test_a_part_of_aligned_steps_is_an_interpolation() -> None:
    grid = rho_grid(40, 80.0, 0.02, final_zero=False)
    half = equidistribute(aligned_length(grid), 10, 80.0, 0.02)
    np.testing.assert_allclose(half.sigmas, interpolate(grid, 10).sigmas, rtol=2e-3)


def test_the_teacher_has_every_horizon_and_enough_levels_below_the_last() -> None:
    teacher = teacher_of([80.0, 3.0, 0.08], 0.002)
    assert {80.0, 3.0, 0.08} < set(teacher.sigmas)
    assert teacher.sigmas[-1] == 0.002
    assert sum(s < 0.08 for s in teacher.sigmas) >= 30


def test_schedules_are_of_three_classes_and_the_least_error_is_for_some_solvers() -> None:
    assert [class_of(kind) for kind in ("rho 7", "gits", "ld3")] == ["by hand", "measured", "by gradient"]
    known = {name for name, solver in SOLVERS.items() if fits("least_error", solver)}
    assert known == {"euler", "dpm++2m", "dpm++3m", "unipc", "deis", "ipndm"}


# Images.


def test_the_sweep_has_every_cell_once_and_few_at_many_evaluations() -> None:
    cells = list(swept(Sizes(), 0.02))
    assert len({json.dumps(cell.key) for cell in cells}) == len(cells)
    assert {cell.start for cell in cells if cell.nfe == 2} == {"mixture"}
    assert {cell.sigma_min for cell in cells if cell.start == "isotropic" and cell.kind == "tangent"} == {0.02, 0.002}
    assert len({cell.kind for cell in cells if cell.nfe == 20}) == 4
    assert sum(evaluations(Sizes(), 3).values()) == 2 * evaluations(Sizes(), 3)["together"]


def test_bars_compare_the_learned_method() -> None:
    row = {"start": "isotropic", "nfe": 4, "learned": True, "to_hand": 0.69, "to_heun": 9.0}
    found = bars([row, row | {"nfe": 6, "to_hand": 0.71}, row | {"start": "mixture", "nfe": 3, "learned": False}])
    assert [(bar["value"], bar["met"]) for bar in found] == [(0.69, True), (0.71, False), (None, None), (None, None)]


# Cells.


def test_a_cell_is_made_once_and_found_again(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"value": (1.0, 2.0)}

    for _ in range(2):
        cells = Cells(tmp_path / "cells.jsonl", {"quick": True})
        assert cells({"a": 1}, make) == {"a": 1, "value": [1.0, 2.0]}
    assert len(made) == 1


def test_a_line_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    cells = Cells(path, {})
    for i in range(3):
        cells({"i": i}, lambda i=i: {"value": i})  # type: ignore[misc]
    path.write_text(path.read_text()[:-5])
    again = Cells(path, {})
    assert len(again.rows) == 2
    assert again({"i": 2}, lambda: {"value": 7})["value"] == 7
    assert again({"i": 1}, lambda: {"value": 7})["value"] == 1
    assert [json.loads(line) for line in path.read_text().splitlines()][-1] == {"key": {"i": 2}, "row": {"value": 7}}


def test_cells_of_another_run_and_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "cells.jsonl", {"quick": True})
    with pytest.raises(ValueError, match="JSON"):
        cells({"a": 1}, lambda: {"value": float("nan")})
    with pytest.raises(InputError, match="another run"):
        Cells(tmp_path / "cells.jsonl", {"quick": False})


def test_the_best_row_of_each_group() -> None:
    rows = [{"a": 1, "x": 3.0}, {"a": 1, "x": 2.0}, {"a": 2, "x": 5.0}]
    assert best(rows, "x", "a") == rows[1:]


# A quick run.


def run_in(folder: Path) -> Run:
    return Run(folder, quick=True, seeds=1, device="cpu", progress=Progress())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What a quick run finds, written as the command writes it and read again: NaN and Inf would be refused."""
    folder = tmp_path_factory.mktemp("schedules")
    run = run_in(folder)
    record(run, "schedules", schedules, verdict)
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_every_table_and_figure_is_written(found: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = found
    tables = ("gaussian", "spectrum", "spectrum-best", "modes-exact", "modes", "modes-best", "images-sweep")
    for name in (*tables, "images-best", "images-finals", "images-finals-seeds"):
        assert (folder / f"{name}.md").stat().st_size > 0
        assert (folder / f"{name}.csv").stat().st_size > 0
    for name in ("spectrum", "modes", "images"):
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")
    text = (folder / "summary.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Gaussians, exactly",
        "## 25 modes",
        "## Fashion-MNIST",
    ]


@pytest.mark.slow
def test_the_finals_hold_every_class_and_a_learned_method(found: tuple[Path, dict[str, Any]]) -> None:
    rows = found[1]["images"]["finals"]
    assert {row["class"] for row in rows} == {"by hand", "measured", "by gradient"}
    places = {(row["start"], row["nfe"]) for row in rows if row["start"] != "edm-heun"}
    assert places == {("isotropic", 3), ("gaussian", 3), ("mixture", 2), ("mixture", 3)}
    for place in places:
        assert sum(row["learned"] for row in rows if (row["start"], row["nfe"]) == place) == 1
    assert all(row["n"] == QUICK.final and row["frechet"] > 0 for row in rows)


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_cut_off(
    found: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 25 modes the first cells are taken from disk, one of them falsified to see that it is; the others are made."""
    path = tmp_path / "cells.jsonl"
    shutil.copy(found[0] / "cells.jsonl", path)
    lines = [line for line in path.read_text().splitlines() if '"part": "images"' not in line]
    kept = len(lines) - 4
    place = max(i for i in range(kept) if "swd" in lines[i])
    falsified = json.loads(lines[place])
    falsified["row"]["swd"] = 123.0
    path.write_text("\n".join([*lines[:place], json.dumps(falsified), *lines[place + 1 : kept], lines[kept][:30]]))
    made: list[int] = []
    whole = Cells.__call__

    def counted(self: Cells, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return whole(self, key, lambda: (made.append(1), make())[1])  # type: ignore[func-returns-value]

    monkeypatch.setattr(Cells, "__call__", counted)
    run = run_in(tmp_path)
    modes(run, Cells(path, json.loads(lines[0])["settings"]))
    assert len(made) == 4
    again = path.read_text().splitlines()
    assert len(again) == len(lines)
    assert {lines.index(line) for line in again if line in lines} == set(range(len(lines))) - {place}
    assert "123" in (tmp_path / "modes.csv").read_text()


@pytest.mark.slow
def test_levels_of_a_schedule_survive_the_file(found: tuple[Path, dict[str, Any]]) -> None:
    text = (found[0] / "cells.jsonl").read_text().splitlines()[1:]
    rows = [json.loads(line)["row"] for line in text]
    assert all(Schedule(row["sigmas"]).steps > 0 for row in rows if "sigmas" in row)
