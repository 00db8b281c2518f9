"""The page of an experiment's folder: what was found, its figures and tables, and what to cite."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import ArtefactError
from headstart.report import write_folder_page

FOUND: dict[str, Any] = {
    "experiment": "waves",
    "quick": False,
    "verdict": "Waves are <wet>.",
    "about": "About waves.",
    "command": "python -m experiments.waves",
    "seeds": 2,
    "files": [],
    "environment": {"torch": "2"},
    "seconds": 200.0,
}


def page(folder: Path, tables: str | None = None, **changes: Any) -> str:
    if tables is not None:
        (folder / "of_all.md").write_text(tables)
        changes["files"] = ["of_all.md"]
    (folder / "results.json").write_text(json.dumps(FOUND | changes))
    write_folder_page(folder)
    return (folder / "index.html").read_text()


def rows(text: str) -> list[list[tuple[str, str]]]:
    """The cells of every row: what they sort by, and their text."""
    body = text.partition("<tbody>")[2]
    return [
        re.findall(r'<td[^>]* data-value="([^"]*)">([^<]*)</td>', row)
        for row in re.findall("<tr>(.*?)</tr>", body, re.S)
    ]


def test_it_has_what_was_found_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("high", "low"):
        (tmp_path / f"{name}.svg").write_text("<svg></svg>")
    text = page(tmp_path, files=["high.svg"])
    assert "<h1>Waves are &lt;wet&gt;.</h1>" in text
    assert text.count("python -m experiments.waves") == 2
    assert "made in 3 min 20 s" in text
    assert text.count("data:image/svg+xml;base64,") == 1, "what this run did not write is not shown"
    assert "<figcaption>High</figcaption>" in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "<dt>torch</dt><dd>2</dd>" in text
    assert "<dt>seeds</dt><dd>2</dd>" in text


def test_text_is_what_it_is_in_markdown(tmp_path: Path) -> None:
    text = page(tmp_path, "# Waves\n\n## Seas\n\n**Higher** is <better>:\n- one\n- two\n\n* three\n")
    assert "<h2>Of all</h2>" in text
    assert '<p class="lead"><b>Waves</b></p>' in text
    assert "<h3>Seas</h3>" in text
    assert '<p class="lead">**Higher** is &lt;better&gt;:</p>' in text
    assert re.findall("<li>(.*)</li>", text) == ["one", "two", "three"]


def test_a_table_keeps_its_blank_cells_and_sorts_by_its_numbers(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        "## Seas\n\n|  | height | of | by |\n|---|---|---|---|\n| north | **1.5** ± 0.2 | 8.0 (2.7) |  |\n"
        "|  | - | 10 | 80,40 |\n"
        "| - | - | - | - |\n| south | 1,000 | -3e-05 | nan |\n",
    )
    assert 'aria-label="Seas"' in text
    heads = re.findall(r'<th scope="col"( class="number")?><button type="button">([^<]*)', text)
    assert heads == [("", ""), (' class="number"', "height"), (' class="number"', "of"), ("", "by")]
    assert rows(text) == [
        [("north", "north"), ("1.5", "1.5 ± 0.2"), ("8.0", "8.0 (2.7)"), ("", "")],
        [("", ""), ("", "-"), ("10.0", "10"), ("80,40", "80,40")],
        [("", "-"), ("", "-"), ("", "-"), ("", "-")],
        [("south", "south"), ("1000.0", "1,000"), ("-3e-05", "-3e-05"), ("nan", "nan")],
    ]


def test_columns_are_called_by_words(tmp_path: Path) -> None:
    text = page(tmp_path, "| nfe | swd_error | to_heun | Heun |\n|---|---|---|---|\n| 1 | 2 | 3 | 4 |\n")
    heads = re.findall(r'<button type="button">([^<]*)', text)
    assert heads == ["evaluations", "sliced Wasserstein, error", "to heun", "Heun"]


def test_a_long_table_is_folded(tmp_path: Path) -> None:
    assert "<details><summary>41 rows</summary>" in page(tmp_path, "| a |\n|---|\n" + "| 1 |\n" * 41)


def test_what_the_rows_use_is_cited(tmp_path: Path) -> None:
    used = [
        {"start": "mixture", "schedule": "log_linear", "solver": "unipc"},
        {"schedule": "gits"},
        {"solver": "ode45"},
    ]
    text = page(tmp_path, tables="", rows={"some": used})
    keys = re.findall(r"@\w+\{(\w+),", text)
    assert keys[:2] == ["fassina2026initialization", "williams2024score"]
    assert {"lucke2010expectation", "lu2022dpm", "zhao2023unipc", "chen2024trajectory"} <= set(keys)
    assert "karras2022elucidating" not in keys
    assert len(keys) == len(set(keys))


def test_a_trial_says_so(tmp_path: Path) -> None:
    assert "A trial, too small to judge by. Waves are" in page(tmp_path, quick=True)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"verdict": "so"}), json.dumps(FOUND | {"files": 3})])
def test_results_of_something_else_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"results\.json holds no results of an experiment"):
        write_folder_page(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"results\.json cannot be read"):
        write_folder_page(tmp_path)
    with pytest.raises(ArtefactError, match=r"lost\.svg cannot be read"):
        page(tmp_path, files=["lost.svg"])
