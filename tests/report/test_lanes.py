"""Samples on their way: every level has its picture, what is shown is where they are, and a page plays it."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from headstart.denoiser import expand
from headstart.errors import InputError
from headstart.initialization import Isotropic
from headstart.report.lanes import RIGHT, Entry, lanes, pictured
from headstart.report.page import fragment
from headstart.sampler import Sampler, classic
from headstart.schedule import Schedule
from headstart.solver import Euler


def normal(x: Tensor, sigma: Any) -> Tensor:
    """The denoiser of N(0, I)."""
    return x / (1 + expand(sigma, x) ** 2)


def entries(shape: tuple[int, ...]) -> list[Entry]:
    short = Sampler(Isotropic(shape), Schedule([4.0, 1.0, 0.0]), Euler())
    return [
        Entry("short", "Short", "from 4", short, "plan"),
        Entry("classic", "Classic", "from 80", classic(shape, 5), "heun"),
    ]


def picture(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_images_have_a_picture_of_every_level_in_the_range_of_the_samples() -> None:
    short, long = lanes(entries((1, 8, 8)), normal)
    assert [frame["sigma"] for frame in short["frames"]] == [4.0, 1.0, 0.0]
    assert [frame["evaluations"] for frame in short["frames"]] == [0, 1, 2]
    assert [frame["evaluations"] for frame in long["frames"]] == [0, 2, 4, 5]
    assert long["seeds"] == list(range(8))
    for frame in (*short["frames"], *long["frames"]):
        assert picture(frame["image"]).shape[:2] == (2 * 9 + 1, 4 * 9 + 1)
    for lane in (short, long):  # noise of 4 and of 80 has the contrast of samples
        assert 40 < picture(lane["frames"][0]["image"])[..., 0].std() < 80


def test_large_images_are_fewer_and_made_small() -> None:
    (first, _) = lanes(entries((3, 128, 96)), normal)
    assert first["seeds"] == [0, 1, 2, 3]
    assert picture(first["frames"][0]["image"]).shape == (64 + 2, 4 * 49 + 1, 3)


def test_points_end_where_the_samples_are() -> None:
    made = entries((3,))
    (first, _) = lanes(made, normal, seeds=torch.tensor([5, 7]))  # type: ignore[arg-type]
    assert json.loads(json.dumps(first))["seeds"] == [5, 7]
    expected = made[0].sampler.sample(normal, seeds=[5, 7])[:, :2]
    assert torch.allclose(torch.tensor(first["frames"][-1]["points"]), expected)


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 8, 8)], ids=["one", "two", "images"])
def test_a_page_has_every_level_on_the_track_and_shows_the_end(shape: tuple[int, ...]) -> None:
    shown = pictured(lanes(entries(shape), normal))
    text = fragment("lanes.html", "lane_list", shown)
    assert len(re.findall(r'class="frame on"', text)) == len(shown) == 2
    assert len(re.findall(r'class="frame', text)) == 3 + 4
    for lane, levels in zip(shown, (3, 4), strict=True):
        places = [float(x) for x in re.findall(r'class="level" cx="([\d.]+)"', lane["track"])]
        assert len(places) == levels
        assert places == sorted(places)
        assert places[-1] == RIGHT
    starts = [float(re.findall(r'class="level" cx="([\d.]+)"', lane["track"])[0]) for lane in shown]
    assert starts[0] > starts[1]  # a low horizon is further on the way


def test_nothing_to_show_is_nothing() -> None:
    assert pictured([]) == []


def test_lanes_of_no_sampler_are_refused() -> None:
    with pytest.raises(InputError, match="at least one entry"):
        lanes([], lambda x, sigma: x)
