"""Types of numbers, layouts, batches and shapes: what samples may not depend on, and the errors that say where."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.denoiser import expand
from headstart.errors import DenoiserError
from headstart.initialization import Diagonal, Empirical, Gaussian, Initialization, Isotropic, Shifted
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.solver import DPMSolverPP2M, Euler, Heun, Solver

HALF = [torch.float16, torch.bfloat16]
SHAPES = [(5,), (3, 4), (2, 3, 3), (2, 2, 2, 3), (1, 2, 2, 2, 2)]


def gaussian(mean: float = 0.0, spread: float = 0.5) -> Any:
    """The denoiser of N(mean, spread^2) in every coordinate."""

    def denoiser(x: Tensor, sigma: Any) -> Tensor:
        s2 = expand(sigma, x).to(x.dtype) ** 2
        return mean + spread**2 / (spread**2 + s2) * (x - mean)

    return denoiser


def images(n: int = 60, shape: tuple[int, ...] = (3, 4, 4)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.3 + 0.5 * torch.randn(n, *shape, generator=generator) * torch.linspace(0.5, 1.5, shape[-1])


def sampler(start: Initialization, solver: Solver | None = None, high: float = 3.0, low: float = 0.05) -> Sampler:
    return Sampler(start, rho_grid(4, high, low), solver or DPMSolverPP2M())


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMSolverPP2M()], ids=repr)
def test_states_in_half_types_are_the_samples_up_to_rounding(dtype: torch.dtype, solver: Solver) -> None:
    single = sampler(Isotropic((6,)), solver).sample(gaussian(), 50)
    half = sampler(Isotropic((6,)), solver).sample(gaussian(), 50, dtype=dtype)
    assert half.dtype == dtype
    # A state is rounded at most once an operation; those of the first level are the largest, about 4 x 3.
    assert (half.float() - single).abs().max() < 12 * 10 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_network_in_a_half_type_leaves_the_states_in_theirs(dtype: torch.dtype) -> None:
    """Rounding its answers moves a sample by no more than the relative error of each."""
    exact = gaussian()
    single = sampler(Isotropic((6,))).sample(exact, 50)
    found = sampler(Isotropic((6,))).sample(lambda x, sigma: exact(x, sigma).to(dtype), 50)
    assert found.dtype == torch.float32
    assert (found - single).abs().max() < 8 * torch.finfo(dtype).eps * single.abs().max().clamp_min(1)


def test_a_network_under_autocast_is_one_in_a_half_type() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)

    def denoiser(x: Tensor, sigma: Any) -> Tensor:
        out: Tensor = torch.tanh(layer(x / (1 + expand(sigma, x))))
        return out

    single = sampler(Isotropic((6,))).sample(denoiser, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = sampler(Isotropic((6,))).sample(denoiser, 20)
    assert cast.dtype == torch.float32
    assert not torch.equal(cast, single)
    assert (cast - single).abs().max() < 20 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
def test_very_small_and_very_large_levels_only_scale(scale: float) -> None:
    """The ODE of data that are scaled, at levels that are scaled, is the ODE that is scaled."""
    unit = sampler(Isotropic((6,))).sample(gaussian(), 20, dtype=torch.float64)
    found = sampler(Isotropic((6,)), high=3 * scale, low=0.05 * scale)
    scaled = found.sample(gaussian(spread=0.5 * scale), 20, dtype=torch.float64)
    torch.testing.assert_close(scaled / scale, unit, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", [Shifted, Diagonal, Gaussian, Empirical])
def test_the_layout_of_the_data_does_not_matter(family: type[Initialization]) -> None:
    """Channels last, a stretched view, and every second row of a larger array."""
    data = images()
    views = {
        "channels last": data.contiguous(memory_format=torch.channels_last),
        "transposed": data.transpose(2, 3).contiguous().transpose(2, 3),
        "every second row": torch.stack([data, torch.zeros_like(data)], 1).flatten(0, 1)[::2],
    }
    expected = family.fit(data).sample(Noise(range(5)), 2.0)
    for name, view in views.items():
        assert name == "channels last" or not view.is_contiguous()
        torch.testing.assert_close(family.fit(view).sample(Noise(range(5)), 2.0), expected, rtol=1e-5, atol=1e-5)


def test_a_profile_does_not_see_the_layout_of_the_data() -> None:
    data, levels = images(), [2.0, 0.5, 0.1]
    one, other = (
        Profile.measure(gaussian(), x, sigmas=levels)
        for x in (data, data.contiguous(memory_format=torch.channels_last))
    )
    torch.testing.assert_close(torch.tensor(one.losses), torch.tensor(other.losses), rtol=1e-6, atol=0.0)


def test_a_network_that_answers_channels_last_is_as_good() -> None:
    exact = gaussian()
    start = sampler(Gaussian.fit(images()))
    found = start.sample(lambda x, sigma: exact(x, sigma).contiguous(memory_format=torch.channels_last), 5)
    torch.testing.assert_close(found, start.sample(exact, 5), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", [Isotropic, Shifted, Diagonal, Gaussian])
def test_data_of_one_to_five_dimensions_are_sampled(family: Any, shape: tuple[int, ...]) -> None:
    """One at a time as together, and as the same numbers in a row."""
    data = images(40, shape)
    start, flat = (Isotropic(shape), Isotropic((data[0].numel(),))) if family is Isotropic else (None, None)
    start, flat = start or family.fit(data), flat or family.fit(data.flatten(1))
    together = sampler(start).sample(gaussian(), 4)
    assert together.shape == (4, *shape)
    torch.testing.assert_close(sampler(start).sample(gaussian(), 4, batch_size=1), together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sampler(flat).sample(gaussian(), 4).reshape(4, *shape), together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [Shifted, Diagonal, Gaussian, Empirical])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 5.0), (20.0, 0.0), (0.1, -0.3)])
def test_a_shift_and_a_scale_of_the_data_carry_over_to_the_samples(family: Any, scale: float, shift: float) -> None:
    data = images(80, (4,)).double()
    unit = sampler(family.fit(data)).sample(gaussian(0.3), 10, dtype=torch.float64)
    moved = Sampler(family.fit(scale * data + shift), rho_grid(4, 3.0 * scale, 0.05 * scale), DPMSolverPP2M())
    found = moved.sample(gaussian(scale * 0.3 + shift, 0.5 * scale), 10, dtype=torch.float64)
    torch.testing.assert_close((found - shift) / scale, unit, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [Shifted, Diagonal, Gaussian])
def test_the_order_of_the_data_does_not_matter(family: Any) -> None:
    data = images(80, (4,)).double()
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    one, other = (family.fit(x).sample(Noise(range(5)), 2.0) for x in (data, data[order]))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_permutation_of_the_coordinates_carries_over_to_the_law() -> None:
    data, order = images(80, (4,)).double(), torch.tensor([2, 0, 3, 1])
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    for family in (Shifted, Diagonal, Gaussian):
        one, other = family.fit(data), family.fit(data[:, order])
        torch.testing.assert_close(one.log_prob(x, 1.5), other.log_prob(x[:, order], 1.5), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_nan_at_one_level_names_the_level_and_the_seed(batch_size: int) -> None:
    exact, start = gaussian(), sampler(Isotropic((2,)))
    level = start.schedule.sigmas[2]
    marked = start.sample(exact, seeds=[8])

    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        """NaN for the sample that starts as that of the seed 8 does, at one level."""
        out = exact(x, sigma)
        wrong = (x - path[float(sigma[0])]).abs().amax(1) < 1e-4
        return torch.where((wrong & (sigma == torch.tensor(level).to(sigma)))[:, None], torch.nan, out)

    path: dict[float, Tensor] = {}

    def noting(x: Tensor, sigma: Tensor) -> Tensor:
        path[float(sigma[0])] = x[0].clone()
        return exact(x, sigma)

    assert torch.equal(start.sample(noting, seeds=[8]), marked)
    with pytest.raises(DenoiserError, match=rf"NaN or Inf at sigma = {level:.6g}, for the seed 8$"):
        start.sample(broken, seeds=[3, 9, 8, 4, 7], batch_size=batch_size)


def test_many_seeds_at_fault_are_counted() -> None:
    with pytest.raises(DenoiserError, match=r"sigma = 3, for the seeds 10, 11, 12, 13, 14 and 3 more$"):
        sampler(Isotropic((2,))).sample(lambda x, sigma: x * math.inf, seeds=range(10, 18))
