"""The teleporting start: the coupling to the long way, its law in closed form, and the Gaussian start that it tends to.

What holds for every start is in test_every_start.py.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal

from headstart.errors import DataError, InputError
from headstart.initialization import Gaussian, Isotropic, Subspace
from headstart.initialization.teleportation import Teleportation
from headstart.noise import Noise
from headstart.schedule import log_linear, rho_grid
from headstart.solver import Heun
from headstart.targets import Gaussian as GaussianTarget
from headstart.targets import gmm25

Double = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=Double)


def directions(d: int, k: int) -> Subspace:
    """k leading directions of different variances, not along the axes, and a common variance of the others."""
    spectrum = torch.linspace(3.0, 0.5, k, dtype=Double)
    residual = torch.tensor(0.2 if k < d else 0.0, dtype=Double)
    return Subspace(random(d, seed=1), torch.linalg.qr(random(d, k, seed=2)).Q, spectrum, residual)


def covariance(space: Subspace) -> Tensor:
    """Of clean data, as a matrix."""
    leading = space.basis @ space.basis.T
    rest = space.residual * (torch.eye(space.dimension, dtype=Double) - leading)
    return space.basis @ space.variances.diag() @ space.basis.T + rest


def dense(space: Subspace, sigma: float, sigma_max: float) -> tuple[Tensor, Tensor]:
    """The map's matrix G and its shift (I - G) mu, by eigenvectors of the whole covariance."""
    values, vectors = torch.linalg.eigh(covariance(space))
    matrix = vectors @ ((values + sigma**2) / (values + sigma_max**2)).sqrt().diag() @ vectors.T
    return matrix, space.mean - matrix @ space.mean


# The coupling.


@pytest.mark.parametrize("k", [5, 2])
@pytest.mark.parametrize("sigma", [0.3, 2.0, 20.0])
def test_a_seed_leads_where_the_ode_of_the_gaussian_leads_its_noise(k: int, sigma: float) -> None:
    """Heun's method on the exact denoiser, from the very noise of the long sampler, tends to it with second order."""
    space, seeds = directions(5, k), range(20)
    law = GaussianTarget(space.mean.tolist(), covariance(space).tolist())
    x_max = Isotropic((5,)).sample(Noise(seeds, dtype=Double), 80.0)
    assert torch.equal(x_max, 80.0 * Noise(seeds, dtype=Double).normal((5,)))
    start = Teleportation((5,), space).sample(Noise(seeds, dtype=Double), sigma)
    coarse, fine = (
        (Heun().solve(law, x_max, log_linear(n, 80.0, sigma, final_zero=False)) - start).abs().max() for n in (200, 400)
    )
    assert float(fine) < 2e-4 * max(1.0, sigma)
    assert float(coarse / fine) == pytest.approx(4, rel=0.05)


def test_samples_are_nearly_those_of_the_long_way() -> None:
    """25 modes are no Gaussian, and yet the seed decides which of them a sample ends in, from 80 or by way of 4."""
    law, short = gmm25(), rho_grid(40, 4.0, 0.02)
    zero, variances = torch.zeros(2, dtype=Double), torch.full((2,), 3.1875, dtype=Double)
    start = Teleportation((2,), Subspace(zero, torch.eye(2, dtype=Double), variances, torch.zeros((), dtype=Double)))
    x_max = 80.0 * Noise(range(400), dtype=Double).normal((2,))
    long = Heun().solve(law, x_max, rho_grid(80, 80.0, 0.02))

    def gaps(seeds: range) -> Tensor:
        samples = Heun().solve(law, start.sample(Noise(seeds, dtype=Double), 4.0), short)
        return (samples - long).norm(dim=1)

    own, others = gaps(range(400)), gaps(range(400, 800))
    assert float(own.median()) < 0.01
    assert float((own < 0.3).double().mean()) > 0.98  # modes are 1.25 apart
    assert float((others < 0.3).double().mean()) < 0.15


def test_two_jumps_are_one() -> None:
    """By way of any level between: the flow of an ODE from 80 to 3, and from there to 0.4, is that from 80 to 0.4."""
    space = directions(5, 3)
    x = Teleportation((5,), space).sample(Noise(range(8), dtype=Double), 3.0)
    matrix, shift = dense(space, 0.4, 3.0)
    once = Teleportation((5,), space).sample(Noise(range(8), dtype=Double), 0.4)
    torch.testing.assert_close(x @ matrix.T + shift, once, rtol=1e-12, atol=1e-12)


def test_from_the_farthest_horizon_it_is_the_noise_itself() -> None:
    start = Teleportation((5,), directions(5, 3), sigma_max=11.0)
    x = start.sample(Noise(range(8), dtype=Double), 11.0)
    torch.testing.assert_close(x, 11.0 * Noise(range(8), dtype=Double).normal((5,)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(start.log_prob(x, 11.0), Isotropic((5,)).log_prob(x, 11.0), rtol=1e-12, atol=1e-12)


# The law.


@pytest.mark.parametrize("k", [5, 3])
@pytest.mark.parametrize(("sigma", "sigma_max"), [(0.05, 80.0), (2.0, 80.0), (2.0, 3.0)])
def test_log_density_is_that_of_the_gaussian_that_noise_is_carried_to(k: int, sigma: float, sigma_max: float) -> None:
    space = directions(5, k)
    matrix, shift = dense(space, sigma, sigma_max)
    law = MultivariateNormal(shift, sigma_max**2 * matrix @ matrix.T)
    x = 2 * random(9, 5, seed=3)
    got = Teleportation((5,), space, sigma_max).log_prob(x, sigma)
    torch.testing.assert_close(got, law.log_prob(x), rtol=1e-11, atol=1e-11)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("sigma", "sigma_max"), [(0.05, 80.0), (2.0, 3.0)])
def test_samples_are_their_noise_through_the_map_and_have_its_moments(sigma: float, sigma_max: float) -> None:
    n, space = 4000, directions(5, 3)
    matrix, shift = dense(space, sigma, sigma_max)
    z = Noise(range(n), dtype=Double).normal((5,))
    x = Teleportation((5,), space, sigma_max).sample(Noise(range(n), dtype=Double), sigma)
    torch.testing.assert_close(x, sigma_max * z @ matrix.T + shift, rtol=1e-12, atol=1e-12)
    white = torch.linalg.solve(sigma_max * matrix, (x - shift).T).T
    assert (white.mean(0).abs() < 4.5 / math.sqrt(n)).all()
    products = white[:, :, None] * white[:, None]
    error = (products.mean(0) - torch.eye(5, dtype=Double)).abs()
    assert (error < 4.5 * products.std(0) / math.sqrt(n)).all()


@settings(deadline=None, max_examples=30)
@given(
    spectrum=st.lists(st.floats(1e-3, 1e2), min_size=1, max_size=5),
    shift=st.floats(-3, 3),
    sigma=st.floats(0.05, 20.0),
    sigma_max=st.floats(20.0, 200.0),
)
def test_it_differs_from_the_gaussian_start_by_what_noise_misses_at_the_farthest_horizon(
    spectrum: list[float], shift: float, sigma: float, sigma_max: float
) -> None:
    """At every horizon alike. Log ratios are quadratic, so that the average over a few points is exact."""
    variances = torch.tensor(spectrum, dtype=Double)
    d, mean = len(spectrum), shift * torch.ones(len(spectrum), dtype=Double)
    space = Subspace(mean, torch.eye(d, dtype=Double), variances, torch.tensor(0.0, dtype=Double))
    steps = (d * (variances + sigma**2)).sqrt().diag()
    x = torch.cat([mean + steps, mean - steps])
    start = Teleportation((d,), space, sigma_max)
    kl = (Gaussian((d,), space).log_prob(x, sigma) - start.log_prob(x, sigma)).mean()
    ratio = variances / sigma_max**2
    expected = 0.5 * (ratio + mean**2 / sigma_max**2 - torch.log1p(ratio)).sum()
    torch.testing.assert_close(kl, expected, rtol=1e-7, atol=1e-9)


def test_it_tends_to_the_gaussian_start_as_its_farthest_horizon_grows() -> None:
    """Sample by sample as its inverse, for what is left of the mean, and in nats as the square of that."""
    space = directions(5, 5)
    known = Gaussian((5,), space)
    x = known.sample(Noise(range(50), dtype=Double), 0.7)
    steps = (5 * (space.variances + 0.49)).sqrt() * space.basis
    points = torch.cat([space.mean + steps.T, space.mean - steps.T])
    gaps, nats = [], []
    for sigma_max in (1e2, 1e3, 1e4):
        start = Teleportation((5,), space, sigma_max)
        gaps.append(float((start.sample(Noise(range(50), dtype=Double), 0.7) - x).abs().max()))
        nats.append(float((known.log_prob(points, 0.7) - start.log_prob(points, 0.7)).mean()))
    for (near, far), (more, less) in zip(pairwise(gaps), pairwise(nats), strict=True):
        assert far / near == pytest.approx(0.1, rel=0.1)
        assert less / more == pytest.approx(0.01, rel=0.02)


# What it is asked for.


def test_a_fit_has_the_subspace_of_the_gaussian_start() -> None:
    data = random(50, 2, 3) @ torch.diag(torch.tensor([2.0, 1.0, 0.3], dtype=Double)) + 1.5
    start, known = Teleportation.fit(data, 4, sigma_max=20.0), Gaussian.fit(data, 4)
    expected = known.subspace.tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in start.subspace.tensors().items())
    assert start.sample(Noise(range(3)), 1.0).shape == (3, 2, 3)
    assert repr(start) == "Teleportation(shape=(2, 3), components=4, sigma_max=20)"
    with pytest.raises(DataError, match="at least two samples"):
        Teleportation.fit(data[:1])


def test_a_saved_start_is_the_same_start() -> None:
    start = Teleportation((2, 3), directions(6, 4), sigma_max=157.0)
    values, tensors = start.state()
    blob = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    again = Teleportation.from_state(json.loads(json.dumps(values)), safetensors.torch.load(blob))
    assert (again.shape, again.sigma_max, again.sigmas, repr(again)) == ((2, 3), 157.0, (0.0, 157.0), repr(start))
    x = start.sample(Noise(range(4)), 100.0)
    assert torch.equal(again.sample(Noise(range(4)), 100.0), x)
    assert torch.equal(again.log_prob(x, 100.0), start.log_prob(x, 100.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_hold_a_start_from_any_level(dtype: torch.dtype) -> None:
    """The noise of the farthest level itself would overflow in them."""
    start = Teleportation((5,), directions(5, 3), sigma_max=1e6)
    half, double = (start.sample(Noise(range(50), dtype=kind), 2.0) for kind in (dtype, Double))
    assert half.dtype == dtype
    torch.testing.assert_close(half.double(), double, rtol=0.0, atol=4 * torch.finfo(dtype).eps * 10)


def test_a_horizon_above_the_farthest_is_named() -> None:
    start = Teleportation((5,), directions(5, 3), sigma_max=20.0)
    with pytest.raises(InputError, match="teleportation start is for horizons from 0 to 20: got 21"):
        start.sample(Noise(range(2)), 21.0)
    with pytest.raises(InputError, match="to 20: got 80"):
        start.log_prob(torch.zeros(1, 5), 80.0)


@pytest.mark.parametrize("sigma_max", [0.0, -1.0, math.nan, math.inf])
def test_a_level_that_no_sampler_starts_from_is_named(sigma_max: float) -> None:
    with pytest.raises(InputError, match="sigma_max must be finite and above 0"):
        Teleportation((5,), directions(5, 3), sigma_max)
