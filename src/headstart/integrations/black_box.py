r"""Exported networks as black boxes: TorchScript, ``torch.export`` and ONNX, with a declared prediction and process.

Such a file does not say what its network sees and predicts, so that the spec does:

.. code-block:: text

    torchscript:network.pt?prediction=epsilon&process=vp
    export:network.pt2?prediction=flow&process=flow&data_at=1
    onnx:network.onnx?process=ve&sigma_max=80

``prediction`` is one of :data:`headstart.denoiser.Prediction` (x0 by default), and ``process`` is ve (the default), vp
or flow, whose parameters follow. The network is called with two inputs, z (B, \*S) and the time (B,), and with a third
one, the label, where one is given; its only or first output has z's shape. An ONNX network of a fixed batch is given
batches of that size.

A TorchScript or an exported program is a program, which can compute anything: load only what you trust. Of an exported
one, no pickle is opened that holds more than tensors, and no compiled library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from torch import Tensor, nn

from headstart.denoiser import (
    Adapted,
    Denoiser,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    adapt,
)
from headstart.errors import DenoiserError, HeadstartError, InputError
from headstart.extras import require
from headstart.integrations.arrays import numpy_network
from headstart.models.load import LOADERS, Loader

__all__ = ["PROCESSES", "black_box", "declared", "onnx_network"]

#: PyTorch's own variable: where it is 1, ``torch.load`` takes tensors and plain containers alone.
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"

#: The processes that a spec can name.
PROCESSES: dict[str, type[Any]] = {"ve": VarianceExploding, "vp": VariancePreserving, "flow": RectifiedFlow}


def declared(spec: str) -> tuple[Path, str, Process]:
    """The file, the prediction and the process of ``FILE?prediction=...&process=...&parameter=number``.

    Raises:
        DenoiserError: if the file is missing, or something is declared that is not known.

    >>> declared(__file__ + "?prediction=flow&process=flow&data_at=1")[1:]
    ('flow', RectifiedFlow(time_scale=1.0, sigma_max=inf, sigma_min=0.0, data_at=1))
    """
    name, _, query = spec.partition("?")
    said = dict(parse_qsl(query, keep_blank_values=True))
    if not Path(name).is_file():
        raise DenoiserError(f"there is no file {name}")
    prediction, kind = said.pop("prediction", "x0"), said.pop("process", "ve")
    if kind not in PROCESSES:
        raise DenoiserError(f"{spec} declares the process {kind!r}: expected one of {', '.join(PROCESSES)}")
    try:
        return Path(name), prediction, PROCESSES[kind](**{key: _number(value) for key, value in said.items()})
    except (TypeError, ValueError) as error:
        raise DenoiserError(f"{spec} declares what the process {kind!r} does not take: {error}") from error


def _number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdigit() else float(text)


@dataclass(frozen=True)
class _Called:
    """A network of positional inputs, the first output of which is the answer."""

    network: Callable[..., Any]

    def __call__(self, z: Tensor, time: Tensor, label: Tensor | None = None, **others: Any) -> Tensor:
        if others:
            raise InputError(f"this network takes z, the time and perhaps a label: it has no {', '.join(others)}")
        out = self.network(z, time) if label is None else self.network(z, time, label)
        found: Tensor = out[0] if isinstance(out, tuple | list) else out
        return found


def black_box(network: Callable[..., Any], prediction: Any, process: Process) -> Adapted:
    """A denoiser from a network of positional inputs z, time and, where one is given, label.

    Raises:
        InputError: if the prediction is unknown.
    """
    return adapt(_Called(network), prediction, process)


def onnx_network(session: Any) -> Callable[..., Tensor]:
    """A network of tensors from a session of onnxruntime with inputs z, time and perhaps label, in this order.

    Arguments:
        session: with ``get_inputs``, each of a ``name``, a ``shape`` and a ``type``, and ``run``.

    Raises:
        InputError: if it has less than two inputs or more than three.
    """
    inputs = session.get_inputs()
    if len(inputs) not in (2, 3):
        raise InputError(f"the network has {len(inputs)} inputs: expected z, time and perhaps a label")
    dtype = np.float16 if "float16" in inputs[0].type else np.float64 if "double" in inputs[0].type else np.float32
    size = inputs[0].shape[0]

    def run(z: Any, time: Any, label: Any = None) -> Any:
        if (label is not None) != (len(inputs) == 3):
            names = ", ".join(part.name for part in inputs)
            raise InputError(f"the network has the inputs {names}: it needs {'a' if label is None else 'no'} label")
        given = [z, time, *([] if label is None else [label.astype(np.int64)])]
        return session.run(None, {part.name: value for part, value in zip(inputs, given, strict=True)})[0]

    called = numpy_network(run, size if isinstance(size, int) else None, dtype=dtype)
    return lambda z, time, label=None: called(z, time, **({} if label is None else {"label": label}))


def _torchscript(file: Path, device: torch.device | str) -> Callable[..., Any]:
    module: nn.Module = torch.jit.load(file, map_location=device).eval()  # type: ignore[no-untyped-call]
    return module


def _exported(file: Path, device: torch.device | str) -> Callable[..., Any]:
    archive = torch._C.PyTorchFileReader(str(file))
    for name in archive.get_all_records():
        if name.startswith("data/aotinductor/"):
            raise DenoiserError(f"{file} holds a compiled library, {name}, which is not opened")
        if name.startswith(("data/constants/opaque_obj_", "data/constants/custom_obj_")):
            raise DenoiserError(f"{file} holds an object that is no tensor, {name}, which is not opened")
    with _tensors_alone():
        return torch.export.load(file).module().to(device)


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Let PyTorch unpickle nothing but tensors, also where its own reader would try again without that bound."""
    before = os.environ.get(WEIGHTS_ONLY)
    os.environ[WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        del os.environ[WEIGHTS_ONLY]
        if before is not None:
            os.environ[WEIGHTS_ONLY] = before


def _onnx(file: Path, device: torch.device | str) -> Callable[..., Any]:
    runtime = require("onnxruntime", "onnx", "an ONNX model")
    wanted = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in runtime.get_available_providers()]
    return onnx_network(runtime.InferenceSession(str(file), providers=providers))


def _loader(read: Callable[[Path, torch.device | str], Callable[..., Any]]) -> Callable[..., Denoiser]:
    def load(spec: str, device: torch.device | str = "cpu") -> Denoiser:
        file, prediction, process = declared(spec)
        try:
            network = read(file, device)
        except HeadstartError:
            raise
        except Exception as error:  # a damaged file fails in many ways
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DenoiserError(f"cannot load {file}: {reason}") from error
        return black_box(network, prediction, process)

    return load


for _name, _read, _form in (
    ("torchscript", _torchscript, "torchscript:FILE"),
    ("export", _exported, "export:FILE.pt2"),
    ("onnx", _onnx, "onnx:FILE"),
):
    LOADERS.register(Loader(_name, _loader(_read), _form))
