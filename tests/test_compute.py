"""How the work is done: batches that hold every row once, and numbers that are refused where they enter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.compute import Compute
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.progress import Progress


@given(n=st.integers(0, 50), size=st.integers(1, 60))
def test_batches_hold_every_row_once_and_in_order(n: int, size: int) -> None:
    slices = list(Compute(batch_size=size).batches(n))
    assert [row for part in slices for row in range(n)[part]] == list(range(n))
    assert all(0 < part.stop - part.start <= size for part in slices)
    assert list(Compute(batch_size=size).batches(n, "counting")) == slices


class Told(Progress):
    def __init__(self) -> None:
        self.said: list[tuple[str, int | None]] = []

    def track(self, items: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
        self.said.append((description, total))
        yield from items


def test_progress_is_told_of_batches_that_have_a_description() -> None:
    told = Told()
    compute = Compute(batch_size=4, progress=told)
    assert len(list(compute.batches(10))) == len(list(compute.batches(10, "sampling"))) == 3
    assert told.said == [("sampling", 3)]


def test_noise_is_that_of_the_seeds_where_and_as_it_is_asked_for() -> None:
    noise = Compute(dtype=torch.float64).noise([3, 9])
    assert noise.dtype == torch.float64
    assert torch.equal(noise.normal((2,)), Noise([3, 9], dtype=torch.float64).normal((2,)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"device": None}, "unknown device None"),
        ({"device": 2**63}, "unknown device 9223372036854775808"),
        ({"device": "meta"}, "cannot be used here"),
        ({"device": f"cuda:{torch.cuda.device_count()}"}, "cannot be used here"),
        ({"dtype": torch.long}, "floating-point"),
        ({"dtype": "float32"}, "floating-point"),
        ({"batch_size": 0}, "a batch has 1 sample or more"),
        ({"batch_size": 2.5}, "a batch has 1 sample or more"),
    ],
)
def test_what_no_work_can_be_done_with_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Compute(**given)
