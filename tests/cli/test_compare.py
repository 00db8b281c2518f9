"""``headstart compare``: its files, its answer, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.cli import compare
from headstart.errors import ArtefactError, DataError

Run = Callable[..., Any]
MODEL = "python:headstart_cli_models"


def test_the_examples_are_accepted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their options exist: what fails is that their files are not there."""

    def no_data(*_: object, **__: object) -> None:
        raise DataError("no data here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("headstart.data.load_data", no_data)
    page = run("compare", "--help").out
    for example in compare.EXAMPLES:
        assert example.startswith("headstart compare")
        done = run(*example.split()[1:])
        assert "Usage" not in done.err
        assert done.code in (DataError.exit_code, 4, ArtefactError.exit_code)
    assert "Examples:" in page
    assert all(option in page for option in ("--nfe", "--methods", "--seeds", "--json", "--batch-size"))


def test_a_comparison_writes_its_files_and_goes_on_in_its_folder(run: Run, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("compare", f"{MODEL}:exact", place / "points.npy", "--quick", "--out", out)
    done = run(*command, "--methods", "gaussian,heun", "--plan", place / "plan")
    assert done.code == 0, done.err
    assert "| saved plan plan | " in done.out
    assert done.out.endswith(f"The page is {out / 'index.html'}\n")
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert {row["kind"] for row in rows if row["method"] == "saved-plan"} == {"saved"}, "of data that are not bundled"
    names = {path.name for path in out.iterdir()}
    assert names >= {"index.html", "summary.md", "results.json", "results.csv", "quality-nfe.svg", "cells.jsonl"}
    before = (out / "cells.jsonl").read_text()

    again = run(*command, "--methods", "gaussian,heun,isotropic", "--nfe", "3,4", "--json")
    assert (out / "cells.jsonl").read_text().startswith(before)
    assert again.json == json.loads((out / "results.json").read_text())
    assert {row["method"] for row in again.json["rows"]} == {"gaussian", "heun", "isotropic", "heun-35"}
    assert again.json["metric"] == "swd"
    assert again.json["settings"]["samples"] == 64
    assert again.json["settings"]["training"] == again.json["settings"]["reference"] == 150

    other = run(*command, "--methods", "heun", "--sigma-min", 0.05)
    assert other.code == 2
    assert "another run" in other.err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--nfe", "3,x"), 2, "not a list of whole numbers"),
        (("--nfe", "0"), 2, "numbers of at least 1"),
        (("--methods", "magic"), 2, "unknown method 'magic': expected one of plan, "),
        (("--features", "inception"), 2, "unknown features"),
        (("--sigma-min", "-1"), 2, "--sigma-min is -1"),
        (("--reference-count", "1"), 2, "--reference-count is 1"),
        (("--samples", "1"), 2, "2 samples or more"),
        (("--seeds", "0"), 2, "a seed"),
        (("--plan", "{place}/points.npy"), 5, "is not a plan"),
        (("--device", "abacus"), 2, "unknown device 'abacus'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    run: Run, place: Path, tmp_path: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    options = [option.format(place=place) for option in more]
    done = run("compare", f"{MODEL}:exact", place / "points.npy", "--quick", "--out", tmp_path / "out", *options)
    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_network_that_returns_nan_is_an_error_of_the_model(run: Run, place: Path, tmp_path: Path) -> None:
    done = run(
        "compare",
        f"{MODEL}:returns_nan",
        place / "points.npy",
        "--quick",
        "--methods",
        "heun",
        "--out",
        tmp_path / "out",
    )
    assert done.code == 4
    assert "not one of 2 cells could be made. The first: the denoiser returned NaN or Inf" in done.err
