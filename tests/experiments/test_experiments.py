"""Each experiment does a small part of everything, writes its files, and finds what must hold at any size."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.common import Blocks, Run, command, drawn, estimate, max_sliced, trimmed
from experiments.gmm.run import gmm, picks, quadrature, tiled
from experiments.gmm.run import verdict as gmm_verdict
from experiments.heavy_tails.run import Tabulated, divergences, marginals, noise_misses
from headstart.budget import gaussian_divergence
from headstart.errors import InputError
from headstart.initialization import Gaussian, Isotropic, StudentT
from headstart.initialization.student import Independent
from headstart.initialization.subspace import Subspace
from headstart.metrics import max_sliced_wasserstein
from headstart.noise import Noise
from headstart.progress import Progress
from headstart.targets import Gaussian as GaussianLaw
from headstart.targets import ProductT, gmm25, gmm_paper, t_prod
from tests.experiments.cases import quick_run

Double = torch.float64
Results = Mapping[str, Any]


class Quick(dict[str, Results]):
    """What quick runs of the experiments find, each run where it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Results:
        folder = self.folder / name
        folder.mkdir()
        self[name] = quick_run(name, folder)
        return self[name]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return Quick(tmp_path_factory.mktemp("experiments"))


TABLES = {
    "classes": ("summary", "each"),
    "fashion_mnist": ("errors", "sweep", "finals", "summary"),
    "gmm": ("exact", "initialization", "picks", "distances", "summary", "many"),
    "heavy_tails": ("noise_misses", "quantiles", "levels", "nats", "distances", "summary", "plans", "candidates"),
}
FIGURES = {
    "classes": ("quality", "nearest"),
    "fashion_mnist": ("sweep",),
    "gmm": ("exact", "distances"),
    "heavy_tails": ("quantiles",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_every_table_and_figure_is_written(name: str, results: Quick) -> None:
    assert results[name]["seeds"] == 1
    for table in TABLES[name]:
        with (results.folder / name / f"{table}.csv").open() as file:
            rows = list(csv.DictReader(file))
        lines = (results.folder / name / f"{table}.md").read_text().splitlines()
        assert len(rows) == len(lines) - 2 > 0
    for figure in FIGURES[name]:
        text = (results.folder / name / f"{figure}.svg").read_text()
        assert text.startswith("<?xml")
        assert "</svg>" in text


def test_a_table_leaves_blank_what_a_row_does_not_have(tmp_path: Path) -> None:
    run = Run(tmp_path, quick=True, seeds=1, device="cpu", progress=Progress())
    run.table("two", [{"a": 1.23456}, {"b": None, "a": 2}])
    assert (tmp_path / "two.md").read_text() == "| a | b |\n|---|---|\n| 1.235 | - |\n| 2 | - |\n"
    assert (tmp_path / "two.csv").read_text() == "a,b\n1.23456,\n2,\n"
    with pytest.raises(InputError, match="no rows"):
        run.table("none", [])
    with pytest.raises(ValueError, match="JSON"):
        run.results({"x": math.nan})


def test_estimates_over_seeds() -> None:
    assert estimate([1.0, 2.0, 3.0]) == {"mean": 2.0, "error": pytest.approx(1 / math.sqrt(3)), "n": 3}
    assert estimate([1.0])["error"] is None


# Fashion-MNIST.


@pytest.mark.slow
def test_the_images_best_cells_are_those_of_the_sweep(results: Quick) -> None:
    found = results["fashion_mnist"]
    for nfe in (2, 3):
        cells = [row for row in found["sweep"] if row["nfe"] == nfe]
        best = min(cells, key=lambda row: row["frechet"])
        final = next(row for row in found["finals"] if row["method"] == "best of the sweep" and row["nfe"] == nfe)
        assert (final["start"], final["horizon"]) == (best["start"], best["horizon"])
    assert all(row["nfe"] == row["nfe"] and row["frechet"] > 0 for row in found["finals"])


# Classes.


@pytest.mark.slow
def test_plans_with_labels_are_held_against_the_usual_sampler_of_the_same_guidance(results: Quick) -> None:
    rows = {(row["guidance"], row["method"]): row for row in results["classes"]["summary"]}
    for scale in (1.0, 1.5):
        plan, usual = rows[scale, "plan"], rows[scale, "edm-heun"]
        assert usual["within_ratio"] == 1
        assert plan["within_ratio"] == pytest.approx(plan["within"] / usual["within"])
    # A distance within classes is the mean of those of the classes.
    plan = next(row for row in results["classes"]["rows"] if (row["method"], row["scale"]) == ("plan", 1.0))
    assert plan["within"] == pytest.approx(sum(plan["each"].values()) / 10)


@pytest.mark.slow
def test_a_run_with_labels_goes_on_from_its_cells(results: Quick) -> None:
    before = results["classes"]["rows"]
    folder = results.folder / "classes"
    cells = (folder / "cells.jsonl").read_text()
    assert quick_run("classes", folder)["rows"] == before
    assert (folder / "cells.jsonl").read_text() == cells


# Mixtures of Gaussians.


@pytest.mark.slow
def test_the_perfect_start_is_never_worse_than_the_others_by_its_divergence_at_the_shortest_horizon(
    results: Quick,
) -> None:
    exact = results["gmm"]["exact"]
    shortest = min(row["horizon"] for row in exact)
    at = {row["start"]: row["divergence"] for row in exact if row["horizon"] == shortest}
    assert 0 < at["perfect"] < at["gaussian"] < at["isotropic"]
    assert at["perfect"] == pytest.approx(at["mixture"], abs=0.01)


@pytest.mark.slow
def test_a_path_diverges_more_than_samples_and_the_best_variance_least(results: Quick) -> None:
    for row in results["gmm"]["exact"]:
        assert row["j_opt"] <= row["j_em"] + 1e-9
        assert row["j_opt"] <= row["j_ddpm"] + 1e-9


@pytest.mark.slow
def test_errors_of_starts_by_loss_and_bracket_are_the_exact_ones(results: Quick) -> None:
    for row in results["gmm"]["initialization"]:
        assert row["exact"] > 0
        assert abs(row["by_loss"] - row["exact"]) < 4 * row["by_loss_error"]
        # Which clean samples there are moves both ends together, by something of the bracket's width.
        width = row["bracket_high"] - row["bracket_low"]
        assert width > 0
        assert row["bracket_low"] - width < row["exact"] + 4 * row["bracket_error"]
        assert row["bracket_high"] + width > row["exact"] - 4 * row["bracket_error"]


def test_picks_count_nodes_from_the_least_divergence() -> None:
    rows = [
        {"start": "s", "steps": 5, "horizon": h, "divergence": d, "b_ode": b, "j_ddpm": b, "j_em": -b, "j_opt": d}
        for h, d, b in ((1.0, 0.3, 0.9), (2.0, 0.1, 0.5), (3.0, 0.2, 0.7))
    ]
    found = {row["criterion"]: (row["picks"], row["best"], row["within_one"]) for row in picks(rows)}
    assert found["b_ode"] == (2.0, 2.0, True)
    assert found["j_em"] == (1.0, 2.0, True)


@pytest.mark.slow
def test_noised_data_beat_noise_of_the_horizon(results: Quick) -> None:
    for law in ("gmm25-2", "gmm25-10"):
        own = {row["method"]: row["max_swd"] for row in results["gmm"]["distances"] if row["law"] == law}
        assert own["same levels: noised data"] < 0.7 * own["same levels: N(0, s^2)"]


@pytest.mark.parametrize("d", [2, 10, 40])
@pytest.mark.parametrize("sigma", [0.01, 0.4, 80.0])
def test_the_denoiser_by_pairs_is_that_of_the_whole_mixture(d: int, sigma: float) -> None:
    law = gmm25(d, weights="chi2")
    x = (law.sample(Noise(range(50))) + sigma * Noise(range(50, 100)).normal((d,))).double()
    torch.testing.assert_close(tiled(d)(x, sigma), law(x, sigma), rtol=1e-10, atol=1e-10)
    levels = sigma * (1 + torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=Double))
    torch.testing.assert_close(tiled(d)(x, levels), law(x, levels), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 5.0])
@pytest.mark.parametrize("law", [gmm25(weights="chi2"), gmm_paper()], ids=["equal modes", "random modes"])
def test_quadrature_has_the_moments_of_the_mixture(law: Any, sigma: float) -> None:
    x, mass = quadrature(law, sigma)
    spread = law.weights @ (law.means**2 + _diagonals(law)) + sigma**2
    torch.testing.assert_close(mass @ x, law.weights @ law.means, rtol=0, atol=2e-5 * (1 + sigma))
    torch.testing.assert_close(mass @ x**2, spread, rtol=2e-5, atol=0)


def _diagonals(law: Any) -> torch.Tensor:
    if law.axes is None:
        return law.variances  # type: ignore[no-any-return]
    return torch.einsum("kde,ke,kde->kd", law.axes, law.variances, law.axes)


# Heavy tails.


@pytest.mark.slow
def test_starts_without_tails_fall_short_and_student_t_does_not(results: Quick) -> None:
    rows = {(r["start"], r["horizon"], r["stage"], r["level"]): r for r in results["heavy_tails"]["quantiles"]}
    for stage in ("start", "samples"):
        assert rows["noised data", 2.0, stage, 0.9999]["ratio"] == pytest.approx(1, abs=0.05)
        assert rows["isotropic", 2.0, stage, 0.9999]["ratio"] < 0.6
        assert rows["isotropic", 2.0, stage, 0.9999]["std"] == pytest.approx(0, abs=1e-9)
        assert rows["student-t", 2.0, stage, 0.999]["ratio"] == pytest.approx(1, abs=0.3)
        assert rows["student-t", 2.0, stage, 0.999]["std"] > 0
    assert rows["isotropic", 80.0, "start", 0.999999]["ratio"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_more_steps_bring_the_tails_of_a_perfect_start_nearer_to_the_datas(results: Quick) -> None:
    rows = {(r["horizon"], r["levels"], r["heun_steps"]): r["0.999"] for r in results["heavy_tails"]["levels"]}
    for horizon in (2.0, 80.0):
        for kind in ("rho", "log_linear"):
            assert abs(rows[horizon, kind, 8] - 1) < abs(rows[horizon, kind, 4] - 1) + 1e-3


@pytest.mark.slow
def test_medians_are_near_zero_and_quantiles_increase(results: Quick) -> None:
    rows = results["heavy_tails"]["quantiles"]
    for key in {(r["start"], r["horizon"], r["stage"]) for r in rows}:
        own = [r for r in rows if (r["start"], r["horizon"], r["stage"]) == key]
        means = [r["mean"] for r in sorted(own, key=lambda r: r["level"])]
        assert means == sorted(means)


@pytest.mark.slow
def test_nats_by_loss_are_the_exact_ones(results: Quick) -> None:
    for row in results["heavy_tails"]["nats"]:
        if row["exact"] is not None:
            assert row["exact"] > 0
            assert abs(row["by_loss"] - row["exact"]) < 4 * row["by_loss_error"] + 0.05


def test_noise_misses_what_the_closed_forms_say() -> None:
    """By an independent quadrature: the 0.999999 quantiles of unit scale are 103.3, 104.3 and 380.7."""
    rows = {(row["unit"], row["horizon"]): row for row in noise_misses((2.0, 7.0, 80.0))}
    for sigma, quantile in ((2.0, 103.3), (7.0, 104.3), (80.0, 380.7)):
        assert rows["scale", sigma]["0.999999"] == pytest.approx(1 - sigma * 4.7534 / quantile, abs=1e-3)
    assert (
        rows["variance", 80.0]["0.999999"] < 0.01 < rows["variance", 7.0]["0.9999"] < rows["variance", 2.0]["0.99"] * 10
    )


@pytest.mark.parametrize("sigma", [0.05, 2.0, 80.0])
def test_the_table_is_the_denoiser(sigma: float) -> None:
    law = t_prod(3)
    x = torch.tensor([1e-8, 0.1, 1.0, 3.7, 30.0, 1e3, 1e6], dtype=Double)[:, None].repeat(1, 3)
    x[:, 1] *= -1
    torch.testing.assert_close(Tabulated(law)(x, sigma), law(x, sigma), rtol=1e-6, atol=0)
    levels = torch.full((len(x),), sigma)
    torch.testing.assert_close(Tabulated(law)(x, levels), Tabulated(law)(x, float(levels[0])), rtol=0, atol=0)


def test_a_table_is_of_one_law() -> None:
    with pytest.raises(InputError, match="one law about 0"):
        Tabulated(ProductT([3.0, 4.0], 1.0, [0.0, 0.0]))
    with pytest.raises(InputError, match="one level"):
        Tabulated(t_prod(2))(torch.ones(2, 2), torch.tensor([1.0, 2.0]))


def test_quantiles_of_a_gaussian_start_are_those_of_its_marginals() -> None:
    law = GaussianLaw([1.0, -1.0], [[2.0, 0.6], [0.6, 0.5]])
    variances, basis = torch.linalg.eigh(torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=Double))
    start = Gaussian((2,), Subspace(law.means[0], basis, variances, torch.tensor(0.0, dtype=Double)))
    found = marginals(start, [0.5, 0.8413447460685429], 1.5)
    expected = [[1.0, -1.0], [1 + math.sqrt(2 + 2.25), -1 + math.sqrt(0.5 + 2.25)]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=Double))
    assert float(marginals(Isotropic((4,)), [0.8413447460685429], 3.0).mean()) == pytest.approx(3.0)


def test_divergences_from_the_law_are_those_of_closed_forms_and_none_from_itself() -> None:
    """Student-t with a million degrees of freedom and its Gaussian differ by nothing; with 3, by tabulated numbers."""
    law = ProductT(3.0, 1.0, [0.0, 0.0])
    exact = StudentT((2,), Independent(torch.zeros(2).double(), torch.ones(2).double(), torch.full((2,), 3.0).double()))
    known = {0.5: 4.878, 1.0: 0.911, 2.0: 0.1331, 7.0: 0.00230}
    for sigma, value in known.items():
        found = divergences(law, {"noise": Isotropic((2,)), "own": exact}, sigma)
        assert found["noise"] / 2 == pytest.approx(value, rel=2e-3)
        assert found["own"] == pytest.approx(0, abs=1e-9)


# What they share.


def test_blocks_are_independent_normal_numbers() -> None:
    noise = Blocks(range(4), 500)
    x, u, g = noise.normal((3,)), noise.uniform(), noise.gamma([0.5, 2.0], (2,))
    assert [len(noise), x.shape, u.shape, g.shape] == [2000, (2000, 3), (2000,), (2000, 2)]
    assert len(x.unique()) > 5950
    assert float(x.mean().abs()) < 4 / math.sqrt(6000)
    assert float(u.mean() - 0.5) == pytest.approx(0, abs=4 * math.sqrt(1 / 12 / 2000))
    torch.testing.assert_close(g.mean(0), torch.tensor([0.5, 2.0]).to(g), rtol=0, atol=0.13)


def test_samples_of_other_purposes_and_seeds_are_others() -> None:
    def normal(noise: Noise) -> torch.Tensor:
        return noise.normal((2,))

    a, again, b, c = (drawn(normal, 2500, p, s) for p, s in ((1, 0), (1, 0), (2, 0), (1, 1)))
    assert a.shape == (2500, 2)
    assert torch.equal(a, again)
    assert len(torch.cat([a, b, c]).unique()) > 14_900  # two numbers in single precision may be equal


def test_max_sliced_finds_the_one_direction_that_differs() -> None:
    """Shifted by 1 along one direction of forty: among random directions the largest share of it is far from 1."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2000, 40, generator=generator, dtype=Double) for _ in range(2))
    a = a - a.mean(0)
    direction = torch.nn.functional.normalize(torch.arange(1.0, 41.0, dtype=Double), dim=0)
    shifted = a + direction
    assert max_sliced(a, shifted) == pytest.approx(1, abs=1e-3)
    assert max_sliced_wasserstein(a, shifted, directions=256) < 0.7
    assert max_sliced(a, a) == 0
    # Wider along it by a factor of 3, which no difference of means shows.
    wider = b + 2 * (b @ direction)[:, None] * direction
    found = max_sliced(b, wider)
    along = (b @ direction).square().mean().sqrt() * 2
    assert found == pytest.approx(float(along), rel=0.02)


def test_gradient_ascent_finds_what_no_axis_shows() -> None:
    """Two modes at -1 and 1 along a diagonal against a normal of equal moments: only their shape differs."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(4000, 6, generator=generator, dtype=Double) for _ in range(2))
    direction = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -1.0, 0.5, 0.0, 1.0], dtype=Double), dim=0)
    along = a @ direction
    modes = along.sign() * math.sqrt(0.96) + 0.2 * torch.randn(4000, generator=generator, dtype=Double)
    a = a + (modes - along)[:, None] * direction
    u = (modes.sort().values - (b @ direction).sort().values).square().mean().sqrt()
    assert max_sliced(a, b) >= 0.98 * float(u)
    assert max_sliced(a, b, steps=1, ascents=1) < 0.9 * max_sliced(a, b)


def test_the_trimmed_distance_does_not_see_tails() -> None:
    a = torch.linspace(-1, 1, 1001, dtype=Double)[:, None]
    b = torch.where(a.abs() > 0.9, 100 * a, a)
    assert trimmed(a, b) == 0
    assert trimmed(a, b + 0.5) == pytest.approx(0.5)
    with pytest.raises(InputError, match="one size"):
        trimmed(a, b[:-1])


def test_gaussian_divergence_agrees_with_the_errors_of_gaussian_starts() -> None:
    """The closed form of the library against that of the experiment, where both apply: a matched second moment."""
    law = t_prod(2)
    start = Gaussian((2,), Subspace(*_unit_plane()))
    matched, noise = (divergences(law, {"s": s}, 1.0)["s"] for s in (start, Isotropic((2,))))
    unit = GaussianLaw([0.0, 0.0], 1.0)
    assert noise - matched == pytest.approx(gaussian_divergence(unit, GaussianLaw([0.0, 0.0], 0.0), 1.0))


def _unit_plane() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.zeros(2, dtype=Double), torch.eye(2, dtype=Double), torch.ones(2, dtype=Double), torch.tensor(0.0)


@pytest.mark.parametrize(
    ("device", "said"), [("cuda", "leave --device cuda out"), ("nonsense", "leave --device nonsense out")]
)
def test_an_experiment_without_a_network_takes_no_device(
    device: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gmm", "--device", device, "--out", str(tmp_path / "gmm")])
    with pytest.raises(SystemExit) as left:
        command("gmm", gmm, gmm_verdict, on_device=False)
    assert left.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "gmm").exists()


def test_a_device_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["schedules", "--device", "nonsense", "--out", str(tmp_path / "schedules")])
    with pytest.raises(SystemExit) as left:
        command("schedules", gmm, gmm_verdict)
    assert left.value.code == 2
    assert "unknown device 'nonsense'" in capsys.readouterr().err
