"""The worked examples of latents and of a training that ends short of pure noise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from experiments.brightness.network import denoiser as brightness_denoiser
from experiments.brightness.network import small, table
from experiments.brightness.run import brightness_distance
from experiments.latents.network import denoiser as latent_denoiser
from experiments.latents.network import latents
from headstart.data import fashion_mnist
from headstart.denoiser import Range
from tests.experiments.cases import quick_run


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_latents_are_as_wide_as_the_network_expects_and_lead_back_to_images() -> None:
    images = fashion_mnist("test", bundled=True).samples[:200]
    space = latents()
    z = space.encode(images)
    assert z.shape == (200, 4, 8, 8)
    assert float(z.std()) == pytest.approx(0.5, abs=0.05)
    assert float((space.decode(z) - images).square().mean()) < 0.02
    noised = z + 0.3 * torch.randn(z.shape, generator=generator())
    assert float((latent_denoiser()(noised, 0.3) - z).square().mean()) < 0.6 * 0.3**2


@pytest.mark.slow
def test_a_plan_of_latents_returns_images(tmp_path: Path) -> None:
    found = quick_run("latents", tmp_path)
    methods = {row["method"]: row["frechet"] for row in found["rows"]}
    assert methods["reconstructions"] < methods["Heun"]


def test_the_networks_training_ends_short_of_pure_noise() -> None:
    assert Range.of(brightness_denoiser()).high == pytest.approx(math.sqrt((1 - table()[-1]) / table()[-1]))
    images = small(fashion_mnist("test", bundled=True).samples)
    assert images.shape[1:] == (1, 16, 16)
    assert float(images.mean()) == pytest.approx(0, abs=0.02)
    assert float(images.std()) == pytest.approx(1, abs=0.02)


def test_the_distance_of_brightness_is_that_of_means() -> None:
    x = torch.randn(3000, 1, 4, 4, generator=generator())
    assert brightness_distance(x, x) == 0
    assert brightness_distance(x, x + 0.25) == pytest.approx(0.25, abs=1e-6)
    # Half as wide: the mean distance of N(0, s^2) from N(0, s^2 / 4) is (s / 2) sqrt(2 / pi), with s = 1/4.
    assert brightness_distance(x, 0.5 * x) == pytest.approx(math.sqrt(2 / math.pi) / 8, rel=0.05)


@pytest.mark.slow
def test_a_learned_start_mends_the_brightness_that_noise_does_not_show(tmp_path: Path) -> None:
    found = quick_run("brightness", tmp_path)
    known = {row["method"]: row for row in found["summary"]}
    assert known["plan"]["times_less"] > 1
    assert known["noise"]["width"] < found["width"]
