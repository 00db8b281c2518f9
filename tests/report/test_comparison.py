"""The page of a comparison: what is held against all stands apart, and no figure hides what lies beyond it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from headstart.report.comparison import (
    SPAN,
    Pictures,
    comparison_headline,
    comparison_table,
    quality,
    write_comparison,
)


def row(label: str, kind: str, family: str, nfe: int, value: float | None) -> dict[str, Any]:
    return {
        "method": label.lower(),
        "label": label,
        "kind": kind,
        "family": family,
        "nfe": nfe,
        "evaluations": float(nfe),
        "scores": None if value is None else {"frechet": {"mean": value, "error": None}},
        "seconds_per_1000": float(nfe),
        "prepare_seconds": 1.0,
        "n": 1000,
        "seeds": 1,
        "how": "so",
        "failed": "1 of 1 seeds: lost" if value is None else None,
    }


def results(*values: float | None) -> dict[str, Any]:
    """A plan of ours, a peer at as many numbers of evaluations as values are given, and marks close to each other."""
    methods = [row("Ours", "ours", "ours", 3, 2.0)]
    methods += [row("Peer", "peer", "diffusers", 3 + i, value) for i, value in enumerate(values)]
    return {
        "settings": {"nfe": [3, 4, 5], "seeds": [0], "samples": 1000, "model": "a network", "data": "data"},
        "environment": {},
        "metric": "frechet",
        "summary": [*methods, row("EDM Heun, 35", "reference", "EDM", 35, 1.05)],
        "floor": {"frechet": {"mean": 1.0, "error": None}},
        "floor_n": 1000,
        "ratios": [],
        "verdict": "No verdict.",
        "skipped": [],
    }


def label(svg: str, text: str) -> tuple[float, str]:
    """Where a label stands from left to right, and which end of it stands there."""
    found = re.search(rf'<text style="([^"]*)"[^>]*?(?:x="([\d.]+)"|translate\(([\d.]+))[^>]*>{text}<', svg)
    assert found is not None, text
    anchor = re.search(r"text-anchor: (\w+)", found[1])
    return float(found[2] or found[3]), anchor[1] if anchor else "start"


def height(svg: str, text: str) -> float:
    """Where a label stands from top to bottom."""
    found = re.search(rf'<text [^>]*y="([\d.]+)"[^>]*>{text}<', svg)
    assert found is not None, text
    return float(found[1])


def dashes(svg: str) -> set[str]:
    return set(re.findall(r"stroke-dasharray: ([\d., ]+)", svg))


def at_the_edge(svg: str) -> int:
    """Markers on the upper edge of the axes, 24 units below the figure's."""
    return len(re.findall(r'<use [^>]*y="24"', svg))


@pytest.mark.parametrize("against", ["nfe", "seconds"])
def test_the_names_of_close_levels_stand_at_either_end_of_different_dashes(against: str) -> None:
    svg = quality(results(4.0), against)
    (left, at_left), (right, at_right) = label(svg, "EDM Heun, 35"), label(svg, "real samples")
    assert (at_left, at_right) == ("start", "end")
    assert left < 100 < 300 < right
    assert len(dashes(svg)) == 2
    assert height(svg, "real samples") > height(svg, "EDM Heun, 35") + 10, "the lower level's name is below its line"


def test_the_range_follows_the_largest_point_that_is_drawn() -> None:
    near, far = quality(results(4.0), "nfe"), quality(results(4.0, 3 * SPAN), "nfe")
    assert re.findall(r">([\d.]+)<", near) == ["3", "1", "2", "5"]
    assert re.findall(r">([\d.]+)<", far) == ["3", "4", "1", "2", "5"]


def test_what_lies_beyond_or_failed_is_marked_at_the_edge() -> None:
    assert at_the_edge(quality(results(4.0), "nfe")) == 0
    assert at_the_edge(quality(results(4.0, 3 * SPAN), "nfe")) == 1
    assert at_the_edge(quality(results(4.0, 3 * SPAN, None), "nfe")) == 2


def test_what_all_are_held_against_is_in_no_column(tmp_path: Path) -> None:
    write_comparison(results(4.0), Pictures(), tmp_path)
    page = (tmp_path / "index.html").read_text()
    wide = re.findall(r'<td colspan="3" data-value="([\d.]+)">(.*?)</td>', page)
    assert wide == [("1.05", "1.05, 35 s for 1,000 samples"), ("1.0", "1.00")]
    lines = comparison_table(results(4.0)).splitlines()
    assert "* EDM Heun, 35: 1.05, 35 s for 1,000 samples" in lines
    assert not [line for line in lines if line.startswith("|") and "Heun" in line]


def test_the_headline_has_the_best_of_every_family() -> None:
    found = results(4.0, None)
    others = [
        ("Other", "peer", "diffusers", 3, 3.0),
        ("Lone", "peer", "azula", 4, 5.0),
        ("Oracle", "oracle", "o", 3, 0.1),
    ]
    found["summary"] += [row(*other) for other in others]
    found["ratios"] = [{"nfe": 3, "ratio": 2 / 3, "others": "Other"}, {"nfe": 4, "ratio": None, "others": "Lone"}]
    assert comparison_headline(found).splitlines() == [
        "| sampler | 3 | 4 | 5 |",
        "| --- | --- | --- | --- |",
        "| Ours | **2.00** |  |  |",
        "| the best of 2 of diffusers | 3.00 | failed |  |",
        "| Lone |  | **5.00** |  |",
        "| *the best of ours to that of the others* | 0.67 × Other |  |  |",
        "| EDM Heun, 35 | 1.05, 35 s for 1,000 samples |  |  |",
        "| real samples | 1.00 |  |  |",
    ]


def test_a_mark_that_failed_says_so_and_sorts_last(tmp_path: Path) -> None:
    found = results(4.0)
    found["summary"][-1] = row("EDM Heun, 35", "reference", "EDM", 35, None)
    write_comparison(found, Pictures(), tmp_path)
    assert '<td colspan="3" data-value="">failed' in (tmp_path / "index.html").read_text()
