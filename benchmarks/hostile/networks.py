"""Networks of others: pickles of EDM, their converted form, exported programs, and the settings of schedulers."""

from __future__ import annotations

import json
import pickle
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from benchmarks.hostile.forging import forged, forged_tensors, inside, outside, payload, reforged, smuggled, torn
from headstart import load_denoiser
from headstart.denoiser import denoise
from headstart.integrations.edm import Preconditioned
from headstart.integrations.weights import convert
from headstart.models.extract import load_features
from headstart.plan import Plan

__all__ = ["converted", "exported", "pickles", "prepare_networks", "schedulers"]

#: A small network of EDM.
SETTINGS: dict[str, Any] = {
    "img_resolution": 4,
    "img_channels": 1,
    "model_channels": 8,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [4],
}

X = torch.zeros(2, 1, 4, 4)


def prepare_networks(folder: Path) -> None:
    """Write what these trials change."""
    (folder / "network.pkl").write_bytes(_pickled(SETTINGS, {}))
    convert(folder / "network.pkl", folder / "network.safetensors")
    torch.jit.script(_Small()).save(folder / "network.pt")  # type: ignore[no-untyped-call]
    size = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(_Small().eval(), (torch.ones(3, 2), torch.ones(3)), dynamic_shapes=(size, size))
    torch.export.save(program, folder / "network.pt2")
    (folder / "network.onnx").write_bytes(b"\x08\x07\x12\x04test")
    (folder / "scheduler").mkdir()
    settings = {"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.42.1", "num_train_timesteps": 1000}
    settings |= {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, z: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(z)) + time.unsqueeze(-1)


# Pickles.


@contextmanager
def _written_modules() -> Iterator[tuple[Any, Any]]:
    """Modules of the names that the published pickles refer to, for writing them."""
    modules = {name: ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")}

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("a pickle was executed")

    class EasyDict(dict[Any, Any]):
        pass

    rebuild: Any = _reconstruct_persistent_obj
    rebuild.__module__, rebuild.__qualname__ = "torch_utils.persistence", rebuild.__name__
    EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = rebuild  # type: ignore[attr-defined]
    modules["dnnlib.util"].EasyDict = EasyDict  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield rebuild, EasyDict
    finally:
        for name in modules:
            del sys.modules[name]


def _pickled(settings: Any, more: dict[str, Any], kind: str = "VEPrecond", change: Any = None) -> bytes:
    """A pickle of EDM's network, with forged arguments, forged tensors or something beside it."""
    with _written_modules() as (rebuild, easy):

        class Persistent:
            def __init__(self, kind: str, state: Any) -> None:
                self.meta = {"type": "class", "version": 6, "module_src": "", "class_name": kind, "state": state}

            def __reduce__(self) -> Any:
                return rebuild, (self.meta,)

        def persistent(module: nn.Module, kind: str = "Layer", given: Any = None) -> Any:
            state = {
                "_parameters": OrderedDict(module._parameters if change is None else change(module._parameters)),
                "_buffers": OrderedDict(module._buffers),
                "_modules": OrderedDict((name, inner and persistent(inner)) for name, inner in module._modules.items()),
                "_init_kwargs": easy(given) if isinstance(given, dict) else given,
            }
            return Persistent(kind, state)

        return pickle.dumps({"ema": persistent(Preconditioned("VEPrecond", SETTINGS), kind, settings), **more})


def pickles(folder: Path, draw: random.Random) -> None:
    """A pickle of EDM, forged, torn, or one that would run something."""
    path = folder / "network.pkl"
    change = draw.randrange(5)
    if change == 0:
        torn(path, draw)
    elif change == 1:
        smuggled(path, draw)
    elif change == 2:
        path.write_bytes(_pickled(forged(SETTINGS, draw), {"more": payload(draw)} if draw.random() < 0.3 else {}))
    elif change == 3:
        kind = draw.choice(["VEPrecond", "EDMPrecond", "iDDPMPrecond", "Precond", "Nothing", ""])
        path.write_bytes(_pickled(SETTINGS, {}, kind, lambda own: _some_forged(own, draw)))
    else:
        content, names = path.read_bytes(), (b"OrderedDict", b"_rebuild_tensor_v2", b"EasyDict", b"collections")
        name = draw.choice(names)
        path.write_bytes(
            content.replace(name, draw.choice([b"os.system", b"eval", b"builtins"]).ljust(len(name), b"x"))
        )
    if draw.random() < 0.3:
        convert(path, folder / "again.safetensors")
    denoise(load_denoiser(f"{draw.choice(['edm', 'edm2'])}:{path.name}"), X, 1.3)


def _some_forged(own: Any, draw: random.Random) -> Any:
    tensors = {name: value.data for name, value in own.items() if value is not None}
    if not tensors or draw.random() < 0.9:
        return own
    return {name: nn.Parameter(value, requires_grad=False) for name, value in forged_tensors(tensors, draw).items()}


def converted(folder: Path, draw: random.Random) -> None:
    """A network that was converted to safetensors."""
    path = folder / "network.safetensors"
    if reforged(path, "headstart-network", 1, draw, torn_in=0.25, values_in=0.6):
        denoise(load_denoiser(f"edm:{path.name}"), X, 1.3)


# Programs and settings.

QUERIES = ["prediction=epsilon&process=vp", "prediction=flow&process=flow&data_at=1", "process=ve&sigma_max=80", ""]
BAD = [
    *("prediction=&process=", "process=vp&beta_max=-1", "process=ve&sigma_max=nan", "process=flow&data_at=7", "a=b"),
    *(
        "process=vp&beta_max=x",
        "process=ve&sigma_max=1e999",
        "process=vp&beta_max=1e300",
        "process=ve&process=vp",
        "&&=",
    ),
]


def exported(folder: Path, draw: random.Random) -> None:
    """A program: torn, with a payload, with entries elsewhere, or with something else declared."""
    kind, name = draw.choice([("torchscript", "network.pt"), ("export", "network.pt2"), ("onnx", "network.onnx")])
    path, change = folder / name, draw.randrange(5)
    if change == 0:
        torn(path, draw)
    elif change == 1:
        smuggled(path, draw)
    elif change == 2 and kind != "onnx":
        draw.choice([outside, inside])(path, draw)
    query = draw.choice(BAD if change == 3 else QUERIES)
    if draw.random() < 0.2:
        load_features(f"torchscript:{name}")(torch.ones(3, 2))
        return
    denoise(load_denoiser(f"{kind}:{name}?{query}"), torch.ones(3, 2), 1.3)


def schedulers(folder: Path, draw: random.Random) -> None:
    """The settings of a scheduler of diffusers."""
    from headstart.integrations.export import export

    path = folder / "scheduler" / "scheduler_config.json"
    if draw.random() < 0.3:
        torn(path, draw)
    else:
        path.write_text(json.dumps(forged(json.loads(path.read_text()), draw)))
    export(Plan.load(folder / "plan-1"), "diffusers", scheduler=folder / "scheduler").save(folder / "scheduler.json")
