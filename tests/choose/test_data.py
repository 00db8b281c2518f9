"""The data of a plan: what is held out, labels and conditions, and the network's own samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstart import Dataset, Noise, fit, shared
from headstart.choose import hold_out, own_samples
from headstart.denoiser import Counted, expand
from headstart.denoiser.law import learned_law
from headstart.errors import DataError, InputError
from headstart.metrics import sliced_wasserstein
from tests.choose.cases import CLASSES, DATA, FAST, TARGET, needs_label


def test_held_out_samples_are_a_fifth_and_apart():
    for count, held in ((1000, 200), (10, 2), (40_000, 3000)):
        fitted, out = hold_out(torch.zeros(count, 1), seed=3)
        assert len(out) == held
        assert torch.equal(torch.cat([fitted, out]).sort().values, torch.arange(count))
    assert not torch.equal(hold_out(DATA, 0)[1], hold_out(DATA, 1)[1])


def test_a_class_with_a_single_sample_is_fitted_on():
    labels = torch.cat([torch.zeros(99), torch.ones(1)]).long()
    for seed in range(20):
        fitted, held = hold_out(torch.zeros(100, 1), seed, labels=labels)
        assert 99 in fitted
        assert sorted(torch.cat([fitted, held]).tolist()) == list(range(100))


# Kinds of data and conditions


def test_kinds_of_data_make_the_same_plan(profile):
    """A tensor, an array, float64, a data set, a list."""
    expected = fit(TARGET, DATA, 3, horizon=2.0, **FAST)
    for data in (DATA.numpy(), DATA.double(), DATA.double().numpy(), Dataset(DATA, name="points"), DATA.tolist()):
        plan = fit(TARGET, data, 3, horizon=2.0, **FAST)
        assert plan.schedule.steps == 3
        assert plan.schedule.sigmas == pytest.approx(expected.schedule.sigmas, rel=1e-4)
        assert plan.budget.total == pytest.approx(expected.budget.total, rel=1e-4)


def test_labels_condition_the_network_and_the_start():
    label = torch.arange(400) % 2
    data = CLASSES[label] + torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    plan = fit(needs_label, data, 3, labels=label, pilot_samples=64)
    assert plan.initialization.name == "mixture"
    assert len(plan.initialization.owners.unique()) == 2
    assert plan.budget.initialization.value < 0.5
    assert plan.profile.loss[-1] < 0.2
    wanted = torch.tensor([1, 0, 0, 1, 1, 0] * 50)
    samples = plan.sample(needs_label, 300, label=wanted, batch_size=64)
    assert (samples - CLASSES[wanted]).square().sum(1).max() < 5**2
    assert (samples[wanted == 1].mean(0) - CLASSES[1]).abs().max() < 0.4
    for other in (label.numpy(), label.tolist()):
        again = fit(needs_label, data, 3, labels=other, pilot_samples=64)
        assert again.record.candidates == plan.record.candidates
    dataset = fit(needs_label, Dataset(data, label), 3, labels=label, pilot_samples=64)
    assert dataset.record.candidates == plan.record.candidates


@pytest.mark.parametrize("label", [1, torch.tensor(1), torch.tensor([1])], ids=repr)
def test_one_label_for_all_data(label):
    """A plan for one class is that for data which are all of it: the network is told the class of every sample."""
    data = CLASSES[1] + torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    given = {"pilot_samples": 16, "initialization": "mixture"}
    plan = fit(needs_label, data, 2, conditions={"label": label}, **given)
    assert (
        plan.record.candidates
        == fit(needs_label, data, 2, labels=torch.ones(200, dtype=torch.long), **given).record.candidates
    )
    assert plan.initialization.owners.unique().tolist() == [1]
    assert plan.profile.label.unique().tolist() == [1]
    assert plan.sample(needs_label, 50, label=label).mean(0) == pytest.approx(CLASSES[1], abs=0.6)


def test_conditions_go_with_the_data():
    shift = torch.arange(400.0)[:, None] * torch.ones(2)
    data = shift + 0.1 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))

    def denoiser(x, sigma, shift, scale):
        s2 = expand(sigma, x) ** 2
        return scale * (0.01 * x + s2 * shift) / (0.01 + s2)

    plan = fit(denoiser, data, 2, conditions={"shift": shift, "scale": 1.0}, **FAST)
    assert plan.profile.loss.max() < 0.1


@pytest.mark.parametrize("length", [60, 20, 24, 10, 7], ids=lambda length: f"{length} rows")
def test_conditions_that_the_data_share_are_never_cut(length):
    """300 data, of which 60 are held out, 20 of them with costs; 24 samples are piloted, in batches of 10."""

    def denoiser(x, sigma, table):
        assert len(table) == length
        return TARGET(x, sigma)

    given = {"initialization": "gaussian", "schedule": "distilled", "solver": "dpm++2m", "horizon": 2.0}
    conditions = {"table": torch.zeros(length)}
    plan = fit(denoiser, DATA[:300], 2, conditions=conditions, pilot_samples=24, batch_size=10, **given)
    assert plan.nfe == 2


# What is refused


def with_nan():
    data = DATA.clone()
    data[3, 1] = math.nan
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA[:9], "at least ten samples of the data: got 9"),
        (DATA[:1], "at least 2"),
        (with_nan(), "1 NaN or infinite values"),
        (DATA / 0, "NaN or infinite values"),
        (torch.ones(50, 2), "all samples are equal"),
        (torch.arange(100).reshape(50, 2), "convert them to floating point"),
        (DATA[:, 0], "expected \\(N, ...\\)"),
    ],
)
def test_data_are_checked(data, message):
    with pytest.raises(DataError, match=message):
        fit(TARGET, data, 3, **FAST)


def test_labels_are_checked():
    with pytest.raises(DataError, match=r"1000 samples but labels of shape \(7,\)"):
        fit(TARGET, DATA, 3, labels=torch.zeros(7).long(), **FAST)


def test_labels_that_leave_nothing_to_hold_out_are_named():
    labels = torch.arange(1000)
    labels[500] = labels[501]
    with pytest.raises(DataError, match=r"of 1000 samples could be held out, .* by these labels"):
        fit(lambda x, sigma, label: TARGET(x, sigma), DATA, 3, labels=labels, **FAST)


def test_the_labels_of_a_dataset_count_only_if_they_are_given(profile):
    """A network that takes none is not told any."""
    labelled = fit(TARGET, Dataset(DATA, torch.arange(1000) % 2), 3, profile=profile, **FAST)
    assert labelled.record.candidates == fit(TARGET, DATA, 3, profile=profile, **FAST).record.candidates


# The network's own samples


def test_without_data_a_plan_is_fitted_on_samples_of_the_network():
    counted = Counted(TARGET)
    plan = fit(counted, None, 3, shape=(2,), n_samples=400, initialization="gaussian", pilot_samples=16)
    assert counted.samples > 400 * 35
    # No time is in it, which would make two plans of one fit differ.
    assert plan.record.source == "400 samples of the network itself, drawn with 35 evaluations each"
    assert plan.record.source in plan.explain()
    x = plan.sample(TARGET, 2000)
    assert abs(float(x.std()) / float(DATA.std()) - 1) < 0.1


@pytest.mark.parametrize(("sigma_max", "first"), [(None, 80.0), (400.0, 80.0), (math.inf, 80.0), (50.0, 50.0)])
def test_own_samples_begin_at_80_or_where_the_network_ends(sigma_max, first):
    """However far a network is known to work, its own samples are those of EDM's sampler."""
    asked = []

    def network(x, sigma):
        asked.append((float(sigma[0]), len(x)))
        return TARGET(x, sigma)

    fit(network, None, 2, shape=(2,), n_samples=40, sigma_max=sigma_max, schedule="rho", **FAST)
    assert next(level for level, count in asked if count == 40) == pytest.approx(first)
    assert max(level for level, _ in asked[:40]) == pytest.approx(first)


@pytest.mark.parametrize(
    ("mean", "deviation", "sigma_max"),
    [(1.5, 0.5, None), (48.0, 16.0, 2560.0), (900.0, 300.0, 60_000.0), (900.0, 300.0, None), (3e-3, 1e-3, None)],
)
def test_own_samples_are_in_the_unit_of_the_network(mean, deviation, sigma_max):
    """N(m, s^2), exactly denoised: samples of mean m and standard deviation s, in whatever unit."""

    def denoiser(x, sigma):
        return mean + deviation**2 / (deviation**2 + expand(sigma, x) ** 2) * (x - mean)

    x = own_samples(denoiser, (2,), 2000, sigma_max=sigma_max)
    assert float(x.mean()) == pytest.approx(mean, abs=0.1 * deviation)
    assert float(x.std()) == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize(
    ("levels", "refused"), [((0.0, 80.0), True), ((0.0, 3000.0), False), ((50.0, 6000.0), True), ((10.0, 6e4), False)]
)
def test_own_samples_that_the_levels_of_a_network_cannot_give_are_refused(levels, refused):
    """From N(0, 80^2), an ODE keeps most of a law of standard deviation 300; above 50, its detail is lost."""

    def denoiser(x, sigma):
        assert (sigma >= levels[0] * (1 - 1e-6)).all()
        assert (sigma <= levels[1] * (1 + 1e-6)).all()
        return 300.0**2 / (300.0**2 + expand(sigma, x) ** 2) * x

    denoiser.sigma_min, denoiser.sigma_max = levels
    if refused:
        with pytest.raises(InputError, match="samples have a standard deviation near"):
            own_samples(denoiser, (2,), 20)
    else:
        assert float(own_samples(denoiser, (2,), 500).std()) == pytest.approx(300, rel=0.1)


@pytest.mark.parametrize("lowest", [0.0, 0.4])
def test_the_unit_of_a_law_that_is_wide_in_a_few_directions_is_that_of_its_samples(lowest):
    """Standard deviations of 100 along 4 of 400 coordinates and of 0.01 along the others: 10 on the average, of which
    noise in all directions tells less than 2."""
    variances = torch.full((400,), 1e-4)
    variances[:4] = 1e4

    def denoiser(x, sigma):
        return variances / (variances + expand(sigma, x) ** 2) * x

    denoiser.sigma_min, denoiser.sigma_max = lowest, 1e6
    noise = Noise(range(32)).normal((400,))
    told = learned_law(denoiser, noise, 80.0, max(lowest, 1e-12), 1e6)
    assert told.deviation < 2
    x = own_samples(denoiser, (400,), 500)
    assert float(x[:, :4].std()) == pytest.approx(100, rel=0.05)


def test_the_unit_of_a_network_is_told_with_its_conditions():
    """p(x given c) = N(c, 20^2), with a shared table that is as long as the samples."""

    def network(x, sigma, centre, table):
        assert (len(centre), len(table)) == (len(x), 300)
        return centre + 400 / (400 + expand(sigma, x) ** 2) * (x - centre)

    centre = 100 * torch.ones(300, 2)
    x = own_samples(network, (2,), 300, conditions={"centre": centre, "table": shared(torch.zeros(300))})
    assert float(x.mean()) == pytest.approx(100, abs=4)
    assert float(x.std()) == pytest.approx(20, rel=0.1)


def test_own_samples_are_those_of_the_network():
    """Of an exact denoiser, with the solver's small error: as far from real sets as these are from each other."""
    x = own_samples(TARGET, (2,), 1000)
    real = [TARGET.sample(Noise(range(k, k + 1000))) for k in range(20_000, 25_000, 1000)]
    apart = [sliced_wasserstein(a, b) for i, a in enumerate(real) for b in real[i + 1 :]]
    assert np.mean([sliced_wasserstein(x, a) for a in real]) < 1.5 * max(apart)
    torch.testing.assert_close(x[:20], own_samples(TARGET, (2,), 20))
    assert not torch.equal(x[:20], own_samples(TARGET, (2,), 20, seed=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 3}, "at least ten samples"),
        ({"sigma_max": 0.001}, "a level above 0.002"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_own_samples_check_their_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        own_samples(TARGET, (2,), **{"n": 20, **arguments})


@pytest.mark.parametrize(
    "labels", [torch.tensor(1), torch.zeros(7).long(), torch.zeros(40, 2).long()], ids=lambda x: str(x.shape)
)
def test_labels_of_the_networks_own_samples_are_one_for_each(labels):
    with pytest.raises(InputError, match=r"expected \(40,\), one for each sample to draw"):
        fit(TARGET, None, 2, shape=(2,), n_samples=40, labels=labels)


@pytest.mark.parametrize("label", [1, torch.tensor([1])], ids=repr)
def test_one_label_for_all_samples_of_the_network_itself(label):
    given = {"shape": (2,), "own": 60, "pilot_samples": 16, "initialization": "gaussian", "schedule": "rho"}
    plan = fit(needs_label, None, 2, conditions={"label": label}, **given)
    assert plan.profile.label.unique().tolist() == [1]


def test_without_data_the_shape_must_be_said():
    with pytest.raises(InputError, match="say the shape of one sample"):
        fit(TARGET, None, 3)


@pytest.mark.parametrize("mark", [None, "shared"])
def test_a_nested_condition_and_a_shared_one_go_through_a_fit(mark):
    """p(x given c) = N(c + m, 1): with its conditions under the names of arguments, and one as long as the data."""
    g = torch.Generator().manual_seed(0)
    centre, table = 3 * torch.randn(400, 2, generator=g), torch.full((400 if mark else 7,), 2.0)
    data = centre + 2 + torch.randn(400, 2, generator=g)
    seen = set()

    def network(x, sigma, /, **given):
        seen.add((len(x) == len(given["n"]["c"][0]), len(given["seeds"])))
        mean = given["n"]["c"][0] + given["seeds"].mean()
        return mean + (x - mean) / (1 + torch.as_tensor(sigma).reshape(-1, 1) ** 2)

    conditions = {"n": {"c": [centre.numpy().astype(">f4")]}, "seeds": shared(table) if mark else table}
    plan = fit(network, data, 3, conditions=conditions, initialization="gaussian", pilot_samples=16, batch_size=30)
    assert seen == {(True, len(table))}
    assert plan.profile.loss[0] == pytest.approx(2, rel=0.2)  # of N(c + m, 1), however much noise there is
    wanted = {"n": {"c": [centre[:200]]}, "seeds": table}
    some, whole = (plan.sample(network, 200, conditions=wanted, batch_size=size) for size in (64, 256))
    assert torch.allclose(some, whole, atol=1e-5)
