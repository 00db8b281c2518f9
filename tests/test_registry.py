"""Registries: parts are found where they are defined, in one order, and those of other distributions too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headstart.errors import InputError
from headstart.initialization import INITIALIZATIONS, Initialization
from headstart.metrics import METRICS, Metric
from headstart.registry import Registry, describe
from headstart.schedule import RULES, Kind
from headstart.solver import SOLVERS, Solver, get_solver

MIDPOINT = '''
from headstart.solver import SOLVERS, Solver

@SOLVERS.register
class Midpoint(Solver):
    """The explicit midpoint method."""

    name = "midpoint"
    cites = ("@misc{me2026midpoint,\\n  title = {Midpoint}\\n}",)
    order = 2

    def steps(self, D, x, schedule, noise):
        raise NotImplementedError
'''

CHECK = """
from headstart.citation import bibtex, citations
from headstart.solver import SOLVERS, get_solver
assert "midpoint" in SOLVERS
assert type(get_solver("midpoint")).__module__ == "theirs"
assert "me2026midpoint" in bibtex(citations("isotropic", "rho 7", "midpoint"))
"""


def shape(name: object, **attributes: object) -> type:
    return type(str(name).title(), (), {"name": name, **attributes})


def test_parts_come_in_one_order_whichever_was_first() -> None:
    forwards, backwards = Registry[type]("shape"), Registry[type]("shape")
    parts = [shape(name) for name in ("circle", "square", "triangle")]
    for part in parts:
        assert forwards.register(part) is part
    for part in reversed(parts):
        backwards.register(part)
    assert list(forwards.items()) == list(backwards.items()) == [(part.name, part) for part in parts]
    simplest = Registry[type]("shape", first=("square", "missing"))
    for part in parts:
        simplest.register(part)
    assert list(simplest) == ["square", "circle", "triangle"]
    assert forwards["square"] is forwards.find("square") is parts[1]


def test_a_part_has_a_name_of_its_own() -> None:
    shapes = Registry[type]("shape")
    for name in (None, "", 3):
        with pytest.raises(InputError, match="has no name"):
            shapes.register(shape(name))
    shapes.register(shape("square"))
    shapes.register(shape("square"))  # the same class, imported again
    with pytest.raises(InputError, match="two of the shape 'square'"):
        shapes.register(shape("square", __qualname__="Other"))


def test_an_unknown_part_is_refused_with_the_names_of_those_there_are() -> None:
    shapes = Registry[type]("shape")
    shapes.register(shape("square"))
    with pytest.raises(InputError, match="unknown shape 'circle': expected one of square"):
        shapes.find("circle")
    with pytest.raises(KeyError):
        shapes["circle"]
    assert "circle" not in shapes


@pytest.mark.parametrize(
    ("registry", "base"),
    [(SOLVERS, Solver), (INITIALIZATIONS, Initialization), (RULES, Kind), (METRICS, Metric)],
    ids=["solvers", "starts", "rules", "metrics"],
)
def test_every_part_of_the_house_is_registered_by_its_name_and_says_what_it_is(registry, base) -> None:
    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(sub) for sub in cls.__subclasses__()))

    own = {cls for cls in below(base) - {base} if cls.__module__.startswith("headstart.") and hasattr(cls, "name")}
    assert set(registry.values()) == own
    assert all(part.name == name and describe(part) for name, part in registry.items())


def distribution(folder: Path, value: str, module: str | None) -> Path:
    info = folder / "theirs-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[headstart.solvers]\nmidpoint = {value}\n")
    if module is not None:
        (folder / "theirs.py").write_text(module)
    return folder


def ran(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys\nsys.path.insert(0, {str(folder)!r})\n{program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("value", ["theirs", "theirs:Midpoint"])
def test_a_solver_of_another_distribution_is_found(tmp_path: Path, value: str) -> None:
    done = ran(distribution(tmp_path, value, MIDPOINT), CHECK)
    assert done.returncode == 0, done.stderr


def test_a_distribution_that_cannot_be_loaded_is_reported_and_left_out(tmp_path: Path) -> None:
    done = ran(
        distribution(tmp_path, "missing:Midpoint", None),
        "from headstart.solver import SOLVERS\nprint(*SOLVERS)",
    )
    assert done.stdout.split() == list(SOLVERS)
    assert "'midpoint' (missing:Midpoint) was left out" in done.stderr


def test_discovery_costs_nothing_until_it_is_asked_for() -> None:
    done = ran(Path(), "import headstart.solver\nassert not headstart.solver.SOLVERS._complete")
    assert done.returncode == 0, done.stderr
    assert get_solver("euler").name == "euler"
