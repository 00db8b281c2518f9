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
from headstart.plan.explain import decided_by, references, total
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
    return fit(law, data, 3, initialization=["gaussian", "isotropic"], criterion="budget")


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
    assert page.count('<th scope="row"') == len(plan.record.candidates) + 1 + len(references(plan))
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


def test_discretization_errors_stand_in_one_table(plan: Plan, tmp_path: Path) -> None:
    write_plan_page(plan, tmp_path / "plan.html")
    page = (tmp_path / "plan.html").read_text()
    assert plan.budget is not None
    found = [reference.nats for reference in references(plan).values()]
    for nats in (total(plan.budget.discretization), *found):
        assert f'data-value="{nats}"' in page
    assert repr(plan.budget.initialization) in page


@pytest.mark.parametrize("budget", [None, Budget(None, (0.5,)), Budget(Estimate(2.0, 0.1), (0.5, 0.25))])
def test_the_verdict_is_one_sentence_of_what_is_known(plan: Plan, budget: Budget | None) -> None:
    sentence = verdict(replace(plan, budget=budget))
    assert len(re.findall(r"\.(?!\d)", sentence)) == 1
    for fact in (str(plan.nfe), plan.initialization.name, decided_by(plan)):
        assert fact in sentence
    known = budget is not None and budget.initialization is not None
    assert ("2 ± 0.1 nats" in sentence) == known
    assert ("not known" in sentence) != known


def test_a_plan_without_a_budget_has_a_page(plan: Plan, tmp_path: Path) -> None:
    write_plan_page(replace(plan, budget=None), tmp_path / "plan.html")
    assert "Discretization errors" not in (tmp_path / "plan.html").read_text()
