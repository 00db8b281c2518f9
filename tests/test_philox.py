"""Philox streams that are drawn together give NumPy's numbers to the bit, whatever is drawn before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import noise as module
from headstart import philox
from headstart.noise import Noise

KEYS = [0, 1, 2, 77, 2**32, 2**63, 2**64 - 1]


def of_numpy(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=key))


def fresh(keys: list[int]) -> tuple[philox.Longs, Any]:
    return np.array(keys, dtype=np.uint64), np.zeros(len(keys), dtype=np.int64)


def test_words_are_those_of_numpy() -> None:
    keys, positions = fresh(KEYS)
    found = philox.words(keys, positions, 26)
    for key, row in zip(KEYS, found, strict=True):
        raw = np.random.Philox(key=key).random_raw(13)
        assert row.tolist() == [part for word in raw.tolist() for part in (word & 0xFFFFFFFF, word >> 32)]


@pytest.mark.parametrize("position", [0, 1, 7, 8, 21])
def test_a_stream_goes_on_where_it_was_left(position: int) -> None:
    for key in KEYS:
        expected = of_numpy(key)
        expected.random(position, dtype=np.float32)
        found = philox.stream(key, position)
        assert philox.position_of(philox.stream(key, position)) == position or position == 0
        assert np.array_equal(found.random(5, dtype=np.float32), expected.random(5, dtype=np.float32))


@settings(deadline=None, max_examples=20)
@given(
    first=st.integers(0, 2**64 - 2000),
    sizes=st.lists(st.tuples(st.booleans(), st.integers(1, 140)), min_size=1, max_size=5),
)
def test_draws_are_those_of_numpy_to_the_bit(first: int, sizes: list[tuple[bool, int]]) -> None:
    seeds = list(range(first, first + 60))
    keys, positions = fresh(seeds)
    expected = [of_numpy(seed) for seed in seeds]
    for gaussian, count in sizes:
        if gaussian:
            found = philox.normal(keys, positions, count)
            reference = [stream.standard_normal(count, dtype=np.float32) for stream in expected]
        else:
            found = philox.uniform(keys, positions, count)
            reference = [stream.random(count, dtype=np.float32) for stream in expected]
        assert np.array_equal(found, np.stack(reference))


def test_half_a_million_normal_numbers_are_those_of_numpy_to_the_bit() -> None:
    """They meet every layer, rejections one after the other, and the tail more than a hundred times."""
    keys, positions = fresh(list(range(4000)))
    found = philox.normal(keys, positions, 125)
    expected = np.stack([of_numpy(key).standard_normal(125, dtype=np.float32) for key in range(4000)])
    assert (np.abs(expected) > philox.TAIL).sum() > 100
    assert np.array_equal(found, expected)


def test_the_tables_decide_as_those_of_numpy_at_the_edge_of_every_layer() -> None:
    """The last attempt that is certain takes one word and gives its exact number; the next takes another."""
    certain, width, _ = philox.ziggurat()
    for layer in [i for i in range(philox.LAYERS) if certain[i]]:
        edge = int(certain[layer])
        number, taken = _drawn_of([layer | (edge - 1) << 9])
        assert (number, taken) == (np.float32(edge - 1) * width[layer], 1)
        assert _drawn_of([layer | edge << 9])[1] > 1


def test_the_heights_decide_as_those_of_numpy() -> None:
    """An attempt in the middle of every layer's uncertain part, with uniform numbers close to its edge."""
    certain, width, height = philox.ziggurat()
    for layer in range(1, philox.LAYERS):
        attempt = (int(certain[layer]) + 2**23) // 2
        x = float(np.float32(attempt) * width[layer])
        edge = (np.exp(-0.5 * x * x) - height[layer]) / (float(height[layer - 1]) - float(height[layer]))
        for step in (-40, -1, 0, 1, 40):
            words = [layer | attempt << 9, (int(edge * 2**24) + step) << 8, 1 | 0, 0, 0, 0, 0, 0]
            row, draws = np.array([words], dtype=np.uint32), np.empty((1, 1), dtype=np.float32)
            known, taken = philox._ziggurat_normal(row, draws)
            expected, used = _drawn_of(words)
            if known[0]:
                assert (draws[0, 0], taken[0]) == (expected, used)


def _drawn_of(words: list[int]) -> tuple[np.float32, int]:
    """NumPy's normal number of a stream whose next words are these, and how many it took."""
    bits = np.random.Philox(key=0)
    buffer = np.zeros(8, dtype=np.uint32)
    buffer[: len(words)] = words
    bits.state = {**bits.state, "buffer": buffer.view(np.uint64), "buffer_pos": 0}
    number = np.random.Generator(bits).standard_normal(dtype=np.float32)
    state: Any = bits.state
    taken = 2 * int(state["buffer_pos"]) - int(state["has_uint32"])
    return np.float32(number), taken + philox.BLOCK * int(state["state"]["counter"][0])


@settings(deadline=None, max_examples=25)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(["normal", "uniform", "gamma"]), st.integers(1, 150)), max_size=6),
    first=st.integers(0, 2**40),
)
def test_the_draws_of_many_samples_are_those_of_one_at_a_time(kinds: list[tuple[str, int]], first: int) -> None:
    """Whether a draw is short or long, and of which kind: what is drawn together is what each would draw alone."""
    count = module.MANY + 3
    noise, streams = Noise(range(first, first + count)), [of_numpy(first + i) for i in range(count)]
    for kind, size in kinds:
        if kind == "gamma":
            found = noise.gamma(0.4, (size,)).numpy()
            expected = [stream.standard_gamma(0.4, size).astype(np.float32) for stream in streams]
        elif kind == "normal":
            found = noise.normal((size,)).numpy()
            expected = [stream.standard_normal(size, dtype=np.float32) for stream in streams]
        else:
            found = noise.uniform((size,)).numpy()
            expected = [stream.random(size, dtype=np.float32) for stream in streams]
        assert np.array_equal(found, np.stack(expected))


def test_no_generator_is_made_for_short_draws_of_many_samples() -> None:
    noise = Noise(range(1000))
    noise.normal((2,))
    assert not noise._streams
    assert torch.equal(noise.normal((200,))[3:4], _second_of(3))


def _second_of(seed: int) -> torch.Tensor:
    alone = Noise([seed])
    alone.normal((2,))
    return alone.normal((200,))
