"""Denoisers by name: what can be loaded keeps the contract, and every way to fail has its message."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from headstart.data import fashion_mnist
from headstart.denoiser import Adapted, Counted, Guided, denoise
from headstart.errors import DenoiserError, InputError
from headstart.models import Preconditioned, bundled, features, load_denoiser

MODULE = """
import torch
from headstart_test_helper import FACTOR

def function():
    return lambda x, sigma: x * FACTOR

def network():
    return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))

def adapted():
    from headstart import Counted, adapt, guide
    return guide(Counted(adapt(network(), "epsilon")), 2.0)

def failing():
    raise ValueError("no weights today")

def leaving():
    raise SystemExit("usage: none")

def number():
    return 3

constant = 4
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, which imports another one there."""
    (tmp_path / "headstart_test_module.py").write_text(MODULE)
    (tmp_path / "headstart_test_helper.py").write_text("FACTOR = 0.5\n")
    (tmp_path / "headstart_test_broken.py").write_text("import no_such_library\n")
    (tmp_path / "headstart_test_script.py").write_text("import sys\nsys.exit('usage: none')\n")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("headstart_test_")]:
        monkeypatch.delitem(sys.modules, name)
    return "headstart_test_module"


def test_a_factory_in_the_current_directory(module: str) -> None:
    path = list(sys.path)
    x = torch.randn(2, 3)
    assert torch.equal(denoise(load_denoiser(f"python:{module}:function"), x, 1.0), x / 2)
    assert sys.path == path


def test_a_module_is_put_on_the_device_for_evaluation(module: str) -> None:
    network = load_denoiser(f"python:{module}:network", device="meta")
    assert isinstance(network, nn.Module)
    assert not any(part.training for part in network.modules())
    assert all(p.device.type == "meta" for p in network.parameters())


def test_a_module_inside_of_adapters_is_too(module: str) -> None:
    found = load_denoiser(f"python:{module}:adapted", device="meta")
    assert isinstance(found, Guided)
    assert isinstance(found.denoiser, Counted)
    assert isinstance(found.denoiser.denoiser, Adapted)
    network = found.denoiser.denoiser.network
    assert isinstance(network, nn.Module)
    assert not any(part.training for part in network.modules())
    assert all(p.device.type == "meta" for p in network.parameters())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fashion-mnist", "expected builtin:NAME, python:package.module:factory"),
        ("", "expected builtin:NAME"),
        ("python:headstart_test_module", "expected builtin:NAME"),
        ("python:headstart_test_module:", "expected builtin:NAME"),
        ("python::network", "expected builtin:NAME"),
        ("python:.headstart_test_module:network", "expected builtin:NAME"),
        ("python:headstart_test_module:net work", "expected builtin:NAME"),
        ("pickle:headstart_test_module:network", "expected builtin:NAME"),
        ("builtin:mnist", "unknown bundled denoiser 'mnist': expected one of fashion-mnist"),
        ("python:headstart_no_such_module:network", "No module named 'headstart_no_such_module'"),
        ("python:headstart_test_broken:network", "cannot import headstart_test_broken: .*'no_such_library'"),
        ("python:headstart_test_script:network", "cannot import headstart_test_script: SystemExit"),
        ("python:headstart_test_module:nothing", "has no function 'nothing'"),
        ("python:headstart_test_module:netwrok", "has no function 'netwrok' .*did you mean 'network'"),
        ("python:headstart_test_modul:network", "cannot import .*did you mean headstart_test_(broken|module)"),
        ("python:headstart_test_module.py:network", "a module is named without .py: headstart_test_module"),
        ("headstart_test_module:network", "did you mean python:headstart_test_module:network"),
        ("headstart_test_module.py:network", "did you mean python:headstart_test_module:network"),
        ("python:headstart_test_module.network", "did you mean python:headstart_test_module:network"),
        ("headstart_test_module.py", "did you mean python:headstart_test_module:FUNCTION"),
        ("python:headstart_test_module:constant", "has no function 'constant'"),
        ("python:headstart_test_module:failing", r"failing\(\) failed: ValueError: no weights today"),
        ("python:headstart_test_module:leaving", r"leaving\(\) failed: SystemExit"),
        ("python:headstart_test_module:number", "returned a int: expected a denoiser"),
    ],
)
def test_every_failure_has_its_message(spec: str, message: str, module: str) -> None:
    with pytest.raises(DenoiserError, match=message):
        load_denoiser(spec)


@pytest.mark.parametrize("spec", ["builtin:fashion-mnist", "python:headstart_test_module:network"])
def test_an_unknown_device_is_refused(spec: str, module: str) -> None:
    with pytest.raises(DenoiserError, match="on abacus"):
        load_denoiser(spec, device="abacus")


def test_the_bundled_denoiser_denoises() -> None:
    """At every level it does better than the posterior mean under independent pixels, sigma^2 / (1 + sigma^2 / var)."""
    denoiser = load_denoiser("builtin:fashion-mnist")
    assert isinstance(denoiser, Preconditioned)
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())
    data = fashion_mnist("test", bundled=True)
    assert data.labels is not None
    x0, labels = data.samples[:64], data.labels[:64]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    for sigma in (0.1, 0.5, 2.0):
        for conditions in ({}, {"label": labels}):
            error = (denoise(denoiser, x0 + sigma * eps, sigma, **conditions) - x0).square().mean()
            assert error < 0.5 * sigma**2 / (1 + sigma**2 / 0.25)


def test_missing_or_damaged_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled.resources, "files", lambda package: tmp_path)
    with pytest.raises(DenoiserError, match=r"denoiser.safetensors are missing"):
        bundled.denoiser()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "classifier.safetensors").write_bytes(b"not weights")
    with pytest.raises(DenoiserError, match=r"cannot load the bundled weights classifier.safetensors"):
        features()


def test_the_bundled_features() -> None:
    extract = features()
    x = fashion_mnist("test", bundled=True).samples[:20]
    rows = extract(x)
    assert rows.shape == (20, 64)
    assert (rows >= 0).all()
    torch.testing.assert_close(extract(x[3:5].double()), rows[3:5], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"got shape \(20, 3, 28, 28\)"):
        extract(x.expand(-1, 3, -1, -1))
