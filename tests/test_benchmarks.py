"""The benchmarks in small: they run, and say what they promise."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import costs as costs_module
from benchmarks.costs import _schedules
from benchmarks.overhead import BARS, Timed, _calls, _peers, overhead
from benchmarks.starts import _natural
from benchmarks.timing import cost, interval, power, ratio, rounds
from experiments.common import Run, record
from headstart.initialization import Isotropic
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.progress import Progress
from headstart.sampler import Sampler
from headstart.schedule import rho_grid, rule_names
from headstart.solver import DPMSolverPP2M, Euler, Heun
from headstart.targets import gmm25


def small(folder: Path) -> Run:
    return Run(folder, True, 1, "cpu", Progress())


def done(name: str, folder: Path) -> dict[str, Any]:
    """What a benchmark finds in small, written as the command writes it: NaN and Inf would be refused."""
    module = import_module(f"benchmarks.{name}")
    record(small(folder), name, getattr(module, name), module.verdict, "benchmarks")
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.slow
def test_the_benchmark_of_starts_runs(tmp_path: Path) -> None:
    found = done("starts", tmp_path)
    assert {row["family"] for row in found["fitting"]} == {"gaussian", "mixture"}
    assert all(row["seconds"] > 0 for row in found["fitting"])
    assert all(row["ratio"] > 0 for row in found["drawing"])
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{kind}" for name in ("fitting", "drawing") for kind in ("md", "csv")
    } | {"results.json", "index.html"}


def test_the_benchmark_of_imports_runs(tmp_path: Path) -> None:
    found = done("imports", tmp_path)
    assert {row["module"]: row["ratio"] for row in found["imports"]}["torch"] == 1
    assert all(row["seconds"] > 0 for row in found["imports"])


def test_the_benchmark_of_seeding_runs(tmp_path: Path) -> None:
    found = done("seeding", tmp_path)
    assert [row["numbers"] for row in found["drawing"]] == [2, 16, 64, 128, 784]
    assert all(row["share"] > 0 for row in found["seeding"])


@pytest.mark.slow
def test_the_benchmark_of_processes_runs(tmp_path: Path) -> None:
    found = done("processes", tmp_path)
    assert len(found["processes"]) == 3
    assert all(row["seconds"] > 0 for row in found["processes"])
    assert found["beside_threads"]["median"] > 0
    assert len(found["loads"]) == found["rounds"] == 1


@pytest.mark.slow
def test_the_benchmark_of_memory_runs(tmp_path: Path) -> None:
    found = done("memory", tmp_path)
    assert [(row["job"], row["rows"]) for row in found["memory"]] == [("fit", 1000), ("sample", 1000)]
    assert all(0.05 < row["gib"] < found["bar"] for row in found["memory"])
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".csv", ".json", ".html"}, "the data are gone"


def test_synthetic_images_have_the_spectrum_of_natural_ones() -> None:
    """The variances fall as 1 / j, after the few directions of the clusters."""
    x = _natural(16, 4000)[:, 0].flatten(1).double()
    variances = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    assert -1.25 < power(range(20, 100), variances[20:100].tolist()) < -0.75


@pytest.fixture(scope="module")
def profile() -> Profile:
    law = gmm25()
    return Profile.measure(law, law.sample(Noise(range(40))), samples=20, cost_samples=10)


def test_the_benchmark_of_overhead_runs(tmp_path: Path) -> None:
    found = done("overhead", tmp_path)
    assert [row["start"] for row in found["overhead"]] == ["isotropic", "gaussian", "mixture"]
    for row in found["overhead"]:
        assert row["within_low"] <= row["within"] <= row["within_high"]
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["within"] > 1, "the calls are a part of the whole"
        assert row["drawing"] > 0
        assert row["meets_bar"] == (row["within"] - 1 <= BARS[row["batch"]])
    assert found["worst"]["1"] >= found["worst_from_noise"]["1"]


@pytest.mark.slow
def test_the_benchmark_of_costs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs_module, "CLOSED", ("shifted", "gaussian"))
    monkeypatch.setattr(costs_module, "TRAINED", ())
    monkeypatch.setattr(costs_module, "LEVELS", 26)  # fewer are too far apart for trajectories
    found = done("costs", tmp_path)
    assert {row["family"] for row in found["fitting"]} == {"shifted", "gaussian"}
    assert {row["against"] for row in found["fitting"]} == {"samples", "dimensions"}
    assert [(row["levels"], row["samples"]) for row in found["measuring"]] == [(26, 4)]
    assert {row["schedule"] for row in found["schedules"]} == set(rule_names())


def test_overhead_samples_where_the_network_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SeenError(Exception):
        pass

    def sampled(*_: object, device: str = "cpu", **__: object) -> None:
        raise SeenError(device)

    monkeypatch.setattr(Sampler, "sample", sampled)
    monkeypatch.setattr("benchmarks.overhead.load_denoiser", lambda *_: gmm25())
    with pytest.raises(SeenError, match="elsewhere"):
        overhead(Run(tmp_path, True, 1, "elsewhere", Progress()))


def test_every_kind_of_schedule_is_timed(tmp_path: Path, profile: Profile) -> None:
    rows = _schedules(small(tmp_path), profile)
    assert [row["schedule"] for row in rows] == list(rule_names())
    assert all(row["milliseconds"] > 0 for row in rows)


def test_the_benchmark_of_throughput_runs(tmp_path: Path) -> None:
    found = done("throughput", tmp_path)
    assert {row["distance"] for row in found["throughput"]} == {"frechet", "kernel", "manifold", "sliced"}
    assert {row["distance"] for row in found["whole"]} == {"frechet", "kernel", "manifold", "sliced", "max_sliced"}
    for row in found["throughput"] + found["whole"]:
        assert row["per_second"] == pytest.approx(row["samples"] / row["seconds"])


def test_rounds_alternate_and_leave_out_the_first() -> None:
    calls: list[str] = []
    found = rounds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert "".join(calls) == "ba" + "ab" + "ba" + "ab"
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}


def test_the_interval_is_the_narrowest_of_order_statistics_that_covers() -> None:
    assert interval([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert interval(list(range(1, 10)))["low"] == 2  # 1 - 2 * 10 / 512 = 0.96, and 1 - 2 * 46 / 512 = 0.82 from the 3rd
    assert interval(list(range(1, 10)))["high"] == 8
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.empty(2000, 15).exponential_(generator=generator).tolist()
    found = [interval(row) for row in draws]
    covered = sum(i["low"] <= 0.6931472 <= i["high"] for i in found) / len(found)
    assert 0.95 < covered < 0.98  # 1 - 2 * P(Bin(15, 1/2) < 4) = 0.965, within four standard errors


def test_memory_is_that_of_the_call() -> None:
    held = torch.ones(2**22)
    taken = cost(lambda: torch.ones(2**24).sum().item())
    if taken.memory is None:
        pytest.skip("this system does not say how much memory was taken")
    assert 60 < taken.memory < 80, "64 MiB"
    assert held.sum() == 2**22


def test_the_time_of_calls_is_inside_the_whole(profile: Profile) -> None:
    law = gmm25()
    sampler = Sampler(Isotropic((2,)), rho_grid(3, 2.0, 0.1), Heun())
    timed = Timed(law, "cpu")
    assert torch.equal(sampler.sample(timed, 3), sampler.sample(law, 3))
    assert timed.seconds > 0


def test_the_bare_calls_are_those_of_the_plan(profile: Profile) -> None:
    sampler = Sampler(Isotropic((2,)), rho_grid(3, 2.0, 0.1), Heun())
    calls = _calls(sampler, 7, "cpu")
    assert len(calls) == sampler.nfe == 5
    assert all(x.shape == (7, 2) and sigma.shape == (7,) for x, sigma in calls)
    assert calls[0][1][0] == sampler.horizon


@pytest.mark.parametrize("solver", [Euler(), DPMSolverPP2M(), Heun()], ids=repr)
def test_the_loops_of_peers_do_what_the_solver_does(solver: Any) -> None:
    law, schedule = gmm25(), rho_grid(5, 2.0, 0.1)
    x = 2 * Noise(range(4)).normal((2,))
    for loop in _peers(solver).values():
        torch.testing.assert_close(loop(law, x, schedule), solver.solve(law, x, schedule), rtol=1e-4, atol=1e-4)


def test_powers_of_times() -> None:
    assert power([10, 20, 50], [3.0 * n**1.5 for n in (10, 20, 50)]) == pytest.approx(1.5)
