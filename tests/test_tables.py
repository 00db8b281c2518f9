"""The tables of the docs have a row for every registered part, in the registry's order, that says what it says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from headstart.cli.common import COMMANDS
from headstart.compare import METHODS
from headstart.initialization import INITIALIZATIONS
from headstart.metrics import METRICS
from headstart.schedule import RULES, Rule, rule_names
from headstart.solver import SOLVERS, get_solver, solver_names

DOCS = Path(__file__).parents[1] / "docs"


def table(page: str, first: str) -> list[dict[str, str]]:
    """The rows of the table whose first column has that title, by the titles of their columns."""
    text = (DOCS / page).read_text(encoding="utf-8")
    head, _, *rows = re.search(rf"(?:^\| {first} \|.*\n)(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()
    return [dict(zip(cells(head), cells(row), strict=True)) for row in rows]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def quoted(text: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]*)`", text)


@pytest.mark.parametrize(
    ("page", "first", "names"),
    [
        ("solvers.md", "name", SOLVERS),
        ("starts.md", "name", INITIALIZATIONS),
        ("schedules.md", "rule", rule_names()),
        ("metrics.md", "score", METRICS),
        ("comparison.md", "name", METHODS),
        ("command-line.md", "command", [f"headstart {name}" for name in COMMANDS]),
    ],
    ids=["solvers", "starts", "rules", "metrics", "methods", "commands"],
)
def test_a_table_has_every_part(page: str, first: str, names: Iterable[str]) -> None:
    found = [name for row in table(page, first) for name in quoted(row[first])]
    listed = [" ".join(name.split()[:2]) if first == "command" else name for name in found]
    assert listed == list(names)


@pytest.mark.parametrize(
    ("page", "first", "registry"),
    [("solvers.md", "name", SOLVERS), ("starts.md", "name", INITIALIZATIONS), ("schedules.md", "rule", RULES)],
    ids=["solvers", "starts", "rules"],
)
def test_a_row_names_the_class_and_its_parameters(page: str, first: str, registry: dict[str, type]) -> None:
    for row in table(page, first):
        (part,), (said,) = quoted(row[first]), quoted(row["class"])
        name, _, parameters = said.rstrip(")").partition("(")
        assert registry[part].__name__ == name
        known = getattr(registry[part], "__dataclass_fields__", {})
        assert all(parameter in known for parameter in parameters.split(", ") if parameter not in ("", "..."))


def test_solvers_have_the_order_the_cost_and_the_noise_of_their_rows() -> None:
    rows = {quoted(row["name"])[0]: row for row in table("solvers.md", "name")}
    for name in solver_names():
        solver, row = get_solver(name), rows[name]
        if row["order"][0].isdigit():
            assert int(row["order"].split()[0]) == solver.order
        assert row["noise"] == "yes" if solver.stochastic else row["noise"] != "yes"
        assert (row["evaluations a step"] == "1") == (solver.steps_for(100) == 100)


def test_rules_and_metrics_are_as_their_rows_say() -> None:
    for row in table("schedules.md", "rule"):
        kind = RULES[quoted(row["rule"])[0]]
        assert issubclass(kind, Rule)
        assert row["tried unasked"] == ("yes" if kind.usual else "no")
    for row in table("metrics.md", "score"):
        for name in quoted(row["score"]):
            assert row["better"] == ("smaller" if METRICS[name].smaller else "larger")
            assert row["cost"] == METRICS[name].cost
