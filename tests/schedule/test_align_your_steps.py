"""Align Your Steps against closed forms of the isotropic Gaussian, quadrature, dynamic programming, and diffusers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

from headstart.compute import Compute
from headstart.errors import DataError, DenoiserError, InputError
from headstart.noise import Noise
from headstart.progress import Progress
from headstart.schedule import Schedule, ShortestPaths, log_linear, rho_grid
from headstart.schedule.align_your_steps import PUBLISHED, Descent, align_your_steps, interpolate, klub, published_steps
from headstart.targets import Gaussian, GaussianMixture, bimodal, gmm25

DIMENSION, STD = 8, 0.5
NORMAL = Gaussian([0.0] * DIMENSION, STD**2)
HORIZON, LOWEST = 20.0, 0.05


def draws(law, count):
    return law.sample(Noise(range(count)))


def closed_form(a, b, c=STD, dimension=DIMENSION):
    """K(a, b) of N(0, c^2 I), in method.md 6.1: d / 2 [rho - ln(1 + rho)]."""
    rho = c**2 * (b**-2 - a**-2) / (1 + c**2 * a**-2)
    return dimension / 2 * (rho - np.log1p(rho))


def exact_bound(grid: Schedule):
    return sum(closed_form(a, b) for a, b in grid.pairs())


def best_bound(steps):
    """Of the grid with 1 + c^2 / sigma^2 geometric."""
    signal = np.geomspace(1 + (STD / HORIZON) ** 2, 1 + (STD / LOWEST) ** 2, steps + 1)
    return exact_bound(Schedule(STD * (signal - 1) ** -0.5))


def mmse25(sigma):
    """Of gmm25: two coordinates, each with five modes, by quadrature on the line."""
    line = GaussianMixture(np.ones(5), 1.25 * np.arange(-2.0, 3.0)[:, None], 0.25**2)
    x = np.linspace(-1, 1, 2001) * (2.5 + 9 * math.hypot(0.25, sigma))
    points = torch.from_numpy(x)[:, None]
    second = trapezoid(line.log_prob(points, sigma).exp().numpy() * line(points, sigma)[:, 0].numpy() ** 2, x)
    return 2 * (0.25**2 + 2 * 1.25**2 - second)


class Told(Progress):
    def __init__(self):
        self.said = []

    def track(self, items, description, total=None):
        for item in items:
            self.said.append(description)
            yield item


@pytest.fixture(scope="module")
def found():
    """Optimised at 5 and 10 steps and interpolated to any other number."""
    return align_your_steps(
        NORMAL, draws(NORMAL, 256), 10, HORIZON, LOWEST, False, descent=Descent(coarse=5, subdivisions=1)
    )


@pytest.mark.parametrize("sigma_data", [None, 0.2, 1.5])
@pytest.mark.parametrize(("a", "b"), [(80.0, 0.5), (2.0, 1.0), (1.0, 0.1), (0.1, 0.09), (80.0, 0.002)])
def test_the_bound_of_a_step_is_that_of_a_gaussian(a, b, sigma_data):
    """Whatever scale the levels inside the step are drawn with."""
    estimates = klub(NORMAL, draws(NORMAL, 400), a, b, sigma_data=sigma_data, compute=Compute(dtype=torch.float64))
    error = estimates.std(ddof=1) / math.sqrt(len(estimates))
    assert abs(estimates.mean() - closed_form(a, b)) < 4 * error
    assert error < 0.04 * closed_form(a, b)


@pytest.mark.parametrize(("a", "b"), [(5.0, 0.5), (1.0, 0.7), (0.5, 0.1)])
def test_the_bound_of_a_step_is_the_left_riemann_error_of_the_loss(a, b):
    """With an exact denoiser, half of int m(a) - m(u) du in u = 1 / sigma^2: for modes far from a Gaussian too."""
    law = gmm25()
    levels = np.geomspace(a, b, 150)
    gap = mmse25(a) - np.array([mmse25(s) for s in levels])
    exact = 0.5 * trapezoid(gap, levels**-2.0)
    estimates = klub(law, draws(law, 4000), a, b, samples=4000, compute=Compute(batch_size=1000))
    error = estimates.std(ddof=1) / math.sqrt(len(estimates))
    assert abs(estimates.mean() - exact) < 4 * error
    assert error < 0.05 * exact


def test_steps_share_their_random_numbers():
    """So that the estimates of two steps, and not only their means, go together."""
    data = draws(NORMAL, 400)
    one, other = klub(NORMAL, data, 1.0, 0.3), klub(NORMAL, data, 1.0, 0.31)
    assert np.corrcoef(one, other)[0, 1] > 0.99
    assert (klub(NORMAL, data, 1.0, 0.3) == one).all()
    assert abs(np.corrcoef(one, klub(NORMAL, data, 1.0, 0.3, seed=1))[0, 1]) < 0.2


def test_each_sample_has_a_level_of_its_own():
    """One in each of as many strata of the step, whose ends are those of the step."""
    seen = []

    def spy(x, sigma, /, **conditions):
        seen.append(sigma)
        return NORMAL(x, sigma)

    klub(spy, draws(NORMAL, 100), 2.0, 0.5, compute=Compute(dtype=torch.float64, batch_size=30))
    inside, start = torch.cat(seen[::2]), torch.cat(seen[1::2])
    assert (start == 2.0).all()
    assert ((inside < 2.0) & (inside >= 0.5)).all()
    # The share of the density above each level: rho - ln(1 + rho) over that of the whole step.
    shares = closed_form(2.0, inside.numpy(), sigma_data := float(draws(NORMAL, 100).double().var(0).mean().sqrt()))
    shares /= closed_form(2.0, 0.5, sigma_data)
    assert (np.floor(shares * 100 - 1e-9) == np.arange(100)).all()


def test_the_batches_change_nothing():
    data = draws(NORMAL, 50)
    one, other = (klub(NORMAL, data, 1.0, 0.3, compute=Compute(dtype=torch.float64, batch_size=n)) for n in (7, 256))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_conditions_go_with_their_samples():
    """Two classes whose means the denoiser is told: they cost what their centred samples cost."""

    def conditional(x, sigma, /, label, bias):
        centre = 10.0 * label[:, None] + bias
        return centre + NORMAL(x - centre, sigma)

    data, label = draws(NORMAL, 60).double(), torch.arange(60) % 2
    compute = Compute(dtype=torch.float64, batch_size=16)
    options = {"sigma_data": 0.5, "samples": 40, "compute": compute}
    plain = klub(NORMAL, data, 1.0, 0.3, **options)
    moved = data + 10.0 * label[:, None] + 3.0
    told = klub(conditional, moved, 1.0, 0.3, conditions={"label": label, "bias": 3.0}, **options)
    np.testing.assert_allclose(told, plain, rtol=1e-9)
    assert len(told) == 40


def test_the_grid_of_a_gaussian_has_the_least_bound(found):
    assert exact_bound(found) < 1.02 * best_bound(10)
    assert exact_bound(rho_grid(10, HORIZON, LOWEST, final_zero=False)) > 2 * exact_bound(found)


@pytest.mark.parametrize("steps", [2, 4, 7])
def test_the_grid_serves_other_numbers_of_steps(found, steps):
    assert exact_bound(interpolate(found, steps, final_zero=False)) < 1.02 * best_bound(steps)


def test_the_grid_of_25_modes_is_that_of_the_dynamic_programme():
    """With an exact denoiser both minimise the same: the terms of ``ddpm``, less the integral of the loss."""
    law, steps = gmm25(), 10
    levels = np.geomspace(HORIZON, LOWEST, 100)
    loss = np.array([mmse25(s) for s in levels])
    integral = 0.5 * trapezoid(loss, levels**-2.0)
    programme = ShortestPaths.of(levels, loss, 2, steps, "ddpm")

    def bound(grid):
        return sum(0.5 * (b**-2 - a**-2) * mmse25(a) for a, b in grid.pairs()) - integral

    options = {"descent": Descent(coarse=5, subdivisions=1)}
    grid = align_your_steps(law, draws(law, 128), steps, HORIZON, LOWEST, False, **options)
    least = programme.cost(steps, HORIZON) - integral
    assert bound(grid) == pytest.approx(least, rel=0.03)
    assert bound(rho_grid(steps, HORIZON, LOWEST, final_zero=False)) > 2 * least


def test_more_sweeps_lower_the_bound_that_is_estimated():
    law, data = bimodal(), draws(bimodal(), 64)
    descent, compute = Descent(coarse=4, subdivisions=0), Compute(batch_size=64)

    def bound(grid):
        return sum(klub(law, data, a, b, compute=compute).mean() for a, b in grid.pairs())

    grids = [rho_grid(4, 5.0, 0.1, final_zero=False)]
    for n in (1, 2, 3, 100):
        options = {"descent": replace(descent, sweeps=n), "compute": compute}
        grids.append(align_your_steps(law, data, 4, 5.0, 0.1, False, **options))
    bounds = [bound(grid) for grid in grids]
    assert all(after < before for before, after in itertools.pairwise(bounds))
    told = Told()
    options = {"descent": replace(descent, sweeps=200), "compute": replace(compute, progress=told)}
    assert align_your_steps(law, data, 4, 5.0, 0.1, False, **options) == grids[-1]
    assert set(told.said) == {"aligning the steps"}
    assert 4 < len(told.said) < 100  # it stopped by itself


def test_ends_are_pinned_and_a_seed_says_everything():
    data = draws(NORMAL, 20)
    options = {"descent": Descent(coarse=2, subdivisions=1, sweeps=2)}
    made = [align_your_steps(NORMAL, data, n, 9.3, 0.07, zero, **options) for n in (1, 2, 5, 9) for zero in (0, 1)]
    for grid, (steps, zero) in zip(made, itertools.product((1, 2, 5, 9), (0, 1)), strict=True):
        assert (grid.steps, grid.horizon, grid.sigmas[-1] == 0) == (steps, 9.3, bool(zero))
        assert grid.sigma_min == (9.3 if (steps, zero) == (1, 1) else 0.07)
        assert grid.name == "align your steps"
    assert align_your_steps(NORMAL, data, 5, 9.3, 0.07, **options) == made[5]
    assert align_your_steps(NORMAL, data, 5, 9.3, 0.07, seed=1, **options) != made[5]


def test_half_of_the_levels_stay_in_a_subdivision():
    data = draws(NORMAL, 40)
    before = align_your_steps(NORMAL, data, 3, 9.0, 0.1, False, descent=Descent(coarse=3, subdivisions=0))
    after = align_your_steps(NORMAL, data, 12, 9.0, 0.1, False, descent=Descent(coarse=3))
    np.testing.assert_allclose(after.sigmas[::4], before.sigmas, rtol=1e-12)
    halved = Schedule(after.sigmas[::2])
    assert exact_bound(halved) < 0.8 * exact_bound(interpolate(before, 6, final_zero=False))
    assert exact_bound(after) < exact_bound(interpolate(halved, 12, final_zero=False))


def test_interpolation_is_linear_in_the_logarithm():
    grid = log_linear(6, 10.0, 0.02, final_zero=False)
    for steps in (1, 4, 17):
        for zero in (False, True):
            expected = log_linear(steps, 10.0, 0.02, final_zero=zero)
            np.testing.assert_allclose(interpolate(grid, steps, zero).sigmas, expected.sigmas, rtol=1e-12)
    kinked = Schedule([8.0, 2.0, 1.0, 0.0], name="mine")
    assert interpolate(kinked, 3) == kinked
    np.testing.assert_allclose(interpolate(kinked, 4, False).sigmas, [8.0, 4.0, 2.0, math.sqrt(2), 1.0])


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_grids_are_their_own_in_ten_steps_and_decrease_in_any_number(model):
    table = PUBLISHED[model]
    assert published_steps(model, 10, final_zero=False).sigmas == pytest.approx(table, rel=1e-12)
    assert published_steps(model).sigmas == pytest.approx((*table[:-1], 0.0), rel=1e-12)
    for steps in range(1, 41):
        grid, positive = published_steps(model, steps), published_steps(model, steps, final_zero=False)
        assert (grid.steps, grid.horizon, grid.sigmas[-1]) == (steps, table[0], 0.0)
        assert (positive.steps, positive.sigmas[-1]) == (steps, table[-1])
    twice = published_steps(model, 20, scale=2.0)
    np.testing.assert_allclose(twice.sigmas, 2 * np.array(published_steps(model, 20).sigmas), rtol=1e-12)


def test_published_grids_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: peers)")
    theirs = diffusers.schedulers.AysSchedules
    for model, name in [
        ("stable-diffusion-1.5", "StableDiffusionSigmas"),
        ("stable-diffusion-xl", "StableDiffusionXLSigmas"),
        ("stable-video-diffusion", "StableDiffusionVideoSigmas"),
    ]:
        assert published_steps(model, 10).sigmas == pytest.approx(theirs[name], rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "1 step or more"),
        ({"horizon": 0.05}, "sigma_min above 0"),
        ({"horizon": math.inf}, "finite"),
        ({"sigma_min": 0.0}, "sigma_min above 0"),
        ({"sigma_min": math.nan}, "sigma_min above 0"),
        ({"descent": Descent(samples=1)}, "at least 2 samples"),
        ({"descent": Descent(sigma_data=0.0)}, "sigma_data is 0"),
        ({"descent": Descent(sigma_data=math.nan)}, "sigma_data is nan"),
    ],
    ids=str,
)
def test_bad_input_is_named(options, message):
    good = {"data": draws(NORMAL, 10), "steps": 4, "horizon": 9.0, "sigma_min": 0.1}
    with pytest.raises(InputError, match=message):
        align_your_steps(NORMAL, **{**good, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"coarse": 1}, "2 coarse steps"), ({"subdivisions": -1}, "subdivisions"), ({"sweeps": 0}, "1 sweep")],
    ids=str,
)
def test_a_descent_checks_itself(options, message):
    with pytest.raises(InputError, match=message):
        Descent(**options)


@pytest.mark.parametrize(
    "data",
    [torch.zeros(5), torch.ones(1, 2), torch.zeros(4, 2), torch.tensor([[0.0], [math.nan]]), torch.zeros(0, 3)],
    ids=["no rows", "one", "equal", "nan", "none"],
)
def test_bad_data_are_named(data):
    with pytest.raises(DataError, match="samples"):
        klub(NORMAL, data, 1.0, 0.5)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.0), (math.inf, 1.0), (math.nan, 1.0)])
def test_a_step_goes_down(a, b):
    with pytest.raises(InputError, match="down to one above 0"):
        klub(NORMAL, draws(NORMAL, 10), a, b)


def test_levels_beyond_the_digits_of_a_number_are_refused():
    with pytest.raises(InputError, match="too close"):
        klub(NORMAL, draws(NORMAL, 10), 1e9, 9e8)


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (lambda x, sigma, /: x * math.nan, "NaN or Inf"),
        (lambda x, sigma, /: x[:1], "keep the shape"),
        (lambda x, sigma, /: x * 0 + 1, "the same at all noise levels"),
    ],
    ids=["nan", "shape", "constant"],
)
def test_a_denoiser_that_is_none_is_refused(denoiser, message):
    with pytest.raises(DenoiserError, match=message):
        align_your_steps(denoiser, draws(NORMAL, 10), 4, 9.0, 0.1)


def test_published_grids_refuse_what_they_do_not_know():
    with pytest.raises(InputError, match=r"unknown model 'sd3': the paper has stable-diffusion-1\.5"):
        published_steps("sd3")
    for options in ({"steps": 0}, {"scale": 0.0}, {"scale": math.inf}):
        with pytest.raises(InputError, match=r"1 step|scale"):
            published_steps("deepfloyd-if", **options)
