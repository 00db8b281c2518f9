"""``headstart reproduce``: the list, a small run of an experiment on somebody's own network, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.cli.reproduce import EXAMPLES
from headstart.errors import DataError, InputError
from headstart.reproduce import EXPERIMENTS

Run = Callable[..., Any]
MODEL = "python:headstart_cli_models"


def test_the_list_names_every_experiment_and_its_paper(run: Run) -> None:
    done = run("reproduce", "--list")
    for experiment in EXPERIMENTS.values():
        assert experiment.name in done.out
        assert experiment.paper in done.out
    assert set(run("reproduce", "--list", "--json").json) == set(EXPERIMENTS)


def test_help_shows_examples_that_are_accepted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def none(*arguments: object) -> None:
        raise DataError("no data here")

    monkeypatch.setattr("headstart.data.load_data", none)
    for example in EXAMPLES:
        assert example in run("reproduce", "--help").out
        done = run(*example.split()[1:])
        assert "Usage" not in done.err
        assert done.code in (0, DataError.exit_code, InputError.exit_code)


def test_a_quick_run_writes_a_page_and_goes_on(run: Run, place: Path, tmp_path: Path) -> None:
    arguments = ("reproduce", "starts", f"{MODEL}:exact", place / "points.npy", "--samples", 32, "--quick")
    done = run(*arguments, "--out", tmp_path / "out", "--json")
    assert done.code == 0
    assert done.json == json.loads((tmp_path / "out" / "results.json").read_text())
    assert done.json["model"] == f"{MODEL}:exact"
    assert "Four starts" in (tmp_path / "out" / "index.html").read_text()
    cells = (tmp_path / "out" / "cells.jsonl").read_text()
    assert str(tmp_path / "out" / "index.html") in run(*arguments, "--out", tmp_path / "out").out
    assert (tmp_path / "out" / "cells.jsonl").read_text() == cells


def test_bad_input_is_named(run: Run, place: Path, tmp_path: Path) -> None:
    done = run("reproduce", "tables")
    assert done.code == InputError.exit_code
    assert "unknown experiment 'tables': expected one of schedules, starts" in done.err
    assert "unknown experiment None" in run("reproduce").err
    done = run("reproduce", "starts", f"{MODEL}:exact", place / "points.npy", "--samples", 1, "--out", tmp_path / "o")
    assert done.code == InputError.exit_code
    assert "two samples" in done.err
