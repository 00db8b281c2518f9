"""What is stored of experiments is whole: a page can be drawn again from its folder, and is the one that is stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headstart.report import write_folder_page

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

#: Experiments; comparisons and reproductions have pages of their own.
FOLDERS = [path.parent for path in sorted(RESULTS.glob("*/results.json")) if '"experiment"' in path.read_text()]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_page_is_that_of_the_results(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / folder.name
    shutil.copytree(folder, again)
    write_folder_page(again)
    assert (again / "index.html").read_text() == (folder / "index.html").read_text()
