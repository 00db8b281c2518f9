"""Every snippet of the README, CONTRIBUTING and docs runs, in the order of its page.

* A ``python`` block is executed, in one namespace a page and an empty folder a page. One that begins with a comment
  ``# name.py`` is also written to that file, so that commands can use it.
* A line ``$ command`` of a ``console`` block is run if it is ``headstart``; ``make``, ``pip`` and ``python`` are
  checked against the Makefile, the constraints and the scripts. An environment is made and entered in words alone.

To keep this short, :func:`headstart.fit` is given fewer images than the page says, ``headstart evaluate`` fewer real
samples, and what asks for a GPU or would not end is only parsed: ``headstart serve``, and ``headstart demo``, which
``.ci/run`` runs in small. Laws of few dimensions are fitted as written.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import headstart
import headstart.choose
from benchmarks.pictures import pictures
from benchmarks.readme import PARTS, RESULTS, RIVALS, found_in, ratio_table, read
from headstart.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Options that make a command short.
SHORTER = {"evaluate": ["--reference-count", "400"]}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page where the text begins."""

    language: str
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page in Markdown."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        yield Block(match[1], match[2], page.count("\n", 0, match.start(2)) + 1)


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a ``console`` block; a backslash continues a line."""
    text = block.text.replace("\\\n", " ")
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in text.splitlines() if line.startswith("$ ")]


def run_page(page: str) -> None:
    """Run what a page says, in the current folder."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python":
            if file := re.match(r"# (\w+\.py)\n", block.text):
                Path(file[1]).write_text(block.text, encoding="utf-8")
            exec(compile("\n" * (block.line - 1) + block.text, "page", "exec"), names)
        elif block.language == "console":
            for words in commands(block):
                run_command(words)


#: What a page says of a clone and an environment, which the tests have.
ENTERED = (["cd", "headstart"], ["python", "-m", "venv", ".venv"], [".", ".venv/bin/activate"])


def run_command(words: list[str]) -> None:
    if words in ENTERED:
        return
    if words[0] == "headstart":
        run_headstart(words[1:])
    elif words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, env=quiet_make())
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    elif words[:2] == ["pip", "install"]:
        assert "-c" in words, f"{shlex.join(words)}: give it -c constraints.txt, or it may bring another torch"
    elif words[:2] == ["python", "-m"]:  # tests/experiments runs them
        told = help_of(words[2])
        assert all(option in told for option in words[3:]), f"{words[2]} has no option {words[3:]}"
    elif words[0] == "python":
        script = (ROOT / words[1]).read_text(encoding="utf-8")
        for option in [word for word in words if word.startswith("--")]:
            assert f'"{option}"' in script, f"{words[1]} has no option {option}"
    else:
        raise AssertionError(f"{shlex.join(words)}: there is no rule for checking {words[0]}")


def help_of(module: str) -> str:
    """What a module says of itself as a command; in this process, since a new one takes seconds to import torch."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, "--help"])
        patch.delitem(sys.modules, module, raising=False)
        with contextlib.redirect_stdout(told), pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
    assert not ended.value.code, f"python -m {module} --help exits with {ended.value.code}"
    return told.getvalue()


def quiet_make() -> dict[str, str]:
    """The environment without what an outer make hands down."""
    return {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


def run_headstart(words: list[str]) -> None:
    if words[0] in ("demo", "serve") or "cuda" in words:
        parse(words)
        return
    done = CliRunner().invoke(app, [*words, *SHORTER.get(words[0], [])])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, f"headstart {shlex.join(words)} exits with {done.exit_code}: {done.output}"


def parse(words: list[str]) -> None:
    """Let the command line read a command, without running it."""
    group = typer.main.get_command(app)
    context = group.make_context("headstart", list(words))
    name, command, rest = group.resolve_command(context, list(words))  # type: ignore[attr-defined]
    command.make_context(name, rest, parent=context)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder to work in, and a quick fit on images."""
    fit = headstart.choose.fit

    def quick(denoiser: Any, data: Any, nfe: int = 4, **options: Any) -> headstart.Plan:
        if data is None:
            return fit(denoiser, None, nfe, **options)
        dataset = data if isinstance(data, headstart.Dataset) else headstart.Dataset(torch.as_tensor(data))
        if dataset.samples[0].numel() > 100:
            labels = options.get("labels")
            dataset = replace(dataset, samples=dataset.samples[:400], labels=None)
            options["labels"] = None if labels is None else labels[:400]
            options["pilot_samples"] = 16
            if options.get("profile") is None and labels is None:
                levels = np.geomspace(80, 0.01, 15)
                _, held_out = headstart.choose.hold_out(dataset.samples)
                options["profile"] = headstart.Profile.measure(
                    denoiser, dataset.samples[held_out], sigmas=levels, samples=8, cost_samples=8
                )
        return fit(denoiser, dataset, nfe, **options)

    monkeypatch.setattr(headstart, "fit", quick)
    monkeypatch.setattr(headstart.choose, "fit", quick)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__ or "").parent == tmp_path:
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_snippets_run(page: Path, small: None) -> None:
    run_page(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    here = [
        t for t in targets if t and "://" not in t and not t.startswith("reference/")
    ]  # which the site's build makes
    lost = [t for t in here if not (page.parent / t).exists()]
    assert not lost, f"{page.relative_to(ROOT)} links to {', '.join(lost)}"


def test_the_readme_shows_both_commands_and_python() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [words for block in blocks(text) if block.language == "console" for words in commands(block)]
    assert ["make", "demo"] in shown
    assert ["make", "test"] in shown
    assert any(block.language == "python" and "fit(" in block.text for block in blocks(text))


@pytest.mark.parametrize(("page", "name", "written"), PARTS, ids=[f"{page} {name}" for page, name, _ in PARTS])
def test_numbers_are_those_of_the_results(page: str, name: str, written: Callable[[], str]) -> None:
    """``python -m benchmarks.readme`` writes them."""
    assert found_in((ROOT / page).read_text(encoding="utf-8"), name) == written()


def test_pictures_are_those_of_the_results() -> None:
    for name, svg in pictures(read("comparison/results.json"), RESULTS / "samples").items():
        assert (ROOT / "docs" / "images" / name).read_text(encoding="utf-8") == svg


def test_a_ratio_over_networks_is_a_geometric_mean() -> None:
    """Twice and eight times the distance of the plan are four times; a count that one lacks has no column."""

    def found(factor: float, counts: list[int]) -> dict[str, Any]:
        rows = [("plan", "ours", 1.0), *((family, family, factor) for family in RIVALS), ("azula-2", "azula", 99.0)]
        summary = [
            {"method": method, "family": family, "nfe": nfe, "scores": {"frechet": {"mean": value}}}
            for method, family, value in rows
            for nfe in counts
        ]
        return {"metric": "frechet", "settings": {"nfe": counts}, "summary": summary}

    head, _, *rows = ratio_table([found(2.0, [3, 4]), found(8.0, [4, 5])]).splitlines()
    assert head.endswith("| 4 |")
    assert len(rows) == 5
    assert all(row.endswith("| 4.0 × |") for row in rows)


def test_the_readme_is_read_in_a_minute_or_two() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


def test_continuous_integration_runs_the_readme_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert re.search(r"^make test$", script, re.MULTILINE)
    (demo,) = re.findall(r"^\S*headstart (demo .*)$", script, re.MULTILINE)
    parse(shlex.split(demo))


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("```python\nimport headstart\nheadstart.fitt\n```\n", AttributeError),
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", AssertionError),
        ("```console\n$ headstart inspect nowhere\n```\n", AssertionError),
        ("```console\n$ headstart demo --nonsense 3\n```\n", Exception),
        ("```console\n$ make nonsense\n```\n", AssertionError),
        ("```console\n$ pip install .\n```\n", AssertionError),
        ("```console\n$ python training/denoiser.py --nonsense 3\n```\n", AssertionError),
        ("```console\n$ rm -rf .\n```\n", AssertionError),
    ],
    ids=["name", "value", "run", "option", "target", "constraints", "script", "unknown"],
)
def test_a_wrong_snippet_fails(page: str, error: type[Exception], small: None) -> None:
    with pytest.raises(error):
        run_page(page)


def test_a_page_is_one_story(small: None) -> None:
    page = (
        "```python\n# mine.py\nx = 1\n```\n\n```text\nnot code\n```\n\n```python\nimport mine\nassert mine.x == x\n```"
    )
    sys.path.insert(0, os.getcwd())
    try:
        run_page(f"{page}\n")
    finally:
        sys.path.remove(os.getcwd())
    assert commands(Block("console", "$ a b \\\n    c  # why\noutput\n$ d\n", 1)) == [["a", "b", "c"], ["d"]]
