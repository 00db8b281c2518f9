"""Networks of EDM and EDM2 from pickles: what is opened, that it is the published function, and what is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from headstart import load_denoiser
from headstart.denoiser import denoise
from headstart.errors import DenoiserError, InputError
from headstart.integrations.edm import Architecture, Preconditioned, UNet
from headstart.integrations.edm2 import Denoiser2, UNet2
from headstart.integrations.pickles import read_pickle
from headstart.integrations.weights import convert, fill, one_hot

SMALL = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
X = torch.sin(torch.arange(2 * 3 * 64.0)).reshape(2, 3, 8, 8)
NOISE = torch.tensor([0.3, -1.0])
CLASSES = torch.eye(5)[:2]


def waves(module: nn.Module) -> nn.Module:
    """The module with numbers from a formula in the place of weights."""
    state = module.state_dict()
    for i, name in enumerate(sorted(state)):
        if not name.endswith(("resample_filter", ".u")) and name != "u":
            numbers = torch.sin(torch.arange(float(state[name].numel())) * (1 + 0.1 * i) + i)
            state[name] = (0.3 * numbers).reshape(state[name].shape)
    return fill(module, state)


WIDE = {**SMALL, "model_channels": 64}
NCSNPP = {
    **SMALL,
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}

# The published implementations give these numbers, with the same weights.
PUBLISHED = {
    "ddpm++": (
        lambda: UNet(True, 8, 3, 3, label_dim=5, built=Architecture(augment_dim=9, **SMALL)),
        [0.288633, 0.282941, 0.302485, 0.295558],
    ),
    "ncsn++": (lambda: UNet(True, 8, 3, 3, built=Architecture(**NCSNPP)), [0.631210, 0.557749, 0.627748, 0.646998]),
    "adm": (
        lambda: UNet(False, 8, 3, 3, label_dim=5, built=Architecture(**WIDE)),
        [-0.029298, -0.076605, -0.027074, -0.080494],
    ),
    "edm2": (lambda: UNet2(8, 3, 5, **WIDE), [-0.00294160, -0.00251395, -0.01019168, -0.00928633]),
}


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_the_networks_are_the_published_ones(name):
    make, expected = PUBLISHED[name]
    found = waves(make())(X, NOISE, None if name == "ncsn++" else CLASSES)
    torch.testing.assert_close(found[:, 1, 2, 3:5].flatten(), torch.tensor(expected), atol=5e-6, rtol=1e-4)


SETTINGS = {"img_resolution": 8, "img_channels": 3}
NETWORKS = {
    "EDMPrecond": {**SETTINGS, "model_type": "SongUNet", "label_dim": 5, **SMALL},
    "VPPrecond": {**SETTINGS, "augment_dim": 9, "dropout": 0.13, **SMALL},
    "VEPrecond": {**SETTINGS, **SMALL},
    "iDDPMPrecond": {**SETTINGS, **SMALL, "model_channels": 64, "M": 50},
    "Precond": {**SETTINGS, "label_dim": 5, "use_fp16": True, **SMALL, "model_channels": 64},
}


def made(kind):
    return waves(Denoiser2(NETWORKS[kind]) if kind == "Precond" else Preconditioned(kind, NETWORKS[kind]))


@pytest.mark.parametrize(
    ("kind", "coefficients"),
    [
        ("EDMPrecond", lambda s: (0.25 / (0.25 + s**2), 0.5 * s / (0.25 + s**2) ** 0.5, (0.25 + s**2) ** -0.5)),
        ("VPPrecond", lambda s: (1, -s, (1 + s**2) ** -0.5)),
        ("VEPrecond", lambda s: (1, s, 1)),
        ("iDDPMPrecond", lambda s: (1, -s, (1 + s**2) ** -0.5)),
        ("Precond", lambda s: (0.25 / (0.25 + s**2), 0.5 * s / (0.25 + s**2) ** 0.5, (0.25 + s**2) ** -0.5)),
    ],
)
@torch.no_grad()
def test_the_preconditionings(kind, coefficients):
    network, s = made(kind), 1.7
    inner = network.unet if kind == "Precond" else network.model
    told = []
    inner.register_forward_hook(lambda module, args, out: told.append((args, out)))
    found = network(X, s)
    (seen, noise, classes), out = told[0]
    skip, factor, scale = coefficients(s)
    torch.testing.assert_close(seen, scale * X)
    torch.testing.assert_close(found, skip * X + factor * out[:, :3])
    assert (classes is None) == ("label_dim" not in NETWORKS[kind])
    at = {
        "EDMPrecond": np.log(s) / 4,
        "Precond": np.log(s) / 4,
        "VEPrecond": np.log(s / 2),
        "VPPrecond": 999 * ((0.1**2 + 2 * 19.9 * np.log(1 + s**2)) ** 0.5 - 0.1) / 19.9,
    }
    if kind in at:
        torch.testing.assert_close(noise, torch.full((2,), at[kind], dtype=torch.float32))
    else:
        table = network.u
        assert noise[0] == 50 - 1 - (table - s).abs().argmin()
        assert table[-1] == 0
        assert (table.diff() < 0).all()


WRITTEN = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")


@pytest.fixture
def persistence(monkeypatch):
    """Modules of the names that the pickles refer to, for writing them. Reading imports none."""
    package, source, library, util = map(ModuleType, WRITTEN)

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("a pickle was executed")

    class EasyDict(dict):
        pass

    _reconstruct_persistent_obj.__module__ = source.__name__
    _reconstruct_persistent_obj.__qualname__ = _reconstruct_persistent_obj.__name__
    EasyDict.__module__, EasyDict.__qualname__ = util.__name__, "EasyDict"
    source._reconstruct_persistent_obj, util.EasyDict = _reconstruct_persistent_obj, EasyDict
    for module in (package, source, library, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    class Persistent:
        def __init__(self, kind, state):
            self.kind, self.state = kind, state

        def __reduce__(self):
            text = "raise AssertionError('the source of a class was run')"
            meta = {"type": "class", "version": 6, "module_src": text, "class_name": self.kind, "state": self.state}
            return _reconstruct_persistent_obj, (meta,)

    def persistent(module, kind="Layer", arguments=None):
        state = {
            "training": False,
            "_parameters": OrderedDict(module._parameters),
            "_buffers": OrderedDict(module._buffers),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict((name, inner and persistent(inner)) for name, inner in module._modules.items()),
            "skip_scale": np.sqrt(0.5),
            "_init_args": (),
            "_init_kwargs": EasyDict(arguments or {}),
        }
        return Persistent(kind, state)

    return persistent


def pickled(persistent, kind, path):
    network = made(kind)
    whole = {
        "ema": persistent(network, kind, NETWORKS[kind]),
        "loss_fn": persistent(nn.Identity(), "Loss"),
        "numbers": [1],
    }
    path.write_bytes(pickle.dumps(whole))
    return network


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_pickle_and_what_it_is_converted_to_are_the_network(kind, persistence, tmp_path, monkeypatch):
    network = pickled(persistence, kind, tmp_path / "network.pkl")
    for name in WRITTEN:
        monkeypatch.delitem(sys.modules, name)
    spec = "edm2" if kind == "Precond" else "edm"
    record = convert(tmp_path / "network.pkl", tmp_path / "network.safetensors")
    assert record.kind == kind
    for name in ("network.pkl", "network.safetensors"):
        found = load_denoiser(f"{spec}:{tmp_path / name}")
        assert torch.equal(denoise(found, X, 1.3), denoise(network, X, 1.3))
        if spec == "edm":
            assert (found.sigma_min, found.sigma_max) == (network.sigma_min, network.sigma_max)
    assert "torch_utils" not in sys.modules


@pytest.mark.parametrize("change", ["lack", "more", "shape"])
def test_every_parameter_is_checked_by_name(change, persistence, tmp_path):
    network = made("VEPrecond")
    if change == "lack":
        network.model.map_layer0 = nn.Identity()
    elif change == "more":
        network.model.extra = nn.Linear(2, 2)
    else:
        network.model.map_layer0 = nn.Linear(3, 3)
    whole = {"ema": persistence(network, "VEPrecond", NETWORKS["VEPrecond"])}
    (tmp_path / "network.pkl").write_bytes(pickle.dumps(whole))
    said = {"lack": "lacks model.map_layer0", "more": "has model.extra", "shape": "model.map_layer0.*the shape"}[change]
    with pytest.raises(DenoiserError, match=said):
        load_denoiser(f"edm:{tmp_path / 'network.pkl'}")


class Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def legacy_storage(count):
    """What PyTorch writes of a storage of so many numbers, with 4 of them."""
    file = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(value, file, protocol=2)

    here = object()

    class Claims(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", count, None) if value is here else None

    Claims(file, protocol=2).dump(here)
    pickle.dump(["0"], file, protocol=2)
    return file.getvalue() + struct.pack("<q", count) + bytes(16)


MALICIOUS = {
    "a command": lambda place: pickle.dumps(Runs(os.system, f"touch {place}")),
    "a command in a network": lambda place: pickle.dumps({"ema": Runs(os.system, f"touch {place}")}),
    "evaluated code": lambda place: pickle.dumps(Runs(eval, f"open({str(place)!r}, 'w')")),
    "an import that runs code": lambda place: b"cheadstart_test_evil\nEvil\n.",
    "an attribute of a module": lambda place: b"cos\nsystem\n(V" + f"touch {place}".encode() + b"\ntR.",
    "code below a known name": lambda place: b"\x80\x04\x8c\x0bcollections\x8c\x19OrderedDict.fromkeys.__doc__\x93.",
    "torch.load": lambda place: pickle.dumps(Runs(torch.load, str(place))),
    "a claim of ten gigabytes of text": lambda place: b"\x80\x04\x8e" + struct.pack("<Q", 10 * 2**30) + b"x.",
    "a claim of a frame": lambda place: b"\x80\x04\x95" + struct.pack("<Q", 10 * 2**30) + b"N.",
    "a place far out in the memory": lambda place: b"\x80\x04Nr" + struct.pack("<I", 2**31) + b"h\x00.",
    "a storage of ten gigabytes": lambda place: pickle.dumps(
        Runs(torch.storage._load_from_bytes, legacy_storage(10 * 2**28))
    ),
    "a tensor of ten gigabytes": lambda place: pickle.dumps(
        Runs(
            torch._utils._rebuild_tensor_v2,
            Runs(torch.storage._load_from_bytes, legacy_storage(4)),
            0,
            (10 * 2**28,),
            (0,),
            False,
            OrderedDict(),
        )
    ),
    "a tensor beyond its storage": lambda place: pickle.dumps(
        Runs(
            torch._utils._rebuild_tensor_v2,
            Runs(torch.storage._load_from_bytes, legacy_storage(4)),
            2,
            (4,),
            (1,),
            False,
            OrderedDict(),
        )
    ),
    "the end in the middle": lambda place: pickle.dumps([1, 2, 3])[:-3],
    "no pickle": lambda place: b"no pickle at all",
    "nothing": lambda place: b"",
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_what_is_malicious_or_damaged_is_refused_and_nothing_runs(name, tmp_path, monkeypatch):
    (tmp_path / "headstart_test_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "network.pkl").write_bytes(MALICIOUS[name](tmp_path / "ran"))
    with pytest.raises(DenoiserError):
        load_denoiser(f"edm:{tmp_path / 'network.pkl'}")
    assert not (tmp_path / "ran").exists()
    assert "headstart_test_evil" not in sys.modules


def test_tensors_and_numbers_of_numpy_are_read(tmp_path):
    values = {
        "float": torch.randn(2, 3),
        "half": torch.randn(4).half(),
        "whole": torch.arange(6).reshape(2, 3).t(),
        "empty": torch.zeros(0, 3),
        "row": torch.randn(4, 5)[2],
        "parameter": nn.Parameter(torch.randn(2)),
        "number": np.float64(0.5),
        "plain": [1, "a", None, (2.5,), {3}],
    }
    (tmp_path / "values.pkl").write_bytes(pickle.dumps(values))
    found = read_pickle(tmp_path / "values.pkl")
    for name in ("float", "half", "whole", "empty", "row", "parameter"):
        assert torch.equal(found[name], values[name])
    assert found["number"] == 0.5
    assert found["plain"] == values["plain"]


@pytest.mark.parametrize("arguments", [3, [1], "x", {1: 2}])
def test_arguments_that_are_no_mapping_of_names_are_refused(arguments, persistence, tmp_path):
    network = persistence(nn.Identity(), "VEPrecond")
    network.state["_init_kwargs"] = arguments
    (tmp_path / "network.pkl").write_bytes(pickle.dumps({"ema": network}))
    with pytest.raises(DenoiserError, match="_init_kwargs are no mapping"):
        load_denoiser(f"edm:{tmp_path / 'network.pkl'}")


@pytest.mark.parametrize(("name", "value"), [("num_blocks", 10**6), ("num_blocks", 10**9), ("M", 2**40)])
def test_no_network_is_made_that_the_file_holds_no_tensors_for(name, value, persistence, tmp_path):
    """It would take hours, or all memory."""
    network = persistence(made("VEPrecond"), "VEPrecond", {**NETWORKS["VEPrecond"], name: value})
    (tmp_path / "network.pkl").write_bytes(pickle.dumps({"ema": network}))
    with pytest.raises(DenoiserError, match=r"blocks of a network|make no network"):
        load_denoiser(f"edm:{tmp_path / 'network.pkl'}")


def test_a_pickle_without_a_network_is_named(tmp_path):
    (tmp_path / "values.pkl").write_bytes(pickle.dumps({"ema": 3}))
    with pytest.raises(DenoiserError, match="no network in it"):
        load_denoiser(f"edm2:{tmp_path / 'values.pkl'}")
    with pytest.raises(DenoiserError, match=r"nowhere\.pkl"):
        load_denoiser(f"edm:{tmp_path / 'nowhere.pkl'}")


def test_labels_are_one_hot():
    device = torch.device("cpu")
    assert one_hot(torch.tensor([1, 0]), 3, 2, device).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert one_hot(2, 3, 2, device).tolist() == [[0, 0, 1]] * 2
    assert one_hot(None, 3, 2, device).tolist() == [[0, 0, 0]] * 2
    assert one_hot(None, 0, 2, device) is None
    with pytest.raises(InputError, match="classes 0 to 2"):
        one_hot(torch.tensor([3, 0]), 3, 2, device)
    with pytest.raises(InputError, match="no classes"):
        one_hot(torch.tensor([0]), 0, 1, device)
