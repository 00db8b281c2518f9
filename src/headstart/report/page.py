"""The pages: one template language and one style, and what all of them are made of.

A page is one HTML file that needs nothing beside it: no network, no font, no script from elsewhere. It gets plain
values only, so that it can be drawn again from the files of a run. Its first screen has the answer in a sentence, three
:class:`Tile` (what was got, how good it is, what it cost) and one picture; what led there stands below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from headstart.citation import bibtex
from headstart.extras import needed, require
from headstart.report.drawing import DARK, LIGHT
from headstart.report.text import number

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["APPROACH", "Tile", "check_libraries", "drawn", "entries", "fragment", "judged", "render"]

#: The papers that the method comes from.
APPROACH = ("fassina2026initialization", "williams2024score")

#: With fewer samples than this, the bias of a Fréchet distance is larger than what sets two samplers apart.
JUDGEABLE = 500


@dataclass(frozen=True)
class Tile:
    """A figure in large type.

    Attributes:
        asks: the question that it answers.
        value: the figure.
        means: what it is, in a sentence.
    """

    asks: str
    value: str
    means: str

    @classmethod
    def three(cls, got: tuple[str, str], good: tuple[str, str], cost: tuple[str, str]) -> list[Tile]:
        """The tiles of a first screen, from the figures and what they mean."""
        return [cls("What you get", *got), cls("How good it is", *good), cls("What it costs", *cost)]


def check_libraries() -> None:
    """A MissingExtraError before the work begins, unless pages can be written after it."""
    for library in ("jinja2", "markupsafe", "matplotlib"):
        require(library, "report", "a page")


def judged(sentence: str, n: int, what: str = "samples") -> str:
    """A verdict, and before it that it rests on too few samples where it does; 0 of them are not known."""
    return f"A trial of {n} {what}, too few to judge by. {sentence}" if 0 < n < JUDGEABLE else sentence


def render(template: str, *, about: str = "", references: Sequence[str] = (), **values: Any) -> str:
    """A page from one of the templates, in the colours of the figures.

    Arguments:
        template: its name.
        about: what to say of the references.
        references: the BibTeX entries of what the page stands on.
        values: what else the template asks for.

    Raises:
        MissingExtraError: if jinja2 is not installed.
    """
    usual: dict[str, Any] = {"lanes": (), "tiles": (), "environment": None}
    colours = {"light": LIGHT, "dark": DARK}
    return _templates().get_template(template).render(usual | colours | values, about=about, references=references)


def fragment(template: str, name: str, *values: Any) -> str:
    """The text of a macro of one of the templates, for a page that is there already."""
    return str(getattr(_templates().get_template(template).module, name)(*values))


@cache
def _templates() -> Environment:
    with needed("jinja2", "report", "a page"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    templates = Environment(
        loader=PackageLoader("headstart.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["number"] = number
    return templates


def entries(keys: Iterable[str]) -> list[str]:
    """The BibTeX entries of these keys, each once and in their order."""
    return [bibtex([key]) for key in dict.fromkeys(keys)]


def drawn(*svgs: str) -> list[Markup]:
    """The figures that have something to show, as they are: they are ours, and their text is escaped already.

    Raises:
        MissingExtraError: if markupsafe is not installed.
    """
    with needed("markupsafe", "report", "a page"):
        from markupsafe import Markup
    return [Markup(svg) for svg in svgs if svg]
