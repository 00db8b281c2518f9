"""The command line: one command a file, each a thin layer over the library.

Importing it is quick: the commands import what they need when they run, so that ``headstart --help`` answers at once.
It needs typer and rich, ``pip install 'headstart[cli]'``, and says so where they are missing.
"""

from __future__ import annotations

import sys
from typing import Any

from headstart.errors import MissingExtraError
from headstart.extras import require

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from headstart.cli.application import app

    return app


def main() -> None:
    """The console entry point."""
    try:
        for library in ("typer", "rich"):
            require(library, "cli", "the command line")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    from headstart.cli.application import app
    from headstart.cli.common import Terminated, prepare_process

    prepare_process()
    try:
        app()
    except Terminated as error:  # before a command began, or after it ended
        sys.exit(error.code)
