"""The first screen of every page: an answer, what was got, how good it is, what it costs, and one picture."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from headstart import Noise, fit
from headstart.denoiser import expand
from headstart.report import write_demo_report, write_experiment_page, write_plan_page
from headstart.report.comparison import Pictures, write_comparison
from headstart.report.lanes import beside_classic, lanes
from tests.report.test_comparison import results as compared
from tests.report.test_experiment import EXPERIMENT, RESULTS
from tests.report.test_page import outline, synthetic_grids, synthetic_results


def law(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Images whose pixels are standard normal."""
    return x / (1 + expand(sigma, x) ** 2)


PLAN = fit(law, Noise(range(300)).normal((1, 4, 4)), 3, initialization=["gaussian", "isotropic"], criterion="budget")
MOVING = lanes(beside_classic(PLAN, law), law)


def demo(folder: Path) -> Path:
    write_demo_report(synthetic_results(), synthetic_grids(), folder / "index.html", MOVING)
    return folder / "index.html"


def plan(folder: Path) -> Path:
    write_plan_page(PLAN, folder / "index.html", lanes=MOVING)
    return folder / "index.html"


def plan_alone(folder: Path) -> Path:
    write_plan_page(PLAN, folder / "index.html")
    return folder / "index.html"


def comparison(folder: Path) -> Path:
    found = compared(4.0)
    found["ratios"] = [{"nfe": 3, "ratio": 0.5, "ours": "Ours", "others": "Peer", "ahead": None, "seeds": 1}]
    write_comparison(found, Pictures(lanes=MOVING), folder)
    return folder / "index.html"


def experiment(folder: Path) -> Path:
    write_experiment_page(EXPERIMENT, RESULTS, {}, {}, folder / "index.html")
    return folder / "index.html"


PAGES = [demo, plan, plan_alone, comparison, experiment]


@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__)
def test_it_answers_three_questions_and_shows_a_picture(make: Callable[[Path], Path], tmp_path: Path) -> None:
    page = make(tmp_path).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert outline(page).open == []
    first = page[page.index("<header>") : page.index("</header>")]
    assert re.findall(r'<span class="asks">(.*?)</span>', first) == ["What you get", "How good it is", "What it costs"]
    assert all(re.findall(r"<b>(.*?)</b><span>(.*?)</span>", first)[i] for i in range(3))
    assert first.count("<h1>") == 1
    assert re.search(r"<svg|<img", first)


@pytest.mark.parametrize("make", [demo, plan, comparison], ids=lambda make: make.__name__)
def test_what_moves_can_be_stopped_and_stands_still_for_who_wants_that(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    page = make(tmp_path).read_text(encoding="utf-8")
    assert page.count('<li class="lane"') == 3
    assert '<button type="button" class="toggle">' in page
    assert 'matchMedia("(prefers-reduced-motion: reduce)")' in page
    assert re.findall(r'<div class="view" role="img" aria-label="(.*?)">', page)[0]
    assert len(re.findall(r'class="frame on"', page)) == 3  # without a script, the ends


def test_a_page_is_small(tmp_path: Path) -> None:
    """Without the grids of samples, which are as large as they are."""
    write_demo_report(synthetic_results(), {}, tmp_path / "index.html", MOVING)
    assert (tmp_path / "index.html").stat().st_size < 250_000
