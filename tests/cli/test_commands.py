"""The commands do what they say, and standard output holds the answer alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.main import get_command

import headstart
from headstart.choose.starts import known_starts
from headstart.cli import app, demo, evaluate, fit, inspect, sample
from headstart.cli.common import COMMANDS, NAMES
from headstart.cli.real import split
from headstart.data import fashion_mnist
from headstart.errors import ArtefactError, DataError, InputError
from headstart.metrics import METRICS
from headstart.plan import Plan
from headstart.report import results_table
from headstart.schedule import rule_names
from headstart.solver import solver_names

Run = Callable[..., Any]
MODEL = "python:headstart_cli_models"


def load(out: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(out / "samples.npz") as archive:
        return {name: archive[name] for name in archive.files}


def test_help_names_the_commands_and_shows_examples(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    for name, command in COMMANDS.items():
        assert f" {name} " in run("--help").out
        page = run(name, "--help")
        assert page.code == 0
        assert "Examples:" in page.out
        assert all(line.startswith(f"headstart {name}") and line in page.out for line in command.examples)
        assert "--json" in page.out
        assert ("--device" in page.out and "--batch-size" in page.out) or name in ("inspect", "export", "convert")
    assert run("-h").out == run("--help").out


def test_help_shows_all_that_it_says_and_the_names_of_the_parts_there_are(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in brackets would be taken for a style, and not be shown."""
    monkeypatch.setenv("COLUMNS", "140")
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name in COMMANDS:
        assert not [p.name for p in group.commands[name].params if "[" in (getattr(p, "help", None) or "")]
        assert not [place for place in NAMES if f"{{{place}}}" in run(name, "--help").out]
    words = set(re.findall(r"[\w+-]+", run("fit", "--help").out + run("evaluate", "--help").out))
    assert {*known_starts(), *rule_names(), *solver_names(), *METRICS} <= words


def raises(error: Exception) -> Callable[..., None]:
    def function(*arguments: object, **options: object) -> None:
        raise error

    return function


@pytest.mark.parametrize("module", [fit, sample, evaluate, inspect, demo])
def test_the_examples_are_accepted(module: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their options exist: what fails, if anything, is that their files are not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "headstart.demo", SimpleNamespace(run=lambda out, **options: RESULTS))
    monkeypatch.setattr("headstart.data.load_data", raises(DataError("no data here")))
    monkeypatch.setattr("headstart.choose.fit", raises(DataError("no data here")))
    for example in module.EXAMPLES:
        done = run(*example.split()[1:])
        assert "Usage" not in done.err
        assert done.code in (0, DataError.exit_code, ArtefactError.exit_code)


def test_python_dash_m_and_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "headstart", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"headstart {headstart.__version__}\n"
    assert done.stderr == ""


def test_the_commands_import_what_is_slow_only_when_they_run() -> None:
    """With the package's own start left out, the command line loads none of the large libraries."""
    root = Path(headstart.__file__).parent
    code = f"""
import sys, types
package = types.ModuleType("headstart")
package.__path__ = [{str(root)!r}]
sys.modules["headstart"] = package
import headstart.cli.application
print(*{{"torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "pydantic"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_name_alone_tells_the_first_steps_which_are_commands(run: Run) -> None:
    done = run()
    assert done.code == 0
    steps = [line.split() for line in done.out.splitlines() if line.startswith("  headstart ")]
    assert [step[1] for step in steps] == ["demo", "check", "fit", "sample", "evaluate"]
    assert {step[1] for step in steps} <= set(COMMANDS)


def test_fit_tells_what_inspect_tells(run: Run, place: Path, tmp_path: Path) -> None:
    options = ("--nfe", 2, "--horizon", 2, "--initialization", "gaussian", "--schedule", "rho", "--solver", "euler")
    arguments = ("fit", f"{MODEL}:exact", place / "points.npy", *options, "--sigma-min", 0.1, "--seed", 3)
    done = run(*arguments, "-o", tmp_path / "new" / "plan", "--json")
    assert done.code == 0
    plan = Plan.load(tmp_path / "new" / "plan")
    assert (plan.nfe, plan.horizon, plan.initialization.name) == (2, 2.0, "gaussian")
    assert (plan.solver.name, plan.schedule.sigmas, plan.record.seed) == ("euler", (2.0, 0.1, 0.0), 3)
    assert done.json == {"out": str(tmp_path / "new" / "plan"), "plan": plan.to_dict()}
    assert run("inspect", tmp_path / "new" / "plan", "--json").json == done.json["plan"]
    assert repr(plan) in run("inspect", tmp_path / "new" / "plan").out
    assert run("inspect", tmp_path / "new" / "plan", "--citation").out == plan.citation() + "\n"
    assert run("inspect", tmp_path / "new" / "plan", "--citation", "--page", tmp_path / "page.html").code == 2
    assert run("inspect", tmp_path / "new" / "plan", "--citation", "--json").json == {"citation": plan.citation()}
    assert os.listdir(tmp_path / "new") == ["plan"]

    again = run(*arguments, "-o", tmp_path / "new" / "plan")
    assert again.code == 0
    assert again.out.startswith(repr(plan))
    verbose = run(*arguments, "-o", tmp_path / "new" / "plan", "--verbose")
    assert plan.explain().splitlines()[2:6] == verbose.out.splitlines()[2:6]
    assert len(again.out.splitlines()) < len(verbose.out.splitlines())
    assert again.out.endswith(f"The plan is in {tmp_path / 'new' / 'plan'}\n")


def test_samples_have_the_law_and_cost_what_they_should(run: Run, place: Path, tmp_path: Path) -> None:
    done = run("sample", place / "plan", f"{MODEL}:exact", "-n", 400, "-o", tmp_path / "out", "--json")
    assert done.code == 0
    assert done.err == ""
    assert {key: done.json[key] for key in ("files", "n", "shape", "labels", "nfe")} == {
        "files": ["samples.npz"],
        "n": 400,
        "shape": [2],
        "labels": [],
        "nfe": 3.0,
    }
    arrays = load(tmp_path / "out")
    assert set(arrays) == {"samples", "seeds"}
    assert arrays["samples"].shape == (400, 2)
    assert arrays["samples"].dtype == np.float32
    assert arrays["seeds"].tolist() == list(range(400))
    # Means 0 and 1/2, and 20 for a share of the right component, each to 4 standard errors; modes 10 sigma apart.
    x, y = arrays["samples"].T
    assert abs((x > 0).mean() - 0.5) < 4 * 0.5 / 20
    assert abs(y.mean() - 0.5) < 4 * 0.3 / 20
    assert np.abs(np.abs(x) - 1).mean() < 0.3


def test_a_sample_is_its_seed(run: Run, place: Path, tmp_path: Path) -> None:
    command = ("sample", place / "plan", f"{MODEL}:exact")
    assert run(*command, "-n", 10, "-o", tmp_path / "a").code == 0
    assert run(*command, "-n", 4, "--seeds", "9,3-5", "--batch-size", 3, "-o", tmp_path / "b").code == 0
    few, all_ten = load(tmp_path / "b"), load(tmp_path / "a")
    assert few["seeds"].tolist() == [9, 3, 4, 5]
    np.testing.assert_allclose(few["samples"], all_ten["samples"][[9, 3, 4, 5]], atol=1e-4)


def test_labels_and_images(run: Run, place: Path, tmp_path: Path) -> None:
    for label in (0, 1):
        done = run(
            "sample", place / "conditional", f"{MODEL}:images", "-n", 50, "--label", label, "-o", tmp_path / f"{label}"
        )
        assert done.code == 0
        assert done.out.startswith("50 samples of shape (1, 4, 4) in ")
        assert done.out.endswith(f"{tmp_path / str(label)}: grid.png, samples.npz\n")
        arrays = load(tmp_path / str(label))
        assert arrays["labels"].tolist() == [label] * 50
        assert arrays["samples"].mean() == pytest.approx(label - 0.5, abs=0.1)
        with Image.open(tmp_path / str(label) / "grid.png") as grid:
            assert grid.size == (8 * 6 + 2, 7 * 6 + 2)  # 50 images in rows of 8, 4 + 2 pixels each, and the edge


def test_classes_in_turn_go_with_the_seeds_and_are_scored_each(run: Run, place: Path, tmp_path: Path) -> None:
    command = ("sample", place / "conditional", f"{MODEL}:images", "--label", "0,1")
    done = run(*command, "-n", 60, "-o", tmp_path / "both", "--json")
    assert done.json["labels"] == [0, 1]
    assert run(*command, "--seeds", "7,4", "-o", tmp_path / "two").code == 0
    arrays, two = load(tmp_path / "both"), load(tmp_path / "two")
    assert arrays["labels"].tolist() == [0, 1] * 30
    assert two["labels"].tolist() == [1, 0]
    np.testing.assert_allclose(two["samples"], arrays["samples"][[7, 4]], atol=1e-4)

    swapped = {**arrays, "labels": 1 - arrays["labels"]}
    np.savez(tmp_path / "swapped.npz", **swapped)
    command = (place / "images.npz", "--features", "raw", "--by-class")
    right = run("evaluate", tmp_path / "both", *command, "--json").json
    wrong = run("evaluate", tmp_path / "swapped.npz", *command, "--json").json
    assert wrong["samples"] == right["samples"]  # the whole has no classes
    assert set(right["by_class"]["samples"]["each"]) == {"0", "1"}
    assert right["by_class"]["floor"]["each"]["0"]["n"] == 30
    mean = {what: right["by_class"][what]["mean"]["swd"] for what in ("samples", "floor")}
    assert mean["samples"] < 2 * mean["floor"]
    assert wrong["by_class"]["samples"]["mean"]["swd"] > 3 * mean["samples"]
    lines = run("evaluate", tmp_path / "both", *command).out.splitlines()
    assert lines[3].startswith("mean of 2 classes ")
    assert [line.split("  ")[0] for line in lines[4:9]] == [
        "its floor",
        "class 0",
        "class 0, floor",
        "class 1",
        "class 1, floor",
    ]
    assert {len(line) for line in lines[:9]} == {len(lines[0])}

    one = {name: array[arrays["labels"] == 1] for name, array in arrays.items()}
    np.savez(tmp_path / "one.npz", **one)  # one class alone is scored against the same class alone
    alone = run("evaluate", tmp_path / "one.npz", *command, "--json").json["by_class"]["samples"]
    assert alone["each"] == {"1": right["by_class"]["samples"]["each"]["1"]}


def test_sampling_replaces_its_own_files_and_no_others(run: Run, place: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    for count in (3, 2):
        assert run("sample", place / "plan", f"{MODEL}:exact", "-n", count, "-o", tmp_path).code == 0
    assert len(load(tmp_path)["seeds"]) == 2
    assert sorted(os.listdir(tmp_path)) == ["notes", "samples.npz"]


def test_what_a_model_prints_is_not_the_answer(run: Run, place: Path, tmp_path: Path) -> None:
    done = run("sample", place / "plan", f"{MODEL}:talkative", "-n", 2, "-o", tmp_path / "out", "--json")
    assert done.json["n"] == 2
    assert done.err == "loading the weights\n"


def test_evaluate_tells_good_samples_from_bad_ones(run: Run, place: Path, tmp_path: Path) -> None:
    points = np.load(place / "points.npy")
    np.save(tmp_path / "shifted.npy", points[:100] + np.float32(3))
    command = ("sample", place / "plan", f"{MODEL}:exact", "-n", 100, "-o", tmp_path / "out")
    assert run(*command).code == 0
    good = run("evaluate", tmp_path / "out", place / "points.npy", "--json").json
    bad = run("evaluate", tmp_path / "shifted.npy", place / "points.npy", "--json").json
    assert good["floor"] == bad["floor"]
    assert good["samples"]["n"] == good["floor"]["n"] == 100
    assert good["samples"]["n_reference"] == 150
    assert good["samples"]["frechet"] is good["floor"]["frechet"] is None
    assert not good["features"]
    assert good["samples"]["swd"] < 3 * good["floor"]["swd"]
    # A shift by (3, 3) is 3 on average over the directions of the plane, and 3 sqrt(2) along the diagonal.
    assert bad["samples"]["swd"] == pytest.approx(3, rel=0.1)
    assert bad["samples"]["max_swd"] == pytest.approx(3 * 2**0.5, rel=0.1)

    lines = run("evaluate", tmp_path / "out", place / "points.npy").out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["samples", "-"], ["noise", "floor"]]
    assert lines[1].split()[2] == f"{good['samples']['swd']:.4g}"
    assert lines[3].startswith(f"against 150 real samples of {place / 'points.npy'}, drawn without regard")


def test_a_floor_of_fewer_samples_says_so(run: Run, place: Path) -> None:
    done = run("evaluate", place / "points.npy", place / "points.npy", "--reference-count", 40)
    assert "against 40 real samples" in done.out
    assert done.out.endswith("The floor is of 150 samples, all that are held out: it is higher than that of 300\n")


def test_reference_and_held_out_share_no_sample(place: Path) -> None:
    points = torch.from_numpy(np.load(place / "points.npy"))
    reference, held_out = split(str(place / "points.npy"), 1000, seed=1)
    together = torch.cat([reference.samples, held_out.samples])
    assert (len(reference), len(held_out)) == (150, 150)
    assert torch.equal(together[together[:, 0].argsort()], points[points[:, 0].argsort()])
    assert not torch.equal(reference.samples, split(str(place / "points.npy"), 1000, seed=2)[0].samples)


@pytest.mark.parametrize(("data", "name"), [("", "test"), ("/test", "test"), ("/train", "train")])
def test_bundled_data_are_compared_with_one_split_and_the_floor_with_the_other(
    data: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = torch.arange(5)
    small = {
        part: headstart.Dataset(torch.full((5, 1, 28, 28), float(i)), labels + i)
        for i, part in enumerate(("test", "train"))
    }
    monkeypatch.setattr("headstart.data.load.fashion_mnist", lambda name: small[name])
    reference, held_out = split(f"builtin:fashion-mnist{data}", 3, seed=0)
    assert torch.equal(reference.samples, small[name].samples[:3])
    assert reference.labels is not None
    assert torch.equal(reference.labels, small[name].labels[:3])
    assert held_out is small["train" if name == "test" else "test"]


def test_evaluate_with_the_bundled_features(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: fashion_mnist(name, bundled=True) for name in ("train", "test")}
    monkeypatch.setattr("headstart.data.load.fashion_mnist", lambda name: small[name])
    np.savez(tmp_path / "samples.npz", samples=small["train"].samples[-300:].numpy())
    command = ("evaluate", tmp_path, "builtin:fashion-mnist", "--reference-count", 500, "--json")
    scores = run(*command, "--batch-size", 7).json
    assert scores["features"]
    assert scores["samples"]["frechet"] == pytest.approx(scores["floor"]["frechet"], rel=0.5)  # real as they both are
    assert scores["samples"]["frechet"] == pytest.approx(run(*command).json["samples"]["frechet"], rel=1e-4)
    without = run(*command, "--features", "none").json
    errors = {name: error for name, error in scores["samples"]["errors"].items() if name != "frechet"}
    assert without["samples"] == {**scores["samples"], "frechet": None, "errors": errors}


def test_evaluate_shows_scores_on_request_with_errors_and_reads_and_writes_statistics(
    run: Run, place: Path, tmp_path: Path
) -> None:
    points = place / "points.npy"
    command = ("evaluate", points, points, "--features", "raw", "--reference-count", 100)
    done = run(*command, "--scores", "kid,coverage", "--save-stats", tmp_path / "new" / "stats.npz", "--json")
    scores = done.json["samples"]
    assert set(scores["errors"]) == {"frechet", "swd", "max_swd", "kid", "coverage"}
    assert done.json["floor"]["coverage"] > 0.8
    assert scores["precision"] is None
    lines = run(*command, "--scores", "kid,coverage").out.splitlines()
    assert lines[0].split() == ["frechet", "swd", "max_swd", "kid", "coverage", "n"]
    assert f"{scores['kid']:.4g} ± {scores['errors']['kid']:.2g}" in lines[1]

    folder = run(*command, "--save-stats", tmp_path / "new")
    assert (folder.code, folder.out) == (5, "")
    assert "new is a folder: expected the name of a regular file" in folder.err

    read = run(*command, "--stats", tmp_path / "new" / "stats.npz")
    assert f"{scores['frechet']:.4g} ±" in read.out
    assert "to the statistics in" in read.out
    with np.load(tmp_path / "new" / "stats.npz") as archive:
        assert set(archive.files) == {"mu", "sigma", "n"}
        shifted = {"mu": archive["mu"] + 1, "sigma": archive["sigma"]}
    np.savez(tmp_path / "other.npz", **shifted)
    other = run(*command, "--stats", tmp_path / "other.npz", "--json").json
    assert other["samples"]["frechet"] == pytest.approx(2, rel=0.4)  # a shift by (1, 1), squared

    for bad, message in (
        (("--scores", "fid"), "unknown score 'fid'"),
        (("--features", "none", "--stats", tmp_path / "other.npz"), "say which with --features"),
        (("--features", "inception:x"), "unknown features 'inception:x'"),
    ):
        done = run("evaluate", points, points, *bad)
        assert done.code == 2
        assert message in done.err


RESULTS: dict[str, Any] = {
    "rows": [
        {
            "method": method,
            "nfe": nfe,
            "initialization": start,
            "horizon": horizon,
            "frechet": frechet,
            "swd": 0.03,
            "max_swd": 0.06,
            "n": 1000,
            "sample_seconds": seconds,
        }
        for method, nfe, start, horizon, frechet, seconds in (
            ("plan", 4, "mixture", 1.0, 5.0, 1.0),
            ("edm-heun", 35, "isotropic", 80.0, 10.0, 8.0),
        )
    ],
    "floor": {"frechet": 0.5, "swd": 0.02, "max_swd": 0.04},
}


def test_demo_prints_the_verdict_and_where_the_report_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fake(out: Path, **options: Any) -> dict[str, Any]:
        calls.append((out, options))
        return RESULTS

    monkeypatch.setitem(sys.modules, "headstart.demo", SimpleNamespace(run=fake))
    done = run("demo", "--out", tmp_path, "-n", 20, "--quick", "--seed", 5, "--batch-size", 9)
    assert done.code == 0
    table, (verdict, where) = done.out.splitlines()[:-3], done.out.splitlines()[-2:]
    assert table == results_table(RESULTS["rows"], RESULTS["floor"]).splitlines()
    assert verdict.startswith("Four evaluations from a learned start reach a Fréchet distance of 5")
    assert where == f"The report is {tmp_path / 'report.html'}"
    assert run("demo", "--json").json == RESULTS

    (out, options), (default, defaults) = calls
    assert out == tmp_path
    assert default == Path("runs/demo")
    del options["progress"], defaults["progress"]
    assert options == {"n": 20, "seed": 5, "device": "cpu", "batch_size": 9, "quick": True}
    assert defaults == {"n": 1000, "seed": 0, "device": "cpu", "batch_size": 256, "quick": False}


def test_several_budgets_make_a_plan_each(place: Path, run: Run, tmp_path: Path) -> None:
    fit_it = ("fit", "python:headstart_cli_models:exact", place / "points.npy", "--criterion", "budget")
    done = run(*fit_it, "--nfe", "3,2", "-o", tmp_path / "plan", "--json")
    assert done.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan-2", "plan-3"]
    told = json.loads(done.out)["plans"]
    assert [(Path(one["out"]).name, one["plan"]["nfe"]) for one in told] == [("plan-3", 3), ("plan-2", 2)]
    assert {Plan.load(tmp_path / f"plan-{n}").nfe for n in (2, 3)} == {2, 3}
    assert run(*fit_it, "--nfe", "3,x", "-o", tmp_path / "other").code == InputError.exit_code
