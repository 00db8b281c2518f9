"""The site's reference: every public name is found where it is defined, and docstrings become Markdown."""

from __future__ import annotations

import importlib
import json

import pytest

import headstart
from docs.site.names import defined, link, offered, rendered, resolved, units
from docs.site.notebooks import cells, drawing_style, notebook, run, tutorials


@pytest.mark.parametrize("unit", units())
def test_public_names_are_found_where_they_are_defined(unit: str) -> None:
    module = importlib.import_module(unit)
    assert offered(unit) == list(module.__all__)
    for name in offered(unit):
        home, _, own = defined(unit, name).rpartition(".")
        assert getattr(importlib.import_module(home), own) is getattr(module, name)


def test_every_name_of_the_package_itself_has_its_place() -> None:
    assert {resolved(f"headstart.{name}") for name in headstart.__all__} <= rendered()


@pytest.mark.parametrize(
    ("path", "anchor"),
    [
        ("headstart.fit", "headstart.choose.fit.fit"),
        ("headstart.choose.fit.fit", "headstart.choose.fit.fit"),
        ("headstart.Plan.sample", "headstart.plan.base.Plan.sample"),
        ("headstart.schedule", "headstart.schedule"),
        ("headstart.choose.pilot", "headstart.choose"),
        ("headstart.integrations.azula.from_azula", "headstart.integrations.azula.from_azula"),
        ("headstart.nonsense", None),
        ("headstart.plan.nonsense", None),
    ],
)
def test_links_lead_to_what_is_rendered(path: str, anchor: str | None) -> None:
    assert link(path) == anchor


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("The law :math:`p_\\sigma` of ``x``.", "The law $p_\\sigma$ of `x`."),
        ("See :func:`headstart.fit`.", "See [`fit`][headstart.choose.fit.fit]."),
        ("See :func:`~torch.linspace`.", "See `linspace`."),
        (".. math:: a = b\n    + c\n\nWith c.", "$$a = b + c$$\n\nWith c."),
        ("So:\n\n>>> 1\n1\n\nAnd on.", "So:\n\n\n```pycon\n>>> 1\n1\n```\n\n\nAnd on."),
    ],
    ids=["formula", "link", "elsewhere", "display", "doctest"],
)
def test_docstrings_become_markdown(text: str, markdown: str) -> None:
    docstrings = pytest.importorskip("docs.site.docstrings", reason="make docs installs what it needs")
    assert docstrings.markdown(text) == markdown


def test_formulas_become_mathml() -> None:
    hooks = pytest.importorskip("docs.site.hooks", reason="make docs installs what it needs")
    page = '<p><span class="arithmatex">\\(x &lt; \\log y\\)</span></p>'
    found = hooks.on_page_content(page)
    assert found.startswith("<p><math")
    assert "arithmatex" not in found
    assert "&#x0003C;" in found
    assert "log</mi><mspace" in found


SCRIPT = """# %% [markdown]
# # A title
#
# Some words.

# %%
x = 1
print("said")
x + 1

# %%
y = x
"""


def test_a_tutorial_shows_what_it_prints_and_the_value_of_its_last_line() -> None:
    text, code, silent = cells(SCRIPT)
    assert (text.code, text.text) == (False, "# A title\n\nSome words.")
    assert code.code
    names: dict[str, object] = {}
    assert list(run(code.text, names, "here")) == ["```text\nsaid\n2\n```"]
    assert list(run(silent.text, names, "here")) == []
    assert names["y"] == 1


def test_a_tutorial_shows_its_figure_in_the_colours_of_the_page() -> None:
    code = "import matplotlib.pyplot as plt\nfigure, panel = plt.subplots()\npanel.plot([1, 2])\nfigure"
    with drawing_style():
        (shown,) = run(code, {}, "here")
    assert shown.startswith('<div class="figure">\n<svg')
    assert "var(--plan, #c2410c)" in shown


@pytest.mark.parametrize("name", tutorials())
def test_a_tutorial_is_a_notebook(name: str) -> None:
    found = json.loads(notebook(name))
    assert found["nbformat"] == 4
    assert found["cells"][0]["source"][0].startswith("# ")
    for cell in found["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), name, "exec")
