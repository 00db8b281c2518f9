"""The page of a plan: its levels, why, its candidates, what it draws and what to cite; and nothing from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headstart import fit
from headstart.budget import Budget, Estimate
from headstart.denoiser import expand
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.report import write_plan_page
from headstart.report.plan import verdict


def law(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Images whose pixels are standard normal."""
    return x / (1 + expand(sigma, x) ** 2)


@pytest.fixture(scope="module")
def data() -> torch.Tensor:
    return Noise(range(300)).normal((1, 4, 4))


@pytest.fixture(scope="module")
def plan(data: torch.Tensor) -> Plan:
    return fit(law, data, 3, initialization=["gaussian", "isotropic"], criterion="nats")


def test_it_shows_levels_reasons_candidates_and_references(plan: Plan, tmp_path: Path) -> None:
    write_plan_page(plan, tmp_path / "plan.html")
    page = (tmp_path / "plan.html").read_text()
    heads = re.findall(r"<h2>(.*?)</h2>", page)
    assert heads == [
        "What it does, and why",
        "The noise levels visited",
        "Where the error comes from",
        "What it was chosen from",
        "To do it again",
        "References",
    ]
    assert page.count('<th scope="row"') == len(plan.candidates)
    assert page.count("<svg") == 4
    assert "@inproceedings{" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_samples_are_shown_and_their_nearest_neighbours(plan: Plan, data: torch.Tensor, tmp_path: Path) -> None:
    samples = torch.cat([data[:1], plan.sample(law, 9)])
    write_plan_page(plan, tmp_path / "plan.html", samples, data)
    page = (tmp_path / "plan.html").read_text()
    assert "What comes out" in page
    assert page.count('<img src="data:image/png') == 2
    distances = re.search(r"nearest of 300 real ones: (.*?)\. A copy", page)
    assert distances
    assert distances[1].split(", ")[0] == "0"  # a copy
    assert "0" not in distances[1].split(", ")[1:]


def test_samples_of_another_shape_are_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"samples have the shape \(2,\): the plan's is \(1, 4, 4\)"):
        write_plan_page(plan, tmp_path / "plan.html", torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (None, "what the start errs by is not known."),
        (Budget(Estimate(2.0, 0.1), (0.5, 0.25)), "the start errs by 2 nats, the steps by 0.75."),
        (Budget(Estimate(-1.0, 0.1), (0.5,)), "the steps err by 0.5 nats, the start by 0."),
        (Budget(Estimate(0.0, 0.1), ()), "neither the start nor the steps err by anything that was measured."),
    ],
)
def test_the_verdict_is_one_sentence(plan: Plan, budget: Budget | None, said: str) -> None:
    sentence = verdict(replace(plan, budget=budget))
    assert sentence.startswith("3 evaluations from a ")
    assert sentence.endswith(said)
