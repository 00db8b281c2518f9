"""Shared parts of the commands: their common options, how they answer, and how they fail.

A command is a function of its options that returns an :class:`Answer`. :func:`command` enters it into :data:`COMMANDS`
and prints the answer: as text, or with ``--json`` as one JSON object. The names of registered parts in its help, such
as ``{starts}``, are filled in when the help is shown (:data:`NAMES`). Standard output holds the answer alone; progress,
warnings and errors go to standard error.

=================================  ==============================================================  =========
what went wrong                    standard error                                                  exit code
=================================  ==============================================================  =========
an error of the library            ``error:`` and its message, in one line                         its own
a file or disk, as the system sees ``error:`` and its message, in one line                         5
Ctrl-C                             ``interrupted``                                                 130
SIGTERM, or a terminal that closes ``terminated``                                                  143, 129
whoever reads the answer is gone                                                                   141
the command line itself            its usage                                                       2
anything else, a defect            a traceback                                                     1
=================================  ==============================================================  =========

With ``--json`` an error is also one object on standard output, ``{"error": message, "kind": class}``, but for usage.

Of several processes (:mod:`headstart.processes`) the first one answers for all, and an error is said once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, Protocol

import typer

from headstart.errors import ArtefactError, HeadstartError, HeadstartWarning, InputError
from headstart.processes import first_to_say, leads, local_device
from headstart.registry import Registry

__all__ = [
    "COMMANDS",
    "NAMES",
    "Answer",
    "BatchSize",
    "Command",
    "DataSpec",
    "Device",
    "Json",
    "ModelSpec",
    "Seed",
    "Terminated",
    "answers",
    "command",
    "parse_numbers",
    "prepare_process",
    "said_once",
    "usable",
    "whole_numbers",
]

P = ParamSpec("P")

#: No run asks for more numbers: a list of them would not fit into memory long before.
MOST_NUMBERS = 10_000_000

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="Where the networks run: cpu, cuda, cuda:1, mps.")]
BatchSize = Annotated[
    int, typer.Option(metavar="N", min=1, help="Samples at a time. It changes the memory, not the samples.")
]
Seed = Annotated[int, typer.Option(metavar="SEED", min=0, max=2**28 - 1, help="The same seed gives the same result.")]
ModelSpec = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="builtin:fashion-mnist, python:package.module:factory, or a file: {models}."),
]
DataSpec = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="builtin:fashion-mnist, a .npy, .npz, .pt, .safetensors, .tar, .parquet or .zip file, an array in Zarr, "
        "or a folder of images.",
    ),
]


@dataclass(frozen=True)
class Answer:
    """The result of a command.

    Attributes:
        text: for people.
        values: for programs; what JSON can hold, no NaN or Inf.
        exit_code: that the command ends with.
    """

    text: str
    values: Mapping[str, Any]
    exit_code: int = 0


class Command(Protocol):
    """A command: a function of its options, which prints its answer. Its docstring is its help.

    Attributes:
        name: what it is called by.
        examples: lines to type, shown below its help.
    """

    name: str
    examples: tuple[str, ...]

    def __call__(self, *args: Any, **kwargs: Any) -> None: ...


COMMANDS: Registry[Command] = Registry(
    "command",
    "headstart.cli",
    "headstart.commands",
    first=(
        "demo",
        "check",
        "fit",
        "sample",
        "evaluate",
        "inspect",
        "export",
        "convert",
        "compare",
        "reproduce",
        "serve",
    ),
)
"""The commands by name."""


def command(*examples: str) -> Callable[[Callable[P, Answer]], Callable[P, None]]:
    """Register a function as the command of its name, which prints its answer or its error.

    Arguments:
        examples: lines to type, shown below its help.
    """

    def registered(function: Callable[P, Answer]) -> Callable[P, None]:
        run = answers(function)
        run.__dict__.update(name=function.__name__, examples=examples)
        return COMMANDS.register(run)

    return registered


def _starts() -> Iterable[str]:
    from headstart.choose.starts import known_starts

    return known_starts()


def _usual_starts() -> Iterable[str]:
    from headstart.choose.starts import usual_starts

    return usual_starts()


def _trained_starts() -> Iterable[str]:
    from headstart.initialization import INITIALIZATIONS

    return (name for name, family in INITIALIZATIONS.items() if family.trained)


def _rules() -> Iterable[str]:
    from headstart.schedule import rule_names

    return rule_names()


def _solvers() -> Iterable[str]:
    from headstart.solver import solver_names

    return solver_names()


def _metrics() -> Iterable[str]:
    from headstart.metrics import METRICS

    return (name for name, metric in METRICS.items() if not metric.always)


def _usual_metrics() -> Iterable[str]:
    from headstart.metrics import always

    return always()


def _models() -> Iterable[str]:
    from headstart.models.load import LOADERS

    return (loader.form for loader in LOADERS.values())


def _exports() -> Iterable[str]:
    from headstart.integrations.export import EXPORTERS

    return EXPORTERS


def _methods() -> Iterable[str]:
    from headstart.compare import METHODS

    return METHODS


#: The names of parts by what stands for them in the help of an option. Parts are slow to import.
NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    "starts": _starts,
    "usual_starts": _usual_starts,
    "trained_starts": _trained_starts,
    "rules": _rules,
    "solvers": _solvers,
    "metrics": _metrics,
    "usual_metrics": _usual_metrics,
    "exports": _exports,
    "models": _models,
    "methods": _methods,
}


def answers(command: Callable[P, Answer]) -> Callable[P, None]:
    """A command that prints its answer or its error: the table at the top of this module."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            with _heard(), contextlib.redirect_stdout(sys.stderr):  # what a user's model prints is not the answer
                answer = command(*args, **kwargs)
                text = json.dumps(answer.values, allow_nan=False) if as_json else answer.text
            try:
                if leads():
                    _print(text)
            except BrokenPipeError as error:
                raise typer.Exit(141) from error
        except Terminated as error:
            raise _exit(error, error.said, error.code, as_json) from error
        except KeyboardInterrupt as error:
            raise _exit(error, "interrupted", 130, as_json) from error
        except HeadstartError as error:
            raise _exit(error, f"error: {error}", error.exit_code, as_json) from error
        except OSError as error:
            where = "" if error.filename is None else f"{error.filename}: "
            raise _exit(error, f"error: {where}{error.strerror or error}", ArtefactError.exit_code, as_json) from error
        except Exception as error:
            if as_json:
                _print_error(error, str(error))
            raise
        if answer.exit_code:
            raise typer.Exit(answer.exit_code)

    return run


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Of several processes that were called alike, let the first one alone say what is wrong with the command line."""
    if leads():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def _heard() -> contextlib.AbstractContextManager[object]:
    """Let every process say what goes wrong once its command has begun."""
    return contextlib.nullcontext() if leads() else contextlib.redirect_stderr(sys.__stderr__)


class Terminated(BaseException):
    """The user or the system asks the process to end, by a signal.

    It is no KeyboardInterrupt, which the parser of the command line would end as a fault of its own.

    Attributes:
        code: the exit code, 128 and the number of the signal.
        said: in a word.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number
        self.said = "interrupted" if number == signal.SIGINT else "terminated"


def prepare_process() -> None:
    """Make the process end cleanly when it is asked to, and its streams say what they can.

    SIGINT, SIGTERM and SIGHUP raise :class:`Terminated`, so that what is half-written is removed; one that is ignored,
    as by nohup, stays so. Characters that a stream cannot say are replaced. A stream that is closed becomes one that
    swallows all, so that nothing else that is opened takes its place.
    """

    def terminate(number: int, _: object) -> None:
        raise Terminated(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, terminate)
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - until the end
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")
    warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)


def _show_warning(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **more: Any
) -> None:
    """A warning of headstart in one line, and others as Python shows them; of several processes, the first one's."""
    if not leads():
        return
    if issubclass(category, HeadstartWarning):
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
    else:
        otherwise(message, category, *place, **more)


def _exit(error: BaseException, line: str, code: int, as_json: bool) -> typer.Exit:
    """Print the error in one line, unless another process does, and end with the exit code ``code``."""
    if getattr(error, "elsewhere", False) or not first_to_say():
        return typer.Exit(code)
    line = " ".join(line.split())
    if as_json:
        _print_error(error, line.removeprefix("error: "))
    with contextlib.suppress(OSError), _heard():
        print(line, file=sys.stderr)
    return typer.Exit(code)


def _print_error(error: BaseException, message: str) -> None:
    with contextlib.suppress(OSError):
        _print(json.dumps({"error": message, "kind": type(error).__name__}))


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # a closed pipe or a full disk; what is buffered would fail again when Python ends
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def usable(device: str) -> str:
    """The device, if tensors can be put on it and fetched from it; of several processes, that of this one.

    Raises:
        InputError: if not.
    """
    from headstart.compute import check_device

    device = local_device(device)
    check_device(device)
    return device


def whole_numbers(text: str, option: str, example: str, least: int | None = None) -> tuple[int, ...]:
    """Whole numbers, separated by commas.

    Arguments:
        text: the numbers.
        option: that they were given to.
        example: what would be right.
        least: that each of them must be, if there is a limit.

    Raises:
        InputError: if a part is no whole number, or below the limit.

    >>> whole_numbers("3,4,6", "--nfe", "3,4,6")
    (3, 4, 6)
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not a list of whole numbers such as {example}") from error
    if least is not None and min(numbers) < least:
        raise InputError(f"{option} {text!r} must hold numbers of at least {least}")
    return numbers


def parse_numbers(text: str, what: str = "seed") -> list[int]:
    """Whole numbers from ranges and single ones, separated by commas; a range includes both its ends.

    Arguments:
        text: the numbers.
        what: what one of them is called in messages.

    Raises:
        InputError: if a part is neither, a range is empty, a number comes twice, or there are more than ten million.

    >>> parse_numbers("0-3,10")
    [0, 1, 2, 3, 10]
    """
    ranges = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise InputError(f"{text!r} names no {what}s: expected A-B (both included), A,B,C or both, as in 0-99,200")
        ranges.append(range(int(first), int(last or first) + 1))
        if not ranges[-1]:
            raise InputError(f"the {what}s {part.strip()} run backwards: expected {last}-{first}")
    if sum(r.stop - r.start for r in ranges) > MOST_NUMBERS:
        raise InputError(f"{text!r} names more than {MOST_NUMBERS:,} {what}s: draw them in several runs")
    numbers = [number for r in ranges for number in r]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{text!r} names a {what} twice: give each once")
    return numbers


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20
