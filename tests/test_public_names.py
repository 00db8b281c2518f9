"""What the package offers: names that exist, say what they are, and agree with the files around it."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import FunctionType

import pytest

import headstart

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(headstart.__path__, "headstart.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["headstart", *MODULES])
def test_a_module_says_what_it_is_and_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing, f"{name}.__all__ names {', '.join(missing)}, which {name} does not have"
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("name", ["headstart", *MODULES])
def test_public_functions_classes_and_methods_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    found = {public: getattr(module, public) for public in module.__all__}
    found = {public: value for public, value in found.items() if inspect.isclass(value) or inspect.isfunction(value)}
    bare = [public for public, value in found.items() if not inspect.getdoc(value)]
    for public, value in found.items():
        if inspect.isclass(value):
            methods = inspect.getmembers(value, inspect.isfunction)
            bare += [f"{public}.{m}" for m, function in methods if m[0] != "_" and not explained(m, function)]
    assert not bare, f"without a docstring in {name}: {', '.join(bare)}"


def explained(method: str, function: FunctionType) -> bool:
    """Whether the method, or that of the same name of another class in its module (a protocol), has a docstring."""
    others = vars(sys.modules[function.__module__]).values()
    family = [getattr(other, method, None) for other in others if inspect.isclass(other)]
    return any(inspect.getdoc(member) for member in (function, *family) if member is not None)


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert headstart.__version__ == project["version"]
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [project["version"]]
    assert re.findall(r"^## \[(\d.*?)\]", changes, re.MULTILINE)[0] == project["version"]


def test_every_direct_dependency_is_constrained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {re.split(r"[=<>]", line)[0] for line in lines if line and not line.startswith("#")}
    free = {re.split(r"[=<>\[]", requirement)[0] for requirement in wanted} - pinned - {"headstart"}
    assert not free, f"constraints.txt says nothing about {', '.join(sorted(free))}"


def test_importing_the_package_prints_nothing_and_loads_no_plots_or_commands() -> None:
    code = "import sys, headstart; print(sorted({'matplotlib', 'typer', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


#: The public names of the last version, by the package that offers them.
NAMES = ROOT / "tests" / "public_names.json"


def public_names() -> dict[str, list[str]]:
    """What every package, and every module beside them, offers."""
    modules = ["headstart", *(name for name in MODULES if name.count(".") == 1)]
    found = {name: sorted(importlib.import_module(name).__all__) for name in modules}
    return {name: names for name, names in found.items() if names}


def test_names_of_the_last_version_are_still_offered() -> None:
    """``python -m tests.test_public_names`` writes them anew, on a release, or where one is given up on purpose."""
    lost = [
        f"{module}.{name}"
        for module, names in json.loads(NAMES.read_text(encoding="utf-8")).items()
        for name in names
        if not hasattr(importlib.import_module(module), name)
    ]
    assert not lost


if __name__ == "__main__":
    NAMES.write_text(json.dumps(public_names(), indent=1) + "\n", encoding="utf-8")
