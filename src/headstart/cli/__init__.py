"""The command line: one command a file, each a thin layer over the library.

Importing it is quick: the commands import what they need when they run, so that ``headstart --help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.cli import compare, demo, evaluate, fit, inspect, reproduce, sample

__all__ = ["app", "main"]

app = typer.Typer(
    name="headstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _epilog(*examples: str) -> str:
    return "\n\n".join(("Examples:", *examples))


for name, command, examples in (
    ("demo", demo.demo, demo.EXAMPLES),
    ("fit", fit.fit, fit.EXAMPLES),
    ("sample", sample.sample, sample.EXAMPLES),
    ("evaluate", evaluate.evaluate, evaluate.EXAMPLES),
    ("inspect", inspect.inspect, inspect.EXAMPLES),
    ("compare", compare.compare, compare.EXAMPLES),
    ("reproduce", reproduce.reproduce, reproduce.EXAMPLES),
):
    app.command(name, epilog=_epilog(*examples))(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"headstart {version('headstart')}")
        raise typer.Exit


@app.callback(epilog=_epilog(demo.EXAMPLES[0], fit.EXAMPLES[0], sample.EXAMPLES[0], evaluate.EXAMPLES[0]))
def headstart(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Sample any pre-trained score or diffusion model in a handful of network evaluations."""


def main() -> None:
    """The console entry point."""
    app()
