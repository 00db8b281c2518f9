"""The page of a paper's experiment: both sets of tables, what is set off, and nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import ArtefactError
from headstart.report import write_experiment_page

EXPERIMENT: dict[str, Any] = {
    "name": "schedules",
    "title": "Schedules & points",
    "paper": "A paper",
    "set_up": "Many images",
    "ours": "Few images",
    "differences": ("Other <data>.",),
    "published": [{"title": "Table 1", "corner": "schedule", "columns": ["10"], "rows": {"rho": [2.5]}, "best": True}],
}
RESULTS: dict[str, Any] = {
    "model": "a network",
    "data": "some data",
    "n": 64,
    "seeds": 2,
    "n_reference": 1000,
    "floor": {"swd": 0.01, "frechet": 0.5},
    "floor_n": 40,
    "found": ["rho is first"],
    "seconds": 130.0,
    "rows": [{"cited": ["song2021score", "karras2022elucidating"]}, {"cited": ["song2021score"]}, {}],
    "tables": {
        "swd": {
            "title": "Sliced distance",
            "corner": "schedule",
            "columns": ["10", "20"],
            "rows": {"rho": [0.5, None], "corrector": [0.75, 0.25]},
            "errors": {"rho": [0.0125, None], "corrector": [None, None]},
            "best": True,
        }
    },
}


@pytest.fixture
def page(tmp_path: Path) -> str:
    write_experiment_page(EXPERIMENT, RESULTS, tmp_path / "index.html")
    return (tmp_path / "index.html").read_text()


def test_it_says_what_the_paper_reports_what_was_measured_and_why_they_differ(page: str) -> None:
    heads = re.findall(r"<h2>(.*?)</h2>", page)
    assert heads == ["What the paper reports", "What we measured", "Why they differ", "References"]
    assert re.findall(r"@\w+\{(\w+),", page) == ["song2021score", "karras2022elucidating"]
    assert "Schedules &amp; points" in page
    assert "Other &lt;data&gt;." in page
    assert "sampled in 2 min 10 s" in page
    assert "Real samples against real ones: Sliced distance 0.01. The floor is of 40 samples" in page
    assert "against 1000 real ones, 2 sets of seeds" in page
    assert "rho is first" in page


def test_the_least_of_each_column_is_set_off_and_gaps_stay_gaps(page: str) -> None:
    assert re.findall(r"<strong>(.*?)</strong>", page) == ["0.500 ± 0.013"]  # a column with one value has no least
    assert re.findall(r'<th scope="row" data-value="(.*?)">', page) == ["rho", "rho", "corrector"]
    cells = re.findall(r'<td class="number" data-value="(.*?)">', page)
    assert cells == ["2.5", "0.5", "", "0.75", "0.25"]


def test_what_scrolls_can_be_reached_and_has_a_name(page: str) -> None:
    named = re.findall(r'<div class="scroll" tabindex="0" role="region" aria-label="(.*?)">', page)
    assert named == ["Table 1", "Sliced distance"]


def test_it_loads_nothing(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="missing"):
        write_experiment_page(EXPERIMENT, RESULTS, tmp_path / "missing" / "index.html")
