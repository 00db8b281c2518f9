"""What the site does beyond Markdown: pages from outside ``docs``, mathematics as MathML, and the reference.

* The change log, CONTRIBUTING and the stored results are files of the site, and links that lead out of ``docs`` lead
  there. A link to anything else outside is an error, as in a strict build every warning is.
* ``$...$`` becomes MathML when the site is built: no script and no font is loaded to read it.
* There is a page of the reference for every package, of the names in its ``__all__``.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from docs.site.names import about, defined, offered, units
from docs.site.notebooks import as_files

ROOT = Path(__file__).parents[2]

#: Files outside docs, by their place in the site.
OUTSIDE = {
    **{path.name.lower(): path.name for path in ROOT.glob("*.md") if path.name != "README.md"},
    "citation.cff": "CITATION.cff",
    "licence.txt": "LICENSE",
}

#: Links that have a better place in the site than the file itself.
INSTEAD = {
    "README.md": "index.md",
    "experiments": "gallery.md",
    "benchmarks/results": "gallery.md",
    "src/headstart/data/FASHION_MNIST_LICENSE": "model-card.md",
}

RESULTS = ("html", "json", "csv", "svg", "png", "md")


def on_config(config: Any) -> Any:
    """Add the reference to the navigation."""
    pages = [{unit.removeprefix("headstart."): f"reference/{unit}.md"} for unit in units()]
    config.nav.append({"Reference": ["reference/index.md", *pages]})
    return config


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages and results that are not in docs."""
    for place, path in outside().items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for place, text in (*reference().items(), *as_files()):
        files.append(File.generated(config, place, content=text))
    return files


def outside() -> dict[str, str]:
    """Files of the repository that the site has too: their places there, and their paths."""
    results = ROOT / "benchmarks" / "results"
    found = [path for path in sorted(results.rglob("*")) if path.suffix[1:] in RESULTS]
    return {
        **OUTSIDE,
        **{f"results/{path.relative_to(results).as_posix()}": str(path.relative_to(ROOT)) for path in found},
    }


# Links.


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let the links of a page lead to places of the site."""
    home = page.file.src_uri
    original = outside().get(home, f"docs/{home}")
    if original.startswith("benchmarks/results") or home.startswith("reference/"):
        return markdown

    def placed(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(original), target))
        place = posixpath.relpath(in_site(path, original), posixpath.dirname(home) or ".")
        return f"{match[1]}{place}{'#' + anchor if anchor else ''}{match[3]}"

    kept = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        part if part.startswith("```") else re.sub(r"(\]\(|(?:src|srcset|href)=\")([^)\s\"]+)(\)|\")", placed, part)
        for part in kept
    )


def in_site(path: str, page: str) -> str:
    """The place in the site of a path in the repository."""
    if path in INSTEAD:
        return INSTEAD[path]
    if path.startswith("docs/tutorials/"):
        path = str(Path(path).with_suffix(".md"))
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    places = {there: place for place, there in outside().items()}
    if path not in places:
        raise PluginError(f"{page} links to {path}, which the site does not have")
    return places[path]


# Mathematics.


def on_page_content(html_text: str, **_: Any) -> str:
    """Turn the formulas of a page into MathML."""
    return re.sub(
        r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>',
        lambda match: formula(html.unescape(match[3]), match[2] == "["),
        html_text,
        flags=re.DOTALL,
    )


def formula(latex: str, display: bool) -> str:
    """A formula in LaTeX as MathML, with a little room after the name of a function."""
    found = str(convert(" ".join(latex.split()), display="block" if display else "inline"))
    return re.sub(r"(<mi>(?:log|ln|exp|sqrt|arctan|min|max)</mi>)(?!<mo)", r'\1<mspace width="0.17em"/>', found)


# Reference.


def reference() -> dict[str, str]:
    """A page for every package and module with public names, and one that lists them."""
    pages, rows = {}, []
    for unit in units():
        names = [defined(unit, name) for name in offered(unit)]
        head = f"[](){{ #{unit} }}\n\n# {unit}\n\n{plain(about(unit))}\n\n"
        if unit == "headstart":
            body = "\n".join(f"* [`headstart.{path.rpartition('.')[2]}`][{path}]" for path in names)
        else:
            body = "\n\n".join(f"::: {path}" for path in names if path.startswith(unit))
            body += "".join(f"\n\nAlso here: [`{path}`][{path}]." for path in names if not path.startswith(unit))
        pages[f"reference/{unit}.md"] = f"{head}{body}\n"
        rows.append(f"| [`{unit}`]({unit}.md) | {plain(about(unit))} |")
    head = "# Reference\n\nEvery public name, by the package that offers it.\n\n| package | what it is |\n|---|---|\n"
    pages["reference/index.md"] = head + "\n".join(rows) + "\n"
    return pages


def plain(text: str) -> str:
    """A line of a docstring in Markdown."""
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")
