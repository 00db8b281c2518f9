"""The page of a paper's experiment: both sets of tables, what is set off, and nothing from elsewhere."""

from __future__ import annotations

import base64
import html
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
    "proposed": "corrector",
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
    "found": ["rho is first.", "And by far."],
    "seconds": 130.0,
    "rows": [
        {"row": "rho", "column": "10", "evaluations": 19, "cited": ["song2021score", "karras2022elucidating"]},
        {"row": "corrector", "column": "10", "evaluations": 19, "cited": ["song2021score"]},
        {"row": "corrector", "column": "20", "evaluations": 39},
    ],
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
    write_experiment_page(
        EXPERIMENT, RESULTS, {"rho, 19": b"grid"}, {"rho, 19: at 2": b"near"}, tmp_path / "index.html"
    )
    return (tmp_path / "index.html").read_text()


def test_it_says_what_the_paper_reports_what_was_measured_and_why_they_differ(page: str) -> None:
    heads = re.findall(r"<h2>(.*?)</h2>", page)
    said = ["What the paper reports", "What we measured", "Why they differ"]
    assert heads == [*said, "What comes out", "Are they new?", "References"]
    assert re.findall(r"<h1>(.*?)</h1>", page) == ["A trial of 64 samples, too few to judge by. rho is first."]
    assert re.findall(r"@\w+\{(\w+),", page) == ["song2021score", "karras2022elucidating"]
    assert "Schedules &amp; points" in page
    assert "Other &lt;data&gt;." in page
    assert "sampled in 2 min 10 s" in page
    assert "Real samples against real ones: Sliced distance 0.01. The floor is of 40 samples" in page
    assert "against 1000 real ones, 2 sets of seeds" in page
    assert "<p>And by far.</p>" in page


def test_samples_are_shown_with_what_they_are(page: str) -> None:
    pictures = re.findall(r'<img src="data:image/png;base64,(.*?)" alt="(.*?)">', page)
    assert [(base64.b64decode(uri), text) for uri, text in pictures] == [
        (b"grid", "Grid of samples: rho, 19"),
        (b"near", "Samples above their nearest neighbours: rho, 19: at 2"),
    ]


def test_distances_are_drawn_against_evaluations_with_the_floor(page: str) -> None:
    (figure,) = re.findall(r"<figure><svg .*?</svg></figure>", page, re.DOTALL)
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>(.*?)</text>", figure)]
    assert {"rho", "corrector", "real samples", "network evaluations for a sample"} <= set(texts)
    assert "Sliced distance, log scale (lower is better)" in texts


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
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    with pytest.raises(ArtefactError, match=r"file.index\.html"):
        write_experiment_page(EXPERIMENT, RESULTS, {}, {}, tmp_path / "file" / "index.html")
