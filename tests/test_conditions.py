"""Conditions: what goes with a sample follows it, and what all samples share stays whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.conditions import Part, Split, hold_out, labelled, split_conditions, take
from headstart.errors import DataError, InputError

SAMPLES = torch.arange(12.0).reshape(6, 2)
GIVEN = {"label": torch.arange(6), "text": torch.arange(24.0).reshape(6, 4), "scale": 3, "table": torch.zeros(3)}


@pytest.mark.parametrize(
    "label", [2, np.int64(2), torch.tensor(2), torch.tensor([2]), [2] * 5, np.full(5, 2)], ids=repr
)
def test_one_label_stands_for_all(label: Any) -> None:
    found = labelled({"label": label, "scale": 3}, 5)
    assert found["label"].tolist() == [2] * 5
    assert found["scale"] == 3


@pytest.mark.parametrize("conditions", [{}, {"label": None, "scale": 3}])
def test_where_there_is_no_label_none_is_made(conditions: dict[str, Any]) -> None:
    assert labelled(conditions, 5) == conditions


@pytest.mark.parametrize("label", ["cat", torch.zeros(4), torch.zeros(5, 2), torch.zeros(0), {}], ids=repr)
def test_a_label_that_is_no_class_is_named(label: Any) -> None:
    with pytest.raises(InputError, match=r"label .*expected"):
        labelled({"label": label}, 5)


def test_conditions_of_the_samples_are_told_from_those_they_share() -> None:
    own, shared = split_conditions(
        {"a": torch.zeros(5, 2), "b": torch.zeros(4), "c": torch.tensor(5.0), "d": [0] * 5}, 5
    )
    assert set(own) == {"a"}
    assert set(shared) == {"b", "c", "d"}


@given(rows=st.lists(st.integers(0, 5), max_size=12))
def test_what_goes_with_a_sample_follows_it(rows: list[int]) -> None:
    """Also where as many samples are taken as a shared tensor is long."""
    part, shared = Part.of(SAMPLES, GIVEN)
    assert shared == {"scale": 3, "table": GIVEN["table"]}
    taken = part.take(torch.tensor(rows, dtype=torch.long))
    assert len(taken) == len(rows)
    assert torch.equal(taken.samples[:, 0], 2.0 * taken.conditions["label"])
    assert torch.equal(taken.conditions["text"][:, 0], 4.0 * taken.conditions["label"])
    assert taken.label is taken.conditions["label"]


def test_a_part_is_cut_by_slices_and_moves_as_one() -> None:
    part = Part.of(SAMPLES, GIVEN)[0].take(slice(4, 99)).to("meta", torch.float64)
    assert len(part) == 2
    assert part.samples.dtype == torch.float64
    assert {v.device.type for v in (part.samples, *part.conditions.values())} == {"meta"}
    assert part.conditions["label"].dtype == torch.long
    assert Part(SAMPLES).label is None


@pytest.mark.parametrize("value", [torch.zeros(5), torch.tensor(1), [0] * 6], ids=repr)
def test_a_condition_without_a_row_for_each_sample_is_named(value: Any) -> None:
    with pytest.raises(InputError, match="scale does not go with 6 samples"):
        Part(SAMPLES, {"scale": value})


def test_rows_of_conditions_alone() -> None:
    some = take(GIVEN, torch.tensor([2, 0]), 6)
    assert some["label"].tolist() == [2, 0]
    assert (some["scale"], some["table"]) == (3, GIVEN["table"])


@pytest.mark.parametrize("label", [None, torch.arange(40) % 3, 1])
def test_a_split_has_every_sample_once_and_what_goes_with_it(label: Any) -> None:
    data = torch.arange(40.0)[:, None]
    split = Split.of(data, {"label": label, "place": torch.arange(40), "scale": 3}, seed=5)
    assert (len(split.fitted), len(split.held_out)) == (32, 8)
    both = torch.cat([split.fitted.conditions["place"], split.held_out.conditions["place"]])
    assert sorted(both.tolist()) == list(range(40))
    for part in (split.fitted, split.held_out):
        assert torch.equal(part.samples[:, 0].long(), part.conditions["place"])
    known = split.whole.label
    for rows, expected in zip((split.fitted_rows, split.held_out_rows), hold_out(data, 5, labels=known), strict=True):
        assert torch.equal(rows, expected)
    assert split.shared == ({"scale": 3} if known is not None else {"label": None, "scale": 3})


def test_labels_that_leave_nothing_to_hold_out_are_refused() -> None:
    with pytest.raises(DataError, match="0 of 40 samples could be held out"):
        Split.of(torch.zeros(40, 1), {"label": torch.arange(40)})
