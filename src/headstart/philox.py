r"""NumPy's Philox streams, many at a time: the same numbers to the bit, without an object for each stream.

A stream is a key k. Its n-th block of four 64-bit words, n = 1, 2, ..., is Philox4x64-10 of the counter n: ten rounds

.. math::
    (c_0, c_1, c_2, c_3) \mapsto
    (\mathrm{hi}(M_1 c_2) \oplus c_1 \oplus k_0,\ \mathrm{lo}(M_1 c_2),\
     \mathrm{hi}(M_0 c_0) \oplus c_3 \oplus k_1,\ \mathrm{lo}(M_0 c_0)),

after each of which the key is increased by Weyl's constants. Each word gives two of 32 bits, the lower first. One of
these is a uniform number of 24 bits, or an attempt at a normal number by Marsaglia and Tsang's ziggurat of 256 layers,
of which one in eighty takes a second word to be decided. Where a number would come from the tail beyond the last layer,
the stream is not known here, and NumPy draws it.

References:
    Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011.
    Marsaglia & Tsang, *The Ziggurat Method for Generating Random Variables*, J. Stat. Software 2000.
    Doornik, *An Improved Ziggurat Method to Generate Normal Random Samples*, 2005.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

__all__ = ["normal", "stream", "uniform", "words"]

#: Words of 32 bits in a block.
BLOCK = 8

#: The multipliers of the rounds, and what is added to the key after each.
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10

#: Where the last layer of the ziggurat ends and its tail begins, for 256 layers of the same area.
TAIL = 3.6541528853610087963519472518
LAYERS = 256

#: Rows at a time, so that what a pass holds stays in the processor's cache.
CHUNK_WORDS = 1 << 16

Words = NDArray[np.uint32]
Longs = NDArray[np.uint64]

LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


class _Key(ISeedSequence):
    """A key as what a Philox is seeded with: NumPy would ask the system for entropy beside one that is given."""

    def __init__(self, key: int) -> None:
        self.key = np.array([key, 0], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Longs:
        """The two words of the key."""
        return self.key


def stream(key: int, position: int = 0) -> np.random.Generator:
    """NumPy's generator of one stream.

    Arguments:
        key: of the stream, from 0 to 2^64 - 1.
        position: how many words of 32 bits were taken from it.
    """
    seeded: Any = _Key(int(key))
    philox = np.random.Philox(seeded)
    made = np.random.Generator(philox)
    if position:
        philox.advance(int(position) // BLOCK)
        made.random(int(position) % BLOCK, dtype=np.float32)
    return made


def position_of(generator: np.random.Generator) -> int:
    """How many words of 32 bits were taken from a stream that has drawn single precision alone."""
    state: Any = generator.bit_generator.state
    blocks = int(state["state"]["counter"][0])
    return blocks * BLOCK - BLOCK + 2 * int(state["buffer_pos"]) - int(state["has_uint32"])


def _product(a: Longs, b: int) -> tuple[Longs, Longs]:
    """The higher and the lower 64 bits of a * b."""
    b_low, b_high = np.uint64(b & 0xFFFFFFFF), np.uint64(b >> 32)
    low, high = a & LOW, a >> HALF
    cross = high * b_low
    middle = ((low * b_low) >> HALF) + (cross & LOW) + low * b_high
    return high * b_high + (cross >> HALF) + (middle >> HALF), a * np.uint64(b)


def words(keys: Longs, positions: NDArray[np.int64], count: int) -> Words:
    """The next words of 32 bits of each stream, of shape (B, count).

    Arguments:
        keys: of the streams, of shape (B,).
        positions: how many words were taken from each.
        count: how many are wanted.
    """
    first = positions // BLOCK
    offset = positions - first * BLOCK
    blocks = (int(offset.max()) + count + BLOCK - 1) // BLOCK
    c0 = (first[:, None] + np.arange(1, blocks + 1)).astype(np.uint64)
    c1, c2, c3 = np.zeros_like(c0), np.zeros_like(c0), np.zeros_like(c0)
    k0 = np.broadcast_to(keys[:, None], c0.shape)
    for i in range(ROUNDS):
        (high0, low0), (high1, low1) = _product(c0, MULTIPLIERS[0]), _product(c2, MULTIPLIERS[1])
        weyl0, weyl1 = (np.uint64(i * weyl % 2**64) for weyl in WEYL)
        c0, c1, c2, c3 = high1 ^ c1 ^ (k0 + weyl0), low1, high0 ^ c3 ^ weyl1, low0
    longs = np.stack([c0, c1, c2, c3], axis=-1).reshape(len(keys), -1)
    every: Words = np.stack([longs & LOW, longs >> HALF], axis=-1).astype(np.uint32).reshape(len(keys), -1)
    if not offset.any():
        return every[:, :count]
    taken: Words = np.take_along_axis(every, offset[:, None] + np.arange(count), axis=1)
    return taken


def _uniform_of(word: Words) -> NDArray[np.float32]:
    return (word >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def uniform(keys: Longs, positions: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """``Generator.random(count, dtype=float32)`` of each stream, whose positions move on; of shape (B, count)."""
    draws = np.empty((len(keys), count), dtype=np.float32)
    rows = max(1, CHUNK_WORDS // (count + BLOCK))
    for start in range(0, len(keys), rows):
        part = slice(start, start + rows)
        draws[part] = _uniform_of(words(keys[part], positions[part], count))
    positions += count
    return draws


@functools.cache
def ziggurat() -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.float32]]:
    """The tables of the ziggurat: below which attempt a layer is certain, its width over 2^23, its height.

    The layers have the area v of the last one with its tail: :math:`x_{i-1} = f^{-1}(v / x_i + f(x_i))`,
    :math:`f(x) = e^{-x^2/2}`. Layer 0 is the last one, as a box of the same area.
    """
    last = math.exp(-0.5 * TAIL**2)
    area = TAIL * last + math.sqrt(math.pi / 2) * math.erfc(TAIL / math.sqrt(2))
    x = np.zeros(LAYERS)
    x[0], x[-1] = area / last, TAIL
    for i in range(LAYERS - 1, 1, -1):
        x[i - 1] = math.sqrt(-2 * math.log(area / x[i] + math.exp(-0.5 * x[i] ** 2)))
    certain = np.zeros(LAYERS)
    certain[0], certain[2:] = TAIL / x[0], x[1:-1] / x[2:]
    height = np.exp(-0.5 * x**2)
    height[0] = 1.0
    return np.round(certain * 2**23).astype(np.uint32), (x / 2**23).astype(np.float32), height.astype(np.float32)


def normal(keys: Longs, positions: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """``Generator.standard_normal(count, dtype=float32)`` of each stream, whose positions move on; (B, count)."""
    draws = np.empty((len(keys), count), dtype=np.float32)
    wanted = count + 4 + count // 16
    rows = max(1, CHUNK_WORDS // (wanted + BLOCK))
    for start in range(0, len(keys), rows):
        part = slice(start, start + rows)
        known, taken = _ziggurat_normal(words(keys[part], positions[part], wanted), draws[part])
        for row in start + np.flatnonzero(~known):
            drawing = stream(keys[row], positions[row])
            drawing.standard_normal(out=draws[row], dtype=np.float32)
            positions[row] = position_of(drawing)
        positions[part] += np.where(known, taken, 0)
    return draws


def _ziggurat_normal(word: Words, draws: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Fill ``draws`` from the words of each row, and say which rows are known and how many words each took.

    A row is not known if it has met the tail, or too few words.
    """
    certain, width, height = ziggurat()
    count = draws.shape[1]
    layer = (word & np.uint32(0xFF)).astype(np.intp)
    attempt = word >> np.uint32(9)
    x = attempt.astype(np.float32) * width[layer]
    np.negative(x, out=x, where=(word & np.uint32(0x100)).astype(bool))

    gives = np.ones(word.shape, dtype=bool)
    length = np.ones(word.shape, dtype=np.int64)
    row, column = np.nonzero(attempt >= certain[layer])
    # Of uncertain attempts one after the other, every second one is the uniform number that decides on the one before.
    follows = np.zeros(len(row), dtype=bool)
    follows[1:] = (row[1:] == row[:-1]) & (column[1:] == column[:-1] + 1)
    place = np.arange(len(row))
    begun = np.maximum.accumulate(np.where(follows, 0, place))
    opens = (place - begun) % 2 == 0
    row, column = row[opens], column[opens]
    decided = column + 1 < word.shape[1]
    gives[row[~decided], column[~decided]] = False
    row, column = row[decided], column[decided]
    at, tried = layer[row, column], x[row, column]
    share = (height[at - 1] - height[at]) * _uniform_of(word[row, column + 1]) + height[at]
    square = tried.astype(np.float64) ** 2
    gives[row, column] = share < np.exp(-0.5 * square)
    gives[row, column + 1] = False
    length[row, column] = 2

    given = np.cumsum(gives, axis=1)
    known = given[:, -1] >= count
    final = np.argmax(given >= count, axis=1)
    tail = at == 0
    known[row[tail][column[tail] <= final[row[tail]]]] = False
    used = gives & (given <= count)
    used[~known] = False
    draws[known] = x[used].reshape(-1, count)
    return known, final + length[np.arange(len(final)), final]
