"""Docstrings as the site's Markdown: roles become links and formulas, and doctests blocks of code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

from docs.site.names import link

ROLE = re.compile(r":(\w+):`(~?)([^`]+)`")


class Docstrings(Extension):
    """Rewrites every docstring as it is read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite that of one object."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring in Markdown."""
    text = re.sub(r"^( *)\.\. math::[ ]*(.*\n(?:\1 +.*\n?|\s*\n)*)", display, f"{text}\n", flags=re.MULTILINE)
    text = ROLE.sub(lambda match: role(match[1], match[2], match[3]), text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    return fenced(text.rstrip())


def display(match: re.Match[str]) -> str:
    """A displayed formula."""
    return f"{match[1]}$${' '.join(match[2].split())}$$\n\n"


def role(kind: str, short: str, target: str) -> str:
    """A role of Sphinx: a formula, or a link to what it names."""
    if kind == "math":
        return f"${' '.join(target.split())}$"
    shown = target if kind == "mod" else target.removeprefix("headstart.") if not short else target.rpartition(".")[2]
    anchor = link(target) if target.startswith("headstart.") else None
    return f"[`{shown}`][{anchor}]" if anchor else f"`{shown}`"


def fenced(text: str) -> str:
    """Doctests, up to the empty line that ends them, as blocks of code."""
    lines, inside = [], False
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith(">>>") and not inside:
            lines += ["", f"{indent}```pycon"]
            inside, margin = True, indent
        if inside and not line.strip():
            lines += [f"{margin}```", ""]
            inside = False
        lines.append(line)
    if inside:
        lines.append(f"{margin}```")
    return "\n".join(lines)
