"""The page of an experiment or a benchmark, drawn from its folder: its results, its figures and its tables.

Tables are taken from Markdown files and figures from SVG files, so that the page can be drawn again from what a run
left behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from headstart.artefact import parse_json
from headstart.citation import citations
from headstart.errors import ArtefactError
from headstart.files import atomic_write, read_regular
from headstart.report.images import data_uri
from headstart.report.page import APPROACH, entries, render
from headstart.report.text import duration

__all__ = ["write_folder_page"]

#: A table with more rows is shown when it is asked for.
OPEN = 40

#: What rows call a start, a schedule and a solver.
PARTS = (("family", "start", "initialization", "chosen"), ("schedule", "levels"), ("solver",))

#: A number, as tables write it, and what may follow it: its error, or another number in parentheses.
NUMBER = re.compile(r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?)(?: ± \S+)?(?: \(\S+\))?")

#: What columns are called on a page, where the name of a key is no word.
WORDS = {
    "nfe": "evaluations",
    "frechet": "Fréchet distance",
    "swd": "sliced Wasserstein",
    "max_swd": "max-sliced Wasserstein",
    "e_init": "E_init",
    "kl": "KL",
    "nll": "NLL",
    "w1": "W1",
}

#: What a line begins with, and what it is then; of the same kind are lines that belong together.
KINDS = (("| ", "table"), ("|--", "table"), ("# ", "title"), ("## ", "heading"), ("* ", "list"), ("- ", "list"))


def write_folder_page(folder: Path) -> None:
    """Write ``index.html`` into a folder that holds ``results.json``, and the tables and figures that this names.

    Arguments:
        folder: of the run. Of its results, "verdict" is what was found in a sentence, "about" what the experiment is,
            "command" what does it again, and "files" are the names of tables in Markdown and figures as SVG.

    Raises:
        ArtefactError: if ``results.json`` or a file that it names is missing or damaged, or the page cannot be written.
    """
    try:
        results = parse_json(read_regular(folder / "results.json").decode())
        verdict, files = results["verdict"], [folder / name for name in results["files"]]
        tables = [(_words(path), _blocks(read_regular(path).decode())) for path in files if path.suffix == ".md"]
        figures = [(_words(path), data_uri(read_regular(path), "svg+xml")) for path in files if path.suffix == ".svg"]
        page = render(
            "folder.html",
            name=results["experiment"],
            verdict=f"A trial, too small to judge by. {verdict}" if results["quick"] else verdict,
            description=results["about"],
            command=results["command"],
            duration=None if results["seconds"] is None else duration(results["seconds"]),
            figures=figures,
            tables=sorted(tables, key=lambda table: table[0] != "Summary"),
            open=OPEN,
            environment={"command": results["command"], **results["environment"], "seeds": results["seeds"]},
            references=entries([*APPROACH, *_cited(results)]),
        )
    except OSError as error:
        raise ArtefactError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ArtefactError(f"{folder / 'results.json'} holds no results of an experiment: {error}") from error
    atomic_write(page.encode(), folder / "index.html")


def _words(path: Path) -> str:
    """The name of a file as a heading."""
    words = re.sub("[-_]", " ", path.stem)
    return words[:1].upper() + words[1:]


def _blocks(text: str) -> list[dict[str, Any]]:
    """Headings, lists, sentences and tables of what runs write in Markdown, the tables with the heading above them."""

    def kind(line: str) -> str:
        return next((name for mark, name in KINDS if line.startswith(mark)), "text")

    found: list[dict[str, Any]] = []
    heading = ""
    for name, group in groupby((line.strip() for line in text.splitlines() if line.strip()), kind):
        lines = list(group)
        if name == "table":
            found.append({"kind": name, "label": heading, **_table(lines)})
        elif name == "list":
            found.append({"kind": name, "items": [line[2:] for line in lines]})
        else:
            lines = [line.lstrip("# ") for line in lines]
            heading = lines[-1] if name == "heading" else heading
            found += [{"kind": name, "text": line} for line in lines]
    return found


def _table(lines: Iterable[str]) -> dict[str, Any]:
    head, _, *rest = ([cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines)
    rows = [[_cell(cell) for cell in row] for row in rest]
    numeric = [all(row[i]["number"] for row in rows) for i in range(len(head))]
    return {"headings": list(zip(map(_heading, head), numeric, strict=True)), "rows": [{"cells": row} for row in rows]}


def _heading(name: str) -> str:
    """The name of a column in words."""
    value = name.removesuffix("_error")
    words = WORDS.get(value, value.replace("_", " "))
    return words if value == name else f"{words}, error"


def _cell(text: str) -> dict[str, Any]:
    """A cell with what it sorts by: the number that it begins with, if it is one; nothing if it is blank."""
    plain = text.replace("**", "")
    if plain in ("", "-"):
        return {"text": plain, "value": "", "number": True}
    found = NUMBER.fullmatch(plain)
    return {"text": plain, "value": float(found[1].replace(",", "")) if found else plain, "number": found is not None}


def _cited(found: Any) -> Iterator[str]:
    """The keys of what the rows among the results name as a start, a schedule and a solver."""
    if isinstance(found, Mapping):
        named = (next((str(found[key]) for key in keys if found.get(key)), "") for keys in PARTS)
        yield from citations(*named)
        for value in found.values():
            yield from _cited(value)
    elif isinstance(found, list):
        for value in found:
            yield from _cited(value)
