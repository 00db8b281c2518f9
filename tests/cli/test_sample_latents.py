"""``headstart sample`` with a plan of latents: it decodes them by what it is told to run, or keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.data import load_data
from headstart.latents import Latents
from headstart.plan import Plan

Run = Callable[..., Any]
HERE = "python:headstart_cli_models"


@pytest.fixture
def latent(place: Path, tmp_path: Path) -> Path:
    """A plan whose latents are half of what was encoded, and shifted by 1; it names what decodes them."""
    codec = Latents(lambda x: x, lambda z: z, (0.5,), (1.0,), f"{HERE}:codec")
    Plan.load(place / "plan").with_latents(codec).save(tmp_path / "latent")
    return tmp_path / "latent"


def samples(folder: Path) -> NDArray[Any]:
    with np.load(folder / "samples.npz") as archive:
        found: NDArray[Any] = archive["samples"]
        return found


def test_latents_are_decoded_by_the_code_that_is_named(run: Run, place: Path, latent: Path, tmp_path: Path) -> None:
    assert run("sample", place / "plan", f"{HERE}:exact", "-n", 5, "-o", tmp_path / "z").code == 0
    command = ("sample", latent, f"{HERE}:exact", "-n", 5, "-o")
    done = run(*command, tmp_path / "x", "--decode", f"{HERE}:codec", "--json")
    assert done.json["shape"] == [3]
    z = samples(tmp_path / "z")
    assert z.shape == (5, 2)
    np.testing.assert_allclose(samples(tmp_path / "x")[:, :2], 2 * z + 1, rtol=1e-6)
    np.testing.assert_allclose(samples(tmp_path / "x")[:, 2], (2 * z + 1).sum(1), rtol=1e-5)
    assert run(*command, tmp_path / "same", "--latents").code == 0
    assert np.array_equal(samples(tmp_path / "same"), z)


def test_shards_hold_what_is_decoded_and_no_latents_beside_it(run: Run, latent: Path, tmp_path: Path) -> None:
    command = ("sample", latent, f"{HERE}:exact", "-n", 5, "--shards", "npz", "--shard-size", 2, "-o", tmp_path / "x")
    assert run(*command, "--decode", f"{HERE}:codec").code == 0
    assert load_data(tmp_path / "x").samples.shape == (5, 3)
    assert "another job" in run(*command, "--latents").err


def test_a_plan_fitted_on_a_file_of_latents_decodes_them_as_they_are(run: Run, place: Path, tmp_path: Path) -> None:
    command = ("sample", place / "plan", f"{HERE}:exact", "-n", 2, "-o")
    assert run(*command, tmp_path / "z").code == 0
    assert run(*command, tmp_path / "x", "--decode", f"{HERE}:codec").code == 0
    assert np.array_equal(samples(tmp_path / "x")[:, :2], samples(tmp_path / "z"))


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ((), 2, "codec, which the plan names"),
        (("--decode", f"{HERE}:codec", "--latents"), 2, "give one"),
        (("--decode", "diffusers:vae"), 2, "expected python:package.module:factory"),
        (("--decode", f"{HERE}:exact"), 4, "expected a tuple of encoder and decoder"),
        (("--decode", f"{HERE}:broken_codec"), 4, "NaN or infinite"),
    ],
)
def test_what_is_to_become_of_latents_is_asked(
    run: Run, latent: Path, tmp_path: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    done = run("sample", latent, f"{HERE}:exact", "-n", 2, "-o", tmp_path / "x", *more)
    assert (done.code, said in done.err.replace("\n", " ")) == (code, True), done.err
    assert not (tmp_path / "x").exists()
