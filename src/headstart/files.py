"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from headstart.errors import ArtefactError

__all__ = ["write_whole"]


def write_whole(content: bytes, path: str | Path) -> None:
    """Write a file beside its place, then move it there: a reader sees the old file or the new one, never a part.

    Raises:
        ArtefactError: if the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise ArtefactError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
