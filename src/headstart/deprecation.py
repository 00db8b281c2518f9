"""Old names and old keywords, which stay for one version and say what to use instead."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar

__all__ = ["gathered", "renamed"]

P = ParamSpec("P")
R = TypeVar("R")


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module some of whose names are called otherwise now, or are elsewhere.

    Arguments:
        module: the module's name.
        names: by the old name, the new place, as "package.module:name".
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, new = names[name].partition(":")
        found = new if place == module else f"{place}.{new}"
        warnings.warn(f"{module}.{name} is now {found}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(place), new)

    return find


def gathered(
    name: str, kind: type[Any], keywords: Iterable[str] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function that takes one value also take the keywords that the value was made of.

    Arguments:
        name: the keyword of the value.
        kind: its dataclass.
        keywords: which of its fields were keywords of the function; all by default.

    Raises:
        TypeError: by the function, if it is called with the value and with one of the old keywords.
    """
    old = tuple(field.name for field in fields(kind)) if keywords is None else tuple(keywords)

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        place = list(inspect.signature(function).parameters).index(name)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            given = {key: kwargs.pop(key) for key in old if key in kwargs}
            if not given:
                return function(*args, **kwargs)
            said = ", ".join(f"{key}=" for key in given)
            if kwargs.get(name) is not None or len(args) > place:
                raise TypeError(
                    f"{function.__qualname__}() got {name}= and {said}: hand them in as one {kind.__name__}"
                )
            new = f"{name}={kind.__name__}({', '.join(f'{key}=...' for key in given)})"
            warnings.warn(f"{said} of {function.__qualname__}() is now {new}", DeprecationWarning, stacklevel=2)
            kwargs[name] = kind(**{key: value for key, value in given.items() if value is not None})
            return function(*args, **kwargs)

        return called

    return decorated
