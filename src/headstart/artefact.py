"""Tensors and plain values on disk, in one file that cannot execute: a safetensors file with the values in its header.

A file says what it holds and in which version of that form, and carries the SHA-256 of all of it, so that damage is
seen. It is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headstart.errors import ArtefactError
from headstart.files import atomic_write, check_regular, read_regular

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = ["checked", "fault", "parse_json", "read_json", "read_tensors", "write_tensors"]

#: The entry of a file's header that is ours.
KEY = "headstart"

#: Most characters of a whole number: those of 2^64, and a sign.
DIGITS = 21

Schema = TypeVar("Schema", bound="BaseModel")


def parse_json(text: str) -> Any:
    """The values of a JSON text, every number of which is finite; Python's reader would let NaN and Infinity pass.

    Raises:
        ValueError: if it is not JSON, is nested too deeply, or holds a number that is not finite or, a whole one, has
            more than 21 characters.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path) -> Any:
    """The values of a JSON file, as :func:`parse_json` has them.

    Raises:
        ArtefactError: if it cannot be read, or is not JSON.
    """
    try:
        return parse_json(read_regular(path).decode())
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ArtefactError(f"{path} is damaged: it is not JSON ({error})") from error


def _whole(number: str) -> int:
    if len(number) > DIGITS:
        raise ValueError(f"{number[:DIGITS]}... has more than {DIGITS} characters")
    return int(number)


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} is not a finite number")
    return float(number)


def checked(schema: type[Schema], values: Any, source: Path) -> Schema:
    """The values of a file as its schema has them.

    Raises:
        ArtefactError: if they do not fit, with the first one that does not.
    """
    from pydantic import ValidationError

    try:
        return schema.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ArtefactError(f"{source} is damaged: {fault(error)}") from error


def fault(error: ValidationError) -> str:
    """The place of the first value that does not fit a schema, and the reason."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'it'}: {first['msg']}"


def write_tensors(
    path: Path, form: str, version: int, values: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write plain values and tensors into one file, whole or not at all.

    Arguments:
        path: the file; its folder is made if it is missing.
        form: the form of what the file holds, such as "headstart-profile".
        version: of the form.
        values: plain values for JSON, without NaN and Inf.
        tensors: by their names.

    Raises:
        ArtefactError: if the file cannot be written; nothing is left behind then.
    """
    text = json.dumps(values, allow_nan=False)
    header = json.dumps({"format": form, "version": version, "values": text, "sha256": _digest(text, tensors)})
    rows = {name: tensor.contiguous() for name, tensor in tensors.items()}
    blob = safetensors.torch.save(rows, metadata={KEY: header})  # one entry: the order of several is not fixed
    atomic_write(blob, path)


def read_tensors(path: Path, form: str, newest: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The plain values and the tensors that :func:`write_tensors` wrote.

    Raises:
        ArtefactError: if the file is missing, damaged, of another form, or newer than the newest version that is known.
    """
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY, "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ArtefactError(f"{path} is damaged: {error}") from error
    try:
        header = dict(parse_json(text))
        if header.get("format") != form:
            raise ArtefactError(f"{path} does not say that it is a {form}")
        version, text = int(header["version"]), str(header["values"])
        if version > newest:
            raise ArtefactError(f"{path} has version {version}, and this headstart reads up to {newest}: upgrade it")
        if _digest(text, tensors) != header["sha256"]:
            raise ArtefactError(f"{path} is damaged: its checksum does not fit")
        return dict(parse_json(text)), tensors
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path} is damaged: {error}") from error


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of values and tensors."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
