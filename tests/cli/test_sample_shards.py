"""``headstart sample --shards``: the samples of the plain command, in shards that the same command goes on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.cli import sample
from headstart.data import load_data

Run = Callable[..., Any]
MODEL = "python:headstart_cli_models"


def test_shards_are_the_samples_of_the_plain_command(run: Run, place: Path, tmp_path: Path) -> None:
    command = ("sample", place / "conditional", f"{MODEL}:images", "-n", 20, "--label", "0,1", "--batch-size", 4)
    assert run(*command, "-o", tmp_path / "one").code == 0
    shards = (*command, "-o", tmp_path / "shards", "--shards", "npz", "--shard-size", 8, "--json")
    first, second = run(*shards).json, run(*shards).json
    assert (first["shards"], first["kept"], first["drawn"]) == (3, 0, 20)
    assert (second["shards"], second["kept"], second["drawn"]) == (3, 3, 0)
    with np.load(tmp_path / "one" / "samples.npz") as archive:
        data = load_data(tmp_path / "shards")
        assert np.array_equal(archive["samples"], data.samples.numpy())
        assert data.labels is not None
        assert np.array_equal(archive["labels"], data.labels.numpy())
    scored = run("evaluate", tmp_path / "shards", place / "images.npz", "--json")
    assert scored.json["samples"]["n"] == 20


def test_another_command_in_the_same_folder_is_refused(run: Run, place: Path, tmp_path: Path) -> None:
    command = ("sample", place / "plan", f"{MODEL}:exact", "--shards", "tar", "-o", tmp_path)
    assert run(*command, "-n", 4).code == 0
    done = run(*command, "-n", 5)
    assert (done.code, "another job" in done.err) == (2, True)
    assert run("sample", place / "plan", f"{MODEL}:exact", "--shards", "zip", "-o", tmp_path / "a", "-n", 4).code == 2


def test_what_is_too_large_for_one_file_comes_in_shards(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "AT_ONCE", 2 * 4 * 9)
    assert run("sample", place / "plan", f"{MODEL}:exact", "-n", 9, "-o", tmp_path / "one").code == 0
    assert run("sample", place / "plan", f"{MODEL}:exact", "-n", 10, "-o", tmp_path / "many").code == 0
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["samples.npz"]
    names = sorted(p.name for p in (tmp_path / "many").iterdir())
    assert names == ["manifest.json", "shard-00000.json", "shard-00000.npz"]
