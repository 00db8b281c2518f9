"""Files of tensors and values: whole or not there, and refused when damaged, foreign or newer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from headstart.artefact import checked, parse_json, read_tensors, write_tensors
from headstart.errors import ArtefactError
from headstart.initialization import Initialization, Isotropic
from headstart.profile import Profile

TENSORS = {
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "a": torch.arange(6).reshape(2, 3).mT,
    "scalar": torch.tensor(3.25, dtype=torch.float64),
    "none": torch.zeros(0, 2),
}
VALUES = {"name": "é", "numbers": [0.1, 1e-300], "none": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "new" / "file", "form", 2, VALUES, TENSORS)
    return tmp_path / "new" / "file"


def test_what_is_read_is_what_was_written(path: Path) -> None:
    values, tensors = read_tensors(path, "form", 2)
    assert values == VALUES
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert all(tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)
    assert os.listdir(path.parent) == ["file"]


def test_others_are_refused(path: Path) -> None:
    with pytest.raises(ArtefactError, match="does not say that it is a other"):
        read_tensors(path, "other", 2)
    with pytest.raises(ArtefactError, match="has version 2, and this headstart reads up to 1: upgrade it"):
        read_tensors(path, "form", 1)
    with pytest.raises(ArtefactError, match="missing cannot be read"):
        read_tensors(path.parent / "missing", "form", 2)
    with pytest.raises(ArtefactError):
        read_tensors(path.parent, "form", 2)
    path.write_bytes(safetensors.torch.save(TENSORS_ALONE))
    with pytest.raises(ArtefactError, match="does not say that it is"):
        read_tensors(path, "form", 2)
    path.write_bytes(safetensors.torch.save(TENSORS_ALONE, metadata={"headstart": '{"format": "form", "version": 1}'}))
    with pytest.raises(ArtefactError, match="is damaged: 'values'"):
        read_tensors(path, "form", 2)


TENSORS_ALONE = {"a": torch.ones(2)}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_never_read_as_other_numbers(data: st.DataObject) -> None:
    """It is seen, or it is one of the padding, which means nothing."""
    path = Path("/tmp") / f"headstart-artefact-{os.getpid()}"
    write_tensors(path, "form", 2, VALUES, TENSORS)
    blob = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, 8 * len(blob) - 1))
    blob[place // 8] ^= 1 << (place % 8)
    path.write_bytes(blob)
    try:
        values, tensors = read_tensors(path, "form", 2)
    except ArtefactError:
        return
    finally:
        path.unlink()
    assert values == VALUES
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("load", [Profile.load, Initialization.load])
def test_the_file_of_something_else_is_no_profile_and_no_start(load, path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ArtefactError, match="does not say that it is a headstart-"):
        load(path)


def test_a_start_of_unknown_family_or_state_is_damaged(tmp_path: Path) -> None:
    for values in ({"name": "laplace", "values": {}}, {"name": "isotropic", "values": {}}, {}):
        write_tensors(tmp_path / "start", "headstart-start", 1, values, {})
        with pytest.raises(ArtefactError, match="is damaged"):
            Initialization.load(tmp_path / "start")


def test_a_profile_without_a_value_or_a_curve_is_damaged(tmp_path: Path) -> None:
    whole = {"sigma_data": 1.0, "shape": [2], "seed": 0, "digest": ""}
    for values in ({**whole, "more": 1}, {"shape": [2]}, whole):
        write_tensors(tmp_path / "profile", "headstart-profile", 1, values, {})
        with pytest.raises(ArtefactError, match="is damaged"):
            Profile.load(tmp_path / "profile")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """The system lets no file grow beyond 10 bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(ArtefactError, match=f"cannot write .*start: {os.strerror(errno.EFBIG)}"):
            Isotropic((2,)).save(tmp_path / "start")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    with pytest.raises(ArtefactError, match="cannot write"):
        Isotropic((2,)).save(tmp_path / "file" / "start")


DEEP = "[" * 100_000


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e999", "{", "9" * 22, DEEP, '{"a":' * 9999])
def test_numbers_of_json_are_finite(text: str) -> None:
    with pytest.raises(ValueError, match=r"finite|Expecting|characters|deeply"):
        parse_json(text)


def test_values_are_checked_by_their_schema() -> None:
    class Schema(BaseModel):
        inner: dict[str, int]

    assert checked(Schema, {"inner": {"a": 1}}, Path("x")).inner == {"a": 1}
    with pytest.raises(ArtefactError, match=r"x is damaged: inner\.a: "):
        checked(Schema, {"inner": {"a": "b"}}, Path("x"))
