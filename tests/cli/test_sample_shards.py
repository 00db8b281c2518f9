"""``headstart sample --shards``: the samples of the plain command, in shards that the same command goes on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart import large
from headstart.data import load_data

Run = Callable[..., Any]
MODEL = "python:headstart_cli_models"


@pytest.mark.parametrize("kind", ["npz", "zarr"])
def test_shards_are_the_samples_of_the_plain_command(kind: str, run: Run, place: Path, tmp_path: Path) -> None:
    command = ("sample", place / "conditional", f"{MODEL}:images", "-n", 20, "--label", "0,1", "--batch-size", 4)
    assert run(*command, "-o", tmp_path / "one").code == 0
    shards = (*command, "-o", tmp_path / "shards", "--shards", kind, "--shard-size", 8, "--json")
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


def test_tables_and_archives_are_read_as_data(run: Run, place: Path, tmp_path: Path) -> None:
    """Samples of one axis in Parquet and in tar files, whose shards are data of their own too."""
    command = ("sample", place / "plan", f"{MODEL}:exact", "-n", 600, "--shard-size", 400)
    for kind in ("parquet", "tar"):
        assert run(*command, "--shards", kind, "-o", tmp_path / kind).code == 0
    samples = load_data(tmp_path / "parquet").samples
    assert torch.equal(load_data(tmp_path / "tar").samples, samples)
    shards = [tmp_path / "tar" / "shard-00000.tar", tmp_path / "parquet" / "shard-00001.parquet"]
    assert torch.equal(torch.cat([load_data(shard).samples for shard in shards]), samples)
    scored = run("evaluate", shards[0], tmp_path / "parquet", "--json")
    assert (scored.code, scored.json["samples"]["n"]) == (0, 400)


def test_another_command_in_the_same_folder_is_refused(run: Run, place: Path, tmp_path: Path) -> None:
    command = ("sample", place / "plan", f"{MODEL}:exact", "--shards", "tar", "-o", tmp_path)
    assert run(*command, "-n", 4).code == 0
    done = run(*command, "-n", 5)
    assert (done.code, "another job" in done.err) == (2, True)
    assert run("sample", place / "plan", f"{MODEL}:exact", "--shards", "zip", "-o", tmp_path / "a", "-n", 4).code == 2


def test_what_is_too_large_for_one_file_comes_in_shards(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "LARGE", 2 * 4 * 9)
    assert run("sample", place / "plan", f"{MODEL}:exact", "-n", 9, "-o", tmp_path / "one").code == 0
    assert run("sample", place / "plan", f"{MODEL}:exact", "-n", 10, "-o", tmp_path / "many").code == 0
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["samples.npz"]
    names = sorted(p.name for p in (tmp_path / "many").iterdir())
    assert names == ["manifest.json", "shard-00000.json", "shard-00000.npz"]
