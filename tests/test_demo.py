"""The demonstration, on few images and in few methods: everything it hands over is there and fits together.

One run for all tests of this file; it is the slow one of the suite.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import pytest
import torch

from headstart import Dataset, Plan, demo
from headstart.data import fashion_mnist
from headstart.denoiser import Counted
from headstart.errors import ArtefactError, InputError
from headstart.models import load_denoiser

IMAGES = 6
METHODS = [
    ("plan", "any", 3),
    ("edm-heun", "isotropic", 35),
    ("dpm++2m", "isotropic", 4),
    ("noise, our schedule", "isotropic", 4),
    ("gaussian start", "gaussian", 4),
]


def few(split, **_):
    return Dataset(fashion_mnist(split, bundled=True).samples[: 400 if split == "train" else 200], name=split)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder that a run leaves, and what it returns."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "fashion_mnist", few)
        patch.setattr(demo, "QUICK", replace(demo.QUICK, profile_samples=6, cost_samples=2, shown=4))
        return out, demo.run(out, n=IMAGES, seed=3, quick=True)


@pytest.mark.slow
def test_the_results_are_one_json_object(done):
    out, results = done
    assert json.loads((out / "results.json").read_text(), parse_constant=pytest.fail) == results
    assert sorted(os.listdir(out)) == ["plan-3", "report.html", "results.json"]
    assert {"rows", "floor", "environment", "plans"} <= set(results)


@pytest.mark.slow
def test_rows_have_the_promised_keys(done):
    _, results = done
    kinds = {
        "method": str,
        "initialization": str,
        "horizon": float,
        "schedule": str,
        "solver": str,
        "nfe": int,
        "n": int,
        "seed": int,
        "frechet": float,
        "swd": float,
        "max_swd": float,
        "sample_seconds": float,
        "fit_seconds": float,
    }
    for row in results["rows"]:
        assert {key: type(row[key]) for key in kinds} == kinds
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
        assert 0 < row["swd"] <= row["max_swd"]
        assert row["frechet"] > 0
        assert (row["n"], row["seed"]) == (IMAGES, 3)
    assert {key: type(results["floor"][key]) for key in ("frechet", "swd", "max_swd", "n")} == {
        key: kinds[key] for key in ("frechet", "swd", "max_swd", "n")
    }


@pytest.mark.slow
def test_methods_and_their_evaluations(done):
    """The evaluations are counted while sampling: they are what each method is there for."""
    _, results = done
    rows = results["rows"]
    assert [(row["method"], row["nfe"]) for row in rows] == [(method, nfe) for method, _, nfe in METHODS]
    for row, (method, start, _) in zip(rows, METHODS, strict=True):
        assert start in ("any", row["initialization"])
        assert (row["fit_seconds"] > 0) == (method in ("plan", "noise, our schedule", "gaussian start"))
        assert row["sigmas"][0] == row["horizon"]
    assert [row["horizon"] for row in rows[1:4]] == [80.0, 80.0, 80.0]
    assert rows[1]["sigmas"][-2:] == [0.002, 0.0]
    assert len(rows[1]["sigmas"]) == 19


@pytest.mark.slow
def test_the_plan_is_there_and_samples(done):
    out, results = done
    plan, (shown,) = Plan.load(out / "plan-3"), results["plans"]
    assert plan.nfe == shown["nfe"] == 3
    assert list(plan.schedule.sigmas) == shown["sigmas"] == results["rows"][0]["sigmas"]
    assert shown["explanation"] == plan.explain()
    assert shown["budget"]["total"] == plan.budget.total
    assert shown["fit_seconds"] == plan.record.fit_seconds == results["rows"][0]["fit_seconds"]
    assert len(shown["curve"]) > 5
    counted = Counted(load_denoiser("builtin:fashion-mnist"))
    images = plan.sample(counted, 2)
    assert images.shape == (2, 1, 28, 28)
    assert torch.isfinite(images).all()
    assert counted.samples == 6


@pytest.mark.slow
def test_the_report_stands_alone(done):
    out, results = done
    page = (out / "report.html").read_text()
    for method, _, _ in METHODS:
        assert method in page
    assert "data:image/png;base64," in page
    for elsewhere in ('src="http', "src='http", "<link", "@import", "url(http"):
        assert elsewhere not in page
    assert results["plans"][0]["explanation"].splitlines()[-1].strip() in page


@pytest.mark.slow
def test_the_environment_names_versions_and_no_machine(done):
    environment = done[1]["environment"]
    packages = {"headstart", "torch", "numpy", "scipy", "scikit-learn"}
    assert set(environment) == packages | {"python", "device", "cores", "threads"}
    assert environment["torch"] == torch.__version__


@pytest.mark.parametrize("n", [-1, 0, 1, 100_000])
def test_the_number_of_images_is_checked(n, tmp_path):
    with pytest.raises(InputError, match=f"draws 2 to .* images per method: got {n}"):
        demo.run(tmp_path / "out", n=n)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "fashion_mnist", few)
    (tmp_path / "file").write_text("dear")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ArtefactError, match="cannot write to"):
            demo.run(out, n=4)
    assert (tmp_path / "file").read_text() == "dear"


def test_what_is_no_plan_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "fashion_mnist", few)
    monkeypatch.setattr(demo, "load_denoiser", pytest.fail)
    (tmp_path / "plan-3").mkdir()
    (tmp_path / "plan-3" / "thesis.tex").write_text("dear")
    with pytest.raises(ArtefactError, match="plan-3 exists and is not a plan"):
        demo.run(tmp_path, n=4, quick=True)
    assert os.listdir(tmp_path) == ["plan-3"]
