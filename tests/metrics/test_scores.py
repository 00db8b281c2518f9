"""Scores agree with the distances they are made of, and the noise floor is what real samples score."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics import (
    METRICS,
    GaussianStatistics,
    Reference,
    evaluate,
    floor,
    frechet_distance,
    kernel_distance,
    manifold,
    max_sliced,
    needed,
    sliced,
)


def images(n: int, seed: int) -> Tensor:
    return torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def moments(x: Tensor) -> Tensor:
    return torch.stack([x.mean((1, 2, 3)), x.square().mean((1, 2, 3)), x[:, 0, 0, 0]], dim=1)


def test_scores_are_the_distances() -> None:
    real, fake = images(1100, 0), 1.2 * images(600, 1)  # more than one batch of features
    scores = evaluate(fake, Reference.of(real, moments, seed=5, directions=40))
    distances = sliced(fake, real, directions=40, seed=5)
    assert scores.frechet == pytest.approx(frechet_distance(moments(fake), moments(real)), rel=1e-6)
    assert (scores.swd, scores.max_swd) == pytest.approx((distances.mean, distances.max), rel=1e-6)
    assert (scores.n, scores.n_reference, scores.seed) == (600, 1100, 5)


def test_without_features_there_is_no_frechet_distance() -> None:
    reference = Reference.of(images(20, 0), directions=8)
    scores = evaluate(images(10, 1), reference)
    assert scores.frechet is None
    assert "frechet" not in repr(scores)
    assert repr(scores).endswith("n = 10 against 20)")
    assert repr(reference) == "Reference(20 samples of shape (1, 4, 4), no features, 8 directions)"


def test_the_floor_falls_with_the_count_and_lies_below_what_is_wrong() -> None:
    reference, held_out = Reference.of(images(2000, 0), moments, directions=64), images(1000, 1)
    few, many = floor(reference, held_out, 50), floor(reference, held_out)
    wrong = evaluate(images(50, 2) + 0.5, reference)
    assert many.n == 1000
    assert few.n == 50
    for name in ("frechet", "swd", "max_swd"):
        assert getattr(many, name) < getattr(few, name) < getattr(wrong, name)


def test_the_floor_draws_by_its_seed() -> None:
    reference, held_out = Reference.of(images(100, 0), directions=16), images(60, 1)
    assert floor(reference, held_out, 20, seed=1) == floor(reference, held_out, 20, seed=1)
    assert floor(reference, held_out, 20, seed=1) != floor(reference, held_out, 20, seed=2)
    assert floor(reference, held_out, seed=1).swd == pytest.approx(evaluate(held_out, reference).swd, rel=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((5, 1, 4, 4), math.nan), "80 NaN"),
        (torch.zeros(1, 1, 4, 4), "at least 2"),
        (torch.zeros(5, 16), "same shape"),
    ],
)
def test_bad_samples_are_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(bad, Reference.of(images(10, 0), directions=4))


def test_bad_features_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected \(B, F\)"):
        Reference.of(images(10, 0), lambda x: x)
    with pytest.raises(DataError, match="30 NaN"):
        Reference.of(images(10, 0), lambda x: moments(x) * math.nan)


@pytest.mark.parametrize("n", [1, 11])
def test_a_floor_of_more_samples_than_there_are_is_refused(n: int) -> None:
    with pytest.raises(InputError, match="10 held-out"):
        floor(Reference.of(images(10, 0), directions=4), images(10, 1), n)


def test_scores_on_request_are_those_of_their_functions() -> None:
    real, fake = images(300, 0), 1.2 * images(120, 1)
    reference = Reference.of(real, moments, seed=5, directions=16, keep=True)
    scores = evaluate(fake, reference, scores=METRICS, errors=True)
    kernel = kernel_distance(moments(fake), moments(real), seed=5)
    neighbours = manifold(moments(fake), moments(real), seed=5)
    largest = max_sliced(fake, real, seed=5)
    assert (scores.kid, scores.errors["kid"]) == (kernel.value, kernel.error)
    for name in ("precision", "recall", "density", "coverage"):
        assert (getattr(scores, name), scores.errors[name]) == (getattr(neighbours, name), neighbours.errors[name])
    assert (scores.max_sliced, scores.converged) == (largest.value, largest.converged)
    assert largest.value > scores.max_swd
    assert [name for name, _, _ in scores.items()] == list(METRICS)
    assert set(scores.errors) == set(METRICS)
    plain = evaluate(fake, reference)
    assert (plain.kid, plain.max_sliced, plain.coverage, plain.errors) == (None, None, None, {})
    assert (plain.frechet, plain.swd, plain.max_swd) == pytest.approx((scores.frechet, scores.swd, scores.max_swd))
    some = evaluate(fake, reference, scores=("kid",))
    assert (some.kid, some.precision, set(some.errors)) == (kernel.value, None, {"kid"})


def test_errors_are_the_spread_of_draws() -> None:
    reference = Reference.of(images(2000, 0), moments, directions=16)
    draws = [evaluate(images(200, seed) + 0.3, reference, errors=True) for seed in range(1, 31)]
    for name in ("frechet", "swd", "max_swd"):
        values = torch.tensor([getattr(one, name) for one in draws])
        told = torch.tensor([one.errors[name] for one in draws]).mean()
        assert float(told) == pytest.approx(float(values.std()), rel=0.4)


def test_published_statistics_take_the_place_of_the_datas_own() -> None:
    real, fake = images(100, 0), images(50, 1)
    published = GaussianStatistics.of(moments(real + 1))
    reference = Reference.of(real, moments, directions=4, statistics=published)
    expected = GaussianStatistics.of(moments(fake)).distance(published)
    assert evaluate(fake, reference).frechet == pytest.approx(expected, rel=1e-6)
    with pytest.raises(InputError, match="statistics are of features"):
        Reference.of(real, statistics=published)


def test_references_of_other_data_features_or_directions_are_others() -> None:
    real = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    made = [
        Reference.of(real),
        Reference.of(real + 1),
        Reference.of(real, lambda x: x),
        Reference.of(real, lambda x: 2 * x),
        Reference.of(real, lambda x: x, statistics=GaussianStatistics.of(real + 1)),
        Reference.of(real, directions=8),
        Reference.of(real, seed=1),
    ]
    assert len({reference.digest for reference in made}) == len(made)
    rounded = Reference.of(real, lambda x: x * (1 + 1e-7))
    assert rounded.digest == made[2].digest  # another machine's rounding


def test_what_a_score_needs_is_said_before_it_is_computed() -> None:
    real = torch.randn(60, 3)
    reference = Reference.of(real, lambda x: x, keep=True)
    with pytest.raises(DataError, match="11 samples and 60 in the reference: kid, recall needs 12 of either"):
        evaluate(real[:11], reference, scores=("kid", "recall"))
    assert (needed(()), needed(("frechet", "kid")), needed(METRICS)) == (2, 4, 12)
    for name in METRICS:  # so many are enough, and one less is not
        assert getattr(evaluate(real[: needed([name])], reference, scores=[name]), name) is not None


def test_what_a_score_needs_is_named() -> None:
    x = images(40, 0)
    with pytest.raises(InputError, match="unknown scores 'fid'"):
        evaluate(x, Reference.of(x, directions=4), scores=("fid",))
    with pytest.raises(InputError, match="unknown scores 'kid'"):
        evaluate(x, Reference.of(x, directions=4), scores="kid")
    with pytest.raises(InputError, match="coverage, kid are scores of features"):
        evaluate(x, Reference.of(x, directions=4, keep=True), scores=("kid", "coverage"))
    with pytest.raises(InputError, match="keep=True"):
        evaluate(x, Reference.of(x, moments, directions=4), scores=("kid",))
    with pytest.raises(DataError, match="at least 4"):
        evaluate(x[:3], Reference.of(x, directions=4), errors=True)


def test_arrays_are_scored_as_tensors_are_and_what_overflows_is_refused(tmp_path: Path) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    reference = Reference.of(x.flip(0) + 1)
    assert evaluate(x.numpy(), reference) == evaluate(x, reference)
    assert evaluate(x, Reference.of(x.flip(0).numpy() + 1)) == evaluate(x, reference)
    for bad in (x.numpy() * 1e30, x * 1e37):
        with pytest.raises(DataError, match="too large"):
            evaluate(bad, reference)
    for mu, sigma in ((np.full(2, 1e200), np.eye(2)), (np.zeros(2), np.eye(2) * 1e200)):
        np.savez(tmp_path / "stats.npz", mu=mu, sigma=sigma)
        with pytest.raises(DataError, match="too large"):
            GaussianStatistics.load(tmp_path / "stats.npz")
