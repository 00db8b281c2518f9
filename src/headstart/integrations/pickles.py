r"""Pickled networks read without executing anything.

A pickle is a program for a small machine, which imports by name and calls what it imported. Here the names are looked
up in a closed table and never imported: tensors and plain containers are made, and of anything else that is known, such
as a module of PyTorch or a class that carries its own source, only its class name, its arguments and its state are
written down (:class:`Recorded`). Any other name, such as ``os.system`` or a class whose import runs code, is an
error before anything has happened.

No claim is believed that the file does not back by bytes: pickles are read by Python's own machine in Python, which
reserves nothing ahead, storages have to be there in full, and a tensor has no more entries than its storage.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.errors import DenoiserError
from headstart.files import read_regular

__all__ = ["NetworkRecord", "Recorded", "network_record", "read_pickle"]

#: The first numbers of what PyTorch saves a storage as.
MAGIC, PROTOCOL = int("1950a86a20f9469cfc6c", 16), 1001

#: Types of a storage's entries, by the name of its class.
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}

#: Classes of which instances are written down.
RECORDED = re.compile(r"torch\.nn\.(modules\.\w+|parameter)\.\w+|numpy\.(dtype|ndarray)|torch\.(Size|device)")

#: The most modules that a network may have: more than any has.
MOST_MODULES = 100_000


@dataclass(eq=False)
class Recorded:
    """An object that was not made.

    Attributes:
        kind: the name of its class or of the function that makes it.
        arguments: of the call.
        state: its attributes, if they are known.
    """

    kind: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True, eq=False)
class NetworkRecord:
    """A network as it was pickled.

    Attributes:
        kind: the name of its class.
        arguments: the keyword arguments that it was made with, as far as they are plain values.
        tensors: its parameters and buffers by their names.
    """

    kind: str
    arguments: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)


def read_pickle(path: str | Path) -> Any:
    """The object that a file holds: containers, numbers, text and tensors, and for anything else a :class:`Recorded`.

    Raises:
        DenoiserError: if the file cannot be read, is damaged, claims more than it holds, or names anything that is not
            known here. Nothing of it was executed.
    """
    try:
        return _Reader(io.BytesIO(read_regular(Path(path)))).load()
    except DenoiserError as error:
        raise DenoiserError(f"{path}: {error}") from error
    except OSError as error:
        raise DenoiserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # bytes that are no pickle fail in many ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DenoiserError(f"{path} is no pickle, or a damaged one ({reason})") from error


class _Reader(pickle._Unpickler):
    """Python's machine for pickles, without imports. The one in C reserves what a file merely claims."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._known = _table()
        self._claims: list[tuple[str, torch.dtype, int]] = []

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name, never the thing itself."""
        full = f"{module}.{name}"
        if full in self._known:
            return self._known[full]
        if RECORDED.fullmatch(full):
            return self._known.setdefault(full, _class_of(full))
        if module in ("torch", "torch.storage") and name in STORAGES:
            return name
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise DenoiserError(f"it names {full}, which is not opened: nothing was executed")

    def persistent_load(self, pid: Any) -> Any:
        """The claim of a storage: its key, its type and how many entries it has."""
        match pid:
            case ("storage", str(kind), str(key), str(), int(count), None) if kind in STORAGES:
                self._claims.append((key, STORAGES[kind], count))
                return self._claims[-1]
        raise DenoiserError(f"it refers to {str(pid)[:80]}, which is not opened")


def _table() -> dict[str, Any]:
    """Names and what is made instead, anew for every file, since a pickle may change what it gets hold of."""

    class Container(dict[Any, Any]):
        def __setstate__(self, state: Any) -> None:
            self.update(state)

    table: dict[str, Any] = {
        "collections.OrderedDict": OrderedDict,
        "dnnlib.util.EasyDict": Container,
        "torch.storage._load_from_bytes": lambda content: _storage(content),
        "torch._utils._rebuild_tensor_v2": lambda *args: _tensor(*args),
        "torch._utils._rebuild_tensor": lambda *args: _tensor(*args),
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch_utils.persistence._reconstruct_persistent_obj": lambda meta: _persistent(meta),
    }
    for part in ("core", "_core"):
        table[f"numpy.{part}.multiarray.scalar"] = lambda *args: _scalar(*args)
        table[f"numpy.{part}.multiarray._reconstruct"] = lambda *args: Recorded("numpy.ndarray", args)
    return table


def _class_of(full: str) -> type:
    """A class whose instances write down how they were made."""

    class Made(Recorded):
        def __init__(self, *args: Any) -> None:
            super().__init__(full, args)

        def __new__(cls, *args: Any) -> Made:
            made = super().__new__(cls)
            Made.__init__(made, *args)
            return made

        def __setstate__(self, state: Any) -> None:
            self.state = state

    return Made


def _storage(content: bytes) -> Tensor:
    """The entries of a storage as PyTorch's older form has them: four pickles, a list of keys, and the bytes."""
    file = io.BytesIO(content)
    if (_Reader(file).load(), _Reader(file).load()) != (MAGIC, PROTOCOL):
        raise DenoiserError("it holds a storage in a form that is not known")
    _Reader(file).load()
    reader = _Reader(file)
    reader.load()
    _Reader(file).load()
    if len(reader._claims) != 1:
        raise DenoiserError(f"it holds {len(reader._claims)} storages in the place of one")
    _, dtype, count = reader._claims[0]
    rest = content[file.tell() :]
    if len(rest) != 8 + count * dtype.itemsize or int.from_bytes(rest[:8], "little") != count:
        raise DenoiserError(f"it claims a storage of {count} numbers of {dtype} and holds {len(rest) - 8} bytes")
    return torch.frombuffer(bytearray(rest[8:]), dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor on a storage that holds all its entries."""
    numbers = (offset, *size, *stride)
    if not (isinstance(storage, Tensor) and storage.ndim == 1 and all(isinstance(n, int) and n >= 0 for n in numbers)):
        raise DenoiserError("it makes a tensor of something else than a storage and whole numbers")
    if len(size) != len(stride):
        raise DenoiserError(f"a tensor of shape {tuple(size)} has strides {tuple(stride)}")
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += (length - 1) * step
    if count > len(storage) or (count and last >= len(storage)):
        raise DenoiserError(f"a tensor claims the shape {tuple(size)}, and its storage holds {len(storage)} numbers")
    return storage.as_strided(tuple(size), tuple(stride), offset).clone() if count else storage[:0].reshape(size)


def _persistent(meta: Any) -> Recorded:
    """An object that carries the source of its class, which is not looked at."""
    if not (isinstance(meta, dict) and meta.get("type") == "class" and isinstance(meta.get("class_name"), str)):
        raise DenoiserError("it holds an object with its source in a form that is not known")
    return Recorded(meta["class_name"], (), meta.get("state"))


def _scalar(dtype: Any, content: Any = b"") -> float | int | bool:
    """A number of NumPy."""
    code = dtype.arguments[0] if isinstance(dtype, Recorded) and dtype.arguments else None
    if code not in ("f8", "f4", "f2", "i8", "i4", "b1") or not isinstance(content, bytes):
        raise DenoiserError(f"it holds a number of an unknown type {code!r}")
    if len(content) != np.dtype(code).itemsize:
        raise DenoiserError(f"a number of type {code} has {len(content)} bytes")
    value: float | int | bool = np.frombuffer(content, dtype=code)[0].item()
    return value


def network_record(found: Any, key: str = "ema") -> NetworkRecord:
    """The network in what was read: the object itself, or the entry ``key`` of a dictionary.

    Raises:
        DenoiserError: if there is none, or it has no state.
    """
    network = found.get(key) if isinstance(found, dict) else found
    if not (isinstance(network, Recorded) and isinstance(network.state, dict)):
        raise DenoiserError(f"there is no network in it: expected an object, or a dictionary with one as {key!r}")
    tensors: dict[str, Tensor] = {}
    for prefix, state in _modules(network):
        for group in ("_parameters", "_buffers"):
            for name, value in _mapping(state, group).items():
                if isinstance(value, Tensor):
                    tensors[f"{prefix}{name}"] = value
    given = _mapping(network.state, "_init_kwargs")
    arguments = {key: value for key, value in given.items() if _plain(value)}
    return NetworkRecord(network.kind, arguments, tensors)


def _modules(network: Recorded) -> Iterator[tuple[str, dict[str, Any]]]:
    """The state of a network and of all modules below it, with the beginning of their tensors' names."""
    left: list[tuple[str, Any, int]] = [("", network, 0)]
    for _ in range(MOST_MODULES):
        if not left:
            return
        prefix, module, depth = left.pop()
        if not (isinstance(module, Recorded) and isinstance(module.state, dict)) or depth > 100:
            raise DenoiserError(f"the module {prefix.removesuffix('.')!r} has no state that is known")
        yield prefix, module.state
        below = _mapping(module.state, "_modules").items()
        left += [(f"{prefix}{name}.", value, depth + 1) for name, value in below if value is not None]
    raise DenoiserError(f"it has more than {MOST_MODULES} modules")


def _mapping(state: dict[str, Any], name: str) -> Mapping[str, Any]:
    found = state.get(name) or {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise DenoiserError(f"its {name} are no mapping of names")
    return found


def _plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is a number, text, nothing, or a list of these."""
    if isinstance(value, list | tuple):
        return depth < 3 and len(value) < 100 and all(_plain(part, depth + 1) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


#: What makes a network of a record.
Maker = Callable[[NetworkRecord], torch.nn.Module]
