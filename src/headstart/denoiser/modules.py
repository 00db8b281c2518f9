"""Modules inside a denoiser, and their evaluation mode, in which it is used: with dropout on, it is no function of x.

A denoiser is any Python callable, so that its modules are looked for where callables keep what they call: attributes,
bound objects, arguments of :func:`functools.partial`, defaults, closures, and the globals that a function names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from types import FunctionType, MethodType, ModuleType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

__all__ = ["device_of", "evaluation_mode", "in_evaluation_mode", "parts_of"]

P = ParamSpec("P")
R = TypeVar("R")


def parts_of(denoiser: Any) -> Iterator[Any]:
    """A denoiser and the callables that it holds, each once; a module's own are not looked into."""
    seen, left = set[int](), [denoiser]
    while left:
        part = left.pop()
        if id(part) in seen or not callable(part) or isinstance(part, type):
            continue
        seen.add(id(part))
        yield part
        left += _held(part)


def device_of(denoiser: Any, otherwise: torch.device) -> torch.device:
    """Where the first module inside a denoiser that has parameters keeps them, or another device if none has any."""
    modules = (part for part in parts_of(denoiser) if isinstance(part, nn.Module))
    return next((weight.device for module in modules for weight in module.parameters()), otherwise)


def _held(part: Any) -> list[Any]:
    """The objects that a callable holds."""
    if isinstance(part, nn.Module):
        return []
    if isinstance(part, partial):
        return [part.func, *part.args, *part.keywords.values()]
    if isinstance(part, MethodType):
        return [part.__self__, part.__func__]
    if not isinstance(part, FunctionType):
        call = vars(type(part)).get("__call__")
        return [*getattr(part, "__dict__", {}).values(), *([call] if isinstance(call, FunctionType) else [])]
    named = [part.__globals__.get(name) for name in part.__code__.co_names]
    # Functions of other files are libraries, which are not searched.
    own = [value for value in named if not isinstance(value, FunctionType) or value.__globals__ is part.__globals__]
    cells = [cell.cell_contents for cell in part.__closure__ or () if _filled(cell)]
    return [*own, *cells, *(part.__defaults__ or ()), *(part.__kwdefaults__ or {}).values()]


def _filled(cell: Any) -> bool:
    try:
        return not isinstance(cell.cell_contents, ModuleType)
    except ValueError:  # a name that was not bound yet
        return False


@contextmanager
def evaluation_mode(denoiser: Any) -> Iterator[None]:
    """The modules inside a denoiser are in evaluation mode within the block, and as they were after it."""
    roots = [part for part in parts_of(denoiser) if isinstance(part, nn.Module)]
    roots = [root for root in roots if _trains(root)]
    before = [(module, module.training) for root in roots for module in root.modules()]
    try:
        for root in roots:
            root.eval()
        yield
    finally:
        for module, training in before:
            if module in roots:
                module.train(training)  # a method of the user's, which may do more
        for module, training in before:  # some may have been in evaluation mode on purpose
            module.training = training


def _trains(root: nn.Module) -> bool:
    """Whether a module or one inside it is in training mode: in a third of the time that ``modules()`` takes, since
    every call of a sampler asks.
    """
    seen, left = set[int](), [root]
    while left:
        module = left.pop()
        if module.training:
            return True
        if id(module) not in seen:
            seen.add(id(module))
            left += filter(None, module._modules.values())
    return False


def in_evaluation_mode(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with the modules inside its argument ``denoiser`` in evaluation mode while it runs."""
    place = [*inspect.signature(function).parameters].index("denoiser")

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with evaluation_mode(args[place] if place < len(args) else kwargs.get("denoiser")):
            return function(*args, **kwargs)

    return run
