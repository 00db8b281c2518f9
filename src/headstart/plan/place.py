"""The folder of a plan: whether one can be written at a place, and whether what is there is still the same."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from headstart.errors import ArtefactError
from headstart.files import check_folder, followed

__all__ = ["check_place", "identity"]


def check_place(folder: Path) -> Path:
    """Find out whether a plan can be written at a place, and return the place itself, links followed.

    Raises:
        ArtefactError: if something is there that is neither a plan nor an empty folder, or that cannot be exchanged as
            a whole, or nothing can be written there.
    """
    target = followed(folder)
    try:
        there = identity(target) is not None
        inside = {path.name for path in target.iterdir()} if target.is_dir() else set()
        whole = there and not (os.path.ismount(target) or os.path.samefile(target, os.curdir))
    except OSError as error:
        raise ArtefactError(f"{folder} cannot be read: {error.strerror or error}") from error
    if there and "plan.json" not in inside and (inside or not target.is_dir()):
        raise ArtefactError(f"{folder} exists and is not a plan: choose another name, or remove it first")
    if others := sorted(inside - {"plan.json", "tensors.safetensors"}):
        raise ArtefactError(f"{folder} is a plan and holds {others[0]} too: choose another name, or move that first")
    if there and not whole:
        raise ArtefactError(
            f"{folder} is the working directory or a mount, and a plan's folder is exchanged as a whole: "
            "name a folder in it"
        )
    check_folder(target.parent)
    return target


def identity(folder: Path) -> tuple[int, int, int] | None:
    """Tells a folder from the one that takes its place; None if nothing is there.

    Raises:
        OSError: if that cannot be known.
    """
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OSError(errno.EINVAL, "it is no name that a file can have", str(folder)) from error
    return found.st_dev, found.st_ino, found.st_ctime_ns
