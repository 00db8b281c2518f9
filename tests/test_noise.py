"""Streams of random numbers: one per sample, the same to the bit in every batch, order and dtype."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headstart.errors import InputError
from headstart.noise import Noise, Stream, generator_of

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
seeds = st.integers(0, 2**64 - 1)


def draws(noise: Noise) -> list[Tensor]:
    """A few draws in a row, of shapes that take the generator's different paths."""
    shapes: list[tuple[int, ...]] = [(3,), (1, 4, 5), (), (17,)]
    return [draw for shape in shapes for draw in (noise.normal(shape), noise.uniform(shape))]


@settings(deadline=None, max_examples=30)
@given(
    order=st.lists(seeds, min_size=1, max_size=6, unique=True).flatmap(
        lambda batch: st.tuples(st.just(batch), st.permutations(batch), st.integers(1, len(batch)))
    )
)
def test_a_sample_draws_the_same_to_the_bit_in_every_batch_and_order(order: tuple[list[int], list[int], int]) -> None:
    batch, permuted, kept = order
    together, other = draws(Noise(batch)), draws(Noise(permuted[:kept]))
    rows = [batch.index(seed) for seed in permuted[:kept]]
    for one, many in zip(other, together, strict=True):
        assert torch.equal(one, many[rows])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_normal_numbers_are_those_of_float32_in_another_dtype(dtype: torch.dtype) -> None:
    one, reference = Noise([3, 4], dtype=dtype), Noise([3, 4])
    for shape in ((5,), (2, 20)):
        normal = one.normal(shape)
        assert normal.dtype == dtype
        assert torch.equal(normal, reference.normal(shape).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_uniform_numbers_stay_below_one_in_every_dtype(dtype: torch.dtype) -> None:
    """Of 20,000 numbers some would round to 1 in half types, and choose what lies behind the last choice."""
    uniform, reference = Noise([3, 4], dtype=dtype).uniform((10_000,)), Noise([3, 4]).uniform((10_000,))
    assert uniform.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(uniform, reference.to(uniform.dtype))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert reference.max() > 1 - 2**-10


def test_draws_follow_each_other_and_do_not_repeat() -> None:
    noise, again = Noise([1, 2]), Noise([1, 2])
    first, second = noise.normal((4,)), noise.normal((4,))
    assert not torch.equal(first, second)
    assert torch.equal(again.normal((4,)), first)
    assert torch.equal(again.normal((4,)), second)
    assert not torch.equal(first[0], first[1])


def test_what_one_kind_of_draw_takes_the_other_does_not_see_again() -> None:
    noise, other = Noise([5]), Noise([5])
    noise.uniform((6,))
    assert not torch.equal(noise.normal((6,)), other.normal((6,)))


@pytest.mark.parametrize("shape", [(), (3,), (16,), (2, 3, 5)])
def test_shapes(shape: tuple[int, ...]) -> None:
    noise = Noise(range(4), device="cpu", dtype=torch.float64)
    assert noise.normal(shape).shape == noise.uniform(shape).shape == (4, *shape)
    assert noise.uniform().shape == (4,)
    assert noise.normal(shape).device == torch.device("cpu")


def correlation(x: Tensor, y: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1])


def test_normal_numbers_are_normal_over_seeds_and_within_a_seed() -> None:
    """Mean 0, variance 1, fourth moment 3, each within 4.5 standard errors; neighbours are not correlated."""
    n, k = 4000, 9
    x = Noise(range(n), dtype=torch.float64).normal((k,))
    for sample in (x.flatten(), x[:, 0], x[:, k - 1]):
        assert abs(float(sample.mean())) < 4.5 / math.sqrt(len(sample))
        assert abs(float(sample.square().mean()) - 1) < 4.5 * math.sqrt(2 / len(sample))
        assert abs(float(sample.pow(4).mean()) - 3) < 4.5 * math.sqrt(96 / len(sample))
    for left, right in ((x[1:], x[:-1]), (x[:, 1:], x[:, :-1])):
        assert abs(correlation(left, right)) < 4.5 / math.sqrt(left.numel())


def test_uniform_numbers_fill_the_interval() -> None:
    """Kolmogorov's distance stays below its 1 - 1e-5 quantile, over seeds that follow each other."""
    n = 4000
    u = Noise(range(n), dtype=torch.float64).uniform().sort().values
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = max(float((u - steps[:-1]).max()), float((steps[1:] - u).max()))
    assert distance < math.sqrt(math.log(2 / 1e-5) / 2 / n)


def test_uniform_and_normal_numbers_of_a_seed_are_independent() -> None:
    n = 4000
    noise = Noise(range(n), dtype=torch.float64)
    normal = noise.normal((1,))[:, 0]
    assert abs(correlation(normal, noise.uniform())) < 4.5 / math.sqrt(n)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, bit=st.integers(0, 63))
def test_seeds_that_differ_in_one_bit_draw_different_numbers(seed: int, bit: int) -> None:
    """Also in a high bit, which some generators ignore."""
    one, other = Noise([seed]), Noise([seed ^ (1 << bit)])
    assert not torch.isclose(one.normal((20,)), other.normal((20,)), rtol=0.0, atol=1e-6).any()
    assert not torch.equal(one.uniform((4,)), other.uniform((4,)))


def test_the_numbers_of_a_seed_stay_what_they_are() -> None:
    """Images that were published with their seeds can be drawn again."""
    noise = Noise([0, 2**64 - 1])
    normal = torch.tensor([[0.05991104, 0.01555963, -1.16443849], [-1.74447870, -0.48715827, 1.54498363]])
    torch.testing.assert_close(noise.normal((3,)), normal, rtol=0.0, atol=1e-7)
    torch.testing.assert_close(noise.uniform(), torch.tensor([0.24154919, 0.71731073]), rtol=0.0, atol=1e-7)


def test_seeds_may_come_from_any_iterable_and_at_the_ends_of_their_range() -> None:
    noise = Noise(iter([0, 2**64 - 1]))
    assert len(noise) == 2
    assert torch.isfinite(noise.normal((3,))).all()
    assert repr(noise) == f"Noise(2 streams, seeds 0 to {2**64 - 1})"


@pytest.mark.parametrize("bad", [[], [-1], [1, 2, -3], [2**64], range(0)])
def test_seeds_out_of_range_are_named(bad: list[int]) -> None:
    with pytest.raises(InputError, match="from 0 to 2"):
        Noise(bad)


@pytest.mark.parametrize("bad", [[1.0], ["3"], [1, None]])
def test_seeds_that_are_not_integers_are_named(bad: Any) -> None:
    with pytest.raises(InputError, match="seeds must be integers"):
        Noise(bad)


def test_integers_of_numpy_and_torch_are_seeds() -> None:
    expected = Noise([3, 5]).normal((2,))
    assert torch.equal(Noise(np.array([3, 5], dtype=np.uint64)).normal((2,)), expected)
    assert torch.equal(Noise(torch.tensor([3, 5])).normal((2,)), expected)


# Gamma numbers.


@pytest.mark.parametrize("parameter", [0.025, 0.5, 1.5, 40.0])
def test_gamma_numbers_are_gamma_over_seeds_and_within_a_seed(parameter: float) -> None:
    """Kolmogorov's distance from the distribution function stays below its 1 - 1e-5 quantile."""
    x = Noise(range(2000), dtype=torch.float64).gamma(parameter, (2,))
    for sample in (x[:, 0], x[:, 1], x[0::2].flatten()):
        n = len(sample)
        u = torch.special.gammainc(torch.full((n,), parameter, dtype=torch.float64), sample).sort().values
        steps = torch.arange(n + 1, dtype=torch.float64) / n
        distance = max(float((u - steps[:-1]).max()), float((steps[1:] - u).max()))
        assert distance < math.sqrt(math.log(2 / 1e-5) / 2 / n)
    assert abs(correlation(x[:, 0].log(), x[:, 1].log())) < 4.5 / math.sqrt(len(x))
    assert abs(correlation(x[1:, 0].log(), x[:-1, 0].log())) < 4.5 / math.sqrt(len(x))


def test_each_gamma_number_may_have_its_own_parameter() -> None:
    """Mean and variance are the parameter, within 4.5 standard errors."""
    n, parameters = 4000, torch.tensor([0.5, 3.0, 100.0], dtype=torch.float64)
    x = Noise(range(n), dtype=torch.float64).gamma(parameters.numpy(), (2, 3))
    assert x.shape == (n, 2, 3)
    error = (x.mean(0) - parameters).abs()
    assert (error < 4.5 * (parameters / n).sqrt()).all()
    spread = (x - parameters).square()
    assert ((spread.mean(0) - parameters).abs() < 4.5 * spread.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gamma_numbers_are_those_of_float64_in_another_dtype(dtype: torch.dtype) -> None:
    gamma, reference = (
        Noise([3, 4], dtype=dtype).gamma(0.7, (50,)),
        Noise([3, 4], dtype=torch.float64).gamma(0.7, (50,)),
    )
    assert gamma.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(gamma, reference.to(gamma.dtype))


def test_a_gamma_number_depends_on_its_own_seed_alone_and_so_does_what_follows() -> None:
    """Although it is drawn by rejection, and takes more from some streams than from others."""
    together, alone = Noise([7, 8, 9]), Noise([9])
    assert together.gamma(0.3).shape == (3,)
    alone.gamma(0.3)
    assert torch.equal(together.gamma(2.5, (17,))[2], alone.gamma(2.5, (17,))[0])
    assert torch.equal(together.normal((4,))[2], alone.normal((4,))[0])
    assert not torch.equal(together.gamma(2.5, (4,))[0], together.gamma(2.5, (4,))[0])


def test_the_gamma_numbers_of_a_seed_stay_what_they_are() -> None:
    expected = torch.tensor(
        [[0.00013332753454891629, 3.2660458561131076], [0.05519754984021489, 0.7431996079483371]], dtype=torch.float64
    )
    gamma = Noise([0, 2**64 - 1], dtype=torch.float64).gamma(np.array([0.5, 1.5]), (2,))
    torch.testing.assert_close(gamma, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, [1.0, 0.0]])
def test_a_gamma_number_needs_a_parameter_above_zero(bad: Any) -> None:
    with pytest.raises(InputError, match="finite and above 0"):
        Noise([1]).gamma(bad, (2,))


def test_parameters_that_do_not_fit_the_shape_are_named() -> None:
    with pytest.raises(InputError, match="does not broadcast"):
        Noise([1]).gamma([1.0, 2.0, 3.0], (2,))


def test_the_streams_of_the_library_share_no_seed_over_all_seeds_of_a_run() -> None:
    """But for one pair, which is said in the table; and all are far above the seeds of users, which begin at 0."""
    ends = sorted((stream.seeds(0, 1)[0], stream.seeds(2**28 - 1, 2**32)[-1]) for stream in Stream)
    assert all(high < low for (_, high), (low, _) in pairwise(ends))
    assert ends[0][0] >= 2**60
    assert ends[-1][-1] < 2**64
    aliases = {name: stream.name for name, stream in Stream.__members__.items() if name != stream.name}
    assert aliases == {"TAUGHT": "TAILS"}


def test_the_seeds_of_a_stream_stay_what_they_are() -> None:
    assert list(Stream.PILOT.seeds(3, 2)) == [2**63 + 3 * 2**32, 2**63 + 3 * 2**32 + 1]
    assert Stream.DISTILL.seeds(1, 2, 3 * 2**30)[0] == 2**60 + 2**32 + 3 * 2**30
    starts = {name: stream.seeds(0, 1)[0] / 2**60 for name, stream in Stream.__members__.items()}
    places = {"DISTILL": 1, "TAILS": 2, "TAUGHT": 2, "GENERATOR": 3, "OWN_SAMPLES": 4, "CHECK": 5, "EXPECTED": 7}
    assert starts == {**places, "PILOT": 8}


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, "1", None])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    assert generator_of(np.int64(3)).initial_seed() == 3  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the seed"):
        generator_of(seed)
    if not isinstance(seed, int):
        with pytest.raises(InputError, match="the seed"):
            Stream.PILOT.seeds(seed, 1)


@pytest.mark.parametrize("bad", [(-1, 1), (2**28, 1), (0, 2**32 + 1), (0, 1, 2**32), (0, -1), (0, 1, -1)])
def test_a_stream_gives_no_seed_of_another(bad: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="a stream has"):
        Stream.TAILS.seeds(*bad)
