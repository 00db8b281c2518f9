"""Distances in several views: the pyramid, what each view sees, and the mean of their logarithms."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from headstart.errors import DataError
from headstart.metrics import Multiscale, MultiscaleReference, sliced_wasserstein
from headstart.noise import Noise

IMAGES = torch.nn.functional.avg_pool2d(Noise(range(600)).normal((1, 40, 40)), 5, stride=1)[..., 4:-4, 4:-4]


def test_views_of_an_image_are_its_laplacian_pyramid():
    """The bands of an image add up to it; a constant is seen only by the last band, and sharpness only by the first."""
    x = Noise(range(4)).normal((2, 28, 28))
    views = Multiscale(x)
    fine, middle, coarse = views._bands(x)
    assert [band.shape[-1] for band in (fine, middle, coarse)] == [28, 14, 7]
    up = partial(torch.nn.functional.interpolate, scale_factor=2)
    torch.testing.assert_close(fine + up(middle + up(coarse)), x)
    flat = views._bands(torch.ones(1, 2, 28, 28))
    assert all(band.abs().max() < 1e-6 for band in flat[:2])
    places = views.places(torch.Generator().manual_seed(0))
    names = [name for name, _ in views(x, places)]
    assert names == ["whole", *["band 1"] * 4, *["band 2"] * 4, *["band 3"] * 4]
    assert all(view.shape in {(4, 2 * 28 * 28), (4, 2 * 49)} for _, view in views(x, places))


@pytest.mark.parametrize("shape", [(3,), (4, 30), (1, 5, 40), (3, 9, 11)])
def test_views_exist_for_every_shape(shape):
    x = Noise(range(5)).normal(shape)
    views = Multiscale(x)
    found = views(x, views.places(torch.Generator().manual_seed(0)))
    assert found[0][1].shape == (5, np.prod(shape))
    assert len(found) == (9 if shape == (3, 9, 11) else 1)
    assert all(torch.isfinite(view).all() for _, view in found)


def test_vectors_have_one_view_in_units_of_their_spread():
    x, y = 3 * Noise(range(200)).normal((4,)), 3 * Noise(range(200, 500)).normal((4,))
    reference = MultiscaleReference.of(y)
    scale = float(y.var(dim=0).mean().sqrt())
    expected = sliced_wasserstein(x / scale, y / scale, 64, 0)
    assert reference.distances(x) == {"whole": pytest.approx(expected, rel=1e-5)}
    assert reference.distance(x) == pytest.approx(expected, rel=1e-5)


def test_the_distance_is_the_geometric_mean_of_the_views():
    reference = MultiscaleReference.of(IMAGES[:300])
    each = reference.distances(IMAGES[300:] * 1.2)
    assert set(each) == {"whole", "band 1", "band 2", "band 3"}
    logarithms = [math.log(value) for value in each.values()]
    assert math.log(reference.distance(IMAGES[300:] * 1.2)) == pytest.approx(np.mean(logarithms))


def test_blur_is_seen_in_the_finest_band_and_hardly_in_the_whole():
    """Of images as smooth as these, a light blur takes away little but detail."""
    reference, held = MultiscaleReference.of(IMAGES[:300]), IMAGES[300:]
    blurred = torch.nn.functional.avg_pool2d(held, 3, stride=1, padding=1, count_include_pad=False)
    sharp, dull = reference.distances(held), reference.distances(blurred)
    ratios = {name: dull[name] / sharp[name] for name in sharp}
    assert ratios["band 1"] > 2
    assert ratios["band 1"] > 1.5 * ratios["whole"]


def test_units_do_not_matter():
    near = MultiscaleReference.of(IMAGES[:300]).distances(IMAGES[300:])
    far = MultiscaleReference.of(100 * IMAGES[:300]).distances(100 * IMAGES[300:])
    assert near == pytest.approx(far, rel=1e-4)


def test_a_view_in_which_the_data_are_constant_is_left_out():
    """Images of constant 4 x 4 blocks have no detail in their two finest bands."""
    blocks = Noise(range(300)).normal((1, 8, 8)).repeat_interleave(4, -1).repeat_interleave(4, -2)
    reference = MultiscaleReference.of(blocks[:150])
    assert set(reference.distances(blocks[150:])) == {"whole", "band 3"}


def cornered(images):
    """Images that are constant but for a corner of 4 x 4 pixels."""
    out = torch.full((len(images), 1, 32, 32), -1.0)
    out[..., :4, :4] = images[..., :4, :4]
    return out


def test_places_at_which_the_data_are_constant_are_not_looked_at():
    """All patches that are cut out show some of the corner, and every band in which the data vary has its four."""
    x = cornered(IMAGES)
    views = Multiscale(x)
    seen = views(x, views.places(torch.Generator().manual_seed(0)))
    assert [name for name, _ in seen] == ["whole", *["band 1"] * 4, *["band 2"] * 4, *["band 3"] * 4]
    assert all(view.var(dim=0).sum() > 0 for _, view in seen)


def test_what_does_not_vary_decides_nothing():
    """One set of samples is nearer, and off by next to nothing in the constant part; the other is exact there alone."""
    reference = MultiscaleReference.of(cornered(IMAGES[:300]))
    near = cornered(IMAGES[300:]) + 1e-6 * Noise(range(300)).normal((1, 32, 32))
    far = cornered(0.5 * IMAGES[300:])
    assert reference.distance(near) < reference.distance(far)


def test_a_distance_is_floored_at_a_thousandth_of_the_spread():
    reference = MultiscaleReference.of(IMAGES[:300])
    assert set(reference.distances(IMAGES[:300]).values()) == {1e-3}
    assert reference.distance(IMAGES[:300]) == pytest.approx(1e-3)


def test_the_spread_is_that_of_data_that_are_sorted_too():
    """Two classes one after the other, each of them in more samples than the spread is taken from."""
    x = torch.cat([0.1 * torch.ones(3000, 2), -0.1 * torch.ones(3000, 2)]) + 0.01 * Noise(range(6000)).normal((2,))
    assert Multiscale(x).scales == pytest.approx([float(x.var(dim=0).mean().sqrt())], rel=0.01)


@pytest.mark.parametrize("real", [torch.ones(5, 3), torch.full((5, 3), math.nan), torch.randn(1, 3)])
def test_data_that_tell_nothing_are_refused(real):
    with pytest.raises(DataError):
        MultiscaleReference.of(real)


def test_samples_of_another_shape_are_refused():
    with pytest.raises(DataError, match="shape"):
        MultiscaleReference.of(IMAGES[:50]).distance(IMAGES[:50, :, :20])


def test_bands_can_be_looked_at_as_a_whole():
    views = Multiscale(IMAGES)
    found = dict(views(IMAGES, None))
    assert {name: view.shape[1] for name, view in found.items()} == {
        "whole": 28 * 28,
        "band 1": 28 * 28,
        "band 2": 14 * 14,
        "band 3": 7 * 7,
    }
    assert all(view.var(dim=0).mean() == pytest.approx(1, rel=0.01) for view in found.values())
    doubled = dict(views(2 * IMAGES, None))
    assert all(torch.allclose(doubled[name], 2 * view) for name, view in found.items())
    constant = torch.nn.functional.interpolate(IMAGES, scale_factor=2)  # its finest band is 0
    assert [name for name, _ in Multiscale(constant)(constant, None)] == ["whole", "band 2", "band 3"]
