"""Conditions: what goes with a sample follows it, and what all samples share stays whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from headstart import own, shared
from headstart.conditions import Conditions, Part, Split, hold_out, labelled, leaves, split_conditions, take
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
    given = {"a": torch.zeros(5, 2), "b": torch.zeros(4), "c": torch.tensor(5.0), "d": [0] * 5, "e": "words"}
    goes, alone = split_conditions(given, 5)
    assert set(goes) == {"a", "d"}
    assert set(alone) == {"b", "c", "e"}


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


@pytest.mark.parametrize("value", [torch.zeros(5), torch.tensor(1), [0] * 5, "sixsix"], ids=repr)
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


# Nestings, marks and doubts


class Pair(NamedTuple):
    first: Any
    second: Any


def rows(count: int, *shape: int) -> Tensor:
    """A tensor whose rows say which they are."""
    return torch.arange(count).reshape(count, *(1 for _ in shape)).expand(count, *shape).clone()


def nested(count: int) -> dict[str, Any]:
    """Every kind of condition, of which each row says which it is; and what is shared, some of it as long."""
    return {
        "x": rows(count, 3),
        "sigma": {"text": (rows(count, 2, 2), [rows(count), "words", None]), "scale": 7.5},
        "n": rows(count).numpy()[::-1][::-1],
        "seeds": list(range(count)),
        "noise": Pair(rows(count, 1), shared({"table": torch.zeros(count), "list": [1] * count})),
        "denoiser": np.array([str(i) for i in range(count)]),
        "dtype": own(tuple(str(i) for i in range(count))),
        "self": shared(np.full(count, 0.5)),
        "label": 3,
    }


def owners(leaf: Any) -> list[int]:
    """Which samples the rows of a leaf are of."""
    if isinstance(leaf, Tensor):
        return [int(row.flatten()[0]) for row in leaf]
    return [int(row) for row in leaf]


@pytest.mark.parametrize("which", [slice(2, 5), torch.tensor([5, 0, 5]), torch.tensor([], dtype=torch.long)], ids=str)
def test_every_part_of_a_nesting_follows_its_samples(which: Any) -> None:
    given = Conditions.of(nested(6), 6)
    some = given.take(which)
    wanted = torch.arange(6)[which].tolist()
    assert some.count == len(wanted)
    first, second = some["noise"]
    assert isinstance(some["noise"], Pair)
    text, (mask, words, nothing) = some["sigma"]["text"]
    for leaf in (some["x"], text, mask, some["n"], some["seeds"], first, some["denoiser"], some["dtype"]):
        assert owners(leaf) == wanted
    assert (words, nothing, some["sigma"]["scale"], second["list"]) == ("words", None, 7.5, [1] * 6)
    assert isinstance(some["dtype"], tuple)
    assert second["table"].shape == some["self"].shape == (6,)
    assert some["self"].dtype == torch.float32
    assert some["n"].dtype == torch.int64
    assert some["label"].tolist() == [3] * len(wanted)
    assert {leaf.device.type for leaf in leaves(dict(given.to("meta"))) if isinstance(leaf, Tensor)} == {"meta"}


def test_what_is_shared_and_what_goes_with_the_samples_are_told_apart_by_name() -> None:
    goes, alone = Conditions.of(nested(6), 6).apart()
    assert set(alone) == {"self"}
    assert set(goes) == set(nested(6)) - {"self"}
    part, rest = Part.of(torch.zeros(6, 2), nested(6))
    assert set(rest) == {"self"}
    assert owners(part.take(torch.tensor([4])).conditions["sigma"]["text"][0]) == [4]


@pytest.mark.parametrize("value", [torch.zeros(5), {"a": torch.zeros(6), "b": 2}, [torch.zeros(6), "word"], "sixsix"])
def test_what_is_marked_as_going_with_the_samples_has_a_row_for_each(value: Any) -> None:
    with pytest.raises(InputError, match=r"text.* does not go with 6 samples"):
        Conditions.of({"text": own(value)}, 6)


def test_a_mask_in_a_condition_is_refused() -> None:
    with pytest.raises(DataError, match=r"condition text\['a'\] holds 2 masked values"):
        Conditions.of({"text": {"a": np.ma.masked_array(np.zeros(6), [1, 1, 0, 0, 0, 0])}}, 6)


def test_conditions_are_those_of_their_own_samples() -> None:
    given = Conditions.of({"a": torch.zeros(6)}, 6)
    assert Conditions.of(given, 6) is given
    with pytest.raises(InputError, match="conditions of 6 samples"):
        Conditions.of(given, 5)


COUNT = 10
NUMBERS = torch.arange(float(COUNT))

#: Networks of a condition, and whether they take it as shared.
NETWORKS: dict[str, tuple[Any, bool]] = {
    "the mean of an observation": (lambda x, c: x + c.mean(), True),
    "a table to look up in": (lambda x, c: x + c[torch.tensor([7])], True),
    "a matrix": (lambda x, c: x @ torch.ones(2, COUNT) @ c[:, None].expand(COUNT, 2), True),
    "one number a sample": (lambda x, c: x + c[:, None], False),
    "one a sample, in a loop": (lambda x, c: torch.stack([x[i] + c[i] for i in range(len(x))]), False),
    "one a sample, broadcast": (lambda x, c: x[:, None].expand(len(x), 1, 2)[:, 0] + c.reshape(-1, 1), False),
    "nothing": (lambda x, c: x, False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_says_what_it_shares(name: str) -> None:
    network, is_shared = NETWORKS[name]
    for count in (COUNT, 2):
        c = NUMBERS[:count] + 1
        if count == 2 and name in ("a table to look up in", "a matrix"):
            continue

        def answer(given: Conditions, network: Any = network) -> Tensor | None:
            x = torch.zeros(given.count, 2)
            try:
                out: Tensor = network(x, given["c"])
            except (RuntimeError, IndexError):
                return None
            return out if out.shape == x.shape else None

        found = Conditions.of({"c": c}, count).told_apart(answer)
        assert found.goes_with_samples("c") is not is_shared
        assert len(found.take(slice(0, 1))["c"]) == (count if is_shared else 1)


def test_two_doubts_are_told_apart_and_what_is_marked_is_not_asked_about() -> None:
    asked = []

    def answer(given: Conditions) -> Tensor | None:
        asked.append(given)
        x = torch.zeros(given.count, 2)
        return None if len(given["b"]) != len(x) else x + given["a"].sum() + given["b"][:, None]

    found = Conditions.of({"a": NUMBERS, "b": NUMBERS}, COUNT).told_apart(answer)
    assert [found.goes_with_samples(name) for name in "ab"] == [False, True]
    asked.clear()
    Conditions.of({"a": shared(NUMBERS), "b": own(NUMBERS), "label": NUMBERS.long()}, COUNT).told_apart(answer)
    assert not asked


def test_some_rows_of_a_named_tuple_are_a_tuple() -> None:
    """With a row for each sample it has as many fields as there are samples."""
    both = Conditions.of({"pair": own(Pair(1.0, 2.0))}, 2)
    assert both.take(torch.tensor([1]))["pair"] == (2.0,)
    assert both.take(slice(0, 1))["pair"] == (1.0,)
