"""The online schedule: what it learns, that it goes on from its state, and what it refuses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from headstart.errors import ArtefactError, DenoiserError, InputError
from headstart.noise import Noise
from headstart.schedule import OnlineSchedule, Schedule, corrector_costs, log_linear, update
from headstart.targets import Gaussian, bimodal

GRID = Schedule([8.0, 4.0, 2.0, 1.0])


def test_corrector_costs_are_the_change_of_the_score():
    target = bimodal()
    x = target.sample(Noise(range(30), dtype=torch.float64)) * 1.5
    a, b = torch.full((30,), 0.9, dtype=torch.float64), torch.full((30,), 0.6, dtype=torch.float64)
    expected = 0.36 * (target.score(x, 0.6) - target.score(x, 0.9)).square().sum(1)
    found = corrector_costs(x, a, b, target(x, 0.9), target(x, 0.6))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(corrector_costs(x, 0.9, 0.6, target(x, 0.9), target(x, 0.6)), expected)


def test_the_grid_moves_by_its_share_once_every_step_was_seen():
    online = OnlineSchedule(GRID, blending=0.1, visits=2)
    assert not online.observe([0, 0, 1, 2], [8.0, 10.0, 1.0, 1.0])
    np.testing.assert_array_equal(online.costs, [9.0, 1.0, 1.0])
    assert online.schedule == GRID
    assert online.observe([1, 2], [3.0, 1.0])
    assert online.schedule == update(GRID, [9.0, 2.0, 1.0], 2.0, 0.1)
    assert online.moves == 1
    assert np.isnan(online.costs).all()


def test_it_goes_to_equal_costs_of_a_gaussian():
    """Fed with an exact denoiser of N(0, 1), in one dimension: lengths known in closed form."""
    target, generator = Gaussian([0.0], 1.0), torch.Generator().manual_seed(0)
    online = OnlineSchedule(log_linear(6, 20.0, 0.05), blending=0.1, visits=50)
    for _ in range(150):
        place = torch.arange(6).repeat_interleave(60)[: 60 * online.steps]
        a = torch.from_numpy(online.levels)[place]
        b = torch.from_numpy(online.levels)[place + 1]
        x = (1 + a[:, None] ** 2).sqrt() * torch.randn(len(place), 1, generator=generator, dtype=torch.float64)
        assert online.observe_denoised(place, x, target(x, a), target(x, b))
    a, b = online.levels[:-1], online.levels[1:]
    costs = b**2 * (a**2 - b**2) ** 2 / ((1 + a**2) * (1 + b**2) ** 2)
    first = np.array(log_linear(6, 20.0, 0.05).sigmas[:-1])
    before = first[1:] ** 2 * (first[:-1] ** 2 - first[1:] ** 2) ** 2
    before = before / ((1 + first[:-1] ** 2) * (1 + first[1:] ** 2) ** 2)
    assert before.max() / before.min() > 50
    assert costs.max() / costs.min() < 1.5
    assert online.moves == 150
    assert (online.schedule.horizon, online.schedule.sigma_min, online.schedule.sigmas[-1]) == (20.0, 0.05, 0.0)


def test_it_goes_on_from_its_state():
    generator = np.random.default_rng(0)
    feeds = [(generator.integers(0, 3, 7), generator.uniform(0.1, 5, 7)) for _ in range(40)]
    straight, first = (OnlineSchedule(GRID, blending=0.2, exponent=4, visits=5) for _ in range(2))
    for place, costs in feeds:
        straight.observe(place, costs)
    for place, costs in feeds[:17]:
        first.observe(place, costs)
    resumed = OnlineSchedule.from_state(json.loads(json.dumps(first.state())))
    for place, costs in feeds[17:]:
        resumed.observe(place, costs)
    assert resumed.state() == straight.state()
    assert straight.moves > 3


def test_means_below_zero_count_as_zero():
    online = OnlineSchedule(GRID, visits=1)
    assert online.observe([0, 1, 2], [4.0, -1.0, 1.0])
    assert (np.diff(online.schedule.sigmas) < 0).all()
    idle = OnlineSchedule(GRID, visits=1)
    assert not idle.observe([0, 1, 2], [-4.0, -1.0, 0.0])
    assert idle.schedule == GRID


def test_an_empty_batch_changes_nothing():
    online = OnlineSchedule(GRID)
    assert not online.observe(torch.zeros(0, dtype=torch.long), torch.zeros(0))
    assert online.state() == OnlineSchedule(GRID).state()


@pytest.mark.parametrize("cost", [math.nan, math.inf])
def test_a_training_that_diverges_leaves_the_schedule_alone(cost):
    online = OnlineSchedule(GRID, visits=1)
    online.observe([0], [1.0])
    before = online.state()
    with pytest.raises(DenoiserError, match="diverged"):
        online.observe([0, 1, 2], [1.0, 1.0, cost])
    assert online.state() == before


@pytest.mark.parametrize(
    ("place", "costs"), [([0, 1], [1.0]), ([0.5], [1.0]), ([3], [1.0]), ([-1], [1.0]), ([[0]], [[1.0]])], ids=str
)
def test_costs_belong_to_steps(place, costs):
    with pytest.raises(InputError, match="step"):
        OnlineSchedule(GRID).observe(place, costs)


@pytest.mark.parametrize("place", [[3, 0], [-1, 0], [0], [0.0, 1.0]], ids=str)
def test_samples_belong_to_steps(place):
    x = torch.zeros(2, 1)
    with pytest.raises(InputError, match="step"):
        OnlineSchedule(GRID).observe_denoised(place, x, x, x)


@pytest.mark.parametrize("bad", [{"blending": 0.0}, {"blending": 1.1}, {"exponent": 0.0}, {"visits": 0}], ids=str)
def test_options_are_checked(bad):
    with pytest.raises(InputError, match="blending must lie"):
        OnlineSchedule(GRID, **bad)


def test_one_step_cannot_move():
    with pytest.raises(InputError, match="nothing to move"):
        OnlineSchedule(Schedule([1.0, 0.5, 0.0]))


def test_estimates_and_levels_are_checked():
    x = torch.zeros(2, 1)
    with pytest.raises(InputError, match="shape of x"):
        corrector_costs(x, 1.0, 0.5, x, x[:1])
    with pytest.raises(InputError, match="down to one above 0"):
        corrector_costs(x, 0.5, 1.0, x, x)


@pytest.mark.parametrize(
    "change",
    [{"sums": [1.0]}, {"sums": [1.0, math.nan, 1.0]}, {"counts": [-1, 0, 0]}, {"sigmas": [1.0, 2.0]}, {"moves": None}],
    ids=str,
)
def test_a_damaged_state_is_refused(change):
    state = {**OnlineSchedule(GRID).state(), **change}
    with pytest.raises(ArtefactError, match="online schedule"):
        OnlineSchedule.from_state(state)
    del state["visits"]
    with pytest.raises(ArtefactError, match="online schedule"):
        OnlineSchedule.from_state(state)
