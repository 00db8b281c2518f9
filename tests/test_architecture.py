"""Who may import whom: the rules of the house, held by reading every import statement in the source.

A part is a package or module right below ``headstart``, and ``MAY_IMPORT`` says which other parts it may know. The
rules are checked on the whole tree, and on small made-up trees that break each of them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "headstart"

LEAVES = {
    "arrays",
    "artefact",
    "compute",
    "conditions",
    "deprecation",
    "environment",
    "errors",
    "extras",
    "files",
    "large",
    "locks",
    "noise",
    "philox",
    "processes",
    "progress",
    "registry",
    "saved",
    "schemas",
}
CONTRACT = LEAVES | {"denoiser"}
BASE = CONTRACT | {"schedule", "solver", "targets"}
PLANNED = BASE | {"profile", "initialization", "budget"}
BELOW = PLANNED | {
    "trajectory",
    "citation",
    "sampler",
    "shards",
    "latents",
    "plan",
    "metrics",
    "data",
    "unimodality",
    "predictor",
    "distill",
    "choose",
}

#: What each part may import, besides itself. ``models`` and everything after it sit on top.
MAY_IMPORT: Mapping[str, set[str]] = {
    "arrays": {"errors"},
    "artefact": {"errors", "files"},
    "environment": set(),
    "errors": set(),
    "extras": {"errors"},
    "files": {"deprecation", "errors", "locks"},
    "large": {"errors"},
    "locks": set(),
    "processes": {"errors", "extras"},
    "progress": set(),
    "registry": {"errors"},
    "saved": {"arrays", "errors"},
    "schemas": {"arrays"},
    "citation": BASE | {"initialization"},
    "noise": {"errors", "philox"},
    "philox": set(),
    "deprecation": set(),
    "compute": {"errors", "noise", "processes", "progress"},
    "conditions": {"arrays", "errors", "large", "noise"},
    "denoiser": LEAVES,
    "schedule": CONTRACT,
    "solver": CONTRACT | {"schedule"},
    "targets": CONTRACT,
    "metrics": {"arrays", "deprecation", "errors", "files", "noise", "processes", "progress", "registry"},
    "data": {"arrays", "artefact", "errors", "extras", "files", "large", "progress"},
    "trajectory": BASE,
    "profile": BASE | {"trajectory"},
    "initialization": BASE,
    "budget": BASE | {"profile", "initialization"},
    "sampler": BASE | {"initialization", "citation"},
    "shards": BASE | {"data", "sampler"},
    "latents": {"arrays", "errors"},
    "plan": PLANNED | {"citation", "latents", "metrics", "sampler", "trajectory"},
    "distill": BASE | {"initialization", "metrics"},
    "unimodality": {"errors", "noise", "progress"},
    "predictor": CONTRACT | {"schedule", "profile"},
    "choose": BELOW - {"choose"},
    "models": BELOW,
    "integrations": BELOW | {"models"},
    "report": BELOW,
    "demo": BELOW | {"models", "integrations", "report"},
    "compare": BELOW | {"models", "integrations", "report"},
    "reproduce": BELOW | {"report", "compare"},
    "serve": BELOW | {"models", "report"},
    "cli": BELOW | {"models", "integrations", "report", "demo", "compare", "reproduce", "serve"},
    "__main__": {"cli"},
}

#: Libraries that show things, and the parts that show them.
SHOWN_BY = {
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "matplotlib": {"report"},
    "rich": {"cli"},
    "typer": {"cli"},
}

#: Parts that are nothing without an extra. Their modules import its libraries at once, but for the part itself, which
#: says what is missing.
BEHIND = {
    "rich": "cli",
    "typer": "cli",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
}

#: Distributions whose modules have another name.
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}


@dataclass(frozen=True)
class Import:
    """One imported module: ``name`` in full, where it stands, and whether it runs when the file is imported."""

    file: Path
    line: int
    name: str
    at_once: bool

    def __str__(self) -> str:
        return f"{self.file.as_posix()}:{self.line} imports {self.name}"


def imports_of(file: Path, source: Path) -> Iterator[Import]:
    """Every import of a file, also inside functions, by its full name."""
    tree = ast.parse((source / file).read_text(encoding="utf-8"), str(file))
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(outer)
    } | {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING"
        for node in ast.walk(outer)
    }
    package = ["headstart", *file.parts[:-1]]
    for node in ast.walk(tree):
        at_once = id(node) not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, at_once)
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            if module != "headstart":
                yield Import(file, node.lineno, module, at_once)
                continue
            for alias in node.names:
                found = (source / alias.name).is_dir() or (source / f"{alias.name}.py").is_file()
                yield Import(file, node.lineno, f"headstart.{alias.name}" if found else "headstart", at_once)


def part_of(file: Path) -> str:
    """``schedule`` for schedule/base.py, ``plan`` for plan.py."""
    return file.parts[0].removesuffix(".py")


def files_of(source: Path) -> list[Path]:
    return sorted(path.relative_to(source) for path in source.rglob("*.py"))


def house_violations(source: Path) -> list[str]:
    """Imports between the parts of the house that ``MAY_IMPORT`` does not allow."""
    wrong = []
    for file in files_of(source):
        part = part_of(file)
        if file == Path("__init__.py"):
            continue
        if part not in MAY_IMPORT:
            wrong.append(f"{file.as_posix()} belongs to no known part: say in MAY_IMPORT what {part!r} may import")
            continue
        for item in imports_of(file, source):
            root, *rest = item.name.split(".")
            if root != "headstart":
                continue
            if not rest:
                wrong.append(f"{item}: name the module that defines it, since headstart itself imports everything")
            elif rest[0] != part and rest[0] not in MAY_IMPORT[part]:
                allowed = ", ".join(sorted(MAY_IMPORT[part])) or "nothing of the house"
                wrong.append(f"{item}: {part!r} may import {allowed}")
    return wrong


def library_violations(source: Path, required: set[str], optional: set[str]) -> list[str]:
    """Libraries that are undeclared, optional ones that are imported at once or twice, and display below the top."""
    wrong = []
    users = defaultdict(set)
    for file in files_of(source):
        for item in imports_of(file, source):
            library = item.name.split(".")[0]
            if library == "headstart" or library in sys.stdlib_module_names:
                continue
            if library in optional - required:
                if part_of(file) == BEHIND.get(library) and file.name != "__init__.py":
                    continue
                users[library].add(file.as_posix())
                if item.at_once:
                    wrong.append(f"{item} at once: an optional library is imported in the function that needs it")
            elif library not in required:
                wrong.append(f"{item}: declare it in pyproject.toml, or do without")
            if part_of(file) not in SHOWN_BY.get(library, {part_of(file)}):
                wrong.append(f"{item}: only {' and '.join(SHOWN_BY[library])} may import {library}")
    for library, files in users.items():
        if len(files) > 1:
            wrong.append(
                f"{', '.join(sorted(files))} import {library}: an optional library has one module that needs it"
            )
    return wrong


def statements_with_logic(source: Path) -> list[str]:
    """What ``headstart/__init__.py`` holds besides a docstring, imports, ``__all__`` and ``__version__``."""
    body = ast.parse((source / "__init__.py").read_text(encoding="utf-8")).body

    def plain(statement: ast.stmt) -> bool:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return True
        if isinstance(statement, ast.Expr):
            return isinstance(statement.value, ast.Constant)
        return isinstance(statement, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id in ("__all__", "__version__") for target in statement.targets
        )

    return [f"__init__.py:{s.lineno} does more than re-export: {ast.unparse(s)}" for s in body if not plain(s)]


def seed_streams(source: Path) -> list[str]:
    """Numbers of 2^60 and more outside ``noise.py``, whose table alone says where streams of seeds begin.

    Those of ``philox.py`` are the constants of its rounds.
    """

    def power(node: ast.AST) -> bool:
        if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Pow | ast.LShift):
            return False
        sides = node.left, node.right
        return all(isinstance(side, ast.Constant) for side in sides) and eval(ast.unparse(node)) >= 2**60

    wrong = []
    for file in files_of(source):
        tree = ast.parse((source / file).read_text(encoding="utf-8"))
        limits = {id(limit) for node in ast.walk(tree) if isinstance(node, ast.Compare) for limit in ast.walk(node)}
        for node in ast.walk(tree):
            big = isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value >= 2**60
            if (big or power(node)) and id(node) not in limits and file not in (Path("noise.py"), Path("philox.py")):
                wrong.append(f"{file.as_posix()}:{node.lineno} begins a stream of seeds: enter it in noise.Stream")
    return wrong


def declared() -> tuple[set[str], set[str]]:
    """The modules of the required and of the optional libraries in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def modules(requirements: list[str]) -> set[str]:
        names = [re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in requirements]
        return {MODULES.get(name, name).replace("-", "_") for name in names}

    extras = project["optional-dependencies"].values()
    return modules(project["dependencies"]), modules([requirement for extra in extras for requirement in extra])


#: The lines that a file may have unless its docstring has a paragraph that gives the reason.
LINES, REASON = 450, re.compile(r"^One file, though a long one: ", re.MULTILINE)


def long_files(source: Path) -> list[str]:
    """Files of more than 450 lines that do not say why they are not two."""
    wrong = []
    for file in files_of(source):
        text = (source / file).read_text(encoding="utf-8")
        if (lines := text.count("\n")) > LINES and not REASON.search(ast.get_docstring(ast.parse(text)) or ""):
            wrong.append(f"{file.as_posix()} has {lines} lines: split it, or give the reason in its docstring")
    return wrong


def report(violations: list[str]) -> str:
    return "\n".join([f"{len(violations)} imports break the rules of tests/test_architecture.py:", *violations])


def test_parts_import_only_what_they_may_know() -> None:
    violations = house_violations(SOURCE)
    assert not violations, report(violations)


def test_libraries_are_declared_and_stay_where_they_are_needed() -> None:
    violations = library_violations(SOURCE, *declared())
    assert not violations, report(violations)


def test_the_package_itself_only_re_exports() -> None:
    violations = statements_with_logic(SOURCE)
    assert not violations, report(violations)


def test_a_long_file_gives_the_reason() -> None:
    assert not long_files(SOURCE)


def test_a_long_file_without_a_reason_is_found(tmp_path: Path) -> None:
    head = '"""A file.\n\nOne file, though a long one: it is one.\n"""\n'
    source = tree(tmp_path, {"errors.py": "\n" * 451, "files.py": "\n" * 450, "noise.py": head + "\n" * 450})
    assert [said.split()[0] for said in long_files(source)] == ["errors.py"]


def test_streams_of_seeds_begin_in_one_table() -> None:
    assert not seed_streams(SOURCE)


def test_what_may_be_imported_has_no_circle() -> None:
    order: list[str] = []
    while rest := [part for part in MAY_IMPORT if part not in order]:
        ready = [part for part in rest if MAY_IMPORT[part] <= set(order)]
        assert ready, f"these parts may import each other in a circle: {', '.join(rest)}"
        order += ready


#: The longest signature, without self.
LONGEST = 12

#: Parts and functions that have more: a command's options are its signature, and ``fit`` is all of them at once.
LONGER = {("cli", None), ("choose", "fit")}

#: How the work is done: a function takes all of it as one ``Compute``, or is a front door that makes one.
HOW = {"device", "dtype", "batch_size", "progress"}

#: The front doors, by part and function.
DOORS = {
    ("choose", "fit"),
    ("choose", "fit_starts"),
    ("denoiser", "check"),
    ("demo", "run"),
    ("profile", "measure"),
    ("sampler", "sample"),
}


@dataclass(frozen=True)
class Signature:
    """The parameters of a function, without self and cls, and where it stands."""

    file: Path
    line: int
    name: str
    parameters: tuple[str, ...]

    @property
    def place(self) -> tuple[str, str]:
        return part_of(self.file), self.name

    def __str__(self) -> str:
        return f"{self.file.as_posix()}:{self.line} {self.name} has {len(self.parameters)} parameters"


def signatures(source: Path) -> Iterator[Signature]:
    for file in files_of(source):
        for node in ast.walk(ast.parse((source / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                found = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                names = [each.arg for each in found if each is not None and each.arg not in ("self", "cls")]
                yield Signature(file, node.lineno, node.name, tuple(names))


def long_signatures(source: Path) -> list[str]:
    """Signatures of more than 12 parameters: what goes together is one value."""
    return [
        f"{signature}: hand in what goes together as one frozen dataclass"
        for signature in signatures(source)
        if len(signature.parameters) > LONGEST and not LONGER & {signature.place, (part_of(signature.file), None)}
    ]


def scattered_compute(source: Path) -> list[str]:
    """Functions that take how the work is done in pieces. Device and type alone are PyTorch's own pair."""
    return [
        f"{signature}, {', '.join(sorted(pieces))} among them: take one Compute"
        for signature in signatures(source)
        if len(pieces := HOW & set(signature.parameters)) > 1
        and pieces != {"device", "dtype"}
        and part_of(signature.file) != "cli"
        and signature.place not in DOORS
    ]


def test_signatures_are_short() -> None:
    assert not long_signatures(SOURCE)


def test_how_the_work_is_done_is_handed_on_as_one_value() -> None:
    assert not scattered_compute(SOURCE)


def test_a_long_signature_is_found(tmp_path: Path) -> None:
    names = ", ".join(f"x{i}" for i in range(12))
    text = f"class A:\n    def right(self, {names}): pass\n    def wrong(self, {names}, *, y): pass\n"
    text += "def run(device, dtype): pass\ndef walk(device, batch_size): pass\n"
    source = tree(tmp_path, {"schedule/base.py": text, "cli/fit.py": f"def fit({names}, y): pass\n"})
    assert [said.split(":")[1] for said in long_signatures(source)] == ["3 wrong has 13 parameters"]
    assert [said.split(":")[1] for said in scattered_compute(source)] == [
        "5 walk has 2 parameters, batch_size, device among them"
    ]


# The rules themselves, on made-up trees.

REQUIRED, OPTIONAL = {"torch"}, {"diffusers", "matplotlib", "torch", "typer"}


def tree(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"__init__.py": '"""House."""\n', **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def violations_in(source: Path) -> list[str]:
    return house_violations(source) + library_violations(source, REQUIRED, OPTIONAL) + statements_with_logic(source)


def test_a_tree_that_keeps_the_rules_passes(tmp_path: Path) -> None:
    source = tree(
        tmp_path,
        {
            "__init__.py": '"""House."""\nfrom headstart.plan import Plan\n__all__ = ["Plan"]\n__version__ = "1"\n',
            "errors.py": "import math\n",
            "schedule/__init__.py": "from .base import Schedule\n",
            "schedule/base.py": "from headstart.errors import E\nfrom . import classic\n",
            "schedule/classic.py": "import torch.nn\n",
            "plan.py": "from headstart import budget, errors\nfrom headstart.schedule.base import Schedule\n",
            "budget.py": "",
            "integrations/diffusers.py": "def pipeline():\n    import diffusers\n    return diffusers\n",
            "cli/__init__.py": "def main():\n    from headstart.cli.application import app\n    app()\n",
            "cli/application.py": "import typer\nfrom headstart.plan import Plan\n",
            "report/drawing.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import matplotlib\n",
        },
    )
    assert violations_in(source) == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("schedule/base.py", "from headstart.plan import Plan\n", "schedule/base.py:1 imports headstart.plan"),
        ("solver/euler.py", "from ..report import page\n", "solver/euler.py:1 imports headstart.report"),
        ("solver/euler.py", "from .. import cli\n", "solver/euler.py:1 imports headstart.cli"),
        (
            "metrics/frechet.py",
            "import headstart.denoiser\n",
            "'metrics' may import arrays, deprecation, errors, files",
        ),
        ("plan.py", "def f():\n    from headstart import models\n", "plan.py:2 imports headstart.models"),
        ("report/page.py", "from headstart import cli\n", "report/page.py:1 imports headstart.cli"),
        ("errors.py", "from headstart.noise import Noise\n", "'errors' may import nothing of the house"),
        ("budget.py", "from headstart import Plan\n", "name the module that defines it"),
        ("helpers.py", "", "say in MAY_IMPORT what 'helpers' may import"),
        ("integrations/hub.py", "import diffusers\n", "imports diffusers at once"),
        ("noise.py", "import pandas as pd\n", "declare it in pyproject.toml"),
        ("metrics/bar.py", "def f():\n    import typer\n", "only cli may import typer"),
        ("cli/__init__.py", "import typer\n", "imports typer at once"),
        ("report/page.py", "import matplotlib\n", "imports matplotlib at once"),
        ("__init__.py", "def fit():\n    pass\n", "does more than re-export"),
        ("__init__.py", "print(__name__)\n", "does more than re-export"),
    ],
)
def test_each_rule_can_be_broken(tmp_path: Path, file: str, text: str, said: str) -> None:
    modules = {f"{name}.py": "" for name in ("denoiser", "noise", "plan")}
    packages = {f"{name}/__init__.py": "" for name in ("cli", "models", "report")}
    violations = violations_in(tree(tmp_path, {**modules, **packages, file: text}))
    assert len(violations) == 1
    assert said in violations[0]


def test_an_optional_library_has_one_module(tmp_path: Path) -> None:
    text = "def f():\n    import diffusers\n"
    violations = violations_in(tree(tmp_path, {"integrations/a.py": text, "models/b.py": text}))
    assert len(violations) == 1
    assert violations[0].startswith("integrations/a.py, models/b.py import diffusers")


@pytest.mark.parametrize(
    "text", ["SEEDS = 2**61\n", "SEEDS = 3 * 2**60\n", "SEEDS = 1 << 62\n", f"x = range({2**60}, {2**60} + 4)\n"]
)
def test_a_stream_of_seeds_outside_the_table_is_found(tmp_path: Path, text: str) -> None:
    assert seed_streams(tree(tmp_path, {"choose/pilot.py": text}))[0].startswith("choose/pilot.py:1 begins a stream")
    assert not seed_streams(tree(tmp_path / "table", {"noise.py": text}))
    assert not seed_streams(tree(tmp_path / "limit", {"choose/pilot.py": "if seed >= 2**63: pass\n"}))


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Every docstring of a file, with the place it stands at."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield f"{file.as_posix()}:{getattr(node, 'lineno', 1)}", text


def test_a_docstring_says_what_the_thing_is_or_does() -> None:
    """It does not begin with "What", which leaves a reader to find the noun."""
    folders = (SOURCE, *(ROOT / name for name in ("benchmarks", "experiments", "training")))
    found = [
        place
        for folder in folders
        for file in folder.rglob("*.py")
        for place, text in docstrings(file)
        if text.startswith("What ")
    ]
    assert not found


def test_the_library_is_light_to_import() -> None:
    """What shows things, reads images or fits with other libraries is imported by the function that needs it."""
    heavy = ("matplotlib", "typer", "rich", "jinja2", "markupsafe", "pydantic", "sklearn", "scipy", "PIL", "zuko")
    code = f"import sys, headstart; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_fit_is_short_enough_to_be_read_against_its_steps() -> None:
    """At most 100 lines below its docstring."""
    tree = ast.parse((SOURCE / "choose" / "fit.py").read_text(encoding="utf-8"))
    *_, fit = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "fit")
    assert fit.end_lineno is not None
    assert fit.end_lineno - fit.body[1].lineno < 100
