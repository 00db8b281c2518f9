"""The application of all commands, as typer runs it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from headstart.cli.common import COMMANDS, NAMES

__all__ = ["app"]

app = typer.Typer(
    name="headstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Command(TyperCommand):
    """A command whose help names the registered parts, once it is shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for parameter in self.params:
            said = getattr(parameter, "help", None) or ""
            for name in NAMES:
                if f"{{{name}}}" in said:
                    said = said.replace(f"{{{name}}}", ", ".join(NAMES[name]()))
                    parameter.help = said  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def _epilog(*examples: str) -> str:
    return "\n\n".join(("Examples:", *examples))


for _name, _command in COMMANDS.items():
    app.command(_name, cls=_Command, epilog=_epilog(*_command.examples))(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"headstart {version('headstart')}")
        raise typer.Exit


@app.callback(epilog=_epilog(*(command.examples[0] for command in list(COMMANDS.values())[:4])))
def headstart(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Sample any pre-trained score or diffusion model in a handful of network evaluations."""
