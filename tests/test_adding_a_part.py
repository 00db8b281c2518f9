"""A solver, a start, a rule, a metric and a command of another distribution, each in a file of its own, are found
everywhere by that file alone: in a fit, in what it saves and cites, in the help, and in the tests over all members.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PARTS = {
    "solver": '''
"""The explicit midpoint method."""

from headstart.solver import SOLVERS, Solver


@SOLVERS.register
class Midpoint(Solver):
    """The explicit midpoint method; Euler's step to 0."""

    name = "midpoint"
    cites = ("@misc{me2026midpoint,\\n  title = {Midpoint}\\n}",)
    order = 2

    def steps(self, D, x, schedule, noise):
        for a, b in schedule.pairs():
            if b == 0:
                x = D(x, a)
            else:
                m = (a + b) / 2
                middle = x + (m - a) / a * (x - D(x, a))
                x = x + (b - a) / m * (middle - D(middle, m))
            yield x

    def nfe(self, schedule):
        return 2 * schedule.steps - (schedule.sigmas[-1] == 0)

    def steps_for(self, nfe):
        return (nfe + 1) // 2
''',
    "start": '''
"""A Gaussian without directions."""

from headstart.initialization import INITIALIZATIONS, Diagonal
from headstart.initialization.subspace import moments


@INITIALIZATIONS.register
class Spherical(Diagonal):
    """The data's mean, and one variance for all coordinates."""

    name = "spherical"
    cites = ("@misc{me2026spherical,\\n  title = {Spherical}\\n}",)

    @classmethod
    def fit(cls, data):
        mean, variances = moments(data)
        return cls(data.shape[1:], mean, variances.mean().expand(len(mean)))
''',
    "rule": '''
"""Equal steps of 1 / sigma."""

from dataclasses import dataclass

import numpy as np

from headstart.schedule import RULES, Rule, Schedule


@RULES.register
@dataclass(frozen=True)
class Harmonic(Rule):
    """Equal steps of sigma^(-power)."""

    name = "harmonic"
    cites = ("@misc{me2026harmonic,\\n  title = {Harmonic}\\n}",)

    power: float = 1.0

    def levels(self, profile, steps, horizon, sigma_min, solver):
        inverse = np.linspace(horizon**-self.power, sigma_min**-self.power, steps)
        return Schedule([horizon, *inverse[1:] ** (-1 / self.power), 0.0], str(self))
''',
    "metric": '''
"""The distance of the means."""

from headstart.metrics import METRICS, Metric, Value


@METRICS.register
class MeanGap(Metric):
    """Distance between the means of samples and data."""

    name = "mean_gap"
    cites = ("@misc{me2026gap,\\n  title = {Gap}\\n}",)
    cost = "(N + M) d"

    @classmethod
    def score(cls, compared):
        return Value(float((compared.samples.double().mean(0) - compared.reference.samples.double().mean(0)).norm()))
''',
    "greet": '''
"""A greeting."""

from headstart.cli.common import Answer, Json, command


@command("headstart greet", "headstart greet --json")
def greet(as_json: Json = False) -> Answer:
    """Greet whoever calls."""
    return Answer("good day", {"said": "good day"})
''',
}

ENTRY_POINTS = """
[headstart.solvers]
midpoint = their_parts.solver:Midpoint
[headstart.initializations]
spherical = their_parts.start:Spherical
[headstart.schedules]
harmonic = their_parts.rule:Harmonic
[headstart.metrics]
mean_gap = their_parts.metric:MeanGap
[headstart.commands]
greet = their_parts.greet:greet
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the distribution."""
    folder = tmp_path_factory.mktemp("theirs")
    info = folder / "their_parts-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-parts\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "their_parts").mkdir()
    (folder / "their_parts" / "__init__.py").write_text("")
    for name, text in PARTS.items():
        (folder / "their_parts" / f"{name}.py").write_text(text)
    return folder


def ran(place: Path, *arguments: str) -> str:
    """Standard output of Python with that distribution."""
    path = os.pathsep.join([str(place), str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FIT = """
import sys
import numpy as np
from headstart import Noise, Plan, fit
from headstart.citation import bibtex
from headstart.initialization import INITIALIZATIONS
from headstart.metrics import Reference, evaluate
from headstart.schedule import get_rule, rule_names
from headstart.solver import get_solver
from headstart.targets import gmm25

law = gmm25()
data = law.sample(Noise(range(300)))
parts = {"initialization": "spherical", "schedule": "harmonic 2", "solver": "midpoint"}
plan = fit(law, data, 5, pilot_samples=16, **parts)
plan.save(sys.argv[1])
again = Plan.load(sys.argv[1])
assert (again.initialization.name, again.schedule.name, again.solver.name) == tuple(parts.values())
assert type(again.initialization) is INITIALIZATIONS["spherical"]
assert (again.solver, again.nfe, again.schedule.steps) == (get_solver("midpoint"), 5, 3)
expected = get_rule("harmonic 2")(plan.profile, 3, plan.horizon, plan.schedule.sigma_min)
np.testing.assert_allclose(again.schedule.sigmas, expected.sigmas)
assert again.schedule.name == expected.name
np.testing.assert_allclose(np.diff(np.array(again.schedule.sigmas[:3]) ** -2.0, 2), 0, atol=1e-9)
for key in ("me2026midpoint", "me2026spherical", "me2026harmonic"):
    assert key in again.citation()

scores = evaluate(data + 3, Reference.of(data, keep=True), scores=("mean_gap",))
assert abs(scores.value("mean_gap") - 3 * 2**0.5) < 1e-5
assert "mean-gap" in repr(scores) and scores.to_dict()["mean_gap"] == scores.value("mean_gap")
assert "me2026gap" in bibtex(scores.cited)
"""


def test_a_fit_takes_them_by_name_and_a_plan_keeps_and_cites_them(place: Path, tmp_path: Path) -> None:
    ran(place, "-c", FIT, str(tmp_path / "plan"))


COMMANDS = """
from typer.testing import CliRunner
from headstart.cli import app

def told(*words):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.stdout

assert " greet " in told("--help")
assert "headstart greet --json" in told("greet", "--help")
assert (told("greet"), told("greet", "--json")) == ("good day\\n", '{"said": "good day"}\\n')
assert all(name in told("fit", "--help") for name in ("midpoint", "spherical", "harmonic"))
assert "mean_gap" in told("evaluate", "--help")
"""


def test_the_command_line_has_them(place: Path) -> None:
    ran(place, "-c", COMMANDS)


MEMBERS = {
    "tests/solver/test_order.py": ("Midpoint", 3),
    "tests/solver/test_solvers.py": ("Midpoint", 8),
    "tests/initialization/test_every_start.py": ("spherical", 2),
    "tests/choose/test_levels.py": ("harmonic", 1),
    "tests/test_citation.py": ("harmonic", 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", MEMBERS)
def test_the_tests_over_all_members_run_over_them(place: Path, file: str) -> None:
    """And hold: the solver has the order that it says, the start hands back no training data, the rule ends at 0."""
    name, least = MEMBERS[file]
    told = ran(place, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", name)
    assert int(told.splitlines()[-1].split(" passed")[0].split()[-1]) >= least


def test_without_the_distribution_there_are_none(tmp_path: Path) -> None:
    assert "midpoint" not in ran(tmp_path, "-c", "from headstart.solver import SOLVERS; print(*SOLVERS)")
