"""Finished cells on disk, so that a run that is cut off goes on where it stopped, and several runs share the work.

A cell is known by its key, plain values that say what was done. Its row is appended to the file as soon as it is there.
A rerun in the same folder reads the file and does what is missing; a last line that was cut off is dropped, and a line
that is no cell is skipped with a warning. A row that says under "failed" why it could not be made is not kept: the next
run tries again.

Who makes a cell holds a lock on it, so that another process waits for that one cell and then finds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.artefact import parse_json
from headstart.errors import ArtefactError, HeadstartWarning, InputError
from headstart.files import check_file
from headstart.locks import locked_part

__all__ = ["Cells"]

Row = Mapping[str, Any]


class Cells:
    """The cells of one run.

    Arguments:
        path: their file, which is made if it is missing.
        settings: of the run, plain values. Cells of another one are not mixed in.

    Raises:
        InputError: if the file holds the cells of a run with other settings, or something else.
        ArtefactError: if the file cannot be read or written.
    """

    def __init__(self, path: Path, settings: Row) -> None:
        check_file(path)
        self.path, self.rows = path, dict[str, dict[str, Any]]()
        self._read_to, self._lines = 0, 0
        head = json.dumps({"settings": settings}, sort_keys=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            with locked_part(self._file, 0):
                self._end_torn_line()
                if os.fstat(self._file).st_size == 0:
                    self._write(head)
            found = self._news()
        except OSError as error:
            raise ArtefactError(f"cannot write {path}: {error.strerror or error}") from error
        if not found or found[0] != head.encode():
            raise InputError(f"{path} holds the cells of another run: give --out another folder, or remove the file")
        self._take(found[1:])

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __call__(self, key: Row, make: Callable[[], Row]) -> dict[str, Any]:
        """The row of a cell, its key first: as it was found on disk, or made and put there.

        The row has gone through JSON either way, so that a rerun sees the same values. One that holds something under
        "failed" is not put there, and stands for this run alone.

        Raises:
            ValueError: if the row holds NaN or Inf.
        """
        name = _name(key)
        if name not in self.rows:
            with locked_part(self._file, _part(name)):
                self._take(self._news())
                if name not in self.rows:
                    line = json.dumps({"key": key, "row": make()}, allow_nan=False)
                    self.rows[name] = json.loads(line)["row"]
                    if not self.rows[name].get("failed"):
                        self._append(line)
        return {**key, **self.rows[name]}

    def _append(self, line: str) -> None:
        try:
            with locked_part(self._file, 0):
                self._end_torn_line()
                self._write(line)
        except OSError as error:
            raise ArtefactError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _end_torn_line(self) -> None:
        """Cut off what a writer that was killed, or whose disk was full, left of a line."""
        size = end = os.fstat(self._file).st_size
        while end and self._read_at(end - 1, 1) != b"\n":
            end -= 1
        if end < size:
            os.ftruncate(self._file, end)

    def _write(self, line: str) -> None:
        rest = f"{line}\n".encode()
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)

    def _read_at(self, place: int, count: int) -> bytes:
        os.lseek(self._file, place, os.SEEK_SET)
        return os.read(self._file, count)

    def _news(self) -> list[bytes]:
        """The whole lines that were added since the last look."""
        size = os.fstat(self._file).st_size
        new = b""
        while part := self._read_at(self._read_to + len(new), size - self._read_to - len(new)):
            new += part
        whole = new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        return whole.split(b"\n")[:-1]

    def _take(self, lines: list[bytes]) -> None:
        """Enter the cells of lines, but for those that hold none."""
        broken = []
        for line in lines:
            self._lines += 1
            try:
                cell = parse_json(line.decode())
                self.rows[_name(dict(cell["key"]))] = dict(cell["row"])
            except (ValueError, KeyError, TypeError):
                broken.append(str(self._lines + 1))
        if broken:
            warnings.warn(
                f"{self.path}: line{'s' * (len(broken) > 1)} {', '.join(broken)} skipped: no cell is there, and it is "
                "made again if it is wanted",
                HeadstartWarning,
                stacklevel=3,
            )


def _name(key: Row) -> str:
    return json.dumps(key, sort_keys=True)


def _part(name: str) -> int:
    """The part of the file that stands for a cell; part 0 is for adding a line."""
    return 1 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
