"""The command line: one command a file, each a thin layer over the library.

Importing it is quick: the commands import what they need when they run, so that ``headstart --help`` answers at once.
It needs typer and rich, ``pip install 'headstart[cli]'``, and says so where they are missing.
"""

from __future__ import annotations

import sys
from typing import Any

from headstart.errors import HeadstartError, MissingExtraError
from headstart.extras import require
from headstart.processes import together

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
    from headstart.cli.common import Terminated, prepare_process, said_once

    prepare_process()
    try:
        with together(), said_once():
            try:
                app()
            except SystemExit as ended:
                if ended.code:
                    raise
    except HeadstartError as error:  # the processes did not meet, or one has left
        if not error.elsewhere:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Terminated as error:  # before a command began, or after it ended
        sys.exit(error.code)
