"""``headstart inspect --page``: the page of a plan, with samples and data; and bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.errors import InputError

Run = Callable[..., Any]
MODEL = "python:headstart_cli_models"


def test_a_page_of_a_plan_shows_samples_and_their_neighbours(run: Run, place: Path, tmp_path: Path) -> None:
    assert run("sample", place / "plan", f"{MODEL}:exact", "-n", 8, "-o", tmp_path / "drawn").code == 0
    more = ("--samples", tmp_path / "drawn", "--data", place / "points.npy")
    done = run("inspect", place / "plan", "--page", tmp_path / "plan.html", *more)
    assert done.code == 0
    assert f"The page is {tmp_path / 'plan.html'}" in done.out
    page = (tmp_path / "plan.html").read_text()
    assert "nearest of 300 real ones" in page
    assert "<img" not in page  # points are no images


def test_samples_without_a_page_are_refused(run: Run, place: Path) -> None:
    done = run("inspect", place / "plan", "--samples", place / "points.npy")
    assert done.code == InputError.exit_code
    assert "--page FILE" in done.err


def test_a_page_shows_samples_of_the_network_on_their_way(run: Run, place: Path, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    assert run("inspect", place / "plan", "--page", page, "--model", f"{MODEL}:exact").code == 0
    assert page.read_text().count('<li class="lane"') == 3
    assert run("inspect", place / "plan", "--model", f"{MODEL}:exact").code == InputError.exit_code
