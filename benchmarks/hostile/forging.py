"""Values, tensors and files that no one means: how a trial changes what it is given."""

from __future__ import annotations

import io
import math
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.artefact import read_tensors, write_tensors

__all__ = [
    "EXECUTED",
    "VALUES",
    "WORDS",
    "elsewhere",
    "forged",
    "forged_tensor",
    "forged_tensors",
    "inside",
    "outside",
    "payload",
    "reforged",
    "smuggled",
    "torn",
]

#: The file that a payload makes if it is executed, in the working folder.
EXECUTED = "executed"

#: Plain values that no one means.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -1.0, 1e-300, 1e308, -1e308, 10**9, 10**18, 10**30, 2**63, 2**64 - 1),
    *("", "x", "NaN", "1", "\ud800", "a" * 10_000, [], [0], [-1.0], ["NaN"], [[]], [[1.0]], [1.0] * 1000, {}, {"a": 1}),
)

#: Words of a command line that no one means, as far as they could do no harm if they were taken.
WORDS = (
    *(
        "",
        "-1",
        "0",
        "1",
        "1.5",
        "nan",
        "inf",
        "1e999",
        "1000000000",
        "18446744073709551615",
        "9" * 30,
        "x",
        "é",
        "\x00",
    ),
    *(",", "1,,2", "0-", "5-1", "cuda", "meta", "cpu:7", "~nosuchuser/x", "/dev/null", ".", "..", "/", "nothing"),
    *("builtin:", "builtin:nothing", "python:", "python:os:nothing", "python:math:pi", "self", "--", "auto", "none"),
)


def forged(values: Any, draw: random.Random) -> Any:
    """Plain values with one of them replaced, removed or added, somewhere inside."""
    if isinstance(values, dict) and values and draw.random() < 0.85:
        key = draw.choice(sorted(values))
        if draw.random() < 0.05:
            return {k: v for k, v in values.items() if k != key}
        return {**values, key: forged(values[key], draw)}
    if isinstance(values, list) and values and draw.random() < 0.7:
        place = draw.randrange(len(values))
        return [*values[:place], forged(values[place], draw), *values[place + 1 :]]
    return draw.choice(VALUES)


def forged_tensor(tensor: Tensor, draw: random.Random) -> Tensor:
    """A tensor of another shape or type, or with numbers that no one means."""
    number = draw.choice([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e200, -1e200, 1e30, 1e-320])
    wide = tensor.double() if not tensor.is_complex() else tensor
    one = wide.clone()
    if one.numel():
        one.view(-1)[draw.randrange(one.numel())] = number
    return draw.choice(
        [
            torch.tensor(number),
            tensor[None],
            tensor.reshape(-1),
            tensor[:0] if tensor.ndim else torch.ones(0),
            torch.cat([tensor, tensor[:1]]) if tensor.ndim else torch.ones(3),
            torch.full_like(wide, number),
            one,
            tensor.to(torch.int32),
            tensor.to(torch.float16),
            tensor.to(torch.complex64),
            tensor.to(torch.bool),
            tensor.to(torch.uint8),
        ]
    )


def forged_tensors(tensors: Mapping[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    key = draw.choice(sorted(tensors)) if tensors else "mean"
    own = dict(tensors)
    if draw.random() < 0.15:
        own.pop(key, None)
    elif draw.random() < 0.1:
        own["another"] = torch.ones(2)
    else:
        own[key] = forged_tensor(own.get(key, torch.ones(2)), draw)
    return {name: tensor.contiguous() for name, tensor in own.items()}


def torn(path: Path, draw: random.Random) -> None:
    """Damage the bytes of a file: cut off, flipped, doubled, or others in their place."""
    blob = bytearray(path.read_bytes())
    kind = draw.randrange(5)
    if kind == 0:
        blob = blob[: draw.randrange(len(blob) + 1)]
    elif kind == 1:
        for _ in range(draw.randrange(1, 20)):
            blob[draw.randrange(len(blob))] = draw.randrange(256)
    elif kind == 2:
        place = draw.randrange(len(blob))
        blob = blob[:place] + blob[: draw.randrange(100)] + blob[place:]
    elif kind == 3:
        blob = bytearray(draw.choice([b"", b"[" * 100_000, b"\xff" * 100, b"{}", b"null", b"\x93NUMPY", b"PK\x03\x04"]))
    else:
        path.unlink()
        return draw.choice([os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])(path)
    path.write_bytes(blob)
    return None


# What would run, and what would lie elsewhere.


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def payload(draw: random.Random) -> Any:
    """An object that makes a file when it is unpickled, alone or inside of something that is wanted."""
    one = draw.choice(
        [
            Runs(os.system, f"touch {EXECUTED}"),
            Runs(open, EXECUTED, "w"),
            Runs(eval, f"open({EXECUTED!r}, 'w')"),
            Runs(exec, f"open({EXECUTED!r}, 'w')"),
            Runs(os.mkdir, EXECUTED),
            Runs(np.savetxt, EXECUTED, [1.0]),
            Runs(torch.save, 1, EXECUTED),
        ]
    )
    return draw.choice([one, {"samples": one}, {"ema": one}, {"samples": torch.ones(20, 2), "x": one}, [one]])


def smuggled(path: Path, draw: random.Random) -> None:
    """Put a payload in the place of a file, in one of the forms of its kind."""
    held = payload(draw)
    content = pickle.dumps(held, protocol=draw.choice([0, 2, 4]))
    kind = draw.randrange(4)
    if kind == 0:
        path.write_bytes(content)
    elif kind == 1:
        torch.save(held, path)
    elif kind == 2:
        torch.save(held, path, _use_new_zipfile_serialization=False)
    else:
        file = io.BytesIO()
        array = np.empty(1, dtype=object)
        array[0] = held
        np.save(file, array, allow_pickle=True)
        if path.suffix == ".npz":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("samples.npy", file.getvalue())
        else:
            path.write_bytes(file.getvalue())


def reforged(path: Path, form: str, newest: int, draw: random.Random, torn_in: float, values_in: float) -> bool:
    """Tear a file of tensors, or change its values or its tensors; False if its values are then no mapping.

    Arguments:
        path: the file.
        form: what it holds.
        newest: the version that is read.
        draw: decides.
        torn_in: the share that is torn.
        values_in: the share of the others whose values are changed.
    """
    if draw.random() < torn_in:
        torn(path, draw)
        return True
    values, own = read_tensors(path, form, newest)
    if draw.random() < values_in:
        values = forged(values, draw)
    else:
        own = forged_tensors(own, draw)
    if not isinstance(values, dict):
        return False
    path.unlink()
    write_tensors(path, form, 1, values, own)
    return True


def outside(path: Path, draw: random.Random) -> None:
    """Name entries of an archive by places outside of it."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            if draw.random() < 0.5:
                entry.filename = draw.choice(["../", "../../", "/", "a/../../", "C:\\", "~/"]) + entry.filename
            if draw.random() < 0.2:
                entry.external_attr = 0o120777 << 16  # a symbolic link
            archive.writestr(entry, content)


def inside(path: Path, draw: random.Random) -> None:
    """Put a payload in the place of an entry of an archive, and let its settings say that there is one."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    chosen = draw.choice(entries)[0].filename
    file = io.BytesIO()
    torch.save(payload(draw), file)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            said = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            archive.writestr(entry, file.getvalue() if entry.filename == chosen else said)


def elsewhere(path: Path, draw: random.Random) -> None:
    """Name entries of a tar archive by places outside of it, or make them links and devices."""
    with tarfile.open(path) as archive:
        entries = [(entry, archive.extractfile(entry)) for entry in archive]
        contents = [(entry, b"" if file is None else file.read()) for entry, file in entries]
    with tarfile.open(path, "w") as archive:
        for entry, content in contents:
            if draw.random() < 0.5:
                entry.name = draw.choice(["../", "/", "a/../../", "~/"]) + entry.name
            if draw.random() < 0.3:
                entry.type = draw.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
                entry.linkname, entry.size = draw.choice(["../../etc/passwd", "/etc/passwd", entry.name]), 0
            archive.addfile(entry, io.BytesIO(content))
