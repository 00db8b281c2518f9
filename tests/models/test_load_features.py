"""Features by name: each convention is followed, and every way to fail has its message."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.errors import DenoiserError, InputError, MissingExtraError
from headstart.models import features, load_features
from headstart.models.dinov2 import prepared
from headstart.models.extract import as_bytes


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=[2, 3]) * 2


class Inception(nn.Module):
    """As the published file: bytes in, probabilities out unless features are asked for."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.uint8
        rows = x.float().mean(dim=[2, 3])
        if return_features:
            return rows
        return rows.softmax(1)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, module in (("plain", Plain()), ("inception", Inception())):
        torch.jit.script(module).save(str(tmp_path / f"{name}.pt"))
    (tmp_path / "text.pt").write_text("no network")
    (tmp_path / "headstart_test_features.py").write_text(
        "def pixels():\n    return lambda x: x[:, 0, 0]\ndef row():\n    return lambda x: x.sum()\n"
        "def number():\n    return 3\n"
        "def raising(error):\n    def extract(x):\n        raise error\n    return extract\n"
        "def silent():\n    return raising(RuntimeError())\n"
        "def lost():\n    return raising(KeyError('a table'))\n"
        "def lines():\n    return raising(ValueError('first\\nlast'))\n"
        "def ours():\n    from headstart.models.extract import as_bytes\n    return lambda x: as_bytes(x[0])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "headstart_test_features", raising=False)
    return tmp_path


def images(n: int = 4, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_raw_and_bundled() -> None:
    assert torch.equal(load_features("raw")(images()), images().flatten(1))
    x = torch.zeros(2, 1, 28, 28)
    assert torch.equal(load_features("builtin:fashion-mnist")(x), features()(x))


def test_a_torchscript_file_gets_the_samples_as_they_are(files: Path) -> None:
    extract = load_features(f"torchscript:{files / 'plain.pt'}")
    torch.testing.assert_close(extract(images()), images().mean((2, 3)) * 2)
    with pytest.raises(DenoiserError, match=r"plain.pt fails on samples of shape \(2, 3\)"):
        extract(torch.zeros(2, 3))


def test_an_inception_file_gets_bytes_and_is_asked_for_features(files: Path) -> None:
    extract = load_features(f"torchscript:{files / 'inception.pt'}")
    expected = (images() * 127.5 + 128).clamp(0, 255).floor().mean((2, 3))
    torch.testing.assert_close(extract(images()), expected)
    grey = extract(images(channels=1))
    assert grey.shape == (4, 3)
    assert torch.equal(grey[:, 0], grey[:, 2])
    with pytest.raises(DenoiserError, match="fails on samples"):
        load_features(f"torchscript:{files / 'inception.pt'}", images_as_bytes=False)(images())


def test_bytes_are_those_of_edm() -> None:
    x = torch.tensor([-2.0, -1.0, -0.9999, 0.0, 0.99, 1.0, 2.0]).reshape(7, 1, 1, 1)
    assert as_bytes(x)[:, 1, 0, 0].tolist() == [0, 0, 0, 128, 254, 255, 255]
    with pytest.raises(InputError, match=r"got shape \(2, 2, 4, 4\)"):
        as_bytes(torch.zeros(2, 2, 4, 4))
    with pytest.raises(InputError, match="NaN"):
        as_bytes(torch.full((1, 1, 2, 2), float("nan")))
    with pytest.raises(InputError, match=r"of images in \[-1, 1\]: these are from 0 to 254"):
        as_bytes(torch.arange(0.0, 255.0, 2).reshape(2, 1, 8, 8))


def test_a_factory_in_the_current_directory(files: Path) -> None:
    assert torch.equal(load_features("python:headstart_test_features:pixels")(images()), images()[:, 0, 0])
    with pytest.raises(DenoiserError, match=r"returned \(\) for 4 samples"):
        load_features("python:headstart_test_features:row")(images())


def test_a_torchscript_file_without_forward_is_no_network(files: Path) -> None:
    class Table(nn.Module):
        @torch.jit.export
        def look(self, x: Tensor) -> Tensor:
            return x

    torch.jit.script(Table()).save(str(files / "table.pt"))
    with pytest.raises(DenoiserError, match=r"table\.pt has no method forward"):
        load_features(f"torchscript:{files / 'table.pt'}")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("silent", r"fails on samples of shape \(4, 3, 8, 8\) and type torch.float32: RuntimeError$"),
        ("lost", "KeyError: 'a table'"),
        ("lines", "ValueError: last"),
    ],
)
def test_whatever_a_network_raises_is_an_error_of_the_network(factory: str, message: str, files: Path) -> None:
    extract = load_features(f"python:headstart_test_features:{factory}")
    with pytest.raises(DenoiserError, match=message):
        extract(images())


def test_our_own_errors_keep_their_kind(files: Path) -> None:
    with pytest.raises(InputError, match="these features are of images"):
        load_features("python:headstart_test_features:ours")(images())


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("inception", InputError, "expected raw, builtin:fashion-mnist"),
        ("builtin:mnist", InputError, "unknown features"),
        ("torchscript:", InputError, "unknown features"),
        ("python:module", InputError, "unknown features"),
        ("torchscript:nothing.pt", DenoiserError, "cannot load the TorchScript file nothing.pt"),
        ("torchscript:text.pt", DenoiserError, "cannot load the TorchScript file text.pt"),
        ("python:headstart_test_features:number", DenoiserError, "returned a int: expected features"),
        ("python:headstart_test_features:none", DenoiserError, "no function 'none' that returns features"),
    ],
)
def test_every_failure_has_its_message(spec: str, error: type[Exception], message: str, files: Path) -> None:
    with pytest.raises(error, match=message):
        load_features(spec)


def test_dinov2_sees_standardised_images_and_gives_the_class_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for transformers: what it is called with, and which of its outputs is taken."""

    class Network(nn.Module):
        def forward(self, pixel_values: Tensor) -> Any:
            assert pixel_values.shape[1:] == (3, 224, 224)
            tokens = torch.stack([pixel_values.mean((2, 3)), torch.zeros(len(pixel_values), 3)], dim=1)
            return SimpleNamespace(last_hidden_state=tokens)

    def from_pretrained(name: str) -> Network:
        if name != "folder":
            raise OSError("no such network")
        return Network()

    model = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(Dinov2Model=model))
    x = torch.ones(2, 1, 16, 16)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(load_features("dinov2:folder")(x), ((1 - mean) / deviation).expand(2, 3))
    with pytest.raises(DenoiserError, match="cannot load the DINOv2 network elsewhere on cpu: no such network"):
        load_features("dinov2:elsewhere")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"headstart\[dinov2\]"):
        load_features("dinov2:facebook/dinov2-large")


def test_a_small_dinov2_network_from_a_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=224)
    network = transformers.Dinov2Model(config).eval()
    network.save_pretrained(tmp_path)
    found = load_features(f"dinov2:{tmp_path}")(images())
    assert found.shape == (4, 16)
    with torch.no_grad():
        expected = network(pixel_values=prepared(as_bytes(images()))).pooler_output
    torch.testing.assert_close(found, expected)
