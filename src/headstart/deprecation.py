"""Old names and old keywords, which stay for one version and say what to use instead."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar

__all__ = ["gathered", "keywords", "renamed"]

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


def gathered(**values: type[Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function that takes some values also take the keywords that these values were made of.

    A keyword that two of the values have goes into both; one that the function has itself stays its own.

    Arguments:
        values: by the keyword of a value, its dataclass.

    Raises:
        TypeError: by the function, if it is called with a value and with one of its old keywords.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        order = list(inspect.signature(function).parameters)
        old = {name: {field.name for field in fields(kind)} - set(order) for name, kind in values.items()}

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            found = {name: {key: kwargs[key] for key in kwargs if key in old[name]} for name in values}
            for name, given in found.items():
                if given:
                    taken = kwargs.get(name) is not None or len(args) > order.index(name)
                    kwargs[name] = _made(values[name], name, given, function.__qualname__, taken)
            for key in {key for given in found.values() for key in given}:
                del kwargs[key]
            return function(*args, **kwargs)

        return called

    return decorated


def keywords(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take keywords by old names too.

    Arguments:
        names: by the old name of a keyword, the new one.

    Raises:
        TypeError: by the function, if it is called with both names of a keyword.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in names.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise TypeError(f"{function.__qualname__}() got {old}= and {new}=, which are one keyword")
                warnings.warn(f"{old}= of {function.__qualname__}() is now {new}=", DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return called

    return decorated


def _made(kind: type[Any], name: str, given: Mapping[str, Any], function: str, taken: bool) -> Any:
    """The value of the old keywords that a function was called with, and a warning that they are old."""
    said = ", ".join(f"{key}=" for key in given)
    if taken:
        raise TypeError(f"{function}() got {name}= and {said}: hand them in as one {kind.__name__}")
    new = f"{name}={kind.__name__}({', '.join(f'{key}=...' for key in given)})"
    warnings.warn(f"{said} of {function}() is now {new}", DeprecationWarning, stacklevel=3)
    return kind(**{key: value for key, value in given.items() if value is not None})
