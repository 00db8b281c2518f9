"""Features of conditions: what becomes of classes, words, vectors, fields and nestings of them."""

from __future__ import annotations

import json
import math

import pytest
import torch

from headstart.conditions import Conditions, own, shared
from headstart.errors import InputError
from headstart.initialization import Features

N = 400


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nested() -> dict[str, object]:
    """Classes, a vector, a nesting of a field and words, and what all samples share."""
    return {
        "label": torch.arange(N) % 3,
        "x": 5 + 3 * random(N, 4),
        "context": {"field": random(N, 1, 6, 5, seed=1), "words": [("sea", "land")[i % 2] for i in range(N)]},
        "scale": shared(torch.ones(N)),
    }


def test_columns_are_centred_and_of_unit_variance():
    features = Features.fit(Conditions.of(nested(), N))
    assert features.names == ("label", "x", "context['field']", "context['words']")
    columns = features(Conditions.of(nested(), N))
    assert columns.shape == (N, features.width) == (N, 3 + 4 + 30 + 2)
    torch.testing.assert_close(columns.mean(0), torch.zeros(features.width, dtype=torch.float64), atol=1e-12, rtol=0)
    numbers = columns[:, 3:37]
    torch.testing.assert_close(numbers.var(0, correction=0), torch.ones(34, dtype=torch.float64))
    # A class is 1 or 0 less its share.
    torch.testing.assert_close(columns[0, :3], torch.tensor([1.0, 0, 0]) - columns.new_tensor([134, 133, 133]) / N)


def test_features_of_some_samples_are_the_rows_of_all():
    given = Conditions.of(nested(), N)
    features = Features.fit(given)
    assert torch.equal(features(given.take(slice(7, 9))), features(given)[7:9])


def test_one_observation_stands_for_all_samples():
    """A part that went with the samples may be given once, in the shape of one of them."""
    features = Features.fit({"x": random(N, 4), "t": torch.arange(N)}, N)
    row = features(Conditions.of({"x": random(N, 4), "t": torch.arange(N)}, N))[5]
    for x in (random(N, 4)[5], random(N, 4)[5:6]):
        got = features(Conditions.of({"x": x, "t": 5}, 3))
        torch.testing.assert_close(got, row.expand(3, -1))


@pytest.mark.parametrize("fields", ["pca", "dct"])
def test_many_numbers_are_compressed(fields):
    """Smooth fields lie in a few components, which tell them apart as the fields themselves do."""
    at = torch.linspace(0, math.pi, 33, dtype=torch.float64)
    modes = torch.stack([torch.cos(k * at)[:, None] * torch.cos(m * at) for k in range(3) for m in range(3)])
    field = torch.einsum("nk,khw->nhw", random(N, 9), modes)[:, None]
    given = Conditions.of({"field": field}, N)
    features = Features.fit(given, fields=fields)
    assert features.width <= 256 < field[0].numel()
    columns = features(given)
    torch.testing.assert_close(columns.var(0, correction=0), torch.ones(features.width, dtype=torch.float64))
    fitted = torch.cat([columns, torch.ones(N, 1, dtype=torch.float64)], 1)
    left = field.flatten(1) - fitted @ torch.linalg.pinv(fitted) @ field.flatten(1)
    assert float(left.square().mean() / field.square().mean()) < (1e-12 if fields == "pca" else 0.02)


def test_what_cannot_be_described_is_ignored_and_named():
    mask = torch.zeros(N, 3).masked_fill(torch.arange(N)[:, None] % 2 == 0, -math.inf)
    texts = [f"text {i}" for i in range(N)]
    features = Features.fit({"mask": mask, "texts": texts, "same": torch.ones(N, 2), "one": torch.zeros(N).long()}, N)
    assert features.ignored == ("mask", "texts", "same", "one")
    assert features(Conditions.of({}, 4)).shape == (4, 0)


def test_a_constant_coordinate_adds_nothing():
    x = torch.cat([random(N, 2), torch.full((N, 1), 0.1, dtype=torch.float64)], 1)
    assert torch.equal(Features.fit({"x": x}, N)(Conditions.of({"x": x}, N))[:, 2], torch.zeros(N, dtype=torch.float64))


def test_a_part_that_is_missing_or_does_not_fit_is_named():
    features = Features.fit(nested(), N)
    given = nested()
    with pytest.raises(InputError, match="needs the condition context, which is missing"):
        features(Conditions.of({key: given[key] for key in ("label", "x")}, N))
    with pytest.raises(InputError, match="label is 7: expected one of"):
        features(Conditions.of(given | {"label": 7}, N))
    with pytest.raises(InputError, match=r"x is of shape \(400, 5\): this start expects \(400, 4\), or \(4,\) for all"):
        features(Conditions.of(given | {"x": random(N, 5)}, N))
    with pytest.raises(InputError, match="x holds NaN"):
        features(Conditions.of(given | {"x": random(N, 4) * math.nan}, N))


def test_saved_features_are_the_same_to_the_bit():
    given = Conditions.of(nested() | {"wide": own(random(N, 1, 33, 33))}, N)
    features = Features.fit(given)
    values, tensors = features.state()
    again = Features.from_state(json.loads(json.dumps(values)), {k: t.contiguous() for k, t in tensors.items()})
    assert repr(again) == repr(features)
    assert torch.equal(again(given), features(given))


def test_damaged_features_are_named():
    values, tensors = Features.fit(nested(), N).state()
    for damage in ({"kind": "code"}, {"path": []}, {"path": [None]}, {"kinds": [1]}, {"kinds": ["a", 2, "c"]}):
        with pytest.raises(InputError):
            Features.from_state([values[0] | damage], tensors)
    with pytest.raises(InputError, match="scale"):
        Features.from_state([values[1]], {k.replace("1.", "0."): -t for k, t in tensors.items() if k.startswith("1.")})


def test_masks_are_numbers_and_what_is_empty_is_ignored():
    """A mask of the words of a text comes as truth values, one or more of which are the same for all samples."""
    mask = torch.arange(5) < 1 + torch.arange(N)[:, None] % 4
    given = Conditions.of({"mask": mask, "empty": torch.zeros(N, 0)}, N)
    features = Features.fit(given)
    assert (features.names, features.ignored) == (("mask",), ("empty",))
    wanted = Features.fit(Conditions.of({"mask": mask.double()}, N))
    assert torch.equal(features(given), wanted(given))
    assert bool((features(given)[:, [0, 4]] == 0).all())
