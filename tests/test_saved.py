"""Tensors and values of saved starts and profiles: what none can have is refused, and what one can have is taken."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart.artefact import read_tensors, write_tensors
from headstart.errors import ArtefactError, InputError
from headstart.initialization import Autoregressive, Flow, Initialization, StudentT, Teleportation, Training
from headstart.noise import Noise
from headstart.saved import MOST, Saved
from tests.cases import DATA, LABELS, STARTS
from tests.plan.cases import profile

ONCE = Training(epochs=1)
SMALL: dict[str, Initialization] = {
    **STARTS,
    "student": StudentT.fit(DATA),
    "multivariate": StudentT.fit(DATA, "multivariate"),
    "teleportation": Teleportation.fit(DATA),
    "autoregressive": Autoregressive.fit(DATA, patch=1, channels=4, layers=1, heads=1, labels=LABELS, training=ONCE),
    "flow": Flow.fit(DATA, hidden=(4,), transforms=1, labels=LABELS, training=ONCE),
}


def changed(tensor: Tensor) -> dict[str, Tensor]:
    """What a forged file may hold in a tensor's place."""
    wide = tensor.double()
    return {
        "a number": torch.tensor(1.0) if tensor.ndim else torch.ones(1),
        "one dimension more": tensor[None],
        "one row more": torch.cat([tensor, tensor[:1]]) if tensor.ndim else torch.ones(2),
        "none": tensor[:0] if tensor.ndim else torch.ones(0),
        "NaN": torch.full_like(wide, math.nan),
        "Inf": torch.full_like(wide, math.inf),
        "too large": torch.full_like(wide, 1e200),
        "complex": tensor.to(torch.complex64),
    }


@pytest.mark.parametrize("name", SMALL)
def test_a_start_is_read_as_it_was_saved(name: str, tmp_path: Path) -> None:
    start = SMALL[name]
    start.save(tmp_path / "start")
    again = Initialization.load(tmp_path / "start")
    sigma = math.sqrt(start.sigmas[0] * start.sigmas[1]) if math.isfinite(start.sigmas[1]) and start.sigmas[0] else 2.0
    assert torch.equal(again.sample(Noise(range(5)), sigma), start.sample(Noise(range(5)), sigma))


@pytest.mark.parametrize("name", SMALL)
def test_tensors_that_no_start_has_are_refused(name: str, tmp_path: Path) -> None:
    """Every tensor of every family, with the right checksum; removed too, but for what may be missing."""
    SMALL[name].save(tmp_path / "start")
    values, tensors = read_tensors(tmp_path / "start", "headstart-start", 1)
    for key, tensor in tensors.items():
        forged = changed(tensor) | ({} if key in ("owners", "labels") else {"missing": None})
        if tensor.dtype == torch.bool:
            forged = {how: new for how, new in forged.items() if how not in ("NaN", "Inf", "too large", "complex")}
        for how, new in forged.items():
            if key == "data" and how in ("one dimension more", "one row more"):
                continue  # other samples
            own = {other: value for other, value in {**tensors, key: new}.items() if value is not None}
            write_tensors(tmp_path / "forged", "headstart-start", 1, values, own)
            refused(lambda: Initialization.load(tmp_path / "forged"), f"{key}: {how}")


def refused(load: Callable[[], object], what: str) -> None:
    with pytest.raises(ArtefactError, match="is damaged"):
        pytest.fail(f"{what}: {load()}")


HOSTILE: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**9,
    10**18,
    "x",
    [],
    [-5],
    [10**12],
    [200_000_000],
    [[1]],
    {},
    {"a": 1},
]


@pytest.mark.parametrize("name", SMALL)
def test_values_that_no_start_has_are_refused_in_little_memory(name: str, tmp_path: Path) -> None:
    SMALL[name].save(tmp_path / "start")
    values, tensors = read_tensors(tmp_path / "start", "headstart-start", 1)
    tracemalloc.start()
    for key, value in values["values"].items():
        for new in HOSTILE:
            if new == value or (type(value) is float and type(new) in (int, float)):
                continue
            forged = {**values, "values": {**values["values"], key: new}}
            write_tensors(tmp_path / "forged", "headstart-start", 1, forged, tensors)
            refused(lambda: Initialization.load(tmp_path / "forged"), f"{key}: {new}")
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


def test_a_sample_has_no_more_numbers_than_any_model_has() -> None:
    assert Saved({"shape": [3, 1024, 1024]}, {}).shape() == (3, 1024, 1024)
    for shape in ([MOST + 1], [2**13, 2**13], [1] * 17):
        with pytest.raises(InputError):
            Saved({"shape": shape}, {}).shape()


def test_curves_that_no_measurement_gives_are_refused(tmp_path: Path) -> None:
    values, tensors = profile().state()
    for key, tensor in tensors.items():
        forged = changed(tensor) | {"missing": None, "negative": -tensor, "too large": torch.full_like(tensor, -1.0)}
        for how, new in forged.items():
            if how == "one row more" and key == "losses":
                continue  # which is one more sample
            own = {other: value for other, value in {**tensors, key: new}.items() if value is not None}
            write_tensors(tmp_path / "forged", "headstart-profile", 1, values, own)
            refused(lambda: type(profile()).load(tmp_path / "forged"), f"{key}: {how}")
