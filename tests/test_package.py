"""The wheel and the sdist: whole, small, and enough in an environment that holds what they declare and nothing else."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]

#: The most that the wheel may weigh, in bytes: it brings data and a network.
HEAVIEST = 12e6

#: Code that needs no extra, and that needs each.
CORE = """
from headstart import Noise, Plan, fit
from headstart.targets import gmm25

plan = fit(gmm25(), gmm25().sample(Noise(range(200))), nfe=2, criterion="budget", schedule="rho")
plan.save("plan")
assert Plan.load("plan").sample(gmm25(), 3).shape == (3, 2)
"""
NEEDS = {
    "": CORE,
    "cli": "from headstart.cli import app; import headstart.cli.application",
    "report": CORE + "from headstart.report import write_plan_page; write_plan_page(plan, 'plan.html')",
    "flows": "import torch; from headstart.initialization import Flow, Training\n"
    "Flow.fit(torch.randn(200, 2), hidden=(8,), transforms=1, training=Training(epochs=1))",
    "hub": CORE + "plan.save_pretrained('shared')",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it alone."""
    pytest.importorskip("hatchling", reason="the extra test brings it")
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "sdist")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    build(source, folder, "wheel")
    return folder


def build(source: Path, folder: Path, kind: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
    )


@pytest.mark.slow
def test_the_wheel_is_whole_and_light(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < HEAVIEST
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert names == {path.removeprefix("src/") for path in tracked.split()}


@pytest.mark.slow
@pytest.mark.parametrize("extra", NEEDS, ids=lambda extra: extra or "core")
def test_a_clean_environment_needs_what_is_declared_and_nothing_else(built: Path, extra: str, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        declared = archive.read(metadata).decode()
    requirements = re.findall(r"^Requires-Dist: (.+)$", declared, re.MULTILINE)
    for name in closure(requirements, extra):
        link(name, site)
    command = [str(tmp_path / "env" / "bin" / "python"), "-W", "error::UserWarning:headstart", "-c", NEEDS[extra]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def closure(requirements: list[str], extra: str) -> set[str]:
    """The names of all distributions that requirements bring, one after the other."""
    found: set[str] = set()
    rest = [(text, extra) for text in requirements]
    while rest:
        requirement, chosen = Requirement(rest[0][0]), rest.pop(0)[1]
        marker = requirement.marker
        if (marker and not marker.evaluate({"extra": chosen})) or requirement.name in found | {"headstart"}:
            continue
        found.add(requirement.name)
        for more in importlib.metadata.requires(requirement.name) or []:
            rest += [(more, part) for part in (*requirement.extras, "")]
    return found


def link(name: str, site: Path) -> None:
    """Let an environment have an installed distribution, without a copy."""
    files = importlib.metadata.files(name) or []
    tops = {file.parts[0] for file in files if not file.parts[0].startswith("..") and file.parts[0] != "__pycache__"}
    for top in tops:
        there, here = Path(str(importlib.metadata.distribution(name).locate_file(top))), site / top
        if not here.exists():
            here.symlink_to(there)


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    """Of the core and of the extras that constraints-oldest.txt is for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (project["optional-dependencies"][extra] for extra in ("cli", "report", "flows"))
    wanted = [Requirement(text) for text in (*project["dependencies"], *(text for own in extras for text in own))]
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert oldest.keys() == {requirement.name for requirement in wanted}
    for requirement in wanted:
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        assert Version(bound.version) == Version(oldest[requirement.name])


def test_the_list_of_changes_has_a_section_for_every_version() -> None:
    versions = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[0] == ("Unreleased", "")
    names = [name for name, _ in versions[1:]]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) for _, day in versions[1:])
    assert names == sorted(names, key=numbers, reverse=True)


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def cited() -> Iterator[dict[str, object]]:
    """The object of CITATION.cff, and the references in it."""
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    yield found
    yield from found["references"]


def test_the_citation_is_in_its_format() -> None:
    """Of version 1.2.0: what is required of the file and of a reference, and when this version was released."""
    whole, *references = cited()
    assert {"cff-version", "message", "title", "authors"} <= set(whole)
    assert whole["cff-version"] == "1.2.0"
    assert f"## [{whole['version']}] - {whole['date-released']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert references
    for reference in references:
        assert {"type", "title", "authors"} <= set(reference)
        assert reference["type"] in {"article", "conference-paper", "software", "generic"}
