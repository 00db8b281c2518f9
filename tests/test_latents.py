"""Latents go there and back, in the network's units, and are built by the name that a plan keeps."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from headstart.errors import DataError, DenoiserError, InputError
from headstart.latents import Latents, Space
from headstart.models import load_latents

IMAGES = torch.randn(600, 1, 4, 6, generator=torch.Generator().manual_seed(0)) + 3


def encoder(x: Tensor) -> Tensor:
    """Two channels of unlike width about unlike means."""
    return torch.cat([5 * x[..., :3], x[..., 3:] - 7], dim=1)


def decoder(z: Tensor) -> Tensor:
    return torch.cat([z[:, :1] / 5, z[:, 1:] + 7], dim=3)


def test_latents_have_the_mean_and_the_width_that_was_asked_for_and_lead_back() -> None:
    latents = Latents.standard(encoder, decoder, IMAGES, std=0.5)
    z = latents.encode(IMAGES)
    assert z.shape == (600, 2, 4, 3)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.transpose(0, 1).flatten(1).std(1), torch.full((2,), 0.5), rtol=1e-5, atol=0)
    torch.testing.assert_close(latents.decode(z), IMAGES, rtol=0, atol=1e-5)
    assert latents.scale[1] == pytest.approx(5 * latents.scale[0], rel=0.2)


def test_one_number_stands_for_all_channels() -> None:
    latents = Latents(encoder, decoder, (0.5,), (1.0,))
    torch.testing.assert_close(latents.encode(IMAGES), (encoder(IMAGES) - 1) / 2)
    torch.testing.assert_close(latents.decode(latents.encode(IMAGES)), IMAGES)


@pytest.mark.parametrize(
    ("scale", "shift", "said"),
    [((0.0,), (0.0,), "above 0"), ((), (0.0,), "finite"), ((1.0,), (math.nan,), "finite"), ((-1.0,), (0.0,), "above")],
)
def test_numbers_that_lead_nowhere_are_refused(scale: tuple[float, ...], shift: tuple[float, ...], said: str) -> None:
    for make in (lambda: Latents(encoder, decoder, scale, shift), lambda: Space("", scale, shift)):
        with pytest.raises(InputError, match=said):
            make()


def test_a_number_alone_a_list_and_a_tensor_are_numbers() -> None:
    for scale in (0.5, [0.5], torch.tensor(0.5), torch.tensor([0.5])):
        latents = Latents(encoder, decoder, scale, 1)  # type: ignore[arg-type]
        assert (latents.scale, latents.shift) == ((0.5,), (1.0,))
        assert latents.space == Space("", (0.5,), (1.0,))
    with pytest.raises(InputError, match="expected a number, or one for each channel"):
        Space("", "half")  # type: ignore[arg-type]


def test_what_encodes_and_decodes_returns_rows() -> None:
    def output(x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=x)

    with pytest.raises(DenoiserError, match=r"encoder returned shape \(256,\) for an input of shape"):
        Latents(lambda x: x.flatten(1).sum(1), decoder).encode(IMAGES)
    with pytest.raises(DenoiserError, match=r"encoder returned shape \(1, 1, 4, 6\)"):
        Latents(lambda x: x[:1], decoder).encode(IMAGES)
    with pytest.raises(DenoiserError, match=r"decoder returned a SimpleNamespace .* takes a VAE of diffusers"):
        Latents(encoder, output).decode(encoder(IMAGES))  # type: ignore[arg-type]


def test_numbers_must_fit_the_channels_and_channels_must_vary() -> None:
    with pytest.raises(InputError, match="3 numbers for the 2 channels"):
        Latents(encoder, decoder, (1.0, 2.0, 3.0)).encode(IMAGES)
    with pytest.raises(DataError, match="constant"):
        Latents.standard(encoder, decoder, torch.ones(9, 1, 4, 6))


CODE = """
def pair():
    return (lambda x: x + 1), (lambda z: z - 1)


def one():
    return abs


def words():
    return "encoder", "decoder"
"""


def test_they_are_built_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latents_of_mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    space = Space("python:latents_of_mine:pair", (2.0,), (0.5,))
    latents = load_latents(space)
    assert latents.space == space
    torch.testing.assert_close(latents.encode(IMAGES), (IMAGES + 0.5) * 2)
    torch.testing.assert_close(latents.decode(latents.encode(IMAGES)), IMAGES)
    assert load_latents("python:latents_of_mine:pair").scale == (1.0,)
    with pytest.raises(DenoiserError, match="expected a tuple of encoder and decoder"):
        load_latents("python:latents_of_mine:one")
    with pytest.raises(DenoiserError, match="expected an encoder and a decoder"):
        load_latents("python:latents_of_mine:words")
    for spec in ("", "diffusers:folder", "python:latents_of_mine"):
        with pytest.raises(InputError, match="names no code"):
            load_latents(spec)
