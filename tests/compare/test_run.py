"""A comparison: its cells are made once, what fails is said and not dropped, and its files tell what it found."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart.compare import QUICK, Arm, Sampler, Setting, compare
from headstart.compare import run as module
from headstart.compare.arms import odd
from headstart.compare.summary import ratios, summarised, verdict
from headstart.denoiser import Denoiser
from headstart.errors import DenoiserError, InputError, MissingExtraError
from headstart.metrics import Reference
from headstart.noise import Noise
from headstart.report.comparison import comparison_table

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
) -> Arm:
    """An arm whose samples are the right ones, shifted; it writes down what it prepares."""

    def prepare(setting: Setting, nfe: int) -> Sampler:
        if made is not None:
            made.append((name, nfe, setting.seed))

        def draw(denoiser: Denoiser, noise: Noise) -> Tensor:
            x = noise.normal((1, 4, 4))
            for _ in range(nfe):
                denoiser(x, torch.ones(len(x)))
            return x + shift

        return Sampler(draw, f"shifted by {shift:g}", 1.5)

    return Arm(name, name.upper(), kind, "ours" if kind == "ours" else "diffusers", prepare, **more)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The comparison of a few stubs."""
    monkeypatch.setattr(module, "HEUN_35", stub("mark", 0.1, "reference", only=7))

    def run(*arms: Arm, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr(module, "ARMS", {arm.name: arm for arm in arms})
        options = {"nfe": (3, 4), "samples": 20, "seeds": 2, "sizes": QUICK, "batch_size": 8, **options}
        return compare(normal, DATA, REFERENCE, tmp_path / "out", **options)

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


def test_an_arm_that_cannot_spend_all_is_drawn_once_and_counted(run: Any) -> None:
    made: list[tuple[str, int, int]] = []
    found = run(stub("heun", made=made, affordable=odd), seeds=1)
    rows = [row for row in found["rows"] if row["arm"] == "heun"]
    assert [(row["nfe"], row["evaluations"]) for row in rows] == [(3, 3.0), (4, 3.0)]
    assert made == [("heun", 3, 0)]
    assert "(3 spent)" in comparison_table(found)


def test_a_failure_is_recorded_and_ends_nothing_else(run: Any, tmp_path: Path) -> None:
    def crash(*_: Any) -> Sampler:
        raise IndexError("off the grid")

    broken = Arm("broken", "Broken", "peer", "diffusers", crash, package="diffusers")
    found = run(stub("nan", float("nan")), stub("good"), stub("few", affordable=lambda _: 0), seeds=1)
    by_arm = {row["arm"]: row for row in found["summary"]}
    assert by_arm["nan"]["scores"] is None
    assert by_arm["nan"]["failed"] == "1 of 1 seeds: 20 of 20 samples are not finite"
    assert by_arm["few"]["failed"].endswith("it cannot be made with so few evaluations")
    assert by_arm["good"]["scores"]["frechet"]["mean"] > 0
    json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    assert "| NAN | failed | failed |" in comparison_table(found)

    pytest.importorskip("diffusers", reason="diffusers is not installed (extra: peers)")
    rows = run(broken, stub("good"), seeds=1)["rows"]
    assert [row["failed"] for row in rows if row["arm"] == "broken"] == [
        "diffusers failed: IndexError: off the grid"
    ] * 2


def test_a_defect_of_our_own_is_not_hidden(run: Any) -> None:
    def crash(*_: Any) -> Sampler:
        raise IndexError("a defect")

    with pytest.raises(IndexError, match="a defect"):
        run(Arm("broken", "Broken", "ours", "ours", crash))


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
    assert [skipped["arm"] for skipped in found["skipped"]] == ["peer", "slow"]
    assert "* PEER: diffusers is not installed: pip install diffusers" in comparison_table(found)
    assert "peer" not in {row["arm"] for row in found["rows"]}
    with pytest.raises(MissingExtraError, match=r"headstart\[peers\]"):
        run(peer, arms=["peer"])
    assert {row["arm"] for row in run(slow, arms=["slow"], seeds=1)["rows"]} == {"slow", "mark"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arms": ["magic"]}, "unknown arm 'magic': expected one of good"),
        ({"arms": []}, "name at least one arm"),
        ({"nfe": (0, 3)}, "evaluations of 1 or more"),
        ({"samples": 1}, "2 samples or more"),
        ({"arms": ["good", "good"]}, "a name of its own"),
    ],
)
def test_what_makes_no_comparison_is_refused(run: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        run(stub("good"), **options)


def test_the_files_of_a_run(run: Any, tmp_path: Path) -> None:
    arms = (stub("good", kind="ours"), stub("near", 0.5), stub("far", 1.0), stub("known", -0.01, "oracle"))
    found = run(*arms, description={"model": "a <model>"})
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
    assert grids == {"real.png", "mark-7.png"} | {f"{arm.name}-{nfe}.png" for arm in arms for nfe in (3, 4)}
    page = (out / "index.html").read_text()
    assert "a &lt;model&gt;" in page
    assert page.count("data:image/png;base64,") == 6
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_the_table_is_honest(run: Any) -> None:
    """The best is bold, an oracle never; the ratio is to the best of the others, whoever is ahead."""
    found = run(stub("good", 0.5, "ours"), stub("near", 0.0), stub("far", 1.0), stub("known", 0.0, "oracle"))
    lines = comparison_table(found).splitlines()
    bold = [line.split("|")[1].strip() for line in lines if "**" in line]
    assert bold == ["NEAR"]
    assert [row["others"] for row in found["ratios"]] == ["NEAR", "NEAR"]
    assert all(row["ratio"] > 2 and row["ahead"] == "others" for row in found["ratios"])
    assert "behind it at 3 and 4 evaluations" in found["verdict"]
    assert found["verdict"].startswith("A trial of 20 samples, too few to judge by.")
    assert any(line.startswith("| *MARK* |") for line in lines)
    assert any(line.startswith("| *real samples* |") for line in lines)


def row(arm: str, kind: str, seed: int, value: float | None, seconds: float = 2.0) -> dict[str, Any]:
    scores = None if value is None else {"frechet": value, "swd": 1.0, "n": 1000, "n_reference": 9, "seed": 0}
    return {
        "arm": arm,
        "label": arm,
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


@pytest.mark.parametrize(("ours", "ahead"), [(1.0, "ours"), (1.99, "level"), (3.0, "others")])
def test_who_is_ahead_is_told_by_two_standard_errors(ours: float, ahead: str) -> None:
    rows = [row("p", "ours", i, ours + d) for i, d in enumerate((-0.02, 0.02))]
    rows += [row("q", "peer", i, 2 + d) for i, d in enumerate((-0.02, 0.02))]
    rows += [row("o", "oracle", i, 0.1) for i in range(2)]
    (best,) = ratios(summarised(rows), [3], "frechet")
    assert best["ahead"] == ahead
    assert best["ratio"] == pytest.approx(ours / 2)
    assert "1 other" in verdict(summarised(rows), [best], "frechet")


def test_there_is_no_verdict_without_two_sides() -> None:
    means = summarised([row("q", "peer", 0, 1.0)])
    assert ratios(means, [3], "frechet") == []
    assert verdict(means, [], "frechet").startswith("No verdict")
