"""Cells on disk: what is there is not made again, and nothing else passes for a cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart.compare import Cells
from headstart.errors import ArtefactError, InputError


def test_a_cell_is_made_once_also_by_the_next_run(tmp_path: Path) -> None:
    path, made = tmp_path / "cells.jsonl", []

    def make() -> dict[str, object]:
        made.append(1)
        return {"value": (1.0, 2.0)}

    for _ in range(2):
        cells = Cells(path, {"quick": True})
        assert cells({"arm": "a", "nfe": 3}, make) == {"arm": "a", "nfe": 3, "value": [1.0, 2.0]}
    assert len(made) == 1


def test_a_line_that_was_cut_off_is_made_again_and_a_broken_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    cells = Cells(path, {})
    for i in range(2):
        cells({"i": i}, lambda i=i: {"value": i})  # type: ignore[misc]
    path.write_text(path.read_text()[:-5])
    again = Cells(path, {})
    assert len(again.rows) == 1
    assert again({"i": 0}, lambda: pytest.fail("made again")) == {"i": 0, "value": 0}
    assert again({"i": 1}, lambda: {"value": 2}) == {"i": 1, "value": 2}
    path.write_text(path.read_text() + "no cell\n")
    with pytest.raises(ArtefactError, match="line 4 is no cell"):
        Cells(path, {})


def test_a_row_that_failed_stands_for_one_run_alone(tmp_path: Path) -> None:
    path, made = tmp_path / "cells.jsonl", []

    def make() -> dict[str, object]:
        made.append(1)
        return {"value": None, "failed": "out of memory"} if len(made) == 1 else {"value": 1.0, "failed": None}

    cells = Cells(path, {})
    assert cells({"i": 0}, make)["failed"] == cells({"i": 0}, make)["failed"] == "out of memory"
    assert len(made) == 1
    assert Cells(path, {})({"i": 0}, make)["value"] == 1.0
    assert Cells(path, {})({"i": 0}, make)["value"] == 1.0
    assert len(made) == 2


def test_cells_of_another_run_and_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "cells.jsonl", {"samples": 10})
    with pytest.raises(ValueError, match="not JSON compliant"):
        cells({"a": 1}, lambda: {"value": float("nan")})
    assert [json.loads(line) for line in cells.path.read_text().splitlines()] == [{"settings": {"samples": 10}}]
    with pytest.raises(InputError, match="another run"):
        Cells(tmp_path / "cells.jsonl", {"samples": 20})
