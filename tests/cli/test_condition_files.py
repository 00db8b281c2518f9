"""Conditions from files go to the network with their samples, from fit as from sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.cli.conditions import in_turn, read_conditions
from headstart.conditions import Conditions
from headstart.errors import DataError, HeadstartError, InputError

Run = Callable[..., Any]
MODEL = "python:headstart_cli_models:conditioned"


def test_files_with_a_row_a_sample_and_shared_ones(run: Run, place: Path, tmp_path: Path) -> None:
    """p(x given c) = N(c + 2, 1/4): the samples of each seed are about its own row, whatever is drawn beside it."""
    g = np.random.default_rng(0)
    coarse = g.normal(size=(300, 2))
    np.save(tmp_path / "data.npy", coarse + 2 + 0.5 * g.normal(size=(300, 2)))
    np.savez(tmp_path / "coarse.npz", coarse=coarse, other=coarse)
    np.save(tmp_path / "table.npy", np.full(300, 2.0))  # as long as the data
    given = ("--condition", f"x={tmp_path / 'coarse.npz'}", "--shared", f"n={tmp_path / 'table.npy'}")
    quick = ("--initialization", "gaussian", "--schedule", "rho", "--solver", "euler", "--nfe", "6")
    plan = tmp_path / "plan"
    assert run("fit", MODEL, tmp_path / "data.npy", "-o", plan, *given, *quick).code == 0

    few = np.array([[50.0, 0.0], [-50.0, 0.0], [0.0, 50.0]])
    np.savez(tmp_path / "few.npz", coarse=few, other=few)
    given = ("--condition", f"x={tmp_path / 'few.npz'}", "--shared", f"n={tmp_path / 'table.npy'}")
    for seeds, name in (("0-9", "ten"), ("5,4", "two")):
        assert run("sample", plan, MODEL, "--seeds", seeds, "-o", tmp_path / name, *given, "--batch-size", 4).code == 0
    ten, two = (np.load(tmp_path / name / "samples.npz")["samples"] for name in ("ten", "two"))
    np.testing.assert_allclose(two, ten[[5, 4]], atol=1e-4)
    nearest = np.linalg.norm(ten[:, None] - few - 2, axis=-1).argmin(1)
    assert nearest.tolist() == [seed % 3 for seed in range(10)]


def test_rows_are_taken_in_turn_by_seed_and_what_is_shared_is_not_cut(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    read = read_conditions([f"a={tmp_path / 'a.npy'}"], [f"b={tmp_path / 'a.npy'}"])
    found = Conditions.of(in_turn(read, [7, 2**63, 0]), 3)
    assert found["a"].tolist() == [1, 2**63 % 3, 0]
    assert found.goes_with_samples("a")
    assert not found.goes_with_samples("b")


@pytest.mark.parametrize(
    ("rows", "alike", "kind", "said"),
    [
        (["a"], None, InputError, "expected NAME=FILE"),
        (["=a.npy"], None, InputError, "expected NAME=FILE"),
        (None, ["a="], InputError, "expected NAME=FILE"),
        (["a=A", "a=A"], None, InputError, "'a' is given twice"),
        (["a=A"], ["a=A"], InputError, "'a' is given twice"),
        (["label=A"], None, InputError, "'label' is given twice"),
        (["a=nothing.npy"], None, DataError, "no file or folder"),
    ],
)
def test_what_is_no_condition_is_named(
    rows: list[str] | None, alike: list[str] | None, kind: type[HeadstartError], said: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    rows, alike = ([t.replace("=A", f"={tmp_path / 'a.npy'}") for t in part or []] for part in (rows, alike))
    with pytest.raises(kind, match=said):
        read_conditions(rows, alike, "label")


@pytest.mark.parametrize("arrays", [{"a": 3.0}, {"a": np.zeros(3), "b": np.zeros(2)}, {"a": np.zeros((0, 2))}])
def test_rows_that_do_not_fit_each_other_are_named(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match="expected one number above 0"):
        in_turn(read_conditions([f"text={tmp_path / 'a.npz'}"], None), [0, 1])


def test_a_file_of_double_numbers_reaches_the_network_in_single_ones(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    assert read_conditions([f"a={tmp_path / 'a.npy'}"], None)["a"].value.dtype == torch.float32
