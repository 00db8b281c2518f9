"""Exported networks are the networks that they were exported from, with what is declared of them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from headstart import RectifiedFlow, VariancePreserving, adapt, load_denoiser
from headstart.errors import DenoiserError, InputError
from headstart.integrations.black_box import WEIGHTS_ONLY, black_box, declared, onnx_network

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
DECLARED = "prediction=epsilon&process=vp&beta_max=15"


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, z: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(z)) + time.unsqueeze(-1)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval()


def saved(kind, network, path):
    if kind == "torchscript":
        torch.jit.script(network).save(path)
    else:
        size = {0: torch.export.Dim("batch", min=2)}
        program = torch.export.export(network, (X, X[:, 0]), dynamic_shapes=(size, size))
        torch.export.save(program, path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "name"), [("torchscript", "network.pt"), ("export", "network.pt2")])
@torch.no_grad()
def test_a_file_is_its_network(kind, name, network, tmp_path):
    saved(kind, network, tmp_path / name)
    found = load_denoiser(f"{kind}:{tmp_path / name}?{DECLARED}")
    expected = adapt(network, "epsilon", VariancePreserving(beta_max=15))
    torch.testing.assert_close(found(X, 2.0), expected(X, 2.0))
    assert found.sigma_max == expected.sigma_max


@pytest.mark.parametrize("batch", ["batch", 2])
@torch.no_grad()
def test_onnx_by_a_session(network, batch):
    """A stand-in for onnxruntime's, which takes arrays by name."""

    def run(_, inputs):
        assert batch == "batch" or len(inputs["z"]) == batch
        assert inputs["z"].dtype == inputs["t"].dtype == np.float32
        return [network(torch.from_numpy(inputs["z"]), torch.from_numpy(inputs["t"])).numpy()]

    parts = [
        SimpleNamespace(name="z", shape=[batch, 3], type="tensor(float)"),
        SimpleNamespace(name="t", shape=[batch], type="tensor(float)"),
    ]
    session = SimpleNamespace(get_inputs=lambda: parts, run=run)
    found = black_box(onnx_network(session), "epsilon", VariancePreserving())
    torch.testing.assert_close(found(X, 2.0), adapt(network, "epsilon", VariancePreserving())(X, 2.0))
    with pytest.raises(InputError, match="1 inputs"):
        onnx_network(SimpleNamespace(get_inputs=lambda: parts[:1]))


def test_a_network_has_as_many_inputs_as_it_is_given():
    parts = [SimpleNamespace(name=name, shape=["batch"], type="tensor(float)") for name in ("z", "t", "c")]
    for count, given, said in (
        (3, {}, "z, t, c: it needs a label"),
        (2, {"label": torch.ones(5)}, "it needs no label"),
    ):
        session = SimpleNamespace(get_inputs=lambda count=count: parts[:count], run=lambda _, inputs: [inputs["z"]])
        with pytest.raises(InputError, match=said):
            black_box(onnx_network(session), "x0", RectifiedFlow())(X, 1.0, **given)
    with pytest.raises(InputError, match="it has no text, mask"):
        black_box(lambda z, time: z, "x0", RectifiedFlow())(X, 1.0, text=1, mask=2)


def test_labels_are_the_third_input():
    found = black_box(lambda z, time, label: (z + label[:, None],), "x0", RectifiedFlow())
    torch.testing.assert_close(found(X, 0.0, label=torch.ones(5)), X + 1)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("process=magic", "'magic': expected one of ve, vp, flow"),
        ("process=vp&shift=3", "shift"),
        ("process=ve&sigma_max=many", "many"),
        ("process=flow&data_at=2", "data_at=2"),
    ],
)
def test_what_is_declared_wrongly_is_named(tmp_path, query, said):
    (tmp_path / "network.pt").write_bytes(b"")
    with pytest.raises(DenoiserError, match=said):
        declared(f"{tmp_path / 'network.pt'}?{query}")


@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_files_that_are_none_are_named(tmp_path, kind):
    (tmp_path / "network.pt").write_bytes(b"no network")
    with pytest.raises(DenoiserError, match="cannot load"):
        load_denoiser(f"{kind}:{tmp_path / 'network.pt'}")
    with pytest.raises(DenoiserError, match="there is no file"):
        load_denoiser(f"{kind}:{tmp_path / 'nowhere.pt'}")


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self):
        return open, (self.place, "w")


def rewritten(path, change):
    """An archive of PyTorch with its entries changed, by their names without its root."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry, change(entry.filename.partition("/")[2], content))
        root = entries[0][0].filename.partition("/")[0]
        for name, content in change(None, b"").items():
            archive.writestr(f"{root}/{name}", content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["inputs", "weights", "library", "object"])
def test_nothing_in_an_exported_program_is_unpickled_but_tensors(place, network, tmp_path):
    """PyTorch's own loader executes the first two."""
    ran, path = tmp_path / "ran", tmp_path / "network.pt2"
    saved("export", network, path)
    blob = io.BytesIO()
    torch.save(Runs(str(ran)), blob)

    def change(name, content):
        if name is None:
            added = {"library": "data/aotinductor/model/a.so", "object": "data/constants/opaque_obj_0"}
            return {added[place]: blob.getvalue()} if place in added else {}
        if place == "inputs" and name.startswith("data/sample_inputs/"):
            return blob.getvalue()
        if place == "weights" and name.endswith("weights_config.json"):
            config = json.loads(content)
            config["config"]["layer.weight"]["use_pickle"] = True
            return json.dumps(config).encode()
        return blob.getvalue() if place == "weights" and name == "data/weights/weight_0" else content

    rewritten(path, change)
    with pytest.raises(DenoiserError, match=r"network\.pt2"):
        load_denoiser(f"export:{path}")
    assert not ran.exists()
    assert WEIGHTS_ONLY not in os.environ
