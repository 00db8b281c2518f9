"""A pre-trained denoiser by name, or from any Python code that can build one.

``builtin:fashion-mnist`` is the bundled network. ``python:package.module:factory`` imports the module, also from the
current directory, and calls the factory, which takes no arguments and returns a denoiser: the contract of
:mod:`headstart.denoiser`. The other kinds are read from files, by whatever registers a :class:`Loader`:
``diffusers:FOLDER`` and the like.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.denoiser import Adapted, Counted, Denoiser, Guided
from headstart.errors import DenoiserError, InputError, unknown
from headstart.latents import Latents, Space
from headstart.models import bundled
from headstart.registry import Registry

__all__ = ["LOADERS", "Loader", "build", "load_denoiser", "load_latents", "place", "split_path"]

#: Files of the current folder at most that a mistyped module is compared with.
MOST_FILES = 1000


@dataclass(frozen=True)
class Loader:
    """How denoisers of one kind are loaded.

    Attributes:
        name: of the kind: what stands before the colon.
        load: takes what stands after it, and a device, and returns a denoiser or raises a HeadstartError.
        form: a spec, for messages.
    """

    name: str
    load: Callable[[str, torch.device | str], Denoiser]
    form: str


LOADERS: Registry[Loader] = Registry("kind of model", "headstart.integrations", "headstart.loaders")
"""What loads denoisers from files, by the kind of the file. They are found when they are first asked for."""


def load_denoiser(spec: str, device: torch.device | str = "cpu") -> Denoiser:
    """The denoiser that ``spec`` names.

    Arguments:
        spec: ``builtin:fashion-mnist``, ``python:package.module:factory``, or one of ``LOADERS``.
        device: where the network is put, also one inside of an adapter, guidance or a counter. A factory that returns
            a function has to place the network itself.

    Returns:
        The denoiser; a module is in evaluation mode.

    Raises:
        DenoiserError: if the spec is malformed, or whatever it names cannot be imported, built or put on the device.
    """
    kind, _, name = spec.partition(":")
    if kind == "builtin":
        if name != "fashion-mnist":
            raise DenoiserError(unknown("bundled denoiser", name, ["fashion-mnist"]))
        return bundled.denoiser(device)
    if kind in LOADERS and name:
        return LOADERS[kind].load(name, device)
    if kind != "python" or (path := split_path(name)) is None:
        forms = ", ".join(loader.form for loader in LOADERS.values())
        raise DenoiserError(
            f"{spec!r} names no denoiser{_meant(spec)}: expected builtin:NAME, python:package.module:factory, or "
            f"one of {forms}"
        )
    denoiser: Denoiser = place(build(*path, "a denoiser"), spec, device, "a denoiser, callable as (x, sigma)")
    return denoiser


def load_latents(space: Space | str, device: torch.device | str = "cpu") -> Latents:
    """The encoder and the decoder that a plan's latents name: this imports and runs the code.

    Arguments:
        space: a plan's ``record.latents``, or ``python:package.module:factory`` alone. The factory takes no arguments
            and returns an encoder and a decoder.
        device: where modules are put.

    Raises:
        DenoiserError: if whatever it names cannot be imported, built or put on the device.
        InputError: if it names nothing that could be built.
    """
    space = Space(space) if isinstance(space, str) else space
    kind, _, name = space.spec.partition(":")
    if kind != "python" or (path := split_path(name)) is None:
        raise InputError(f"{space.spec!r} names no code: expected python:package.module:factory")
    pair = build(*path, "an encoder and a decoder")
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise DenoiserError(f"{space.spec} returned a {type(pair).__name__}: expected a tuple of encoder and decoder")
    encoder, decoder = (place(part, space.spec, device, "an encoder and a decoder") for part in pair)
    return Latents(encoder, decoder, space.scale, space.shift, space.spec)


def split_path(name: str) -> tuple[str, str] | None:
    """The module and the factory of ``package.module:factory``; None if it is none."""
    module, _, factory = name.partition(":")
    return (module, factory) if all(module.split(".")) and factory.isidentifier() else None


def build(module: str, factory: str, what: str) -> Any:
    """Import the module and call its factory, while modules in the current directory can be imported.

    Raises:
        DenoiserError: if either fails, or there is no such factory.
    """
    with _importable(Path.cwd()):
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise DenoiserError(f"cannot import {module}: {_told(error)}{_missing(module, error)}") from error
        except (Exception, SystemExit) as error:  # importing runs the module's code, which may raise anything
            raise DenoiserError(f"cannot import {module}: {_told(error)}") from error
        build = getattr(found, factory, None)
        if not callable(build):
            near = get_close_matches(factory, [name for name in dir(found) if callable(getattr(found, name))], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise DenoiserError(f"{module} has no function {factory!r} that returns {what}{hint}")
        try:
            return build()
        except (Exception, SystemExit) as error:
            raise DenoiserError(f"{module}:{factory}() failed: {_told(error)}") from error


def place(found: Any, spec: str, device: torch.device | str, what: str) -> Any:
    """The denoiser that a factory returned, its module (also inside an adapter) on the device and in evaluation mode.

    Raises:
        DenoiserError: if it is not callable, or cannot be put there.
    """
    if not callable(found):
        raise DenoiserError(f"{spec} returned a {type(found).__name__}: expected {what}")
    network = found
    while isinstance(network, Adapted | Counted | Guided):
        network = network.network if isinstance(network, Adapted) else network.denoiser
    if isinstance(network, nn.Module):
        try:
            network.to(device).eval()
        except (RuntimeError, AssertionError) as error:  # PyTorch asserts that it was built for the device
            raise DenoiserError(f"cannot put {spec} on {device}: {error}") from error
    return found


def _meant(spec: str) -> str:
    """The form ``python:module:factory`` of a file in the current folder that a spec is likely to stand for."""
    module, _, factory = spec.removeprefix("python:").partition(":")
    module = module.removesuffix(".py").replace("/", ".")
    if not factory and not _is_here(module):
        module, _, factory = module.rpartition(".")
    if not module or not _is_here(module) or (factory and not factory.isidentifier()):
        return ""
    return f" (did you mean python:{module}:{factory or 'FUNCTION, by the name of the function that returns it'}?)"


def _missing(module: str, error: ModuleNotFoundError) -> str:
    """Where a module was looked for that does not exist, and what it may stand for; nothing of what it imports."""
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
        return ""
    if module.endswith(".py") and _is_here(module.removesuffix(".py")):
        return f"; a module is named without .py: {module.removesuffix('.py')}"
    near = get_close_matches(module, [path.stem for path in islice(Path.cwd().glob("*.py"), MOST_FILES)], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"; modules of the current folder and installed ones are found{hint}"


def _is_here(module: str) -> bool:
    """Whether a module is a file in the current folder; a name that no file can have is none."""
    return os.path.isfile(module.replace(".", "/") + ".py")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # the code that ran may have removed it
            sys.path.remove(entry)
