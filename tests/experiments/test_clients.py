"""Networks of other packages: closed forms of the scores, laws, and small runs of what is installed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.clients import azula, run
from experiments.clients.laws import HELD_OUT, TRAIN, garments, samples
from experiments.clients.network import Client, Network, Place
from experiments.clients.run import CLIENTS, clients, ratio, reasons, summary, table, verdict
from experiments.clients.scores import distances, energy_distance
from experiments.common import Run, command, record
from headstart.denoiser import denoise
from headstart.errors import InputError, MissingExtraError
from headstart.noise import Noise
from headstart.progress import Progress


def small(folder: Path) -> Run:
    return Run(folder, quick=True, seeds=1, device="cpu", progress=Progress())


# Scores.


def test_the_energy_distance_is_that_of_all_pairs() -> None:
    """Of points 0 and 3 against 1 and 1: twice the mean distance 1.5, less the mean 1.5 within the first."""
    a, b = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [1.0]])
    assert energy_distance(a, b) == pytest.approx(math.sqrt(2 * 1.5 - 1.5))
    assert energy_distance(b, a) == energy_distance(a, b)
    assert energy_distance(a, a) == 0


def test_the_energy_distance_of_shifted_normals_is_the_exact_one() -> None:
    """D^2 = 2 E|m + s z| - 2 E|s z| with s = sqrt(2), by the mean of a folded normal law."""
    a, b = Noise(range(3000)).normal((1,)), Noise(range(3000, 6000)).normal((1,)) + 2
    s = math.sqrt(2)
    crossed = s * math.sqrt(2 / math.pi) * math.exp(-1) + 2 * math.erf(1)
    exact = math.sqrt(2 * crossed - 2 * s * math.sqrt(2 / math.pi))
    assert energy_distance(a, b) == pytest.approx(exact, rel=0.03)
    assert distances(a, b)["swd"] == pytest.approx(2, rel=0.03)


def test_a_ratio_has_the_errors_of_both() -> None:
    found = ratio({"mean": 3.0, "error": 0.3}, {"mean": 2.0, "error": 0.1})
    assert found == {"mean": 1.5, "error": pytest.approx(1.5 * math.hypot(0.1, 0.05))}
    assert ratio({"mean": 3.0, "error": None}, {"mean": 2.0, "error": 0.1})["error"] is None


# Laws.


def test_the_checkerboard_has_its_squares_and_no_others() -> None:
    x = samples("checkerboard", 2000, TRAIN)
    squares = x.floor().long()
    assert set(squares.flatten().tolist()) == {-2, -1, 0, 1}
    assert (squares.sum(dim=1) % 2 == 0).all()
    assert len({tuple(square) for square in squares.tolist()}) == 8


def test_laws_have_a_variance_near_one_and_new_samples_for_each_purpose() -> None:
    for law in ("moons", "modes", "checkerboard"):
        x, y = samples(law, 2000, TRAIN), samples(law, 2000, HELD_OUT)
        assert 0.7 < float(x.std(dim=0).mean()) < 1.3
        assert not (x == y).any()
    x = garments("test", 50)
    assert x.shape == (50, 1, 8, 8)
    assert (float(x.min()), float(x.max())) == (pytest.approx(-1), pytest.approx(1, abs=0.1))


# The experiment.


def test_a_small_run_writes_its_table_and_goes_on_from_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("azula.denoise", reason="azula is not installed (extra: peers)")

    def absent(place: Place) -> Network:
        raise MissingExtraError("it needs nowhere, which cannot be imported")

    def broken(place: Place) -> Network:
        raise AssertionError("what is kept is not made again")

    missing = Client("nowhere", "", "", absent)
    monkeypatch.setattr(run, "CLIENTS", (*azula.CLIENTS, missing))
    record(small(tmp_path), "clients", clients, verdict)
    found: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    assert found["missing"] == {"nowhere": "it needs nowhere, which cannot be imported"}
    methods = {row["method"]: row for row in found["summary"]}
    assert methods["own"]["evaluations"] == 64
    assert methods["plan"]["evaluations"] == methods["plan"]["nfe"] == 4
    assert methods["plan"]["ratios"]["swd"]["mean"] == methods["plan"]["swd"]["mean"] / methods["own"]["swd"]["mean"]
    assert methods["data"]["swd"]["mean"] > 0
    assert "azula" in (tmp_path / "summary.md").read_text()
    assert found["files"] == ["samples.md", "summary.md", "ratios.svg"]

    monkeypatch.setattr(run, "CLIENTS", (replace(azula.CLIENTS[0], make=broken), missing))
    record(small(tmp_path), "clients", clients, verdict)
    again = json.loads((tmp_path / "results.json").read_text())
    assert found["seconds"] < again["seconds"], "with those of the run that it goes on from"
    assert clients(small(tmp_path))["summary"] == found["summary"]

    (tmp_path / "cells.jsonl").unlink()
    assert clients(small(tmp_path))["rows"] == found["rows"], "rows of stored results are cells"

    others = clients(replace(small(tmp_path), only=("nowhere",)))
    assert others["summary"] == found["summary"]
    assert others["missing"] == found["missing"]
    empty = clients(replace(small(tmp_path / "empty"), only=("nowhere",)))
    assert empty["rows"] == []
    assert "not finished" in empty["missing"]["azula, VP"]


def test_a_run_is_asked_for_parts_by_texts_in_their_names(tmp_path: Path) -> None:
    run = small(tmp_path)
    assert run.asked("azula, VP")
    some = replace(run, only=("diffusers", "sbi"))
    assert [name for name in ("azula, VP", "diffusers, v", "sbi NPSE, VE") if some.asked(name)] == [
        "diffusers, v",
        "sbi NPSE, VE",
    ]


def test_a_part_that_there_is_not_is_refused_with_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["clients", "--quick", "--out", str(tmp_path), "--only", "nothing of the kind"])
    with pytest.raises(SystemExit) as error:
        command("clients", clients, verdict, parts=[client.name for client in CLIENTS])
    assert error.value.code == InputError.exit_code
    assert "'sbi NPSE, VE'" in capsys.readouterr().err


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_a_client_trains_a_denoiser_and_counts_its_calls(client: Client, tmp_path: Path) -> None:
    try:
        network = client.make(Place(tmp_path, quick=True))
    except MissingExtraError as error:
        pytest.skip(str(error))
    half = len(network.held_out) // 2
    x, given = network.held_out[half:], {name: value[half:] for name, value in network.held_conditions.items()}
    before = network.calls.rows
    assert denoise(network.denoiser, x, 0.5, **given).isfinite().all()
    assert network.calls.rows == before + half
    own = network.own(half, 0)
    assert own.shape == x.shape
    assert own.isfinite().all()
    assert network.calls.rows >= before + 2 * half
    again = client.make(Place(tmp_path, quick=True))
    torch.testing.assert_close(denoise(again.denoiser, x, 0.5, **given), denoise(network.denoiser, x, 0.5, **given))


def rows() -> list[dict[str, Any]]:
    """Results of two networks: a plan ahead of the first one's sampler, one behind that of the second."""
    found = []
    for client, plan in ((CLIENTS[0].name, 0.5), (CLIENTS[1].name, 3.0)):
        places = (("data", 0, 0.1), ("own", 0, 2.0), ("plan", 4, plan))
        for method, nfe, value in places:
            for seed in range(2 if nfe or method == "own" else 1):
                scores = {"swd": value + 0.1 * seed, "energy": value}
                found.append({"client": client, "method": method, "nfe": nfe, "seed": seed, "sampler": "s"} | scores)
                if method != "data":
                    found[-1] |= {"evaluations": nfe or 64, "seconds_per_1000": 1.0}
    return found


def test_the_table_says_where_plans_are_ahead_and_the_reasons_where_not() -> None:
    found = summary(rows())
    first, second = table(found, "swd").splitlines()[2:]
    assert first == f"| {CLIENTS[0].name} | s | 64 | 0.1 | 2.05 ± 0.05 | **0.27 ± 0.03** |"
    assert second.endswith("| 1.49 ± 0.04 |")
    assert reasons(found) == {CLIENTS[1].name: CLIENTS[1].reason or "not known"}
    assert "in 1 of 2 fits on 2 networks" in verdict({"summary": found, "missing": {}})


def test_a_plan_that_is_not_told_apart_is_said_to_be() -> None:
    every = rows()
    for row in every:
        if row["method"] == "plan" and row["client"] == CLIENTS[1].name:
            row |= {"swd": 1.9 + 0.3 * row["seed"], "energy": 1.9 + 0.3 * row["seed"]}
    assert reasons(summary(every)) == {CLIENTS[1].name: "by less than two standard errors"}
