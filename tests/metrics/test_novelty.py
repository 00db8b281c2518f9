"""Copies of training data are found, other laws are not accused, and distances are exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, norm
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics import Novelty, nearest, novelty
from headstart.metrics import novelty as function
from headstart.metrics.novelty import LEVEL, area, ratio


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(n: int, d: int, seed: int) -> Tensor:
    centres = 2 * normal(20, d, 9999)
    which = torch.randint(20, (n,), generator=torch.Generator().manual_seed(seed))
    return centres[which] + 0.3 * normal(n, d, seed + 5000)


def test_nearest_neighbours_are_those_of_all_pairs() -> None:
    x, y = normal(50, 12, 0).reshape(50, 3, 4), normal(70, 12, 1).reshape(70, 3, 4)
    pairs = (x[:, None] - y[None]).flatten(2).norm(dim=2)
    distances, indices = nearest(x, y)
    assert torch.equal(indices, pairs.argmin(1))
    torch.testing.assert_close(distances, pairs.min(1).values, rtol=1e-14, atol=0)


def test_neighbours_far_from_the_origin_are_exact() -> None:
    """Around 10^6 the squares cancel to nothing of a distance of 10^-3, unless they are taken around the mean."""
    y = normal(200, 5, 0)
    x = y[:50] + 1e-3 * normal(50, 5, 1)
    distances, indices = nearest(x + 1e6, y + 1e6)
    assert torch.equal(indices, torch.arange(50))
    torch.testing.assert_close(distances, (x - y[:50]).norm(dim=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_copy_is_at_distance_zero(dtype: torch.dtype) -> None:
    y = (1000 + normal(300, 40, 0)).to(dtype)
    distances, indices = nearest(y[100:200], y)
    assert torch.equal(distances, torch.zeros(100, dtype=torch.float64))
    assert torch.equal(indices, torch.arange(100, 200))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(37, 3, 0), normal(20, 3, 1)
    whole = nearest(x, y)
    monkeypatch.setitem(nearest.__globals__, "CHUNK", 60)
    for part, expected in zip(nearest(x, y), whole, strict=True):
        assert torch.equal(part, expected)


def test_ratios_of_copies_have_a_rank() -> None:
    found = ratio(np.array([0.0, 0.0, 1.0, 2.0, 1.0]), np.array([1.0, 0.0, 0.0, 2.0, math.e]))
    assert found.tolist() == [-math.inf, 0.0, math.inf, 0.0, pytest.approx(-1.0)]


def test_the_effect_is_mann_and_whitneys() -> None:
    a, b = np.round(2 * normal(40, 1, 0)[:, 0].numpy()), np.round(2 * normal(30, 1, 1)[:, 0].numpy() + 0.3)
    pairs = [(x < y) + (x == y) / 2 for x, y in itertools.product(a, b)]
    assert area(a, b) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert area(a, b) == pytest.approx(mannwhitneyu(b, a).statistic / 1200, rel=1e-12)
    assert area(np.array([-math.inf, -math.inf]), np.array([-math.inf, 0.0])) == 0.75


def test_all_copies_are_certain() -> None:
    training, held_out = normal(104, 5, 0), normal(208, 5, 1)
    found = novelty(training, training, held_out)
    assert (found.effect, found.distance) == (1.0, 0.0)
    assert found.p_value <= 0.003  # a permutation may be the split itself
    assert found.memorising
    assert found.to_dict()["memorising"] is True
    assert (found.n, found.n_real, found.n_training, found.n_held_out) == (104, 104, 104, 104)
    assert found.real_distance > 0.5


@pytest.mark.parametrize("d", [2, 50])
def test_a_share_of_copies_is_found_and_its_effect_is_half_the_share(d: int) -> None:
    training, held_out, generated = normal(400, d, 0), normal(800, d, 1), normal(400, d, 2)
    generated[:80] = training[:80]
    found = novelty(generated, training, held_out)
    assert found.p_value <= 0.01
    assert found.effect == pytest.approx(0.6, abs=3 * math.sqrt(1 / 6 / 400))
    assert found.expected == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("law", [normal, mixture])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_training_data_with_a_little_noise_are_found(law: Callable[[int, int, int], Tensor], noise: float) -> None:
    training = law(400, 20, 0)
    found = novelty(training[:200] + noise * normal(200, 20, 1), training, law(800, 20, 2))
    assert found.p_value <= 0.003
    assert found.effect > 0.8


def test_more_training_than_held_out_data_are_all_searched() -> None:
    training, held_out = normal(1600, 10, 0), normal(800, 10, 1)
    found = novelty(training[-300:], training, held_out)
    assert found.n_training == 1600
    assert found.n_held_out == 400
    assert (found.effect, found.distance) == (1.0, 0.0)
    assert found.p_value <= 0.003  # a permutation may be the split itself


def rejections(
    sampler: Callable[[Tensor, int], Tensor], law: Callable[[int, int, int], Tensor], n: int, draws: int = 80
) -> tuple[float, float]:
    """How often the test rejects, and how often the classical one, for a training set of 100 and other draws of all."""
    found, classical = 0, 0
    for seed in range(draws):
        training, held_out = law(100, 4, 10 * seed), law(2 * n, 4, 10 * seed + 1)
        result = novelty(sampler(training, 10 * seed + 2), training, held_out, seed=seed)
        error = math.sqrt((result.n + result.n_real + 1) / (12 * result.n * result.n_real))
        found += result.memorising
        classical += result.effect - 0.5 > norm.ppf(1 - LEVEL) * error
    return found / draws, classical / draws


@pytest.fixture
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(novelty.__globals__, "PERMUTATIONS", 39)


#: Three errors above 5 % in 80 draws, and more than 0.
MOST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 80)


@pytest.mark.usefixtures("few_permutations")
@pytest.mark.parametrize("law", [normal, mixture])
@pytest.mark.parametrize("n", [100, 50])
def test_samples_of_the_datas_law_are_rejected_as_often_as_the_level_says(
    law: Callable[[int, int, int], Tensor], n: int
) -> None:
    found, classical = rejections(lambda _, seed: law(100, 4, seed), law, n)
    assert found < MOST
    assert classical < MOST  # for the true law the classical test is exact


@pytest.mark.usefixtures("few_permutations")
@pytest.mark.parametrize("law", [normal, mixture])
def test_blurred_samples_are_not_accused_where_the_classical_test_tosses_a_coin(
    law: Callable[[int, int, int], Tensor],
) -> None:
    found, classical = rejections(lambda _, seed: 0.1 * normal(100, 4, seed), law, 100)
    assert found < MOST
    assert classical > 0.2


@pytest.mark.usefixtures("few_permutations")
def test_wide_samples_and_few_held_out_data_are_not_accused() -> None:
    """At unequal sizes the effect of another law is not 1/2; the permuted splits have the same."""
    assert rejections(lambda _, seed: 2 * normal(100, 4, seed), normal, 50)[0] < MOST


def test_a_gaussian_start_fitted_on_the_training_data_is_not_accused() -> None:
    """In 784 dimensions, with the mean and the deviations of 1,000 training samples: 1,568 fitted numbers."""
    training, held_out = normal(1000, 784, 0).float(), normal(1500, 784, 1).float()
    generated = training.mean(0) + training.std(0) * normal(300, 784, 2).float()
    found = novelty(generated, training, held_out)
    assert not found.memorising
    assert abs(found.effect - found.expected) < 0.06


def test_smooth_samples_are_nearer_than_data_and_yet_new() -> None:
    """What plain distances get wrong: the start at the data's mean is closest to everything."""
    found = novelty(0.5 * normal(300, 30, 0), normal(400, 30, 1), normal(800, 30, 2))
    assert found.distance < 0.8 * found.real_distance
    assert not found.memorising


def test_features_are_what_is_compared() -> None:
    """Copies that differ in what the features leave out are copies; a batch of features is at most 500."""
    sizes = []

    def first(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x[:, 0, :3]

    def images(n: int, seed: int) -> Tensor:
        return normal(n, 2 * 10, seed).reshape(n, 2, 10)

    training, held_out = images(600, 0), images(1200, 1)
    generated = training[:300].clone()
    generated[:, 1] = 100.0
    assert novelty(generated, training, held_out, features=first).p_value <= 0.003
    assert max(sizes) == 500
    assert sum(sizes) == 300 + 600 + 1200
    with pytest.raises(DataError, match=r"expected \(B, F\)"):
        novelty(generated, training, held_out, features=lambda x: x)
    with pytest.raises(DataError, match="900 NaN"):
        novelty(generated, training, held_out, features=lambda x: x[:, 0, :3] * math.nan)


def test_the_result_is_a_function_of_its_seed() -> None:
    sets = normal(30, 3, 0), normal(50, 3, 1), normal(70, 3, 2)
    assert novelty(*sets, seed=4) == novelty(*sets, seed=4)
    assert novelty(*sets, seed=4) != novelty(*sets, seed=5)


def test_the_result_says_what_it_found() -> None:
    result = Novelty(0.032, 0.6123, 0.5, 0.51, 0.9, 100, 200, 300, 296, 0)
    assert repr(result) == (
        "Novelty(memorising: p 0.032, effect 0.612, 0.500 expected; nearest 0.51 against 0.9; n = 100 against 200, "
        "300 training and 296 held-out samples)"
    )
    assert repr(Novelty(0.05, 0.6, 0.5, 0.5, 0.9, 9, 9, 8, 8, 0)).startswith("Novelty(no copying seen: p 0.05,")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"generated": torch.full((20, 3), math.nan)}, "generated samples: 60 NaN"),
        ({"training": torch.zeros(20, 4)}, "same shape"),
        ({"training": torch.zeros(7, 3)}, "7 training and 40 held-out"),
        ({"held_out": torch.zeros(15, 3)}, "expected at least 8 and 16"),
        ({"held_out": torch.zeros(15, 3, dtype=torch.long)}, "floating point"),
    ],
)
def test_bad_samples_are_refused(changed: dict[str, Tensor], message: str) -> None:
    sets = {"generated": torch.zeros(20, 3), "training": torch.zeros(20, 3), "held_out": torch.zeros(40, 3)}
    with pytest.raises(DataError, match=message):
        function(**{**sets, **changed})
    with pytest.raises(InputError, match="seed"):
        function(**sets, seed=-1)
