"""The measuring pass against closed forms and tables, its invariances, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from headstart.choose import fit, hold_out
from headstart.denoiser import Counted, expand
from headstart.errors import DataError, DenoiserError, InputError
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.schedule import equidistribute
from headstart.targets import Gaussian, bimodal, gmm25
from headstart.trajectory import Trajectories

# Method.md 6.2: a, b, mmse at a, corrector cost from a to b with velocity b.
TABLES = {
    "gaussian": [
        (10.0, 5.0, None, 5.867624981),
        (2.0, 1.5, None, 0.4119351375),
        (1.0, 0.6, None, 0.3584374321),
        (0.3, 0.1, None, 0.002843077562),
    ],
    "bimodal": [
        (2.0, 1.5, 0.71299329, 0.1813644),
        (1.0, 0.8, 0.41561529, 0.092828998),
        (0.5, 0.4, 0.098093635, 0.10617549),
        (0.2, 0.1, 0.020143247, 0.045106189),
    ],
    "gmm25": [
        (5.0, 3.0, 5.6521437, 1.3005202),
        (2.0, 1.2, 3.4801421, 0.54167458),
        (1.0, 0.7, 1.4017118, 0.15023315),
        (0.5, 0.35, 0.41420549, 0.13663261),
        (0.2, 0.1, 0.063371552, 0.031940338),
    ],
}
LAMBDA = torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64)
TARGETS = {"gaussian": Gaussian([0.3, -1.0, 2.0], LAMBDA), "bimodal": bimodal(), "gmm25": gmm25()}


def measured(target, sigmas=None, n=4000, **more):
    data = target.sample(Noise(range(n)))
    return Profile.measure(target, data, sigmas=sigmas, **{"samples": n, "cost_samples": n, "batch_size": n, **more})


def close(values, expected, errors=4.0):
    """Within that many standard errors, and with errors small enough for the test to mean something."""
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return abs(values.mean(axis=0) - expected) < errors * error < 0.5 * expected


@pytest.mark.parametrize("law", TABLES)
def test_loss_and_corrector_cost_of_exact_denoisers(law):
    """The tables' pairs of levels are neighbours on the grid that is measured on."""
    rows, target = TABLES[law], TARGETS[law]
    profile = measured(target, np.array([level for a, b, *_ in rows for level in (a, b)]))
    for i, (a, _, mmse, cost) in enumerate(rows):
        assert close(profile.losses[:, 2 * i], target.mmse(a) if mmse is None else mmse)
        assert close(profile.corrector[:, 2 * i], cost)
    np.testing.assert_array_equal(profile.loss, profile.losses.mean(axis=0))
    assert profile.loss_error[0] == pytest.approx(torch.from_numpy(profile.losses[:, 0]).std().item() / math.sqrt(4000))


def test_every_sample_of_a_gaussian():
    """Loss, corrector and defect cost sample by sample: all maps are linear."""
    sigmas = np.array([10.0, 5.0, 2.0, 1.5, 1.0, 0.6, 0.3, 0.1])
    target = Gaussian([0.0, 0.0, 0.0], LAMBDA)
    profile = measured(target, sigmas, n=300, samples=200, cost_samples=50)
    x0, eps = profile.samples.double(), profile.noise.double()
    for i, a in enumerate(sigmas):
        x = x0 + a * eps
        loss = (x0 - LAMBDA / (LAMBDA + a**2) * x).square().sum(1)
        np.testing.assert_allclose(profile.losses[:, i], loss, rtol=1e-4)
        if i + 1 < len(sigmas):
            b, x = sigmas[i + 1], x[:50]
            corrector = b**2 * (x / (LAMBDA + a**2) - x / (LAMBDA + b**2)).square().sum(1)
            euler = (LAMBDA + a * b) / (LAMBDA + a**2) * x
            heun = x + (b - a) * ((a / (LAMBDA + a**2)) * x + (b / (LAMBDA + b**2)) * euler) / 2
            defect = (heun - euler).square().sum(1) / (b**2 + profile.sigma_data**2)
            np.testing.assert_allclose(profile.corrector[:, i], corrector, rtol=1e-4)
            np.testing.assert_allclose(profile.defect[:, i], defect, rtol=1e-4)


def test_defect_cost_is_the_divergence_that_euler_adds_to_an_isotropic_gaussian():
    """To leading order, KL(F#p_a || p_b) for steps of a ratio that goes to 1; the first error is of the first order."""
    gaps = []
    for ratio in (1.2, 1.1, 1.05):
        worst = 0.0
        for a in (5.0, 1.0, 0.3):
            b = a / ratio
            target = Gaussian([0.0] * 4, 1.0)
            profile = measured(target, np.array([a, b, b / ratio]), n=200)
            # The Monte Carlo errors of |x|^2 and of sigma_data divided out: the cost is that of a quadratic form in x.
            x = profile.samples.double() + a * profile.noise.double()
            spread = float(x.square().sum(1).mean()) / (4 * (1 + a**2))
            cost = profile.defect[:, 0].mean() / spread * (b**2 + profile.sigma_data**2) / (b**2 + 1)
            w = (1 + a * b) ** 2 / ((1 + a**2) * (1 + b**2))
            kl = 4 * (w - 1 - math.log(w)) / 2
            worst = max(worst, abs(cost / kl - 1))
        gaps.append(worst)
    assert gaps[2] < 0.1
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.25)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.25)


@pytest.mark.parametrize("cost", ["corrector", "defect"])
def test_orders_of_the_costs(cost):
    """The cost of a step falls with the power of the step that its length takes the root of."""
    target, steps, order = gmm25(), [], {"corrector": 2, "defect": 4}[cost]
    for ratio in (1.2, 1.1):
        profile = measured(target, np.array([2.0, 2.0 / ratio, 1.0]), n=500)
        assert profile.length(cost).exponent == order
        steps.append(getattr(profile, cost)[:, 0].mean())
    assert math.log(steps[0] / steps[1]) / math.log(math.log(1.2) / math.log(1.1)) == pytest.approx(order, abs=0.4)


@pytest.mark.parametrize("cost", ["corrector", "defect"])
def test_length_is_that_of_the_mean_cost(cost):
    profile = measured(gmm25(), n=50)
    length = profile.length(cost)
    np.testing.assert_array_equal(length.sigmas, profile.sigmas)
    np.testing.assert_array_equal(length.costs, getattr(profile, cost).mean(axis=0))


def test_information_of_a_gaussian():
    """I(x0; x_sigma) = 1/2 sum ln(1 + lambda / sigma^2)."""
    profile = measured(TARGETS["gaussian"], n=3000, cost_samples=2)
    for sigma in (100.0, 5.0, 1.0, 0.3, 0.05):
        exact = 0.5 * float((LAMBDA / sigma**2).log1p().sum())
        each = profile.information(sigma)
        assert each.shape == (3000,)
        assert abs(each.mean() - exact) < 4 * each.std() / math.sqrt(3000) + 0.002 * exact


def information_error(sigma, levels):
    """Relative error of the quadrature: the exact loss in place of the measured one, so that nothing is random."""
    scale = math.sqrt(float(LAMBDA.mean()))
    sigmas = np.geomspace(200 * scale, 0.02 * scale, levels)
    losses = np.array([[TARGETS["gaussian"].mmse(s) for s in sigmas]] * 2)
    none = np.zeros((2, levels - 1))
    exact = 0.5 * float((LAMBDA / sigma**2).log1p().sum())
    return Profile(sigmas, losses, none, none, scale, (3,), 0).information(sigma) / exact - 1


@pytest.mark.parametrize("sigma", [200.0, 50.0, 7.3, 1.0, 0.33, 0.03])
def test_information_from_the_exact_loss(sigma):
    error = abs(information_error(sigma, 40))
    assert error[0] == error[1] < 3e-3


def test_information_is_of_second_order_in_the_levels():
    errors = [abs(information_error(0.33, levels))[0] for levels in (40, 79, 157)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("power", [2.0, 1.0, 0.5, 0.0])
def test_information_of_a_power_law_is_exact(power):
    """l = s^p: the integral of s^(p - 3) up to the highest level, and a constant loss above it."""
    sigmas = np.geomspace(10.0, 0.1, 7)
    profile = Profile(sigmas, np.tile(sigmas**power, (2, 1)), np.ones((2, 6)), np.ones((2, 6)), 1.0, (1,), 0)
    for sigma in (10.0, 3.3, 0.1):
        inner = math.log(10 / sigma) if power == 2 else (sigma ** (power - 2) - 10 ** (power - 2)) / (2 - power)
        assert profile.information(sigma)[0] == pytest.approx(inner + 10**power / 200, rel=1e-10)


@pytest.mark.parametrize("sigma", [0.009, 10.1, math.nan])
def test_information_outside_the_levels(sigma):
    profile = measured(bimodal(), np.array([10.0, 1.0, 0.01]), n=20)
    with pytest.raises(InputError, match=r"from sigma = 10 down to 0\.01"):
        profile.information(sigma)


@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_batch_size_changes_nothing(batch_size):
    target = gmm25()
    data = target.sample(Noise(range(50)))
    whole = Profile.measure(target, data, samples=30, cost_samples=11)
    parts = Profile.measure(target, data, samples=30, cost_samples=11, batch_size=batch_size)
    assert whole.losses.shape == parts.losses.shape == (30, 64)
    assert whole.corrector.shape == parts.corrector.shape == whole.defect.shape == parts.defect.shape == (11, 63)
    for curve in ("losses", "corrector", "defect"):
        np.testing.assert_allclose(getattr(parts, curve), getattr(whole, curve), rtol=1e-3, atol=1e-12)


def test_the_seed_decides():
    target = bimodal()
    data = target.sample(Noise(range(50)))
    first, again, other = (Profile.measure(target, data, samples=30, cost_samples=9, seed=s) for s in (3, 3, 4))
    for curve in ("losses", "corrector", "defect"):
        np.testing.assert_array_equal(getattr(first, curve), getattr(again, curve))
        assert not np.array_equal(getattr(first, curve), getattr(other, curve))
    assert torch.equal(first.samples, again.samples)
    assert torch.equal(first.noise, again.noise)
    assert not torch.equal(first.noise, other.noise)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    measured(bimodal(), n=20)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [4, 256])
def test_conditions_go_with_their_samples(batch_size):
    """Sample i is the number i and so is its label, for the exact denoiser of N(label, c^2): errors are those of the
    noise alone, and any mix-up would show."""
    data, label, table = torch.arange(20.0)[:, None], torch.arange(20), torch.zeros(3)
    c2, sigmas = 0.25, np.array([3.0, 2.0, 0.5])

    def denoiser(x, sigma, label, scale, table):
        assert (scale, len(table)) == (2.5, 3)
        s2 = expand(sigma, x) ** 2
        return (c2 * x + s2 * expand(label, x)) / (c2 + s2)

    profile = Profile.measure(
        denoiser,
        data,
        sigmas=sigmas,
        samples=15,
        cost_samples=6,
        conditions={"label": label, "scale": 2.5, "table": table},
        batch_size=batch_size,
    )
    assert torch.equal(profile.label, profile.samples[:, 0].long())
    eps2 = profile.noise.double().square().sum(1).numpy()[:, None]
    np.testing.assert_allclose(profile.losses, eps2 * (c2 * sigmas / (c2 + sigmas**2)) ** 2, rtol=1e-4)
    a, b = sigmas[:-1], sigmas[1:]
    corrector = eps2[:6] * (a * b * (1 / (c2 + a**2) - 1 / (c2 + b**2))) ** 2
    np.testing.assert_allclose(profile.corrector, corrector, rtol=1e-4)
    bend = b / (c2 + b**2) * (c2 + a * b) / (c2 + a**2) - a / (c2 + a**2)
    defect = eps2[:6] * (a * (b - a) / 2 * bend) ** 2 / (b**2 + profile.sigma_data**2)
    np.testing.assert_allclose(profile.defect, defect, rtol=1e-4)


@pytest.mark.parametrize("label", [3, torch.tensor(3), torch.tensor([3])], ids=repr)
def test_one_label_stands_for_all(label):
    def denoiser(x, sigma, label):
        assert label.tolist() == [3] * len(x)
        return shrinking(x, sigma)

    data = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    profile = Profile.measure(denoiser, data, samples=10, conditions={"label": label})
    each = Profile.measure(denoiser, data, samples=10, conditions={"label": torch.full((12,), 3)})
    assert profile.label.tolist() == [3] * 10
    assert profile.digest == each.digest
    np.testing.assert_array_equal(profile.losses, each.losses)


@pytest.mark.parametrize("length", [16, 6, 5, 1])
def test_what_the_samples_share_is_never_cut(length):
    """A tensor as long as the samples that are measured, as those whose costs are, as a batch: 20 samples there are."""

    def denoiser(x, sigma, table):
        assert len(table) == length
        return shrinking(x, sigma)

    data = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    given = {"conditions": {"table": torch.zeros(length)}, "batch_size": 5}
    assert Profile.measure(denoiser, data, samples=16, cost_samples=6, **given).trajectories is not None


def test_evaluations_are_as_announced():
    counted = Counted(bimodal())
    data = counted.denoiser.sample(Noise(range(50)))
    profile = Profile.measure(counted, data, sigmas=np.array([5.0, 2.0, 1.0, 0.5, 0.1]), samples=20, cost_samples=8)
    assert counted.samples == 5 * 20 + 2 * 4 * 8
    assert profile.losses.shape == (20, 5)


def shrinking(x, sigma):
    """The exact denoiser of N(0, 1), through a weight that has a gradient."""
    return torch.ones((), requires_grad=True) * x / (1 + expand(sigma, x) ** 2)


def test_default_levels_and_sizes():
    """In units of the data's standard deviation, the root mean square over coordinates; without gradients."""
    data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 4.0]) + 7
    profile = Profile.measure(shrinking, data)
    scale = math.sqrt(float(data[:, 0].double().var() + data[:, 1].double().var()) / 2)
    assert profile.sigma_data == pytest.approx(scale, rel=1e-12)
    np.testing.assert_allclose(profile.sigmas, np.geomspace(200 * scale, 0.02 * scale, 64), rtol=1e-12)
    assert profile.losses.shape == (500, 64)  # of up to 4,096, in two dimensions
    assert profile.corrector.shape == profile.defect.shape == (166, 63)
    many = Profile.measure(shrinking, torch.randn(300, 1000, generator=torch.Generator().manual_seed(0)))
    assert (len(many.losses), len(many.corrector)) == (192, 64)
    few = Profile.measure(shrinking, data[:50].reshape(50, 1, 2, 1))
    assert (len(few.losses), len(few.corrector), few.shape) == (50, 16, (1, 2, 1))
    assert repr(few).startswith("Profile(50 samples of shape (1, 2, 1) at 64 levels, ")


def test_states_have_the_dtype_that_is_asked_for():
    """In float64 the costs at the lowest levels keep their digits."""
    target, sigmas = Gaussian([0.0], 1.0), np.array([1.0, 0.003, 0.002])
    data = target.sample(Noise(range(50)))
    profile = Profile.measure(target, data, sigmas=sigmas, dtype=torch.float64)
    x = profile.samples.double() + 0.003 * profile.noise.double()
    corrector = (0.002 * (1 / (1 + 0.003**2) - 1 / (1 + 0.002**2)) * x).square()[:, 0]
    np.testing.assert_allclose(profile.corrector[:, 1], corrector[: len(profile.corrector)], rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_type_rounds_the_networks_input_and_not_the_costs(dtype):
    """Of a network that computes in float32 on what it is handed, the costs are those in float32; the points at which
    they are taken are rounded."""
    target = Gaussian([0.0, 0.0], 1.0)
    data = target.sample(Noise(range(300)))

    def network(x, sigma):
        seen.add(x.dtype)
        return target(x.float(), sigma)

    seen: set[torch.dtype] = set()
    sigmas = np.geomspace(80.0, 0.02, 64)
    half, single = (
        Profile.measure(network, data, sigmas=sigmas, samples=300, cost_samples=300, dtype=t)
        for t in (dtype, torch.float32)
    )
    assert seen == {dtype, torch.float32}
    np.testing.assert_allclose(half.loss, single.loss, rtol=0.01)
    np.testing.assert_allclose(half.corrector.mean(axis=0), single.corrector.mean(axis=0), rtol=0.2)
    np.testing.assert_allclose(half.defect.mean(axis=0), single.defect.mean(axis=0), rtol=0.02)
    np.testing.assert_allclose(half.trajectories.products.mean(0), single.trajectories.products.mean(0), rtol=0.02)
    np.testing.assert_allclose(half.trajectories.spread, single.trajectories.spread, rtol=0.05)


def test_samples_are_found_again_in_the_data():
    target, label = gmm25(), torch.arange(80)
    data = target.sample(Noise(range(80)))
    profile = Profile.measure(target, data, samples=30, conditions={"label": label}, seed=4)
    bare = replace(profile, samples=None, conditions=None)
    found = bare.with_samples(data, {"label": label})
    assert torch.equal(found.samples, profile.samples)
    assert torch.equal(found.label, profile.label)
    assert torch.equal(found.noise, profile.noise)
    for other in (data + 1e-3, data.flip(0), data[:79], data[:20]):
        with pytest.raises(InputError, match="measured on other data"):
            bare.with_samples(other)


GOOD = torch.linspace(-1, 1, 40).reshape(20, 2)


def with_value(value):
    data = GOOD.clone()
    data[7, 1] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_value(math.nan), "NaN or infinite"),
        (with_value(math.inf), "NaN or infinite"),
        (GOOD[:1], "at least two samples"),
        (GOOD[:, 0], r"an array \(N, ...\)"),
        (torch.ones(20, 2), "all samples are equal"),
    ],
)
def test_data_are_checked(data, message):
    with pytest.raises(DataError, match=message):
        Profile.measure(shrinking, data)


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (lambda x, sigma: x, "removes no noise"),
        (lambda x, sigma: 5 + x / (1 + expand(sigma, x) ** 2), "at the lowest noise level the denoiser errs by"),
    ],
    ids=["identity", "bias"],
)
def test_what_is_no_denoiser_is_refused(denoiser, message):
    with pytest.raises(DenoiserError, match=message):
        Profile.measure(denoiser, GOOD)


@pytest.mark.parametrize(
    "denoiser",
    [
        lambda x, sigma: x * math.nan,
        lambda x, sigma: torch.where(expand(sigma, x) < 0.5, math.inf, x),
        lambda x, sigma: x[:, :1],
        lambda x, sigma: x[:1],
        lambda x, sigma: x.numpy(),
    ],
    ids=["NaN", "Inf at low levels", "shape", "batch", "type"],
)
def test_denoisers_are_checked(denoiser):
    with pytest.raises(DenoiserError, match="the denoiser returned"):
        Profile.measure(denoiser, GOOD)


@pytest.mark.parametrize(
    "sigmas",
    [
        [2.0, 1.0],
        [1.0, 2.0, 3.0],
        [3.0, 3.0, 1.0],
        [3.0, 1.0, 0.0],
        [3.0, math.nan, 1.0],
        [math.inf, 2.0, 1.0],
        [[3.0]],
    ],
)
def test_levels_are_checked(sigmas):
    with pytest.raises(InputError, match="at least three finite levels"):
        Profile.measure(shrinking, GOOD, sigmas=np.array(sigmas))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"samples": 1}, {"cost_samples": 1}, {"batch_size": 0}, {"batch_size": -3}),
        *({"samples": 2.5}, {"cost_samples": np.array([4, 4])}),
    ],
    ids=str,
)
def test_sizes_are_checked(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Profile.measure(shrinking, GOOD, **wrong)


def test_unknown_costs_are_named():
    with pytest.raises(InputError, match=r"'predictor'.*'corrector' and 'defect'"):
        measured(bimodal(), n=20).length("predictor")


def test_a_profile_without_samples_has_no_noise():
    curve = np.ones((2, 2))
    with pytest.raises(InputError, match="see with_samples"):
        _ = Profile(np.array([3.0, 2.0, 1.0]), np.ones((2, 3)), curve, curve, 1.0, (1,), 0).noise


def test_what_removes_no_noise_is_refused():
    data = Gaussian([0.0] * 4, 1.0).sample(Noise(range(50)))
    for fake in (lambda x, sigma: x, lambda x, sigma: 0 * x):
        with pytest.raises(DenoiserError, match="denoiser"):
            Profile.measure(fake, data)


@pytest.mark.parametrize(("cost", "warp"), [("corrector", lambda s: np.log(1 + s**2)), ("defect", np.arctan)])
def test_costs_in_marginal_units_lead_to_the_best_grids_of_a_gaussian(cost, warp):
    """v^2 = sigma^2 + 1: equal steps of ln(1 + sigma^2) by the corrector cost, and of arctan sigma by the defect."""
    target = Gaussian(torch.zeros(2).double(), torch.ones(2).double())
    profile = measured(target, np.geomspace(40.0, 0.05, 300), n=3000, dtype=torch.float64)
    length = replace(profile, sigma_data=1.0).length(cost, velocity="marginal")
    grid = np.array(equidistribute(length, 8, 30.0, 0.1, final_zero=False).sigmas)
    places = warp(grid)
    np.testing.assert_allclose(np.diff(places), (places[-1] - places[0]) / 8, rtol=0.02)


@pytest.mark.parametrize("cost", ["corrector", "defect"])
def test_velocities_are_ratios_of_one_measurement(cost):
    profile = measured(gmm25(), n=50)
    ratio = (profile.sigmas[1:] ** 2 + profile.sigma_data**2) / profile.sigmas[1:] ** 2
    lengths = [profile.length(cost, velocity=velocity) for velocity in ("sigma", "marginal")]
    power = 1 if cost == "corrector" else -1
    np.testing.assert_allclose(lengths[1].costs, lengths[0].costs * ratio**power)
    own = profile.length(cost).costs
    np.testing.assert_array_equal(own, lengths[0].costs if cost == "corrector" else lengths[1].costs)
    assert profile.length(cost, exponent=3).exponent == 3
    with pytest.raises(InputError, match="unknown velocity"):
        profile.length(cost, velocity="fast")


def test_as_many_samples_as_a_stated_error_takes():
    target = gmm25()
    data = target.sample(Noise(range(3000)))
    errors, counts = [], []
    for wanted in (0.2, 0.1):
        profile = Profile.measure(target, data, relative_error=wanted, dtype=torch.float64)
        counts.append(len(profile.losses))
        assert len(profile.corrector) == len(profile.defect) == counts[-1]
        errors.append(max(map(profile.relative_error, ("corrector", "defect"))))
        before = Profile.measure(target, data, samples=counts[-1] // 2, cost_samples=counts[-1] // 2)
        assert errors[-1] <= wanted < max(map(before.relative_error, ("corrector", "defect")))
    assert counts[0] < counts[1] < 3000
    assert [math.log2(count / 64) % 1 for count in counts] == [0, 0]


def test_a_stated_error_that_the_data_cannot_reach_takes_them_all():
    target = gmm25()
    data = target.sample(Noise(range(150)))
    profile = Profile.measure(target, data, relative_error=1e-3)
    assert len(profile.losses) == 144  # whole blocks of 16
    assert max(map(profile.relative_error, ("corrector", "defect"))) > 1e-3
    assert len(Profile.measure(target, data, samples=100, relative_error=1e-3).losses) == 96
    assert len(Profile.measure(target, data[:11], relative_error=1e-3).losses) == 11


def test_measuring_in_rounds_measures_the_same():
    target = gmm25()
    data = target.sample(Noise(range(500)))
    rounds = Profile.measure(target, data, relative_error=0.15, dtype=torch.float64)
    count = len(rounds.losses)
    assert count > 64
    once = Profile.measure(target, data, samples=count, cost_samples=count, dtype=torch.float64)
    for name in ("losses", "corrector", "defect"):
        np.testing.assert_allclose(getattr(rounds, name), getattr(once, name), rtol=1e-6)
    np.testing.assert_allclose(rounds.trajectories.products, once.trajectories.products, rtol=1e-6)
    assert rounds.digest == once.digest
    assert torch.equal(rounds.noise, once.noise)
    assert rounds.with_samples(data).digest == rounds.digest


@pytest.mark.parametrize(
    "more", [{"relative_error": 0.0}, {"relative_error": "0.1"}, {"relative_error": 0.1, "cost_samples": 5}]
)
def test_a_stated_error_stands_alone(more):
    with pytest.raises(InputError, match="relative error"):
        Profile.measure(gmm25(), gmm25().sample(Noise(range(50))), **more)


def test_the_relative_error_is_that_of_repetitions():
    """Of measurements with independent samples and noise: the mean along the length of a cost's relative spread."""
    target, costs, said = gmm25(), [], []
    data = target.sample(Noise(range(4000)))
    for seed in range(25):
        profile = Profile.measure(target, data, samples=150, cost_samples=150, seed=seed, dtype=torch.float64)
        costs.append(profile.corrector.mean(axis=0))
        said.append(profile.relative_error("corrector"))
    mean, spread = np.mean(costs, axis=0), np.std(costs, axis=0, ddof=1)
    elements = np.sqrt(mean)
    assert np.mean(said) == pytest.approx(float((elements * spread / mean).sum() / elements.sum()), rel=0.15)


def test_levels_far_apart_are_not_followed():
    assert measured(gmm25(), np.array([4.0, 2.0, 1.0]), n=20).trajectories is None
    assert measured(gmm25(), np.geomspace(4.0, 1.0, 5), n=20).trajectories is not None


@pytest.mark.parametrize("lying", [np.asfortranarray, lambda x: np.frombuffer(b"abc" + x.tobytes(), x.dtype, offset=3)])
def test_a_profile_holds_its_curves_in_rows_and_in_memory_of_its_own(lying: Any) -> None:
    """However those that it is made of lie, as a start its tensors: what follows from them is equal to the bit."""
    profile = Profile.measure(gmm25(), gmm25().sample(Noise(range(40))))
    names = ("sigmas", "losses", "corrector", "defect")
    curves = {name: lying(getattr(profile, name)).reshape(getattr(profile, name).shape) for name in names}
    followed = profile.trajectories
    assert followed is not None
    again = replace(
        profile,
        **curves,
        trajectories=Trajectories(
            *(lying(x).reshape(x.shape) for x in (followed.sigmas, followed.products, followed.spread))
        ),
    )
    for name in names:
        curve = getattr(again, name)
        assert curve.flags.c_contiguous
        assert curve.flags.aligned
        assert curve.flags.owndata
        assert np.array_equal(curve, getattr(profile, name))
    assert again.trajectories is not None
    assert again.trajectories.products.flags.owndata
    assert np.array_equal(again.information(1.0), profile.information(1.0))


def test_a_profile_in_a_file_of_its_own_is_the_same_profile(tmp_path):
    profile = measured(Gaussian([0.5, -1.0], 1.0), n=60)
    profile.save(tmp_path / "new" / "profile.safetensors")
    again = Profile.load(tmp_path / "new" / "profile.safetensors")
    for name in ("sigmas", "losses", "corrector", "defect"):
        np.testing.assert_array_equal(getattr(again, name), getattr(profile, name))
    for name in ("sigma_data", "shape", "seed", "digest"):
        assert getattr(again, name) == getattr(profile, name)
    np.testing.assert_array_equal(again.trajectories.products, profile.trajectories.products)
    np.testing.assert_array_equal(again.trajectories.spread, profile.trajectories.spread)
    assert again.samples is None


def test_a_profile_without_trajectories_is_saved_without(tmp_path):
    profile = measured(Gaussian([0.0], 1.0), sigmas=[2.0, 1.0, 0.5], n=10)
    assert profile.trajectories is None
    profile.save(tmp_path / "profile")
    assert Profile.load(tmp_path / "profile").trajectories is None


# The network of a profile


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (lambda x, s: TARGETS["gmm25"](x, s) + 1e-5, True),
        (lambda x, s: TARGETS["gmm25"](x, 0.7 * s), False),
        (lambda x, s: TARGETS["gaussian"](torch.cat([x, x[:, :1]], 1), s)[:, :2], False),
    ],
    ids=["rounded", "another time", "another law"],
)
def test_a_profile_is_of_its_network(other, same):
    """A few samples at two levels tell: 16 evaluations."""
    law = TARGETS["gmm25"]
    profile = measured(law, n=60)
    counted = Counted(law)
    profile.check_network(counted)
    assert counted.samples == 16
    if same:
        profile.check_network(other)
    else:
        with pytest.raises(InputError, match="measured of another network"):
            profile.check_network(other)
        with pytest.raises(InputError, match="measured of another network"):
            fit(other, law.sample(Noise(range(300))), 2, profile=profiled(law), check=False)


def profiled(law):
    data = law.sample(Noise(range(300)))
    return Profile.measure(law, data[hold_out(data)[1]])


def test_a_profile_is_of_its_network_with_its_conditions():
    data = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    place, shift = 5 * torch.arange(40.0)[:, None], torch.ones(2)

    def network(x, sigma, place, shift):
        return place + shift + (x - place - shift) / (1 + expand(sigma, x) ** 2)

    profile = Profile.measure(network, data + place + shift, conditions={"place": place, "shift": shift}, samples=20)
    profile.check_network(partial(network, shift=shift))
    with pytest.raises(InputError, match="another network"):
        profile.check_network(partial(network, shift=shift + 1))
