"""Without an extra the core works, and what lacks a library names the extra that brings it."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from headstart.errors import MissingExtraError
from headstart.extras import needed, require

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
OPTIONAL = ("jinja2", "markupsafe", "matplotlib", "rich", "typer", "zuko", "diffusers", "k_diffusion", "azula")

#: Refuses libraries as if they were not installed.
REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""

CORE = """
from pathlib import Path
import torch
from headstart import Noise, Plan, fit
from headstart.targets import gmm25

law, folder = gmm25(), Path(sys.argv[1])
plan = fit(law, law.sample(Noise(range(300))), nfe=3, criterion="budget", schedule="rho")
plan.save(folder / "plan")
again = Plan.load(folder / "plan")
assert torch.equal(again.sample(law, 3), plan.sample(law, 3))
assert again.explain() and again.citation()
"""

PAGE = """
from pathlib import Path
from headstart import HeadstartError, Plan
from headstart.report import write_plan_page

try:
    write_plan_page(Plan.load(Path(sys.argv[1]) / "plan"), Path(sys.argv[1]) / "plan.html")
except HeadstartError as error:
    print(type(error).__name__, error)
"""


def without(refused: tuple[str, ...], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The code, run where these libraries are not installed."""
    command = [sys.executable, "-c", REFUSE.format(refused=refused) + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_core_fits_saves_loads_and_samples_alone_and_a_page_names_its_extra(tmp_path: Path) -> None:
    done = without(OPTIONAL, CORE + PAGE, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("MissingExtraError")
    assert "pip install 'headstart[report]'" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


@pytest.mark.parametrize("library", ["typer", "rich"])
def test_the_console_script_says_in_one_line_what_to_install(library: str) -> None:
    done = without((library,), "from headstart.cli import main; main()", "--help")
    assert done.returncode == MissingExtraError.exit_code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert library in line
    assert "pip install 'headstart[cli]'" in line


def test_a_broken_library_is_as_a_missing_one() -> None:
    said = r"this needs library.*ValueError: first.*headstart\[peers\]"
    with pytest.raises(MissingExtraError, match=said) as error, needed("library", "peers", "this"):
        raise ValueError("first\nsecond")
    assert "second" not in str(error.value)


def test_what_is_installed_is_handed_back() -> None:
    assert require("json.decoder", "peers", "this") is sys.modules["json.decoder"]


def test_every_extra_that_is_named_exists() -> None:
    named = {
        node.args[1].value
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("needed", "require") and len(node.args) == 3
        if isinstance(node.args[1], ast.Constant)
    }
    assert {"cli", "report", "flows", "peers", "dinov2"} <= named <= EXTRAS.keys()


def test_all_is_made_of_extras_that_exist() -> None:
    (line,) = EXTRAS["all"]
    names = line.removeprefix("headstart[").removesuffix("]").split(",")
    assert set(names) <= EXTRAS.keys()
    assert {"cli", "report", "flows", "hub", "serve", "distributed", "storage"} == set(names)
