"""Optional libraries, imported when a function needs them."""

from __future__ import annotations

import importlib
from typing import Any

from headstart.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, extra: str) -> Any:
    """The module of an optional library.

    Arguments:
        module: its name, as it is imported.
        extra: what brings it: ``pip install headstart[extra]``.

    Raises:
        MissingExtraError: if it, or what it needs, is not installed or cannot be imported here.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library that does not fit the other ones fails in its own way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingExtraError(
            f"{module} cannot be imported ({reason}): pip install 'headstart[{extra}]', or the library itself"
        ) from error
