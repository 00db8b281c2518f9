"""The worked examples of conditions and of tails: refining, returns, and posteriors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.posterior.run import c2st
from experiments.posterior.tasks import TASKS, GaussianLinear, TwoMoons
from experiments.refinement.network import coarsened, refiner
from experiments.refinement.run import distances
from experiments.returns.data import blocks, windows
from experiments.returns.run import shortfall
from headstart.data import fashion_mnist
from headstart.denoiser import denoise
from tests.experiments.cases import quick_run


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Refining.


def test_the_distance_of_ensembles_is_that_of_their_laws() -> None:
    """Of N(0, 1) and N(m, 1) it is 2 E|X - Y| - 2 E|X - X'| in closed form, and 0 on average for one law."""
    x, same, moved = (torch.randn(4000, 6, 1, generator=generator(i), dtype=torch.float64) for i in range(3))
    m = 1.5
    z = m / math.sqrt(2)
    apart = math.sqrt(2) * (
        math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + z * math.erf(z / math.sqrt(2))
    )  # E|N(m, 2)|
    for other, expected in ((same, 0.0), (moved + m, 2 * apart - 4 / math.sqrt(math.pi))):
        found = distances(x, other)
        assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / math.sqrt(4000))


def test_the_refiner_knows_more_than_the_coarse_image() -> None:
    images, network = fashion_mnist("test", bundled=True).samples[:64], refiner()
    coarse = coarsened(images)
    assert coarse.shape == (64, 1, 7, 7)
    blind = (network(torch.randn(images.shape, generator=generator()) * 80, 80.0, coarse) - images).square().mean()
    noised = images + 0.3 * torch.randn(images.shape, generator=generator(1))
    seeing = (denoise(network, noised, 0.3, coarse=coarse) - images).square().mean()
    other = (denoise(network, noised, 0.3, coarse=coarse.flip(0)) - images).square().mean()
    assert float(seeing) < 0.5 * float(blind) < 0.5 * 0.244**2
    assert float(other) > 1.5 * float(seeing)


@pytest.mark.slow
def test_refining_is_scored_by_cells_that_a_stopped_run_goes_on_from(tmp_path: Path) -> None:
    found = quick_run("refinement", tmp_path)
    known = {row["method"]: row for row in found["summary"]}
    assert known["Heun"]["crps_to_heun"] == 1
    assert known["the coarse image"]["width"] == 0
    assert known["plan"]["crps"] < known["the coarse image"]["crps"]
    cells = (tmp_path / "cells.jsonl").read_text()
    assert quick_run("refinement", tmp_path)["rows"] == found["rows"]
    assert (tmp_path / "cells.jsonl").read_text() == cells


# Returns.


def test_windows_do_not_cross_the_blocks_that_they_are_cut_from() -> None:
    series = np.arange(50.0)
    halves = [windows(blocks(series, 10, first), days=4) for first in (0, 1)]
    assert [len(half) for half in halves] == [21, 14]
    assert not set(halves[0].flatten().tolist()) & set(halves[1].flatten().tolist())
    assert all((half.diff(dim=1) == 1).all() for half in halves)


def test_the_shortfall_of_a_normal_law_is_its_closed_form() -> None:
    x = torch.randn(400_000, generator=generator(), dtype=torch.float64).numpy()
    exact = math.exp(-0.5 * 1.959964**2) / math.sqrt(2 * math.pi) / 0.025
    assert shortfall(x, 0.025) == pytest.approx(exact, rel=0.01)


@pytest.mark.slow
def test_returns_are_compared_with_the_other_half_of_the_days(tmp_path: Path) -> None:
    pytest.importorskip("arch")
    found = quick_run("returns", tmp_path)
    known = {row["quantity"]: row for row in found["summary"]}
    assert known["day, shortfall 0.01"]["data"] > known["day, shortfall 0.025"]["data"] > 0
    assert {"plan", "Heun", "plan, from noise", "training data"} <= set(known["swd"])


# Posteriors.


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_exact_posteriors_average_to_the_prior(task: Any) -> None:
    theta, x = task.pairs(1500, 0)
    again = torch.cat([task.posterior(each, 2, generator(i))[:1] for i, each in enumerate(x)])
    for moment in (1, 2, 4):
        a, b = theta.pow(moment).mean(1), again.pow(moment).mean(1)
        assert float(a.mean()) == pytest.approx(float(b.mean()), abs=4 * float(a.std()) * math.sqrt(2 / 1500))
    assert task.within(again).all()


def test_the_posterior_of_the_linear_task_is_its_closed_form() -> None:
    x = torch.linspace(-0.5, 0.5, 10)
    theta = GaussianLinear().posterior(x, 40_000, generator())
    torch.testing.assert_close(theta.mean(0), x / 2, rtol=0, atol=5 * math.sqrt(0.05 / 40_000))
    torch.testing.assert_close(theta.var(0), torch.full((10,), 0.05), rtol=0.05, atol=0)


def test_two_moons_lead_to_points_of_the_half_ring() -> None:
    task, x = TwoMoons(), torch.tensor([-0.3, 0.2])
    theta = task.posterior(x, 4000, generator())
    shift = torch.stack([-theta.sum(1).abs(), theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2)
    ring = x - shift - torch.tensor([0.25, 0.0])
    assert (ring[:, 0] > -0.06).all()
    assert float(ring.norm(dim=1).mean()) == pytest.approx(0.1, abs=0.001)
    assert float(ring.norm(dim=1).std()) == pytest.approx(0.01, abs=0.001)
    assert float((theta.sum(1) > 0).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_a_classifier_tells_apart_what_differs() -> None:
    a, b = (torch.randn(300, 2, generator=generator(i)) for i in range(2))
    assert c2st(a, b) == pytest.approx(0.5, abs=0.07)
    assert c2st(a, b + 6) > 0.98
    assert 0.6 < c2st(a, b + 1) < 0.85


@pytest.mark.slow
def test_a_plan_of_a_posterior_is_held_against_the_packages_own_steps(tmp_path: Path) -> None:
    pytest.importorskip("sbi")
    found = quick_run("posterior", tmp_path)
    assert len(found["observations"]) == 4
    for row in found["observations"]:
        assert row["plan less sbi"] == pytest.approx(row["plan"] - row["sbi"])
