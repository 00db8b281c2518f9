"""Cells on disk: what is there is not made again, and nothing else passes for a cell."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from headstart.compare import Cells
from headstart.errors import HeadstartWarning, InputError


def test_a_cell_is_made_once_also_by_the_next_run(tmp_path: Path) -> None:
    path, made = tmp_path / "cells.jsonl", []

    def make() -> dict[str, object]:
        made.append(1)
        return {"value": (1.0, 2.0)}

    for _ in range(2):
        cells = Cells(path, {"quick": True})
        assert cells({"method": "a", "nfe": 3}, make) == {"method": "a", "nfe": 3, "value": [1.0, 2.0]}
    assert len(made) == 1


def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    cells = Cells(path, {})
    for i in range(2):
        cells({"i": i}, lambda i=i: {"value": i})  # type: ignore[misc]
    path.write_text(path.read_text()[:-5])
    again = Cells(path, {})
    assert len(again.rows) == 1
    assert again({"i": 0}, lambda: pytest.fail("made again")) == {"i": 0, "value": 0}
    assert again({"i": 1}, lambda: {"value": 2}) == {"i": 1, "value": 2}


@pytest.mark.parametrize(
    "line",
    [b"no cell", b"\xff", b"[" * 100_000, b'{"key": 1, "row": {}}', b'{"key": {}, "row": [1]}', b'{"row": {}}', b"NaN"],
)
def test_a_line_that_is_no_cell_is_skipped_and_said(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    Cells(path, {})({"i": 0}, lambda: {"value": 0})
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.warns(HeadstartWarning, match=r"cells\.jsonl: line 3 skipped"):
        again = Cells(path, {})
    assert again({"i": 0}, lambda: pytest.fail("made again")) == {"i": 0, "value": 0}
    assert again({"i": 1}, lambda: {"value": 1}) == {"i": 1, "value": 1}
    with pytest.warns(HeadstartWarning):
        assert len(Cells(path, {}).rows) == 2


def test_a_torn_line_is_ended_before_the_next_one(tmp_path: Path) -> None:
    """Another process was killed, or its disk was full, while this one runs."""
    path = tmp_path / "cells.jsonl"
    cells = Cells(path, {})
    with path.open("ab") as file:
        file.write(b'{"key": {"i": 7}, "ro')
    cells({"i": 0}, lambda: {"value": 0})
    assert Cells(path, {}).rows == {'{"i": 0}': {"value": 0}}


def work(path: Path, made) -> None:  # type: ignore[no-untyped-def]
    cells = Cells(path, {})
    for i in range(20):

        def make(i: int = i) -> dict[str, int]:
            made.put(i)
            time.sleep(0.005)
            return {"value": i * i}

        assert cells({"i": i}, make)["value"] == i * i


def test_two_runs_in_one_folder_make_every_cell_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    made = context.Queue()
    runs = [context.Process(target=work, args=(tmp_path / "cells.jsonl", made)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert sorted(made.get() for _ in range(20)) == list(range(20))
    assert made.empty()
    assert len(Cells(tmp_path / "cells.jsonl", {}).rows) == 20


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
