"""A table of parts by name, to which every part adds itself.

A solver, a start, a rule of schedules, a metric or a command is registered where it is defined, and nowhere else:

>>> SHAPES: Registry[type] = Registry("shape")
>>> @SHAPES.register
... class Square:
...     \"\"\"Four equal sides.\"\"\"
...     name = "square"
>>> SHAPES
Registry(shape: square)
>>> SHAPES.find("circle")
Traceback (most recent call last):
headstart.errors.InputError: unknown shape 'circle': expected one of square

Parts are found when they are first asked for, and not when headstart is imported: a registry then imports the modules
of its own package, and what other distributions declare as entry points of its group. In such a distribution's
``pyproject.toml``,

.. code-block:: toml

    [project.entry-points."headstart.solvers"]
    midpoint = "my_package.midpoint:Midpoint"
"""

from __future__ import annotations

import inspect
import pkgutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Generic, TypeVar

from headstart.errors import InputError, unknown

__all__ = ["Registry", "describe"]

T = TypeVar("T")
P = TypeVar("P")


class Registry(Mapping[str, T], Generic[T]):
    """Parts of one kind by their names, in the same order whatever was imported first.

    Arguments:
        kind: what one of them is called in messages, such as "solver".
        package: the package whose modules hold headstart's own parts.
        group: the entry points by which other distributions add theirs, such as "headstart.solvers".
        first: names that are listed before the others; these follow in alphabetical order.
    """

    def __init__(
        self, kind: str, package: str | None = None, group: str | None = None, first: Sequence[str] = ()
    ) -> None:
        self.kind = kind
        self.package = package
        self.group = group
        self.first = tuple(first)
        self._parts: dict[str, T] = {}
        self._complete = False

    def register(self, part: P) -> P:
        """Add a part by its ``name`` and return it: a decorator.

        Raises:
            InputError: if it has no name, or another part has the same one.
        """
        name = getattr(part, "name", None)
        if not isinstance(name, str) or not name:
            raise InputError(f"{_place(part)} has no name: a {self.kind} says it as `name`")
        known = self._parts.get(name)
        if known is not None and _place(known) != _place(part):
            raise InputError(f"there are two of the {self.kind} {name!r}: {_place(known)} and {_place(part)}")
        self._parts[name] = part  # type: ignore[assignment]
        return part

    def find(self, name: str) -> T:
        """The part of that name.

        Raises:
            InputError: if there is none.
        """
        if name not in self:
            raise InputError(unknown(self.kind, name, self))
        return self[name]

    def discover(self) -> None:
        """Import every module that may hold a part, also those of distributions that were installed meanwhile."""
        if self.package is not None:
            package = import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    import_module(f"{self.package}.{module.name}")
        for entry in sorted(entry_points(group=self.group) if self.group else ()):
            self._load(entry)
        self._complete = True

    def _load(self, entry: EntryPoint) -> None:
        """Register another distribution's part; one that cannot be loaded is reported and left out."""
        try:
            part = entry.load()
            if not isinstance(part, ModuleType):
                self.register(part)
        except Exception as error:
            warnings.warn(f"the {self.kind} {entry.name!r} ({entry.value}) was left out: {error}", stacklevel=2)

    def __getitem__(self, name: str) -> T:
        if name not in self._parts and not self._complete:
            self.discover()
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        if not self._complete:
            self.discover()
        listed = [name for name in self.first if name in self._parts]
        return iter([*listed, *sorted(self._parts.keys() - set(listed))])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self)})"


def describe(part: object) -> str:
    """The first line of a part's docstring: what it is, in one sentence."""
    return (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")


def _place(part: object) -> str:
    """Where a part is defined; the same for a class that was imported again."""
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}.{named.__qualname__}"
