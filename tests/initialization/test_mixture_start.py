"""Mixture starts: what expectation maximisation recovers, and classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from headstart.errors import InputError
from headstart.initialization import Gaussian, Mixture, Subspace
from headstart.initialization.mixture import _maximise
from headstart.noise import Noise
from headstart.targets import gmm25

N = 4000


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def modes(seed: int, n: int = N) -> Tensor:
    return gmm25().sample(Noise(range(seed, seed + n), dtype=torch.float64))


def three_classes() -> tuple[Tensor, Tensor]:
    """300 samples in 4 dimensions: class 2 is half of them, 5 and 7 a quarter each, at 0, 20 and 40 on a line."""
    labels = torch.tensor([2, 5, 2, 7]).repeat(75)
    places = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 20.0, 0.0, 40.0], dtype=torch.float64)
    return random(300, 4, seed=1) + places[labels][:, None], labels


@pytest.fixture(scope="module")
def fitted() -> Mixture:
    return Mixture.fit(modes(0), 25, 2)


@pytest.mark.parametrize(("sigma", "nats"), [(0.3, 0.02), (0.5, 0.01), (1.2, 0.005)])
def test_25_components_recover_25_modes(fitted: Mixture, sigma: float, nats: float) -> None:
    """E_init on samples that the fit has not seen: next to nothing, and never below 0 by more than its error."""
    x = modes(10**6) + sigma * random(N, 2, seed=2)
    losses = gmm25().log_prob(x, sigma) - fitted.log_prob(x, sigma)
    assert -4 * float(losses.std()) / math.sqrt(N) < float(losses.mean()) < nats


@pytest.mark.parametrize("sigma", [0.3, 1.2])
def test_a_mixture_is_a_better_start_than_a_gaussian(fitted: Mixture, sigma: float) -> None:
    """Lower E_init on held-out data, by more than 4 standard errors of the difference."""
    x = modes(10**6) + sigma * random(N, 2, seed=2)
    gains = fitted.log_prob(x, sigma) - Gaussian.fit(modes(0)).log_prob(x, sigma)
    assert float(gains.mean()) > 4 * float(gains.std()) / math.sqrt(N)


def test_one_component_is_the_gaussian() -> None:
    """Up to expectation maximisation's divisor n."""
    data = random(500, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2])
    one, gaussian, x = Mixture.fit(data, 1), Gaussian.fit(data), random(20, 5, seed=3)
    assert one.means.abs().max() < 1e-10
    covariance = torch.cov(data.T, correction=0)
    torch.testing.assert_close(one.eigenvalues[0], torch.linalg.eigvalsh(covariance), rtol=1e-8, atol=0.0)
    torch.testing.assert_close(one.log_prob(x, 1.0), gaussian.log_prob(x, 1.0), rtol=0.0, atol=0.02)


def test_the_law_has_the_datas_mean_and_total_variance() -> None:
    """Expectation maximisation keeps both moments of the leading directions; the others are Gaussian."""
    data = torch.cat([modes(0, 600), 0.3 * random(600, 4, seed=4)], 1)
    start = Mixture.fit(data, 6, 2, subspace=Subspace.fit(data, 3))
    assert (start.means.shape, len(start.subspace.variances)) == ((6, 2), 3)
    torch.testing.assert_close(float(start.weights.sum()), 1.0)
    torch.testing.assert_close(start.weights @ start.means, torch.zeros(2, dtype=torch.float64), atol=1e-8, rtol=0.0)
    within = (start.weights[:, None] * start.eigenvalues).sum()
    between = (start.weights[:, None] * start.means.square()).sum()
    minor = start.subspace.variances[2:].sum() + 3 * start.subspace.residual
    torch.testing.assert_close(within + between + minor, data.var(0).sum(), rtol=0.01, atol=0.0)


def test_a_fit_turns_and_moves_with_the_data() -> None:
    data, rotation = modes(0, 500), torch.linalg.qr(random(2, 2, seed=5)).Q
    x = random(9, 2, seed=6)
    one, other = Mixture.fit(data, 6), Mixture.fit(data @ rotation.T + 3.0, 6)
    torch.testing.assert_close(other.log_prob(x @ rotation.T + 3.0, 0.5), one.log_prob(x, 0.5), rtol=1e-8, atol=1e-8)


def test_fitting_is_repeatable_and_its_seed_counts() -> None:
    data, x = modes(0, 500), random(9, 2, seed=6)
    one, two, other = (Mixture.fit(data, 12, seed=seed).log_prob(x, 0.3) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_many_samples_are_evaluated_in_parts_as_together() -> None:
    """More than one part, in mixed classes."""
    data, labels = three_classes()
    start, x = Mixture.fit(data, 6, labels=labels), 10 * random(2500, 4, seed=7)
    classes = torch.tensor([2, 5, 7])[torch.arange(2500) % 3]
    for label in (None, classes):
        every = start.log_prob(x, 1.0, label)
        for part in (slice(1000, 1050), slice(2040, 2060)):
            some = start.log_prob(x[part], 1.0, None if label is None else label[part])
            torch.testing.assert_close(every[part], some, rtol=1e-12, atol=1e-12)


# Classes.


def test_classes_and_chunks_change_no_density(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all components the others' weights masked, against the own ones alone; in chunks of a row, and at once."""
    data, labels = three_classes()
    start, x = Mixture.fit(data, 9, labels=labels), 10 * random(60, 4, seed=7)
    classes = torch.tensor([7, 2, 5] * 20)
    z, rest = start.subspace.split(x)
    centred = z[:, None, : start.means.shape[1]] - start.means
    turned = torch.einsum("bki,kij->bkj", centred, start.eigenvectors.double())
    own = (classes[:, None] == start.owners).double() * start.weights
    weights = own / own.sum(1, keepdim=True)
    variances = start.eigenvalues + 0.5**2
    each = -0.5 * (turned.square() / variances + variances.log() + math.log(2 * math.pi)).sum(-1)
    expected = torch.logsumexp(weights.log() + each, 1) + start.subspace.log_prob_rest(rest, 0.5)
    assert start.means.shape[1] == z.shape[1]
    torch.testing.assert_close(start.log_prob(x, 0.5, classes), expected, rtol=1e-10, atol=1e-10)
    monkeypatch.setattr("headstart.initialization.mixture.NUMBERS", 1)
    torch.testing.assert_close(start.log_prob(x, 0.5, classes), expected, rtol=1e-10, atol=1e-10)


def test_without_a_label_the_classes_are_mixed_as_in_the_data() -> None:
    data, labels = three_classes()
    start, x = Mixture.fit(data, 6, labels=labels), 10 * random(20, 4, seed=8)
    assert start.owners is not None
    shares = torch.stack([start.weights[start.owners == c].sum() for c in (2, 5, 7)])
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64))
    parts = torch.stack([start.log_prob(x, 0.8, torch.full((20,), c)) for c in (2, 5, 7)], 1)
    torch.testing.assert_close(start.log_prob(x, 0.8), (parts + shares.log()).logsumexp(1), rtol=1e-12, atol=1e-12)


def test_a_class_has_its_own_components_alone() -> None:
    """Its density is that of a start with the other components taken away."""
    data, labels = three_classes()
    start, x = Mixture.fit(data, 8, labels=labels), 10 * random(20, 4, seed=8)
    assert start.owners is not None
    assert start.owners.tolist() == [2, 2, 2, 2, 5, 5, 7, 7]
    own = start.owners == 5
    alone = Mixture(
        start.shape,
        start.subspace,
        start.weights[own] / start.weights[own].sum(),
        start.means[own],
        start.eigenvectors[own],
        start.eigenvalues[own],
    )
    label = torch.full((20,), 5)
    torch.testing.assert_close(start.log_prob(x, 0.8, label), alone.log_prob(x, 0.8), rtol=1e-12, atol=1e-12)
    assert repr(start) == "Mixture(shape=(4,), components=8, dimensions=4, classes=3)"
    assert repr(alone) == "Mixture(shape=(4,), components=2, dimensions=4)"


def test_samples_of_a_class_are_of_that_class() -> None:
    """The classes are 20 apart and 1 wide."""
    data, labels = three_classes()
    start = Mixture.fit(data, 6, labels=labels)
    wanted = torch.tensor([2, 5, 7])[torch.arange(900) % 3]
    places = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 20.0, 0.0, 40.0])
    off = start.sample(Noise(range(900)), 1.0, wanted).mean(1) - places[wanted]
    assert off.abs().max() < 8
    anyone = start.sample(Noise(range(900)), 1.0).mean(1)
    share = float((anyone < 10).double().mean())
    assert abs(share - 0.5) < 4.5 * math.sqrt(0.25 / 900)


class Extreme(Noise):
    """Uniform numbers at the ends of their interval."""

    def __init__(self, value: float, *args: Any) -> None:
        super().__init__(*args)
        self.value = value

    def uniform(self, shape: tuple[int, ...] = ()) -> Tensor:
        return torch.full((len(self), *shape), self.value)


@pytest.mark.parametrize("value", [0.0, 1 - 2**-24])
def test_no_uniform_number_leads_to_another_class(value: float) -> None:
    data, labels = three_classes()
    start = Mixture.fit(data, 6, labels=labels)
    for label, place in ((2, 0.0), (5, 20.0), (7, 40.0)):
        x = start.sample(Extreme(value, range(5)), 0.1, torch.full((5,), label))
        assert (x.mean(1) - place).abs().max() < 8


@pytest.mark.parametrize(("asked", "got"), [(1, [1, 1, 1]), (8, [4, 2, 2]), (1000, [7, 3, 3])])
def test_components_are_shared_out_by_size_and_every_class_gets_one(asked: int, got: list[int]) -> None:
    """Classes of 150, 75 and 75 samples; with 20 of them for each component at least."""
    data, labels = three_classes()
    owners = Mixture.fit(data, asked, labels=labels).owners
    assert owners is not None
    assert [int((owners == c).sum()) for c in (2, 5, 7)] == got


def test_a_subspace_that_was_fitted_before_is_used_as_it_is() -> None:
    data, x = modes(0, 500), random(9, 2, seed=6)
    space = Subspace.fit(data, 256)
    given = Mixture.fit(data, 4, 1, subspace=space)
    assert given.subspace is space
    assert torch.equal(given.log_prob(x, 0.5), Mixture.fit(data, 4, 1).log_prob(x, 0.5))


def test_without_labels_there_are_no_classes() -> None:
    data, _ = three_classes()
    start = Mixture.fit(data, 2)
    assert start.owners is None
    x, label = random(4, 4, seed=9), torch.full((4,), 123)
    assert torch.equal(start.log_prob(x, 1.0, label), start.log_prob(x, 1.0))


@pytest.mark.parametrize(("components", "dimensions"), [(0, 2), (2, 0), (-1, 2)])
def test_bad_sizes_are_named(components: int, dimensions: int) -> None:
    with pytest.raises(InputError, match="at least 1 component and 1 dimension"):
        Mixture.fit(modes(0, 20), components, dimensions)


def test_labels_that_do_not_fit_are_named() -> None:
    with pytest.raises(InputError, match="3 labels for 20 samples"):
        Mixture.fit(modes(0, 20), 2, labels=torch.tensor([0, 1, 0]))


# Expectation maximisation, and the choice of sizes.


def test_a_maximisation_step_is_the_weighted_moments_with_a_common_prior() -> None:
    """Against the formula, with dense shares: every point belongs to every component."""
    z, shares = random(60, 3), torch.softmax(random(60, 2, seed=1), 1)
    point = torch.arange(60).repeat(2)
    common = torch.cov(z.T)
    weights, means, covariances = _maximise(z, point, [slice(0, 60), slice(60, 120)], shares.T.flatten(), common)
    mass = shares.sum(0)
    expected = (shares.T @ z) / mass[:, None]
    centred = z - expected[:, None]
    scatter = torch.einsum("nk,kni,knj->kij", shares, centred, centred)
    prior = 3 / 8
    torch.testing.assert_close(weights, mass / 60)
    torch.testing.assert_close(means, expected)
    torch.testing.assert_close(covariances, (scatter + prior * common) / (mass + prior)[:, None, None])


def test_few_components_are_fitted_as_by_scikit_learn() -> None:
    """Three clusters that touch: no component is left out, and the prior of 1/4 of a point is all that differs."""
    places = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    data = places[torch.arange(3000) % 3] + random(3000, 2, seed=2)
    start = Mixture.fit(data, 3, 2)
    peer = GaussianMixture(3, max_iter=200, tol=1e-8, random_state=0).fit(data.numpy())
    ours = float(start.log_prob(data, 1e-6).mean())
    assert ours == pytest.approx(float(peer.score(data.numpy())), abs=2e-3)


def test_the_size_is_chosen_on_held_out_likelihood() -> None:
    """One component for a Gaussian; enough for 25 modes; and the chosen size is as good as any on fresh data."""
    assert len(Mixture.fit(random(2000, 3)).weights) == 1
    data = modes(0)
    start, x = Mixture.fit(data), modes(10**6) + 0.9 * random(N, 2, seed=2)
    assert len(start.weights) >= 25
    fixed = [float(Mixture.fit(data, k).log_prob(x, 0.9).mean()) for k in (1, 5, 25, 50)]
    assert float(start.log_prob(x, 0.9).mean()) > max(fixed) - 0.01


def test_a_fixed_size_is_kept_and_the_other_chosen() -> None:
    data = torch.cat([modes(0, 1000), 0.01 * random(1000, 60, seed=4)], 1)
    assert len(Mixture.fit(data, 7).weights) == 7
    assert Mixture.fit(data, dimensions=2).means.shape[1] == 2


def test_more_points_than_a_fit_looks_at_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.initialization.mixture.MOST", 500)
    data = modes(0, 2000)
    space = Subspace.fit(data, 2)
    some = data[torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:500]]
    start = Mixture.fit(data, 10, 2, subspace=space)
    assert abs(float(start.weights @ start.means[:, 0]) - float(space.split(some)[0][:, 0].mean())) < 1e-10


def test_a_rare_class_is_fitted_on_among_more_points_than_a_fit_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.initialization.mixture.MOST", 50)
    for place in range(0, 2000, 400):
        labels = torch.zeros(2000, dtype=torch.long)
        labels[place] = 7
        start = Mixture.fit(modes(0, 2000), 3, 2, labels=labels)
        assert start.owners is not None
        assert set(start.owners.tolist()) == {0, 7}


def test_a_hundred_points_are_enough() -> None:
    start = Mixture.fit(modes(0, 100))
    x = modes(10**6) + random(N, 2, seed=2)
    assert float(start.log_prob(x, 1.0).mean()) > float(gmm25().log_prob(x, 1.0).mean()) - 0.3


def test_a_class_of_one_sample_is_as_wide_as_the_others() -> None:
    """Its start is no copy of that sample, at any horizon."""
    data, labels = torch.cat([random(400, 16), 9 + random(1, 16, seed=1)]), torch.tensor([0] * 400 + [1])
    start = Mixture.fit(data, 4, 16, labels=labels)
    x = start.sample(Noise(range(200), dtype=torch.float64), 1e-3, torch.ones(200, dtype=torch.long))
    assert (x - data[-1]).square().mean() > 0.3


def test_equal_points_are_one_component_of_no_width() -> None:
    for labels in (None, torch.tensor([0] * 100 + [1] * 100)):
        data = torch.cat([torch.ones(100, 3), torch.ones(100, 3) if labels is None else random(100, 3).float()])
        start = Mixture.fit(data, 8, 3, labels=labels)
        label = None if labels is None else torch.zeros(50, dtype=torch.long)
        x = start.sample(Noise(range(50)), 0.01, label)
        assert torch.isfinite(start.log_prob(x, 0.01, label)).all()
        if labels is None:
            assert (x - 1).abs().max() < 0.1
