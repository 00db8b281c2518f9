"""Locks of folders, of files and of parts of files, between processes; without effect where the system has none."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["HAS_LOCKS", "UNABLE", "alone", "claimed", "locked_part", "opened", "take_lock"]

HAS_LOCKS = fcntl is not None

#: What the system says where it cannot lock or exchange.
UNABLE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EPERM}


@contextlib.contextmanager
def locked_part(descriptor: int, part: int) -> Iterator[None]:
    """Hold one part of an opened file, waiting for other processes that do; without effect where there are no locks.

    Arguments:
        descriptor: of the file, open for writing. Closing any other descriptor of it gives all its parts free.
        part: which one, a number from 0 to 2^62. It need not lie in the file.
    """

    def lock(how: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.lockf(descriptor, how, 1, part)

    if fcntl is None:
        yield
        return
    lock(fcntl.LOCK_EX)
    try:
        yield
    finally:
        lock(fcntl.LOCK_UN)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has a file for itself until the block ends; False where the system has no locks.

    Arguments:
        path: of the file, which is made if it is missing.

    Raises:
        OSError: if it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield HAS_LOCKS and take_lock(descriptor, wait=False)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, where there is one."""
    descriptor = opened(folder)
    try:
        take_lock(descriptor, wait=True)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def opened(folder: Path) -> int | None:
    """A folder, to be locked; None where that is not done."""
    if fcntl is None:
        return None
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except PermissionError:
        return None


def take_lock(descriptor: int | None, wait: bool) -> bool:
    """Lock an opened folder until it is closed; False if another process holds it, or there are no locks here."""
    if descriptor is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in UNABLE or isinstance(error, BlockingIOError):
            return False
        raise
    return True
