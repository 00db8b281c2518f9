"""Citations: every method has its reference, every reference is used once and well-formed, and a plan names its own."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from headstart import citation
from headstart.budget import Budget, Estimate
from headstart.citation import BUDGET, IMAGES, PACKAGES, PILOT, bibtex, citations, references
from headstart.initialization import INITIALIZATIONS, Gaussian, Isotropic
from headstart.metrics import METRICS
from headstart.noise import Noise
from headstart.plan import Candidate, Plan, Record
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import (
    GITS,
    RULES,
    Defect,
    Length,
    ShortestPaths,
    cosine,
    equidistribute,
    get_rule,
    linear_vp,
    log_linear,
    published_steps,
    rho_grid,
    rule_names,
    tangent,
)
from headstart.solver import SOLVERS, DPMSolverPP2M, Euler, Heun
from headstart.targets import gmm25

ROOT = Path(__file__).parents[1]
LEVELS = np.geomspace(10.0, 0.01, 9)


@pytest.fixture(scope="module")
def profile() -> Profile:
    law = gmm25()
    data = law.sample(Noise(range(64)))
    return Profile.measure(law, data, samples=32, cost_samples=16, seed=0)


def fields(entry: str) -> dict[str, str]:
    """The fields of an entry, by counting braces."""
    head = re.match(r"@(\w+)\{(\w+),", entry)
    assert head is not None, entry
    found, rest = {"type": head[1], "key": head[2]}, entry[head.end() :]
    while name := re.match(r"\s*(\w+) = \{", rest):
        depth, end = 1, name.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(rest[end], 0)
            end += 1
        assert name[1] not in found, f"{head[2]} has two fields {name[1]}"
        found[name[1]] = rest[name.end() : end - 1]
        rest = rest[end:].removeprefix(",")
    assert rest == "\n}", f"{head[2]} ends in {rest!r}"
    return found


def keys_of(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE)


@pytest.mark.parametrize("key", references())
def test_an_entry_has_what_a_bibliography_needs(key: str) -> None:
    found = fields(references()[key])
    assert found["key"] == key
    venue = {"inproceedings": "booktitle", "article": "journal", "misc": "eprint", "software": "url"}[found["type"]]
    assert all(found[name] for name in ("title", "author", venue))
    assert 1950 < int(found["year"]) <= 2026
    first = found["author"].split(",")[0]
    plain = re.sub(r"\{\\.(\w)\}|\W", r"\1", first).lower()
    assert key.startswith(plain + found["year"]), "a key is the first author's surname, the year and a word"
    if "eprint" in found:
        assert re.fullmatch(r"\d{4}\.\d{5}", found["eprint"])
        assert found["archiveprefix"] == "arXiv"
        # Where the preprint is of another year than the paper, it is of an earlier one.
        assert 2000 + int(found["eprint"][:2]) <= int(found["year"])


def test_each_reference_is_written_down_once_and_used() -> None:
    text = resources.files("headstart").joinpath("references.bib").read_text(encoding="utf-8")
    assert max(Counter(keys_of(text)).values()) == 1
    assert keys_of(text) == list(references())
    eprints = [fields(entry)["eprint"] for entry in references().values() if "eprint" in fields(entry)]
    assert len(eprints) == len(set(eprints))
    parts = [part.cites for part in (*INITIALIZATIONS.values(), *SOLVERS.values(), *RULES.values(), *METRICS.values())]
    more = [citations("", name, "") for name in ("dynamic opt", "distilled from data")]
    used = {key for keys in (*parts, *more, *PACKAGES.values()) for key in keys} | {*BUDGET, *PILOT, *IMAGES}
    assert used == set(references())


@pytest.mark.parametrize("kind", sorted(RULES.keys() - {"custom"}))
def test_kinds_of_schedule_are_known_by_the_names_that_they_are_asked_for_by(kind: str) -> None:
    assert citations("", kind, "")


def test_every_start_and_every_solver_has_a_reference() -> None:
    assert all(part.cites for part in (*INITIALIZATIONS.values(), *SOLVERS.values()))


def test_every_start_but_noise_cites_the_paper_on_learned_starts() -> None:
    assert {name for name, family in INITIALIZATIONS.items() if "fassina2026initialization" not in family.cites} == {
        "isotropic"
    }


@pytest.mark.parametrize("kind", rule_names())
def test_every_kind_of_schedule_has_a_reference(kind: str, profile: Profile) -> None:
    assert citations("", get_rule(kind)(profile, 3, 2.0, 0.1).name, "") == RULES[kind].cites != ()


def test_schedules_made_by_hand_or_from_trajectories_are_known_by_their_names() -> None:
    paths = {kind: ShortestPaths.of(LEVELS, LEVELS / 10, 1, 3, kind, nodes=20) for kind in ("ddpm", "opt")}
    law, teacher = gmm25(), log_linear(4, 10.0, 0.1, final_zero=False)
    x = 10 * Noise(range(4)).normal((2,))
    gits = GITS.of(law, [x, *Euler().trajectory(law, x, teacher)], teacher)
    expected = {
        rho_grid(3, 10.0, 0.01).name: ("karras2022elucidating",),
        log_linear(3, 10.0, 0.01).name: ("song2021denoising", "lu2022dpm"),
        cosine(3, 10.0, 0.01).name: ("nichol2021improved",),
        linear_vp(3, 10.0, 0.01).name: ("song2021score",),
        tangent(3, 10.0, 0.01).name: ("sabour2024align",),
        published_steps("stable-diffusion-xl", 4).name: ("sabour2024align",),
        equidistribute(Length(LEVELS, np.ones(8), 1), 3, 10.0, 0.01).name: ("williams2024score",),
        paths["ddpm"].schedule(2, 10.0).name: ("watson2021learning", "sabour2024align"),
        paths["opt"].schedule(2, 10.0).name: ("watson2021learning", "sabour2024align", "bao2022analytic"),
        gits.schedule(2).name: ("chen2024trajectory",),
    }
    assert {name: citations("", name, "") for name in expected} == expected


def named_in_the_source() -> set[str]:
    """The names that the code writes down for schedules; what it fills in is an x."""
    names = set()
    for path in sorted((ROOT / "src" / "headstart").rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for call in calls:
            makes = getattr(call.func, "id", "") == "Schedule"
            given = [k.value for k in call.keywords if k.arg == "name" and (makes or path.parent.name == "schedule")]
            for value in (*given, *(call.args[1:2] if makes else ())):
                if isinstance(value, ast.Constant):
                    names.add(str(value.value))
                if isinstance(value, ast.JoinedStr):
                    names.add("".join(str(v.value) if isinstance(v, ast.Constant) else "x" for v in value.values))
    return names


def test_every_name_that_the_source_gives_a_schedule_has_a_reference() -> None:
    names = named_in_the_source()
    assert {"LD3", "rho x", "linear VP", "align your steps", "GITS x", "least error", "distilled from x"} <= names
    assert [name for name in sorted(names) if not citations("", name, "")] == []


def test_a_kind_is_a_whole_word() -> None:
    assert citations("", "rhombic", "") == ()
    assert citations("", "rho", "") == citations("", "rho 7", "") != ()
    assert "szekely2013energy" in citations("", "distilled from data", "")
    assert "szekely2013energy" not in citations("", "distilled from trajectory", "")


def test_parts_of_ones_own_cite_nothing() -> None:
    assert citations("mine", "custom", "mine too") == ()
    assert bibtex(()) == ""


def test_a_whole_entry_stands_for_itself() -> None:
    entry = "@misc{me2026midpoint,\n  title = {Midpoint}\n}"
    assert bibtex([entry, "song2021score", entry]) == f"{entry}\n\n{references()['song2021score']}"


def test_a_reference_that_two_parts_share_comes_once() -> None:
    assert citations("isotropic", "rho 7", "heun") == ("song2021score", "karras2022elucidating")
    assert keys_of(bibtex(["song2021score", "lu2022dpm", "song2021score"])) == ["song2021score", "lu2022dpm"]


def test_a_sampler_cites_what_it_uses_and_nothing_else(profile: Profile) -> None:
    baseline = Sampler(Isotropic((2,)), rho_grid(18, 80.0, 0.002), Heun())
    assert keys_of(baseline.citation()) == ["song2021score", "karras2022elucidating"]
    start = Gaussian.fit(gmm25().sample(Noise(range(50))))
    learned = Sampler(start, Defect()(profile, 3, 2.0, 0.1), DPMSolverPP2M())
    parts = ["fassina2026initialization", "wang2024unreasonable", "williams2024score", "lu2022dpmpp"]
    assert keys_of(learned.citation()) == parts
    assert learned.citation() == "\n\n".join(references()[key] for key in parts)


def test_a_plan_cites_its_budget_and_the_distance_of_its_pilot(profile: Profile) -> None:
    plan = Plan(Isotropic((2,)), rho_grid(4, 2.0, 0.1), Euler(), Budget(Estimate(1.0, 0.1), (0.5,)), profile)
    assert "fassina2026initialization" in keys_of(plan.citation())
    screened = Candidate("isotropic", 2.0, "rho", 0.1, "euler", 1.0, 0.1, 2.0)
    assert not set(PILOT) & set(keys_of(replace(plan, record=Record((screened,))).citation()))
    piloted = replace(plan, record=Record((screened, replace(screened, pilot=0.3))))
    assert set(PILOT) <= set(keys_of(piloted.citation()))
    assert not set(IMAGES) & set(keys_of(piloted.citation()))
    images = replace(piloted, profile=replace(profile, shape=(1, 8, 8)))
    assert {*PILOT, *IMAGES} <= set(keys_of(images.citation()))


def test_the_references_agree_with_the_file_that_github_reads() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for key in ("fassina2026initialization", "williams2024score"):
        found = fields(references()[key])
        assert found["title"] in text
        assert found["eprint"] in text


def test_the_references_agree_with_the_docstrings() -> None:
    """Every preprint that is cited here is named in the source with this number, where the source gives one."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src" / "headstart").rglob("*.py")))
    without = {  # named in the source by their venue alone
        "karras2022elucidating",
        "song2021denoising",
        "lu2022dpm",
        "ho2020denoising",
        "nichol2021improved",
        "karras2018progressive",
    }
    for key, entry in references().items():
        found = fields(entry)
        if key not in without and "eprint" in found:
            assert found["eprint"] in source, key


@pytest.mark.parametrize(
    ("name", "registry"),
    [("STARTS", INITIALIZATIONS), ("SCHEDULES", RULES), ("SOLVERS", SOLVERS)],
    ids=["starts", "schedules", "solvers"],
)
def test_the_tables_of_before_are_deprecated(name: str, registry: dict[str, type]) -> None:
    with pytest.warns(DeprecationWarning, match=f"citation.{name} is deprecated"):
        table = getattr(citation, name)
    assert table == {part: registry[part].cites for part in registry}
