"""The finished parts of a fit, on disk, so that one that was cut off goes on where it stopped.

A folder holds a file for each unit: the profile, each start, how far a training is, and the pilot samples of each
combination as they are judged. ``job.json`` says what they are of: the data, the answers of the network to a few of
them, the arguments and the version of headstart. Units of another job are removed, and a damaged one is made again. The
folder is made with the first unit; one process at a time works in it, and another one keeps nothing. Of several that
work together the first one reads and writes units, those of the pilot that it draws itself among them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from headstart.artefact import parse_json
from headstart.conditions import Part
from headstart.denoiser import Denoiser, denoise
from headstart.errors import ArtefactError, HeadstartWarning
from headstart.files import atomic_write, read_regular
from headstart.locks import claimed
from headstart.metrics.checks import digest
from headstart.processes import leads, same

__all__ = ["Work", "beside", "identity_of"]

#: The file that says what a folder is of, and the one that is held while a process works in it.
JOB, HELD = "job.json", "held"

#: Samples that a network is known by, and at which multiples of the data's standard deviation.
ASKED, LEVELS = 4, (0.3, 3.0)

#: Bytes that the name of a file may have, less what is added here.
LONGEST = 200

T = TypeVar("T")


class Work:
    """The finished units of a fit: a block at the end of which they are removed, since the plan is written in it.

    An error removes them too, but for one that the plan cannot be written. What ends a process otherwise, a signal or a
    kill, leaves them to the next one.

    Arguments:
        folder: where they are kept; None keeps nothing.

    Raises:
        ArtefactError: if something else is there.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self._job, self._open = folder, "", False
        self._first, self._shut = leads(), False
        self._stack, self._missing = contextlib.ExitStack(), list[Path]()
        if folder is not None and folder.exists() and not _ours(folder):
            raise ArtefactError(f"{folder} is no folder of an interrupted fit: move it away, or name another plan")

    def __enter__(self) -> Work:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if self._open and self.folder is not None and not (self._stands(kind) and any(self.folder.glob("*.unit"))):
                shutil.rmtree(self.folder, ignore_errors=True)
                for place in self._missing:
                    with contextlib.suppress(OSError):
                        place.rmdir()
        self._open = False

    def _stands(self, kind: type[BaseException] | None) -> bool:
        """Whether what ended the block lets the same fit go on: a signal, or a plan that could not be written."""
        return kind is not None and (issubclass(kind, ArtefactError) or not issubclass(kind, Exception))

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Say what the units are of, as plain values. Those of anything else are removed."""
        self._job = json.dumps(identity, sort_keys=True)
        if self.folder is not None and self.folder.exists():
            self._take()

    @property
    def keeps(self) -> bool:
        """Whether units are kept at all."""
        return self.folder is not None

    def kept(
        self,
        name: str | Callable[[], str],
        make: Callable[[], T],
        save: Callable[[T, Path], None],
        load: Callable[[Path], T],
    ) -> T:
        """A unit as it is found on disk, or made and put there.

        Arguments:
            name: of the unit; a function of no arguments is asked for it only where units are kept.
            make: makes it.
            save: writes it to a file.
            load: reads it from there.
        """
        if self.folder is None or not self._job:
            return make()
        path = self.folder / f"{name if isinstance(name, str) else name()}.unit"
        if found := same(partial(self._found, path, load)):
            return found[0]
        made = make()
        if self._open or self._take():
            save(made, path)
        return made

    def _found(self, path: Path, load: Callable[[Path], T]) -> tuple[T] | None:
        """The unit in a file, if it is there."""
        if self._open and path.exists():
            with contextlib.suppress(ArtefactError):  # damaged: it is made again
                return (load(path),)
        return None

    def checkpoint(self, name: str) -> Path | None:
        """Where a training may keep how far it is; None where nothing is kept."""
        if self.folder is None or not self._job or not (self._open or self._take()):
            return None
        return self.folder / f"{name}.unit"

    def _take(self) -> bool:
        """Take the folder for this process, and remove the units of another job; False if another process has it."""
        assert self.folder is not None
        if not self._first or self._shut:
            return False
        try:
            self._missing = [place for place in self.folder.parents if not place.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._stack.enter_context(claimed(self.folder / HELD)):
                self._shut = True
                return False
        except OSError as error:
            raise ArtefactError(f"cannot write {self.folder}: {error.strerror or error}") from error
        units = list(self.folder.glob("*.unit"))
        if _read(self.folder / JOB) != self._job:
            for unit in units:
                unit.unlink()
            atomic_write(self._job.encode(), self.folder / JOB)
        elif units:
            warnings.warn(f"going on with what {self.folder} holds", HeadstartWarning, stacklevel=2)
        self._open = True
        return True


def beside(plan: Path) -> Path:
    """The folder of the units of a fit, beside the plan that it makes."""
    name = plan.name
    if len(name.encode()) > LONGEST:
        name = hashlib.sha256(name.encode()).hexdigest()[:16]
    return plan.with_name(f"{name}.work")


def identity_of(
    network: Denoiser, whole: Part, device: torch.device | str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Tells one fit from another, as plain values.

    Arguments:
        network: known by its answers to some of the data, at two levels.
        whole: all data, with their conditions.
        device: where the network works.
        arguments: what else decides; their ``repr`` tells them apart.

    Raises:
        DenoiserError: if the network returns NaN, Inf or the wrong shape.
    """
    few = whole.take(slice(0, ASKED)).to(device)
    unit = float(whole.samples.float().std()) or 1.0
    with torch.no_grad():
        answers = [
            denoise(network, few.samples.float() + level * unit, level * unit, **few.conditions) for level in LEVELS
        ]
    return {
        "version": version("headstart"),
        "data": digest(whole.samples),
        "conditions": _told(whole.conditions),
        "network": digest(torch.stack(answers).cpu()),
        "arguments": {name: repr(value) for name, value in arguments.items()},
    }


def _told(value: Any) -> Any:
    """Conditions as plain values that tell them from others."""
    if isinstance(value, Tensor):
        return digest(value)
    if isinstance(value, Mapping):
        return {str(key): _told(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_told(part) for part in value]
    return repr(value)


def _read(path: Path) -> str | None:
    """The identity of the units in a folder; None if it cannot be known."""
    try:
        return json.dumps(parse_json(read_regular(path).decode()), sort_keys=True)
    except (OSError, ValueError):
        return None


def _ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what a fit put there."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    return all(path.name in (JOB, HELD) or path.suffix == ".unit" or path.name[0] == "." for path in folder.iterdir())
