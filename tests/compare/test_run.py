"""A comparison: its cells are made once, what fails is said and not dropped, and its files tell what it found."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart.compare import QUICK, Draws, Method, Prepared, Setting, compare
from headstart.compare import run as module
from headstart.compare.methods import odd, of_sampler
from headstart.compare.summary import ratios, summarised, verdict
from headstart.compute import Compute
from headstart.denoiser import Denoiser
from headstart.errors import ArtefactError, DenoiserError, InputError, MissingExtraError
from headstart.metrics import Reference
from headstart.noise import Noise
from headstart.report.comparison import comparison_table
from headstart.report.text import number
from headstart.sampler import classic

DATA = Noise(range(100)).normal((1, 4, 4))
REFERENCE = Reference.of(Noise(range(1000, 1100)).normal((1, 4, 4)), lambda x: x.flatten(1)[:, :4])


def normal(x: Tensor, sigma: Any) -> Tensor:
    """The denoiser of N(0, I)."""
    return x / (1 + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2)


def stub(
    name: str,
    shift: float = 0.0,
    kind: Any = "peer",
    made: list[tuple[str, int, int]] | None = None,
    **more: Any,
) -> Method:
    """A method whose samples are the right ones, shifted; it writes down what it prepares."""

    def prepare(setting: Setting, nfe: int) -> Prepared:
        if made is not None:
            made.append((name, nfe, setting.seed))

        def draw(denoiser: Denoiser, noise: Noise) -> Tensor:
            x = noise.normal((1, 4, 4))
            for _ in range(nfe):
                denoiser(x, torch.ones(len(x)))
            return x + shift

        return Prepared(draw, f"shifted by {shift:g}", 1.5)

    return Method(name, name.upper(), kind, "ours" if kind == "ours" else "diffusers", prepare, **more)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The comparison of a few stubs."""
    monkeypatch.setattr(module, "HEUN_35", stub("mark", 0.1, "reference", only=7))

    def run(*methods: Method, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr(module, "METHODS", {method.name: method for method in methods})
        drawn = {"nfe": (3, 4), "samples": 20, "seeds": 2}
        draws = Draws(**{name: options.pop(name, value) for name, value in drawn.items()})
        compute = Compute(options.pop("device", "cpu"), batch_size=options.pop("batch_size", 8))
        data, reference = options.pop("data", DATA), options.pop("reference", REFERENCE)
        options = {"sizes": QUICK, "draws": draws, "compute": compute, **options}
        return compare(normal, data, reference, tmp_path / "out", **options)

    return run


def test_what_is_finished_is_not_made_again_and_more_can_be_added(run: Any, tmp_path: Path) -> None:
    made: list[tuple[str, int, int]] = []
    first = run(stub("good", kind="ours", made=made))
    assert made == [("good", nfe, seed) for seed in (0, 1) for nfe in (3, 4)]
    again = run(stub("good", kind="ours", made=made))
    assert len(made) == 4
    assert again["rows"] == first["rows"]
    run(stub("good", kind="ours", made=made), stub("bad", 1.0, made=made), nfe=(3, 5), seeds=1)
    assert made[4:] == [("good", 5, 0), ("bad", 3, 0), ("bad", 5, 0)]
    with pytest.raises(InputError, match="another run"):
        run(stub("good"), samples=30)


def test_samples_of_the_plan_are_shown_on_their_way_and_kept_for_a_run_that_goes_on(run: Any, tmp_path: Path) -> None:
    def prepare(setting: Setting, nfe: int) -> Prepared:
        return of_sampler(classic((1, 4, 4), nfe), 1.0)

    plan = Method("plan", "Plan", "ours", "ours", prepare)
    for _ in range(2):
        run(plan, nfe=(3, 5), seeds=1)
        page = (tmp_path / "out" / "index.html").read_text()
        assert page.count('<li class="lane"') == 3
        assert [lane["nfe"] for lane in json.loads((tmp_path / "out" / "lanes.json").read_text())] == [3, 3, 35]
    (tmp_path / "out" / "lanes.json").write_text("[")
    with pytest.raises(ArtefactError, match=r"lanes.json is damaged"):
        run(plan, nfe=(3, 5), seeds=1)


@pytest.mark.parametrize(
    "change",
    [
        {"data": DATA + 0.5},
        {"reference": Reference.of(DATA, REFERENCE.features)},
        {"reference": Reference.of(Noise(range(1000, 1100)).normal((1, 4, 4)))},
        {"reference": Reference.of(Noise(range(1000, 1100)).normal((1, 4, 4)), lambda x: 2 * x.flatten(1))},
        {"version": "0.0"},
    ],
    ids=["data", "reference", "features", "other features", "version"],
)
def test_cells_of_other_data_or_another_version_are_refused(
    run: Any, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(stub("good"), seeds=1)
    if "version" in change:
        monkeypatch.setattr(module, "environment", lambda *_: {"headstart": "0.0"})
    with pytest.raises(InputError, match="another run"):
        run(stub("good"), seeds=1, **{key: value for key, value in change.items() if key != "version"})


def test_plans_are_not_taken_from_a_run_that_they_do_not_fit(run: Any, tmp_path: Path) -> None:
    places: list[Path] = []

    def prepare(setting: Setting, nfe: int) -> Prepared:
        places.append(setting.folder)
        return Prepared(lambda _, noise: noise.normal((1, 4, 4)), "noise")

    def folder(**options: Any) -> Path:
        (tmp_path / "out" / "cells.jsonl").unlink(missing_ok=True)
        run(Method("one", "One", "ours", "ours", prepare), seeds=1, nfe=(3,), **options)
        return places[-1]

    first = folder(description={"model": "a"})
    assert first.parent == tmp_path / "out" / "plans"
    assert folder(description={"model": "a"}, samples=30, batch_size=4) == first
    others = [
        folder(description={"model": "b"}),
        folder(description={"model": "a"}, data=DATA + 0.5),
        folder(description={"model": "a"}, sizes=replace(QUICK, pilot=20)),
        folder(description={"model": "a"}, sigma_max=40.0),
    ]
    assert len({first, *others}) == 5


def test_a_failure_that_passes_is_made_up_for(run: Any, tmp_path: Path) -> None:
    """As memory that was short, or a package that failed once."""
    first = run(stub("good", float("nan")), seeds=1)
    assert first["summary"][0]["failed"]
    again = run(stub("good"), seeds=1)
    assert again["summary"][0]["failed"] is None
    assert again["summary"][0]["scores"]["frechet"]["mean"] > 0


def test_a_folder_that_cannot_be_used_is_not_a_failure_of_a_method(run: Any) -> None:
    def damaged(*_: Any) -> Prepared:
        raise ArtefactError("the plan is damaged")

    with pytest.raises(ArtefactError, match="the plan is damaged"):
        run(Method("broken", "Broken", "ours", "ours", damaged), stub("good"))


def test_scores_that_are_no_numbers_are_a_failed_cell(run: Any) -> None:
    found = run(stub("far", 3e38), stub("good"), seeds=1)
    assert "3e+38" in found["summary"][0]["failed"]


def test_a_saved_plan_is_shown_and_counts_for_nobody(run: Any, tmp_path: Path) -> None:
    kept = replace(stub("kept", -0.01, "saved"), family="saved", only=3)
    found = run(stub("good", 0.5, "ours"), stub("near", 0.6), plans=[kept], methods=["good", "near"], nfe=(3,))
    assert {row["ours"] for row in found["ratios"]} == {"GOOD"}
    assert {row["others"] for row in found["ratios"]} == {"NEAR"}
    lines = comparison_table(found).splitlines()
    assert [line.split("|")[1].strip() for line in lines if "**" in line] == ["GOOD"]
    assert any(line.startswith("A saved plan may have been fitted on what it is scored against") for line in lines)
    assert "A saved plan may have been" in (tmp_path / "out" / "index.html").read_text()


def test_a_floor_of_fewer_samples_says_so(run: Any, tmp_path: Path) -> None:
    said = "The floor is of 100 samples, all that are held out: it is higher than that of 101."
    found = run(stub("good"), samples=101, seeds=1)
    assert found["floor_n"] == 100
    assert said in comparison_table(found)
    assert said in (tmp_path / "out" / "index.html").read_text()


def test_the_reduction_of_align_your_steps_is_said(run: Any, tmp_path: Path) -> None:
    found = run(stub("align-your-steps"), stub("good"), seeds=1, sizes=replace(QUICK, aligned=7))
    assert "its bound is estimated on 7 samples, the paper's on 8,192" in comparison_table(found)
    assert "Align Your Steps is reduced" in (tmp_path / "out" / "index.html").read_text()
    assert "Align Your Steps" not in comparison_table(run(stub("good"), seeds=1, sizes=replace(QUICK, aligned=7)))


def test_a_method_that_cannot_spend_all_is_drawn_once_and_counted(run: Any) -> None:
    made: list[tuple[str, int, int]] = []
    found = run(stub("heun", made=made, affordable=odd), seeds=1)
    rows = [row for row in found["rows"] if row["method"] == "heun"]
    assert [(row["nfe"], row["evaluations"]) for row in rows] == [(3, 3.0), (4, 3.0)]
    assert made == [("heun", 3, 0)]
    assert "(3 spent)" in comparison_table(found)


def test_a_failure_is_recorded_and_ends_nothing_else(run: Any, tmp_path: Path) -> None:
    def crash(*_: Any) -> Prepared:
        raise IndexError("off the grid")

    broken = Method("broken", "Broken", "peer", "diffusers", crash, package="diffusers")
    found = run(stub("nan", float("nan")), stub("good"), stub("few", affordable=lambda _: 0), seeds=1)
    by_method = {row["method"]: row for row in found["summary"]}
    assert by_method["nan"]["scores"] is None
    assert by_method["nan"]["failed"] == "1 of 1 seeds: 20 of 20 samples are not finite"
    assert by_method["few"]["failed"].endswith("it cannot be made with so few evaluations")
    assert by_method["good"]["scores"]["frechet"]["mean"] > 0
    json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    assert "| NAN | failed | failed |" in comparison_table(found)

    pytest.importorskip("diffusers", reason="diffusers is not installed (extra: peers)")
    rows = run(broken, stub("good"), seeds=1)["rows"]
    assert [row["failed"] for row in rows if row["method"] == "broken"] == [
        "diffusers failed: IndexError: off the grid"
    ] * 2


def test_a_defect_of_our_own_is_not_hidden(run: Any) -> None:
    def crash(*_: Any) -> Prepared:
        raise IndexError("a defect")

    with pytest.raises(IndexError, match="a defect"):
        run(Method("broken", "Broken", "ours", "ours", crash))


def test_a_network_that_fails_everywhere_is_an_error(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEUN_35", stub("mark", float("nan"), "reference", only=7))
    with pytest.raises(DenoiserError, match="not one of 2 cells could be made"):
        run(stub("nan", float("nan")), nfe=(3,), seeds=1)


def test_a_missing_package_is_skipped_aloud_or_refused_by_name(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise MissingExtraError("diffusers is not installed: pip install diffusers, or headstart[peers]")

    monkeypatch.setattr(module, "load", missing)
    peer, slow = stub("peer", package="diffusers"), stub("slow", slow=True)
    found = run(peer, stub("good"), slow, seeds=1)
    assert [skipped["method"] for skipped in found["skipped"]] == ["peer", "slow"]
    assert "* PEER: diffusers is not installed: pip install diffusers" in comparison_table(found)
    assert "peer" not in {row["method"] for row in found["rows"]}
    with pytest.raises(MissingExtraError, match=r"headstart\[peers\]"):
        run(peer, methods=["peer"])
    assert {row["method"] for row in run(slow, methods=["slow"], seeds=1)["rows"]} == {"slow", "mark"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ["magic"]}, "unknown method 'magic': expected one of good"),
        ({"methods": []}, "name at least one method"),
        ({"nfe": (0, 3)}, "evaluations of 1 or more"),
        ({"samples": 1}, "2 samples or more"),
        ({"methods": ["good", "good"]}, "a name of its own"),
    ],
)
def test_what_makes_no_comparison_is_refused(run: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        run(stub("good"), **options)


def test_the_files_of_a_run(run: Any, tmp_path: Path) -> None:
    methods = (stub("good", kind="ours"), stub("near", 0.5), stub("far", 1.0), stub("known", -0.01, "oracle"))
    found = run(*methods, description={"model": "a <model>"})
    out = tmp_path / "out"
    assert json.loads((out / "results.json").read_text()) == found
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["rows"]) == 2 * (4 * 2 + 1)
    assert [row["seed"] for row in rows] == [str(row["seed"]) for row in found["rows"]]
    assert float(rows[0]["frechet"]) == found["rows"][0]["scores"]["frechet"]
    assert (out / "summary.md").read_text() == comparison_table(found) + "\n"
    for name in ("quality-nfe.svg", "quality-seconds.svg"):
        assert (out / name).read_text().startswith("<svg")
    grids = {path.name for path in (out / "grids").iterdir()}
    shown = {f"{method.name}-{nfe}-seed0.png" for method in methods for nfe in (3, 4)}
    beside = {f"{name}-{nfe}-seed0-nearest.png" for name in ("good", "known") for nfe in (3, 4)}
    assert grids == {"real.png", "mark-7-seed0.png"} | shown | beside
    page = (out / "index.html").read_text()
    assert "a &lt;model&gt;" in page
    assert page.count("data:image/png;base64,") == 6 + 2
    own = next(row for row in found["rows"] if row["method"] == "good" and row["nfe"] == 3)
    assert len(own["nearest"]) == 8
    assert f"GOOD, 3: at {number(own['nearest'][0])}, " in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_the_table_is_honest(run: Any) -> None:
    """The best is bold, an oracle never; the ratio is to the best of the others, whoever is ahead."""
    methods = (stub("good", 2.0, "ours"), stub("near", 0.0), stub("far", 3.0), stub("known", 0.0, "oracle"))
    found = run(*methods, seeds=3)
    lines = comparison_table(found).splitlines()
    bold = [line.split("|")[1].strip() for line in lines if "**" in line]
    assert bold == ["NEAR"]
    assert [row["others"] for row in found["ratios"]] == ["NEAR", "NEAR"]
    assert all(row["ratio"] > 2 and row["ahead"] == "others" for row in found["ratios"])
    assert "behind it at 3 and 4 evaluations" in found["verdict"]
    assert found["verdict"].startswith("A trial of 20 samples, too few to judge by.")
    assert any(line.startswith("* MARK: ") for line in lines)
    assert any(line.startswith("* real samples: ") for line in lines)


def row(method: str, kind: str, seed: int, value: float | None, seconds: float = 2.0) -> dict[str, Any]:
    scores = None if value is None else {"frechet": value, "swd": 1.0, "n": 1000, "n_reference": 9, "seed": 0}
    return {
        "method": method,
        "label": method,
        "kind": kind,
        "family": "ours",
        "nfe": 3,
        "seed": seed,
        "evaluations": 3.0,
        "seconds": seconds,
        "prepare_seconds": 1.0,
        "how": "so",
        "scores": scores,
        "failed": "lost" if value is None else None,
    }


def test_means_errors_and_medians_are_those_of_the_seeds() -> None:
    (found,) = summarised([row("a", "peer", i, x, s) for i, (x, s) in enumerate([(1.0, 9.0), (2.0, 2.0), (6.0, 3.0)])])
    assert found["scores"]["frechet"]["mean"] == 3
    assert found["scores"]["frechet"]["error"] == pytest.approx((7 / 3) ** 0.5)  # variance 7 of three seeds
    assert set(found["scores"]) == {"frechet", "swd"}
    assert found["seconds_per_1000"] == 3
    (broken,) = summarised([row("a", "peer", 0, 1.0), row("a", "peer", 1, None)])
    assert (broken["scores"], broken["failed"]) == (None, "1 of 2 seeds: lost")


@pytest.mark.parametrize(
    ("differences", "ahead"),
    [
        ((-1.0, -1.1, -0.9), "ours"),
        ((1.0, 1.1, 0.9), "others"),
        ((-1.0, -1.2, -0.2), "level"),  # -0.8 ± 0.31: 2.6 standard errors, of the 4.3 that three seeds take
        ((-1.0, -0.6), "level"),  # -0.8 ± 0.2: 4 standard errors, of the 12.7 that two seeds take
        ((-1.0, -0.9), "ours"),  # -0.95 ± 0.05: 19
    ],
)
def test_who_is_ahead_is_told_by_the_paired_differences(differences: tuple[float, ...], ahead: str) -> None:
    """However far apart the seeds themselves are."""
    theirs = [2.0, 8.0, 5.0][: len(differences)]
    rows = [row("p", "ours", i, b + d) for i, (b, d) in enumerate(zip(theirs, differences, strict=True))]
    rows += [row("q", "peer", i, b) for i, b in enumerate(theirs)]
    rows += [row(kind, kind, i, 0.1) for i in range(len(theirs)) for kind in ("oracle", "saved")]
    means = summarised(rows)
    (best,) = ratios(rows, means, [3], "frechet")
    assert (best["ahead"], best["seeds"]) == (ahead, len(theirs))
    assert best["ratio"] == pytest.approx(1 + sum(differences) / sum(theirs))
    said = verdict(means, [best], "frechet")
    assert "1 other" in said
    assert {"ours": "ahead of it", "others": "behind it", "level": "level with it"}[ahead] in said


def test_one_seed_puts_nobody_ahead() -> None:
    rows = [
        {**row(method, kind, 0, x), "nfe": nfe}
        for method, kind, x in (("p", "ours", 1.0), ("q", "peer", 4.0))
        for nfe in (3, 4)
    ]
    means = summarised(rows)
    best = ratios(rows, means, [3, 4], "frechet")
    assert [row["ahead"] for row in best] == [None, None]
    said = verdict(means, best, "frechet")
    assert "has 0.25 times its distance at 3 evaluations and 0.25 times at 4. One seed tells no error" in said
    assert "ahead of" not in said


def test_there_is_no_verdict_without_two_sides() -> None:
    rows = [row("q", "peer", 0, 1.0)]
    means = summarised(rows)
    assert ratios(rows, means, [3], "frechet") == []
    assert verdict(means, [], "frechet").startswith("No verdict")


def test_plans_alone_are_held_against_the_reference() -> None:
    rows = [row("plan", "ours", 0, 1.0), row("other", "ours", 0, 0.5), row("heun-35", "reference", 0, 4.0)]
    assert "the best of our plans has 0.12 times at 3 evaluations" in verdict(summarised(rows), [], "frechet")
