"""Tutorials: Python files with cells, executed into pages and notebooks.

``# %% [markdown]`` begins a cell of text, in comments, and ``# %%`` one of code. A page shows what the cells print, the
value of their last line, and figures of matplotlib. ``python -m docs.site.notebooks`` executes all of them, and so does
``make docs``.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).parents[1] / "tutorials"


@dataclass(frozen=True)
class Cell:
    """A cell of a tutorial: whether it is code, and its text."""

    code: bool
    text: str


def cells(source: str) -> Iterator[Cell]:
    """The cells of a tutorial."""
    for part in re.split(r"^(?=# %%)", source, flags=re.MULTILINE):
        head, _, body = part.partition("\n")
        if head.startswith("# %%") and body.strip():
            text = head.startswith("# %% [markdown]")
            yield Cell(not text, re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip() if text else body.strip())


def executed(name: str) -> str:
    """A tutorial as a page in Markdown, with what its cells print and draw."""
    page, names = [], dict[str, Any]({"__name__": "tutorial"})
    import_diffusers()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), drawing_style():
        for i, cell in enumerate(cells((TUTORIALS / f"{name}.py").read_text(encoding="utf-8"))):
            page.append(f"```python\n{cell.text}\n```" if cell.code else cell.text)
            if cell.code:
                page += run(cell.text, names, f"{name}-{i}")
    return "\n\n".join(page) + f"\n\n[This page as a notebook]({name}.ipynb)\n"


def run(code: str, names: dict[str, Any], place: str) -> Iterator[str]:
    """Execute a cell, and give what it printed, its value and its figure as blocks of Markdown."""
    tree, printed, value = ast.parse(code), io.StringIO(), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, place, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), place, "eval"), names)
    told = printed.getvalue().rstrip()
    if value is not None and not hasattr(value, "savefig"):
        told = f"{told}\n{value!r}".strip()
    if told:
        yield f"```text\n{told}\n```"
    if hasattr(value, "savefig"):
        from headstart.report.drawing import as_svg

        yield f'<div class="figure">\n{as_svg(value, f"A figure of this tutorial, {place}", place)}\n</div>'


def import_diffusers() -> None:
    """Import diffusers, also beside a torchvision of another build, which cannot be imported: it then does without."""
    import diffusers

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        diffusers.utils.import_utils._torchvision_available = False


@contextlib.contextmanager
def drawing_style() -> Iterator[None]:
    """The look of all figures, with its colours in turn."""
    import matplotlib

    from headstart.report.drawing import LIGHT, STYLE

    matplotlib.use("svg")
    turn = [LIGHT[name] for name in ("plan", "dpm", "gaussian", "noise", "other")]
    look = {**STYLE, "axes.prop_cycle": matplotlib.cycler(color=turn), "figure.figsize": (5.2, 3.2), "figure.dpi": 72}
    with matplotlib.rc_context({**look, "lines.linewidth": 1.6, "figure.autolayout": True}):
        yield


def notebook(name: str) -> str:
    """A tutorial as a notebook without outputs."""
    found = [
        {
            "cell_type": "code" if cell.code else "markdown",
            "id": f"cell-{i}",
            "metadata": {},
            "source": cell.text.splitlines(keepends=True),
            **({"execution_count": None, "outputs": []} if cell.code else {}),
        }
        for i, cell in enumerate(cells((TUTORIALS / f"{name}.py").read_text(encoding="utf-8")))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps({"cells": found, "metadata": about, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def tutorials() -> list[str]:
    """The names of all tutorials."""
    return sorted(path.stem for path in TUTORIALS.glob("*.py"))


def as_files() -> Iterator[tuple[str, str]]:
    """The pages and notebooks of the site; without executing anything if TUTORIALS=no is in the environment."""
    for name in tutorials():
        if os.environ.get("TUTORIALS") == "no":
            source = cells((TUTORIALS / f"{name}.py").read_text(encoding="utf-8"))
            yield f"tutorials/{name}.md", "\n\n".join(f"```python\n{c.text}\n```" if c.code else c.text for c in source)
        else:
            yield f"tutorials/{name}.md", executed(name)
        yield f"tutorials/{name}.ipynb", notebook(name)


if __name__ == "__main__":
    for name in tutorials():
        print(executed(name))
