"""Finished cells on disk, so that a run that is cut off goes on where it stopped.

A cell is known by its key, plain values that say what was done. Its row is appended to the file as soon as it is there.
A rerun in the same folder reads the file and does what is missing; a last line that was cut off is dropped. A row that
says under "failed" why it could not be made is not kept: the next run tries again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.errors import ArtefactError, InputError
from headstart.files import write_whole

__all__ = ["Cells"]

Row = Mapping[str, Any]


class Cells:
    """The cells of one run.

    Arguments:
        path: their file, which is made if it is missing.
        settings: of the run, plain values. Cells of another one are not mixed in.

    Raises:
        InputError: if the file holds the cells of a run with other settings, or something else.
        ArtefactError: if the file is damaged, or cannot be written.
    """

    def __init__(self, path: Path, settings: Row) -> None:
        self.path, self.rows = path, dict[str, dict[str, Any]]()
        whole = path.read_text().split("\n")[:-1] if path.exists() else []
        head = json.dumps({"settings": settings}, sort_keys=True)
        if whole and whole[0] != head:
            raise InputError(f"{path} holds the cells of another run: give --out another folder, or remove the file")
        for number, line in enumerate(whole[1:], 2):
            try:
                cell = json.loads(line)
                self.rows[_name(cell["key"])] = cell["row"]
            except (ValueError, KeyError, TypeError) as error:
                raise ArtefactError(f"{path} is damaged: line {number} is no cell. Remove it to do it again") from error
        write_whole("\n".join([*(whole or [head]), ""]).encode(), path)

    def __call__(self, key: Row, make: Callable[[], Row]) -> dict[str, Any]:
        """The row of a cell, its key first: as it was found on disk, or made and put there.

        The row has gone through JSON either way, so that a rerun sees the same values. One that holds something under
        "failed" is not put there, and stands for this run alone.

        Raises:
            ValueError: if the row holds NaN or Inf.
        """
        name = _name(key)
        if name not in self.rows:
            line = json.dumps({"key": key, "row": make()}, allow_nan=False)
            self.rows[name] = json.loads(line)["row"]
            if not self.rows[name].get("failed"):
                with self.path.open("a") as file:
                    file.write(line + "\n")
        return {**key, **self.rows[name]}


def _name(key: Row) -> str:
    return json.dumps(key, sort_keys=True)
