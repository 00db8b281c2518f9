"""Whatever is wrong is said in one line, with its exit code, and nothing half-written is left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., Any]
MODEL = "python:headstart_cli_models"
FIT = ("fit", f"{MODEL}:exact", "{place}/points.npy", "-o", "{out}")
CLASSES = ("evaluate", "{place}/images.npz", "{place}/images.npz", "--by-class")
SAMPLE = ("sample", "{place}/plan", f"{MODEL}:exact", "-o", "{out}")


def fit(model: str = f"{MODEL}:exact", data: str = "{place}/points.npy", *more: str) -> tuple[str, ...]:
    return ("fit", model, data, "-o", "{out}", *more)


BAD = [
    # data
    (fit(data="{place}/nothing.npy"), 3, "there is no file or folder"),
    (fit(data="{place}/point.npy"), 3, "(did you mean {place}/points.npy?)"),
    (fit(data="{place}/text.npy"), 3, "text.npy cannot be read"),
    (fit(data="{place}/nan.npy"), 3, "1 NaN or infinite values"),
    (fit(data="{place}/line.npy"), 3, "shape (300,): expected (N, ...)"),
    (fit(data="builtin:mnist"), 3, "unknown bundled data set 'mnist'"),
    (fit(data="{place}/images.npz"), 2, "1, 4, 4): GaussianMixture"),
    # denoisers
    (fit("builtin:mnist"), 4, "unknown bundled denoiser 'mnist'"),
    (fit("python:no.such.module:load"), 4, "cannot import no.such.module"),
    (fit(f"{MODEL}:returns_nan"), 4, "the denoiser returned NaN or Inf at sigma = "),
    (fit(f"{MODEL}:returns_a_row"), 4, "the denoiser returned shape "),
    ((*SAMPLE[:2], f"{MODEL}:returns_nan", *SAMPLE[3:], "-n", "2"), 4, "the denoiser returned NaN or Inf at sigma = "),
    ((*SAMPLE[:2], f"{MODEL}:returns_a_row", *SAMPLE[3:], "-n", "2"), 4, "shape (2, 1) for an input of shape (2, 2)"),
    # what is asked for
    ((*FIT, "--nfe", "0"), 2, "nfe is 0"),
    ((*FIT, "--nfe", "-3"), 2, "nfe is -3"),
    ((*FIT, "--horizon", "1", "--sigma-min", "2"), 2, "the horizon must lie above sigma_min"),
    ((*FIT, "--horizon", "nan"), 2, "horizon"),
    ((*FIT, "--schedule", "linear"), 2, "unknown schedule 'linear'"),
    ((*FIT, "--solver", "magic"), 2, "unknown solver 'magic'"),
    ((*FIT, "--solver", "Huen"), 2, "unknown solver 'Huen' (did you mean 'heun'?)"),
    ((*FIT, "--initialization", "mixtur"), 2, "(did you mean 'mixture'?)"),
    ((*FIT, "--initialization", "laplace"), 2, "unknown initialization 'laplace'"),
    ((*FIT, "--criterion", "beauty"), 2, "unknown criterion 'beauty'"),
    ((*FIT, "--conditional"), 2, "holds no labels, which --conditional needs"),
    ((*FIT, "--device", "abacus"), 2, "unknown device 'abacus'"),
    ((*FIT, "--device", "meta"), 2, "the device 'meta' cannot be used here"),
    ((*FIT[:-1], "{place}/images.npz"), 5, "exists and is not a plan"),
    (SAMPLE, 2, "how many samples?"),
    ((*SAMPLE, "-n", "0"), 2, "the number of samples is 0: expected at least 1"),
    ((*SAMPLE, "--seeds", "9-0"), 2, "run backwards: expected 0-9"),
    ((*SAMPLE, "--seeds", "few"), 2, "'few' names no seeds"),
    ((*SAMPLE, "-n", "3", "--label", "9999999999999999999"), 2, "is none that a network could know"),
    ((*SAMPLE, "-n", "3", "--label", "first"), 2, "'first' names no labels"),
    ((*SAMPLE, "-n", "3", "--seeds", "0-3"), 2, "-n asks for 3 samples and --seeds 0-3 for 4"),
    ((*SAMPLE, "--seeds", "18446744073709551616"), 2, "from 0 to 2^64 - 1"),
    ((*SAMPLE[:-1], "{place}/points.npy", "-n", "2"), 5, "points.npy: Not a directory"),
    # plans
    (("inspect", "{place}/nothing"), 5, "is not a plan"),
    (("inspect", "{corrupt}"), 5, "is damaged"),
    (("inspect", "{broken}"), 5, "plan.json is not JSON"),
    (("inspect", "{newer}"), 5, "has version 99"),
    (("sample", "{newer}", f"{MODEL}:exact", "-o", "{out}", "-n", "2"), 5, "upgrade it"),
    # scores
    (("evaluate", "{place}/nothing", "{place}/points.npy"), 3, "there is no file or folder"),
    (("evaluate", "{place}/images.npz", "{place}/points.npy"), 3, "must have the same shape in both"),
    (("evaluate", "{place}/points.npy", "{place}/points.npy", "--features", "inception"), 2, "'inception'"),
    (("evaluate", "{place}/points.npy", "{place}/points.npy", "--reference-count", "1"), 2, "expected at least 2"),
    (
        ("evaluate", "{place}/points.npy", "{place}/images.npz", "--by-class"),
        2,
        "holds no labels, which --by-class needs",
    ),
    (
        ("evaluate", "{few}", "{place}/images.npz", "--by-class"),
        2,
        "few.npz has 1 samples of class 1 to score: 2 are needed",
    ),
    (
        (*CLASSES, "--features", "raw", "--scores", "recall", "--reference-count", "16"),
        2,
        "to score: 12 are needed",
    ),
    (("evaluate", "{strange}", "{place}/images.npz", "--by-class"), 2, "images.npz has 0 samples of class 2 to score"),
    (
        ("evaluate", "{place}/points.npy", "{place}/points.npy", "--features", "builtin:fashion-mnist"),
        2,
        "the bundled features are of images (B, 1, 28, 28), got shape",
    ),
]


@pytest.fixture
def places(place: Path, tmp_path: Path) -> dict[str, Path]:
    found = {"place": place, "out": tmp_path / "parent" / "out"}
    for name in ("corrupt", "broken", "newer"):
        found[name] = shutil.copytree(place / "plan", tmp_path / name)
    tensors = tmp_path / "corrupt" / "tensors.safetensors"
    blob = tensors.read_bytes()
    tensors.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    plan = (tmp_path / "broken" / "plan.json").read_text()
    (tmp_path / "broken" / "plan.json").write_text(plan[: len(plan) // 2])
    (tmp_path / "newer" / "plan.json").write_text(json.dumps({**json.loads(plan), "version": 99}))
    for name, labels in (("few", [0, 0, 0, 1]), ("strange", [0, 0, 2, 2])):
        found[name] = tmp_path / f"{name}.npz"
        np.savez(found[name], samples=np.zeros((4, 1, 4, 4), dtype=np.float32), labels=labels)
    return found


@pytest.mark.parametrize(("command", "code", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input(
    command: tuple[str, ...], code: int, message: str, run: Run, places: dict[str, Path], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*")), sorted(places["place"].rglob("*"))
    done = run(*(part.format_map(places) for part in command), "--json")
    assert done.code == code
    assert message.format_map(places) in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert done.json["error"] == done.err.removeprefix("error: ").strip()
    assert done.json["kind"].endswith("Error")
    assert (sorted(tmp_path.rglob("*")), sorted(places["place"].rglob("*"))) == before


def test_without_json_standard_output_stays_empty(run: Run, place: Path) -> None:
    done = run("inspect", place / "nothing")
    assert done.code == 5
    assert done.out == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--batch-size", "0"), "--batch-size"),
        (("--seed", "-1"), "--seed"),
        (("--nfe", "four"), "--nfe"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_usage(more: tuple[str, ...], message: str, run: Run, place: Path, tmp_path: Path) -> None:
    done = run("fit", f"{MODEL}:exact", place / "points.npy", "-o", tmp_path / "out", *more)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("words", "meant"), [(["fitt"], "fit"), (["fit", "a", "b", "--nfee", "3"], "--nfe")])
def test_a_mistyped_command_or_option_is_answered_with_the_right_one(words: list[str], meant: str, run: Run) -> None:
    done = run(*words)
    assert done.code == 2
    assert meant in re.split("Did you mean|Possible options", done.err)[1]


@pytest.mark.parametrize("command", ["fit", "sample"])
def test_a_disk_that_fills_up(
    command: str, run: Run, places: dict[str, Path], tmp_path: Path, two_kilobytes: Callable[[], Any]
) -> None:
    arguments = {"fit": (*FIT, "--criterion", "budget"), "sample": (*SAMPLE, "-n", "1000")}[command]
    before = sorted(tmp_path.rglob("*"))
    with two_kilobytes():
        done = run(*(part.format_map(places) for part in arguments))
    assert done.code == 5
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.endswith(f"{os.strerror(errno.EFBIG)}\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_earlier_samples_alone(
    run: Run, place: Path, tmp_path: Path, two_kilobytes: Callable[[], Any]
) -> None:
    command = ("sample", place / "conditional", f"{MODEL}:images", "--label", 1, "-o", tmp_path / "out")
    assert run(*command, "-n", 4).code == 0
    before = {file: file.read_bytes() for file in sorted((tmp_path / "out").iterdir())}

    with two_kilobytes():
        done = run(*command, "-n", 500, "--json")
    assert done.code == 5
    assert done.err == f"error: cannot write {tmp_path / 'out' / 'samples.npz'}: {os.strerror(errno.EFBIG)}\n"
    assert done.json == {"error": done.err.removeprefix("error: ").strip(), "kind": "ArtefactError"}
    assert {file: file.read_bytes() for file in sorted((tmp_path / "out").iterdir())} == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_no_permission(run: Run, place: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = run("sample", place / "plan", f"{MODEL}:exact", "-n", 2, "-o", tmp_path / "out")
    assert done.code == 5
    assert done.err.endswith("Permission denied\n")


def test_a_defect_shows_where_it_is(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is told in JSON all the same, and a person gets the traceback, which here is the exception itself."""
    monkeypatch.setattr("headstart.plan.Plan.explain", lambda plan: 1 / 0)
    done = run("inspect", place / "plan", "--json")
    assert done.code == 1
    assert done.json == {"error": "division by zero", "kind": "ZeroDivisionError"}
    assert isinstance(done.exception, ZeroDivisionError)


@pytest.mark.parametrize("command", [FIT, (*SAMPLE, "-n", "2")])
def test_an_interruption(command: tuple[str, ...], run: Run, places: dict[str, Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    arguments = [part.format_map(places).replace(":exact", ":interrupted") for part in command]
    done = run(*arguments, "--json")
    assert done.code == 130
    assert done.err == "interrupted\n"
    assert done.json == {"error": "interrupted", "kind": "KeyboardInterrupt"}
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_standard_output_on_a_full_disk() -> None:
    """The error is still told, alone: no traceback, none when Python ends either."""
    command = [sys.executable, "-m", "headstart", "sample", "plan", "builtin:fashion-mnist", "-o", "out", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: how many samples? Give their number with -n, or their seeds with --seeds\n"
