"""The levels that a denoiser knows: said by every process, kept by every wrapper, and honoured by all that measures."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.choose import fit, own_samples
from headstart.denoiser import (
    Counted,
    DiscreteVariancePreserving,
    Process,
    Range,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    adapt,
    denoise,
    guide,
)
from headstart.distill import Recipe, distill
from headstart.errors import DenoiserError, InputError
from headstart.initialization import Isotropic
from headstart.profile import Profile
from headstart.schedule import Schedule
from headstart.solver import Euler

TABLE = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
LEVELS = ((1 - TABLE) / TABLE).sqrt()
DATA = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))


def refusing(low: float, high: float) -> Any:
    """The exact denoiser of a standard normal law, which fails outside of the levels that it says."""

    def denoiser(x: Tensor, sigma: Any, /, **_: Any) -> Tensor:
        s = torch.as_tensor(sigma).reshape(-1, 1)
        if s.min() < low * (1 - 1e-6) or s.max() > high * (1 + 1e-6):
            raise ValueError(f"no such level: {s.min()} to {s.max()}")
        return x / (1 + s**2)

    denoiser.sigma_min, denoiser.sigma_max = low, high  # type: ignore[attr-defined]
    return denoiser


@pytest.mark.parametrize(
    ("process", "low", "high"),
    [
        (VarianceExploding(80.0, 0.002), 0.002, 80.0),
        (VariancePreserving(sigma_min=0.01), 0.01, math.sqrt(math.expm1(10.05))),
        (DiscreteVariancePreserving([0.9, 0.5, 0.1]), 1 / 3, 3.0),
        (RectifiedFlow(sigma_max=9.0, sigma_min=0.02), 0.02, 9.0),
    ],
    ids=repr,
)
def test_every_process_says_its_range_through_every_wrapper(process: Process, low: float, high: float) -> None:
    adapted = adapt(lambda z, time: z, "x0", process)
    for denoiser in (adapted, Counted(adapted), guide(adapted, 2.0), partial(Counted(guide(adapted, 3.0)), label=1)):
        known = Range.of(denoiser)
        assert (known.low, known.high) == pytest.approx((low, high), rel=1e-12)


def test_below_its_range_a_network_is_asked_at_the_end_of_it() -> None:
    seen = []

    def network(z: Tensor, time: Tensor) -> Tensor:
        seen.append(float(time[0]))
        return z

    for level in (0.0, 0.01, 0.02, 0.03):
        denoise(adapt(network, "x0", VarianceExploding(sigma_min=0.02)), torch.ones(1, 2), level)
    assert seen == pytest.approx([0.02, 0.02, 0.02, 0.03])


def test_measuring_stays_within_the_range() -> None:
    found = Profile.measure(refusing(0.03, 20.0), DATA)
    assert found.sigmas[[0, -1]] == pytest.approx([20.0, 0.03])
    assert len(found.sigmas) == 64
    own = own_samples(refusing(0.03, 20.0), (2,), 50)
    assert own.shape == (50, 2)


@pytest.mark.parametrize("low", [0.02, 0.3])
def test_a_fit_stays_within_the_range(low: float) -> None:
    plan = fit(refusing(low, 20.0), DATA, 3, pilot_samples=32)
    above = [level for level in plan.schedule.sigmas if level > 0]
    assert min(above) >= low * (1 - 1e-9)
    assert max(above) <= 20.0


def test_a_level_out_of_the_range_that_is_asked_for_is_named() -> None:
    with pytest.raises(InputError, match=r"knows noise from sigma = 0\.02 on: got a level of 0\.01"):
        fit(refusing(0.02, 20.0), DATA, 3, sigma_min=0.01)
    with pytest.raises(InputError, match="knows noise up to sigma = 20: got a level of 30"):
        fit(refusing(0.02, 20.0), DATA, 3, horizon=30.0)


def noise_of_standard_normal(z: Tensor, time: Tensor) -> Tensor:
    """The exact epsilon at whole times of the table."""
    return z * (1 - TABLE[time].to(z)).sqrt()[:, None]


def test_a_rounded_table_is_rounded_in_sigma_too() -> None:
    """D(x, s) is the denoiser of the nearest level, x / (1 + s_k^2), whatever s lies in between."""
    denoiser = adapt(noise_of_standard_normal, "epsilon", DiscreteVariancePreserving(TABLE.tolist(), rounded=True))
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for k in (0, 3, 500):
        for share in (-0.4, 0.0, 0.4):
            sigma = float(LEVELS[k] * (LEVELS[k + 1] / LEVELS[k]) ** share)
            torch.testing.assert_close(denoise(denoiser, x, sigma), x / (1 + LEVELS[k] ** 2), rtol=1e-6, atol=1e-9)


def test_costs_of_a_rounded_table_are_those_of_the_exact_denoiser_at_its_levels() -> None:
    rounded = adapt(noise_of_standard_normal, "epsilon", DiscreteVariancePreserving(TABLE.tolist(), rounded=True))
    found = Profile.measure(rounded, DATA, samples=60, dtype=torch.float64)
    assert np.isin(found.sigmas, np.asarray(rounded.sigma_levels)).all()
    exact = Profile.measure(
        lambda x, s: x / (1 + s[:, None] ** 2), DATA, sigmas=found.sigmas, samples=60, dtype=torch.float64
    )
    np.testing.assert_allclose(found.corrector.mean(0), exact.corrector.mean(0), rtol=0.05)
    np.testing.assert_allclose(found.defect.mean(0), exact.defect.mean(0), rtol=0.05)


def test_levels_of_a_table_are_not_learned() -> None:
    """Between them the network is asked at the nearest one, which has no gradient; coefficients are learned."""
    rounded = adapt(noise_of_standard_normal, "epsilon", DiscreteVariancePreserving(TABLE.tolist(), rounded=True))
    start, grid = Isotropic((2,)), Schedule((3.0, 0.7, 0.1, 0.0))
    for parts in ("both", "levels"):
        with pytest.raises(InputError, match="a table alone"):
            distill(rounded, start, grid, Euler(), DATA, recipe=Recipe(learn=parts))
    few = Recipe(learn="coefficients", iterations=2, batch_size=16)
    learned = distill(rounded, start, grid, Euler(), DATA, recipe=few)
    assert learned.schedule.sigmas == pytest.approx(grid.sigmas)


def test_a_grid_of_a_table_holds_what_was_asked_for() -> None:
    known = Range.of(adapt(noise_of_standard_normal, "epsilon", DiscreteVariancePreserving(TABLE.tolist(), True)))
    grid = known.grid(3.01, 0.123, 20)
    assert grid[0] >= 3.01 > grid[1]
    assert grid[-1] <= 0.123 < grid[-2]
    assert (np.diff(grid) < 0).all()


def test_a_last_level_without_signal_is_left_out() -> None:
    root = TABLE.sqrt()
    table = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    with pytest.warns(UserWarning, match="the last of 1000 alphas_cumprod is 0"):
        process = DiscreteVariancePreserving(table.tolist(), rounded=True)
    assert process == DiscreteVariancePreserving(table[:-1].tolist(), rounded=True)
    assert process.sigma_max == pytest.approx(float(((1 - table[-2]) / table[-2]).sqrt()), rel=1e-12)
    assert int(process.time(torch.tensor([process.sigma_max], dtype=torch.float64))) == 998


def test_a_flow_whose_time_runs_to_the_data() -> None:
    """The velocity of standard normal data, d/dt E[t x_1 + (1 - t) x_0 | z], as torchcfm has it."""

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1)
        return z * (2 * t - 1) / (t**2 + (1 - t) ** 2)

    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sigma in (0.01, 0.5, 3.0):
        found = denoise(adapt(velocity, "flow", RectifiedFlow(data_at=1)), x, sigma)
        torch.testing.assert_close(found, x / (1 + sigma**2), rtol=1e-9, atol=1e-9)
    with pytest.raises(InputError, match="data_at=2"):
        RectifiedFlow(data_at=2)  # type: ignore[arg-type]


def test_a_network_of_integer_times_says_what_it_wants() -> None:
    table = torch.nn.Embedding(1000, 1)
    process = DiscreteVariancePreserving(TABLE.tolist())
    with pytest.raises(DenoiserError, match="rounded=True"):
        denoise(adapt(lambda z, time: z + table(time), "epsilon", process), torch.ones(2, 2), 1.0)


def test_diffusers_names_are_known() -> None:
    names = {"sample": "x0", "v_prediction": "v", "flow_prediction": "flow", "epsilon": "epsilon"}
    for name, ours in names.items():
        assert adapt(noise_of_standard_normal, name).prediction == ours  # type: ignore[arg-type]


@pytest.mark.parametrize(("low", "high"), [(0.0, math.nan), (math.nan, 1.0), (0.0, -1.0), (2.0, 1.0)])
def test_levels_that_are_no_range_are_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match="no range of levels"):
        Range.of(refusing(low, high))
    with pytest.raises(InputError, match="no range of levels"):
        Range.of(refusing(low, 3.0), sigma_max=high)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VarianceExploding(sigma_max=math.nan),
        lambda: VarianceExploding(sigma_max=1.0, sigma_min=2.0),
        lambda: VariancePreserving(beta_min=0.0),
        lambda: VariancePreserving(sigma_min=-1.0),
        lambda: RectifiedFlow(0.0),
        lambda: RectifiedFlow(math.nan),
        lambda: RectifiedFlow(sigma_min=math.inf),
    ],
)
def test_a_process_without_a_range_or_a_time_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(InputError, match="got"):
        make()
