"""Noised data: what the oracle draws, and that it says that it is one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from headstart.errors import InputError
from headstart.initialization import Empirical
from headstart.noise import Noise


def data() -> tuple[Tensor, Tensor]:
    """Eight samples, whose first number is their index."""
    x = torch.zeros(8, 1, 2, 2)
    x[:, 0, 0, 0] = torch.arange(8.0)
    return x, torch.tensor([1, 4, 4, 1, 4, 4, 4, 1])


def indices(start: Empirical, count: int, label: Tensor | None = None) -> Tensor:
    return start.sample(Noise(range(count)), 1e-6, label)[:, 0, 0, 0].round().long()


def test_a_sample_is_a_data_point_plus_its_own_noise() -> None:
    x, labels = data()
    start, noise = Empirical.fit(x, labels=labels), Noise(range(30), dtype=torch.float64)
    eps = Noise(range(30), dtype=torch.float64).normal((1, 2, 2))
    points = start.sample(noise, 0.7) - 0.7 * eps
    assert points.dtype == torch.float64
    distances = (points[:, None] - x).flatten(2).norm(dim=2).min(dim=1).values
    assert distances.max() < 1e-12


def test_every_data_point_is_drawn_as_often() -> None:
    n = 4000
    counts = torch.bincount(indices(Empirical.fit(data()[0]), n), minlength=8).double()
    assert (counts / n - 1 / 8).abs().max() < 4.5 * math.sqrt(7 / 64 / n)


@pytest.mark.parametrize(("label", "own"), [(1, [0, 3, 7]), (4, [1, 2, 4, 5, 6])])
def test_a_label_draws_each_of_its_class_as_often(label: int, own: list[int]) -> None:
    n, (x, labels) = 2000, data()
    drawn = indices(Empirical.fit(x, labels=labels), n, torch.full((n,), label))
    assert sorted(set(drawn.tolist())) == own
    share = 1 / len(own)
    counts = torch.bincount(drawn, minlength=8).double()[own]
    assert (counts / n - share).abs().max() < 4.5 * math.sqrt(share * (1 - share) / n)


def test_half_types_draw_the_same_points_of_a_large_data_set() -> None:
    """A uniform number in bfloat16 has 8 bits: it would reach a few hundred of 4,000 points."""
    start = Empirical.fit(torch.tensor([-1.0, 1.0]).repeat(2000)[:, None])
    half, single = (start.sample(Noise(range(500), dtype=d), 1e-6).sign() for d in (torch.bfloat16, torch.float32))
    assert torch.equal(half.float(), single)


def test_labels_are_ignored_by_data_without_labels() -> None:
    start = Empirical.fit(data()[0])
    assert torch.equal(indices(start, 20, torch.full((20,), 9)), indices(start, 20))


def test_an_unknown_label_is_named() -> None:
    x, labels = data()
    with pytest.raises(InputError, match="no training sample has the label 2"):
        Empirical.fit(x, labels=labels).sample(Noise([1, 2]), 1.0, torch.tensor([1, 2]))


def test_it_says_that_it_is_an_oracle() -> None:
    start = Empirical.fit(data()[0])
    assert start.oracle
    assert repr(start) == "Empirical(8 samples of shape (1, 2, 2), oracle)"
    with pytest.raises(InputError, match="no log density"):
        start.log_prob(data()[0], 1.0)
