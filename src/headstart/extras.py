"""Optional libraries: imported when a function needs them, and named with their extra where they are missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headstart.errors import MissingExtraError

__all__ = ["needed", "require"]


@contextmanager
def needed(library: str, extra: str, by: str) -> Iterator[None]:
    """Turn whatever goes wrong while a library is imported into one line that says how to install it.

    Arguments:
        library: its name, as it is installed.
        extra: what brings it: ``pip install 'headstart[extra]'``.
        by: who needs it, in words, such as "a page".

    Raises:
        MissingExtraError: if it, or what it needs, is not installed or cannot be imported here.
    """
    try:
        yield
    except Exception as error:  # a library that does not fit the other ones fails in its own way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingExtraError(
            f"{by} needs {library}, which cannot be imported ({reason}): pip install 'headstart[{extra}]'"
        ) from error


def require(module: str, extra: str, by: str) -> Any:
    """The module of an optional library, whose errors are those of :func:`needed`.

    Arguments:
        module: its name, as it is imported.
        extra: what brings it.
        by: who needs it, in words.

    Raises:
        MissingExtraError: if it, or what it needs, is not installed or cannot be imported here.
    """
    with needed(module.partition(".")[0], extra, by):
        return importlib.import_module(module)
