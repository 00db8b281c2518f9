"""Streamed moments: batches, processes and files give what all samples together give, far from the origin too."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headstart.errors import ArtefactError, DataError
from headstart.metrics import GaussianMoments, GaussianStatistics
from headstart.metrics.frechet import frechet_error
from headstart.metrics.jackknife import groups_of


def cloud(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gathered(parts: list[Tensor]) -> GaussianMoments:
    moments = GaussianMoments()
    for part in parts:
        moments.update(part)
    return moments


def share(seed: int) -> GaussianMoments:
    return gathered([cloud(50, 3, seed)])


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=6), first=st.integers(0, 6))
def test_batches_and_merges_give_the_moments_of_all(cuts: list[int], first: int) -> None:
    x = cloud(40, 5, 0) * 3 + 1
    parts = list(torch.tensor_split(x, sorted(set(cuts))))
    moments, rest = gathered(parts[:first]), gathered(parts[first:])
    moments.merge(rest)
    found = moments.statistics()
    assert found.n == 40
    np.testing.assert_allclose(found.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.numpy().T), rtol=1e-10, atol=1e-12)


def test_far_from_the_origin_nothing_cancels() -> None:
    """The difference of E x^2 and (E x)^2 would have lost all digits here: 10^16 against 1."""
    x = cloud(3000, 4, 1)
    found = gathered(list((x + 1e8).split(100))).statistics()
    np.testing.assert_allclose(found.covariance, np.cov((x + 1e8 - 1e8).numpy().T), rtol=1e-6, atol=1e-6)


def test_the_rows_of_a_batch_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = cloud(100, 3, 0)
    whole = GaussianStatistics.of(x)
    monkeypatch.setitem(GaussianMoments.update.__globals__, "ROWS", 7)
    np.testing.assert_allclose(GaussianStatistics.of(x).covariance, whole.covariance, rtol=1e-12, atol=1e-14)


def test_merging_leaves_the_other_alone_and_survives_a_pickle() -> None:
    a, b = share(0), share(1)
    before = b.statistics().covariance.clone()
    total = GaussianMoments()
    total.merge(GaussianMoments())
    total.merge(pickle.loads(pickle.dumps(b)))
    total.merge(b)
    total.merge(a)
    assert total.n == 150
    assert torch.equal(b.statistics().covariance, before)
    assert repr(total) == "GaussianMoments(3 features, n = 150)"


def test_files_come_back_and_can_be_merged(tmp_path: Path) -> None:
    x = cloud(60, 4, 0)
    for name, part in (("a", x[:20]), ("b.npz", x[20:])):
        GaussianStatistics.of(part).save(tmp_path / name)
    total = GaussianMoments()
    for name in ("a", "b.npz"):
        total.merge(GaussianStatistics.load(tmp_path / name))
    exact = GaussianStatistics.of(x)
    np.testing.assert_allclose(total.statistics().covariance, exact.covariance, rtol=1e-12, atol=1e-14)
    assert total.statistics().distance(exact) == pytest.approx(0, abs=1e-12)


def test_the_files_of_others_have_no_count(tmp_path: Path) -> None:
    x = cloud(60, 4, 0).numpy()
    np.savez(tmp_path / "edm.npz", mu=x.mean(0), sigma=np.cov(x.T))
    found = GaussianStatistics.load(tmp_path / "edm.npz")
    assert found.n is None
    assert repr(found) == "GaussianStatistics(4 features, n unknown)"
    assert found.distance(GaussianStatistics.of(torch.from_numpy(x))) == pytest.approx(0, abs=1e-12)
    with pytest.raises(DataError, match="unknown number"):
        GaussianMoments().merge(found)
    found.save(tmp_path / "again.npz")
    assert GaussianStatistics.load(tmp_path / "again.npz").n is None


def test_numbers_of_other_machines_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "big.npz", mu=np.zeros(2, dtype=">f8"), sigma=np.eye(2, dtype=np.longdouble))
    assert GaussianStatistics.load(tmp_path / "big.npz").distance(
        GaussianStatistics(torch.zeros(2), torch.eye(2), None)
    ) == pytest.approx(0, abs=1e-12)


def test_statistics_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = GaussianStatistics(torch.zeros(2), torch.eye(2), 9)
    statistics.save(tmp_path / "real.npz")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ArtefactError, match=r"cannot write .*real\.npz: No space left"):
        GaussianStatistics(torch.ones(2), torch.eye(2), 9).save(tmp_path / "real.npz")
    assert GaussianStatistics.load(tmp_path / "real.npz").mean.tolist() == [0, 0]


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.npz cannot be read"):
        GaussianStatistics.load(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"text.npz cannot be read"):
        GaussianStatistics.load(tmp_path / "text.npz")
    np.savez(tmp_path / "mean.npz", mu=np.zeros(3))
    with pytest.raises(DataError, match="holds no sigma"):
        GaussianStatistics.load(tmp_path / "mean.npz")
    np.savez(tmp_path / "object.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    with pytest.raises(DataError, match="cannot be read"):
        GaussianStatistics.load(tmp_path / "object.npz")
    np.savez(tmp_path / "complex.npz", mu=np.zeros(2, dtype=complex), sigma=np.eye(2))
    with pytest.raises(DataError, match="real numbers"):
        GaussianStatistics.load(tmp_path / "complex.npz")


@pytest.mark.parametrize("n", [math.nan, math.inf, 2.5, 1, -3, [4, 5]])
def test_a_file_with_a_count_that_is_none_is_refused(n: object, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(2), sigma=np.eye(2), n=np.array(n))
    with pytest.raises(DataError, match="expected a whole number of at least 2, or no n"):
        GaussianStatistics.load(tmp_path / "s.npz")


def test_a_count_may_be_written_as_a_float(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(2), sigma=np.eye(2), n=np.array([50_000.0]))
    assert GaussianStatistics.load(tmp_path / "s.npz").n == 50_000


def test_a_file_without_a_covariance_is_refused_but_for_rounding(tmp_path: Path) -> None:
    few = cloud(10, 40, 0).float()
    single = np.cov(few.numpy().T, dtype=np.float32)
    assert np.linalg.eigvalsh(single.astype(np.float64)).min() < 0, "singular, and rounded in single precision"
    np.savez(tmp_path / "single.npz", mu=np.zeros(40), sigma=(single + single.T) / 2)
    assert GaussianStatistics.load(tmp_path / "single.npz").distance(GaussianStatistics.of(few)) < 100
    np.savez(tmp_path / "none.npz", mu=np.zeros(2), sigma=np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(DataError, match=r"none\.npz holds no covariance: sigma has the eigenvalue -1, below 0"):
        GaussianStatistics.load(tmp_path / "none.npz")
    np.savez(tmp_path / "empty.npz", mu=np.zeros(0), sigma=np.zeros((0, 0)))
    with pytest.raises(DataError, match="expected"):
        GaussianStatistics.load(tmp_path / "empty.npz")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(0, 3), "expected"),
        (torch.zeros(3), "expected"),
        (torch.zeros(2, 3, dtype=torch.long), "floating point"),
        (torch.tensor([[0.0, math.nan, 1.0]]), "1 NaN"),
        (torch.zeros(2, 4), "same shape"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(bad: Tensor, message: str) -> None:
    moments = share(0)
    before = moments.statistics().covariance.clone()
    with pytest.raises(DataError, match=message):
        moments.update(bad)
    assert moments.n == 50
    assert torch.equal(moments.statistics().covariance, before)


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(DataError, match="of 1 samples"):
        gathered([cloud(1, 3, 0)]).statistics()


@pytest.mark.parametrize("d", [8, 64])
def test_two_known_gaussians_that_do_not_commute(d: int) -> None:
    """T x of x ~ N(0, S), with T symmetric and positive, is the optimal map: W_2^2 = |m|^2 + tr (1 - T) S (1 - T)."""
    mix, other = cloud(d, d, 0), cloud(d, d, 1)
    s, t = mix @ mix.T / d, other @ other.T / d + 0.1 * torch.eye(d, dtype=torch.float64)
    mean, rest = cloud(1, d, 2)[0], torch.eye(d, dtype=torch.float64) - t
    exact = float(mean.square().sum() + (rest @ s @ rest).trace())
    image = t @ s @ t
    a = GaussianStatistics(torch.zeros(d), s, None)
    b = GaussianStatistics(mean, (image + image.T) / 2, None)
    assert a.distance(b) == pytest.approx(exact, rel=1e-6)


def test_the_standard_error_is_the_spread_of_draws() -> None:
    reference = GaussianStatistics.of(cloud(5000, 5, 0))
    draws = [1.3 * cloud(400, 5, seed) + 0.2 for seed in range(1, 41)]
    spread = float(np.std([GaussianStatistics.of(x).distance(reference) for x in draws], ddof=1))
    told = float(np.mean([frechet_error(x, reference, groups_of(400, 0)) for x in draws[:10]]))
    # the spread of 40 draws is known to 11 %, the mean of 10 jackknives of 10 groups to 8 %
    assert told == pytest.approx(spread, rel=0.4)
