"""Files and folders that are written whole or not at all, and readers of regular files alone.

A writer works in a folder of its own beside the place, ``.headstart-part-`` and random characters, flushes it to the
disk and moves its entries into place: one entry in one step, so that a reader, or whoever comes after a power cut,
finds the old one or the new one. Where several entries belong together, or a folder cannot be exchanged in one step,
the writer first renames ``new`` to ``ready``; from then on whoever finds them may finish the move.

A writer holds a lock on its folder. One that nobody holds was left behind by a process that was killed: the next one
that writes beside it finishes what is ready, removes the rest, and says so by a :class:`HeadstartWarning`. Where the
system has no such locks, nothing is cleared. Moves into one folder are made one after the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import signal
import stat
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from headstart.deprecation import renamed
from headstart.errors import ArtefactError, HeadstartWarning
from headstart.locks import HAS_LOCKS, UNABLE, alone, opened, take_lock

__all__ = [
    "Exchange",
    "atomic_write",
    "check_file",
    "check_folder",
    "check_regular",
    "exchange",
    "finish",
    "followed",
    "read_regular",
    "staged",
]

#: The names of writers' folders, and what one holds.
PREFIX = ".headstart-part-"
OURS = re.compile(re.escape(PREFIX) + r"\w{8}")
NEW, OLD, READY = "new", "old", "ready"

Exchange = Callable[[Path, Path], bool]

__getattr__ = renamed(
    __name__, {"write_whole": "headstart.files:atomic_write", "locked_part": "headstart.locks:locked_part"}
)


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, if the system can: Linux can, on most file systems.

    Raises:
        OSError: if it can and fails.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if call(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return True
    if (code := ctypes.get_errno()) in UNABLE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def atomic_write(content: bytes, path: str | Path) -> None:
    """Write a file whole or not at all: a reader sees the old file or the new one, never a part.

    Arguments:
        content: of the file.
        path: of the file, whose folder is made if it is missing. A symbolic link is followed.

    Raises:
        ArtefactError: if something else than a regular file is there, or the file cannot be written; nothing is left
            behind then.
    """
    target = followed(path)
    _check_kind(target, path)
    try:
        with staged(target.parent) as place:
            (place / target.name).write_bytes(content)
    except OSError as error:
        raise ArtefactError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def staged(folder: Path, derived: Sequence[str] = (), swap: Exchange = exchange) -> Iterator[Path]:
    """A new folder whose entries move into ``folder`` when the block ends; if it fails, nothing is left behind.

    Entries of the same names are replaced, others are kept.

    Arguments:
        folder: made if it is missing.
        derived: names of entries that are made from the others. The old ones go before the others come, and the new
            ones come last, so that none ever stands beside what it was not made from.
        swap: swaps two folders in one step, and says whether it can.

    Raises:
        OSError: if the folder cannot be made or written to.
    """
    folder = followed(folder)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    left: list[str] = []
    own = lock = None
    try:
        with _undisturbed():
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder):
                left += _clear(folder)
                own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
                lock = opened(own)
                take_lock(lock, wait=False)
            (own / NEW).mkdir()
        yield own / NEW
        _flush(own / NEW)
        with _undisturbed():
            with alone(folder):
                _move(own, folder, derived, swap)
            _sync(folder)
            _remove(own, folder)
    except BaseException:
        with _undisturbed():
            if own is not None:
                _remove(own, folder)
            for place in missing:
                with contextlib.suppress(OSError):
                    place.rmdir()
        raise
    finally:
        if lock is not None:
            os.close(lock)
    if left:
        warnings.warn(f"{folder}: {'; '.join(left)}", HeadstartWarning, stacklevel=2)


def finish(folder: Path) -> None:
    """Finish what writers that were killed had ready for a folder, and clear what else they left in it."""
    folder = followed(folder)
    with contextlib.suppress(OSError):
        with alone(folder):
            left = _clear(folder)
        if left:
            warnings.warn(f"{folder}: {'; '.join(left)}", HeadstartWarning, stacklevel=2)


def check_file(path: str | Path) -> None:
    """Find out before the work whether a file can be written at a place.

    Raises:
        ArtefactError: if something else than a regular file is there, or its folder cannot be written to.
    """
    target = followed(path)
    _check_kind(target, path)
    check_folder(target.parent)


def check_folder(path: str | Path) -> None:
    """Find out before the work whether entries can be written into a folder, which need not be there yet.

    Raises:
        ArtefactError: if it is no folder and cannot be made, or cannot be written to.
    """
    target = followed(path)
    try:
        _try(next(place for place in (target, *target.parents) if _exists(place)))
    except OSError as error:
        raise ArtefactError(f"cannot write to {path}: {error.strerror or error}") from error


def check_regular(path: Path) -> None:
    """Refuse what cannot be read to its end, or not at all: folders, FIFOs, devices and sockets.

    Raises:
        OSError: with the kind of thing that it is.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise OSError(errno.EINVAL, "it is no name that a file can have", str(path)) from error
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {_kind(mode)} and no regular file", str(path))


def read_regular(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: if it cannot be read, or is no regular file.
    """
    check_regular(path)
    return path.read_bytes()


# Places.


def _try(folder: Path) -> None:
    """Make something in a folder that is gone when the process ends, however it ends, if the system can do that.

    Raises:
        OSError: if nothing can be made there.
    """
    if nameless := getattr(os, "O_TMPFILE", 0):
        try:
            os.close(os.open(folder, nameless | os.O_WRONLY))
            return
        except IsADirectoryError:  # an old system, which takes the folder for a file
            pass
        except OSError as error:
            if error.errno not in UNABLE:
                raise
    with _undisturbed(), tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder):
        pass


def followed(path: str | Path) -> Path:
    """The place itself, links followed.

    Raises:
        ArtefactError: if no file can have that name.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a character that is none, or that ends a name
        raise ArtefactError(f"{str(path)!r} is no name that a file can have") from error


def _exists(path: Path) -> bool:
    """Whether something is there.

    Raises:
        OSError: if that cannot be known: a name that is too long, a file among the folders, a circle of links.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _check_kind(target: Path, path: str | Path) -> None:
    try:
        mode = target.lstat().st_mode if _exists(target) else stat.S_IFREG
    except OSError as error:
        raise ArtefactError(f"cannot write {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        raise ArtefactError(f"{path} is {_kind(mode)}: expected the name of a regular file")
    if OURS.fullmatch(target.name):
        raise ArtefactError(f"{path} is the name of what a writer leaves behind: choose another one")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a broken link"}
    return kinds.get(stat.S_IFMT(mode), "a device")


# Moves.


def _move(own: Path, folder: Path, derived: Sequence[str], swap: Exchange) -> None:
    """Move the entries of ``new`` into place, all or none."""
    entries = sorted((own / NEW).iterdir(), key=lambda entry: (entry.name in derived, entry.name))
    for entry in entries:
        target = folder / entry.name
        if _exists(target) and (entry.is_dir() != target.is_dir() or target.is_symlink()):
            raise FileExistsError(errno.EEXIST, f"{_kind(target.lstat().st_mode)} is in the way", str(target))
    known = {entry.name for entry in entries}
    for name in {*derived} - known:
        (folder / name).unlink(missing_ok=True)
    if len(entries) == 1 and _in_one_step(entries[0], folder / entries[0].name, swap):
        return
    (own / NEW).rename(own / READY)  # from here on another one finishes the move
    _sync(own)
    for name in known & {*derived}:
        (folder / name).unlink(missing_ok=True)
    for entry in entries:
        _replace(own / READY / entry.name, folder, own)


def _in_one_step(entry: Path, target: Path, swap: Exchange) -> bool:
    if target.is_dir() and any(target.iterdir()):
        return swap(entry, target)
    entry.replace(target)  # an empty folder too
    return True


def _replace(entry: Path, folder: Path, own: Path) -> None:
    """Move an entry that is ready into place, where a folder has to be moved aside first."""
    target = folder / entry.name
    if target.is_dir():
        (own / OLD).mkdir(exist_ok=True)
        target.replace(own / OLD / target.name)
    entry.replace(target)


def _remove(own: Path, folder: Path) -> None:
    """Remove a writer's folder; what it had moved aside comes back if nothing took its place."""
    with contextlib.suppress(OSError):
        for old in (own / OLD).iterdir() if (own / OLD).is_dir() else ():
            if not _exists(folder / old.name):
                old.replace(folder / old.name)
        shutil.rmtree(own)


def _clear(folder: Path) -> list[str]:
    """Finish or remove what killed writers left in a folder, whose lock is held; what was done, in words."""
    done = []
    try:
        names = [name for name in os.listdir(folder) if OURS.fullmatch(name)]
    except PermissionError:
        return []
    for name in names:
        own = folder / name
        with contextlib.suppress(OSError):
            lock = opened(own)
            try:
                if not take_lock(lock, wait=False) or not _ours(own):
                    continue
                ready = sorted((own / READY).iterdir()) if (own / READY).is_dir() else []
                for entry in ready:
                    _replace(entry, folder, own)
                _remove(own, folder)
            finally:
                if lock is not None:
                    os.close(lock)
            finished = f"finished writing {', '.join(entry.name for entry in ready)}" if ready else "removed"
            done.append(f"an interrupted run had left {name}, {finished}")
    return done


def _ours(own: Path) -> bool:
    """Whether a folder is a writer's and of this user, who alone can have filled it."""
    found = own.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and set(os.listdir(own)) <= {NEW, OLD, READY}


# Signals and disks.


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a signal that asks the process to end, and is handled, wait until a short block has ended."""
    came: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # which alone may handle them
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers if callable(signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _flush(folder: Path) -> None:
    """Have all of a folder on the disk."""
    for place, _, files in os.walk(folder):
        for name in files:
            _sync(Path(place, name))
        _sync(Path(place))


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, where the file system can."""
    if path.is_dir() and not HAS_LOCKS:
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() or HAS_LOCKS else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
    finally:
        os.close(descriptor)
