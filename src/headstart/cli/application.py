"""The application of all commands, as typer runs it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from headstart.cli.common import COMMANDS, NAMES

__all__ = ["app"]

app = typer.Typer(
    name="headstart",
    invoke_without_command=True,
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


#: The first steps, with what stands for a model and data of yours.
FIRST = (
    ("headstart demo --quick", "see it work on the bundled network, in a minute"),
    ("headstart check MODEL DATA", "is your network a denoiser of your data?"),
    ("headstart fit MODEL DATA --nfe 4 -o plan", "choose where to start, which levels to visit, and how"),
    ("headstart sample plan MODEL -n 16 -o samples", "four evaluations of the network a sample"),
    ("headstart evaluate samples DATA", "how good they are, beside what real samples score"),
)


def _first_steps() -> str:
    """The first steps, for who types the name alone."""
    wide = max(len(line) for line, _ in FIRST)
    return "\n".join(
        (
            "headstart makes any pre-trained score or diffusion model sample in a handful of network evaluations.",
            "",
            *(f"  {line:{wide}}   {what}" for line, what in FIRST),
            "",
            "MODEL is builtin:fashion-mnist, python:package.module:factory or a file; DATA is builtin:fashion-mnist,",
            "an array in a file, or a folder of images. headstart --help lists all commands, and",
            "headstart COMMAND --help the options of one, with examples.",
        )
    )


@app.callback(epilog=_epilog(*(command.examples[0] for command in list(COMMANDS.values())[:4])))
def headstart(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Sample any pre-trained score or diffusion model in a handful of network evaluations."""
    if context.invoked_subcommand is None:
        print(_first_steps())
