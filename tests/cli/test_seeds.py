"""Seeds on the command line: every list of ranges comes back as its seeds, and nothing else passes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.cli.common import parse_numbers
from headstart.errors import InputError


@given(st.lists(st.tuples(st.integers(0, 2**50), st.integers(1, 30)), min_size=1, max_size=6, unique_by=lambda p: p[0]))
def test_ranges_include_both_their_ends(ranges: list[tuple[int, int]]) -> None:
    parts = [range(100 * first, 100 * first + count) for first, count in ranges]  # so that none overlap
    written = [str(r.start) if len(r) == 1 else f"{r.start}-{r.stop - 1}" for r in parts]
    assert parse_numbers(", ".join(written)) == [seed for r in parts for seed in r]


@given(st.text("0123456789-, x²", max_size=6))
def test_whatever_is_written_gives_seeds_or_a_message(text: str) -> None:
    with contextlib.suppress(InputError):
        seeds = parse_numbers(text)
        ends = {int(end) for end in text.replace("-", ",").split(",")}
        assert {seeds[0], seeds[-1]} <= ends
        assert min(seeds) >= 0
        assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("text", ["", "-", "-3", "3-", "1-2-3", "1,,2", "1.5", "a-b", "0x3", "１", "٣", "1e3", "-1-3"])
def test_what_is_no_seed(text: str) -> None:
    with pytest.raises(InputError, match="names no seeds"):
        parse_numbers(text)


@pytest.mark.parametrize("text", ["3,3", "0-5,5", "2,1-3", "7,07"])
def test_a_seed_that_comes_twice(text: str) -> None:
    with pytest.raises(InputError, match="names a seed twice"):
        parse_numbers(text)


def test_a_slip_of_the_finger_does_not_fill_the_memory() -> None:
    with pytest.raises(InputError, match="more than 10,000,000 seeds"):
        parse_numbers("0-99999999999999")
