"""Where the public names of the library are defined, found in its source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headstart"

#: Its functions are commands, which have a page of their own.
COMMANDS = SOURCE / "cli"


def source(module: str) -> Path | None:
    """The file of a module, or None if there is none of that name."""
    inside = SOURCE.parent.joinpath(*module.split("."))
    return next((path for path in (inside / "__init__.py", inside.with_suffix(".py")) if path.is_file()), None)


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def units() -> Iterator[str]:
    """What has a page of the reference: the packages and the modules beside them, and those of a bare package."""
    for path in [SOURCE / "__init__.py", *sorted(SOURCE.glob("*/__init__.py")), *sorted(SOURCE.glob("[a-z]*.py"))]:
        inside = path.parent if path.name == "__init__.py" else path.with_suffix("")
        module = ".".join(("headstart", *inside.relative_to(SOURCE).parts))
        if inside == COMMANDS:
            continue
        if offered(module):
            yield module
        elif path.name == "__init__.py":
            yield from (f"{module}.{file.stem}" for file in sorted(inside.glob("[a-z]*.py")))


@cache
def rendered() -> frozenset[str]:
    """The full paths of all that the reference describes."""
    return frozenset(defined(unit, name) for unit in units() for name in offered(unit))


def link(path: str) -> str | None:
    """The anchor in the reference of a module, or of a thing by any of its paths; None if it has none."""
    pages = set(units())
    module = path
    while source(module) and module not in pages:
        module = module.rpartition(".")[0]
    full = resolved(path)
    parts = full.split(".")
    if any(".".join(parts[:i]) in rendered() for i in range(len(parts), len(parts) - 2, -1)):
        return full
    return module if source(path) and module in pages else None


def offered(module: str) -> list[str]:
    """The names in the ``__all__`` of a module."""
    for node in parsed(found(module)).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def about(module: str) -> str:
    """The first sentence or two of a module's docstring."""
    return (ast.get_docstring(parsed(found(module))) or "").partition("\n\n")[0].replace("\n", " ")


def found(module: str) -> Path:
    """The file of a module that is there."""
    path = source(module)
    if path is None:
        raise LookupError(f"there is no module {module}")
    return path


def defined(module: str, name: str) -> str:
    """The full path of the thing that a module offers under a name: where it is defined."""
    for node in parsed(found(module)).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headstart"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return defined(str(node.module), alias.name)
    return f"{module}.{name}"


def resolved(path: str) -> str:
    """The path of a thing where it is defined, from any path that it can be reached by."""
    parts = path.split(".")
    for i in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:i])
        if source(module) and (i == len(parts) - 1 or not source(".".join(parts[: i + 1]))):
            return ".".join((defined(module, parts[i]), *parts[i + 1 :]))
        if source(module) and parts[i] in offered(module):  # a function with the name of its module
            return ".".join((defined(module, parts[i]), *parts[i + 1 :]))
    return path
