"""The papers' experiments on a law whose network is exact: tables, resumption, what is said of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.denoiser import VarianceExploding, adapt
from headstart.errors import DenoiserError, InputError
from headstart.metrics import Reference
from headstart.noise import Noise
from headstart.reproduce import EXPERIMENTS, Subject, Table, reproduce
from headstart.reproduce.base import _table
from headstart.sampler import Sampler
from headstart.targets import gmm25


@pytest.fixture(scope="module")
def subject() -> Subject:
    law = gmm25()
    real = law.sample(Noise(range(600))).float()
    return Subject(
        law, "25 modes", real[:300], Reference.of(real[300:]), "25 modes", real[:300], n=64, seeds=2, quick=True
    )


@pytest.fixture(scope="module", params=sorted(EXPERIMENTS))
def done(request: pytest.FixtureRequest, subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp(request.param)
    return EXPERIMENTS[request.param], out, reproduce(EXPERIMENTS[request.param], subject, out)


def test_every_method_has_a_cell_for_every_set_of_seeds(done: Any) -> None:
    experiment, out, results = done
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    places = {(row["row"], row["column"]) for row in results["rows"]}
    assert len(results["rows"]) == 2 * len(places)
    assert set(results["tables"]) == {"swd"}  # without features there is no Fréchet distance
    assert results["tables"]["swd"]["corner"] == experiment.corner
    assert results["found"]
    assert 0 < results["floor"]["swd"] < min(row["swd"] for row in results["rows"]) * 3


def test_evaluations_are_those_of_heuns_method(done: Any) -> None:
    for row in done[2]["rows"]:
        count = int(row["column"].split(", ")[-1])
        assert row["evaluations"] == (2 * count - 1 if done[0].name == "schedules" else count)


def test_a_run_goes_on_where_it_was_cut_off(
    done: Any, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, out, results = done
    lines = (out / "cells.jsonl").read_text().splitlines()
    (tmp_path / "cells.jsonl").write_text("\n".join([*lines[:-2], lines[-2][:40]]))
    drawn: list[int] = []
    sample: Callable[..., torch.Tensor] = Sampler.sample

    def counted(self: Sampler, *args: Any, **options: Any) -> torch.Tensor:
        drawn.append(1)
        return sample(self, *args, **options)

    monkeypatch.setattr(Sampler, "sample", counted)
    again = reproduce(experiment, subject, tmp_path)
    assert len(drawn) == 2
    assert again["tables"] == results["tables"]


def test_what_is_finished_is_not_measured_again(done: Any, subject: Subject) -> None:
    experiment, out, results = done

    def never(_: Subject) -> Any:
        pytest.fail("measured again")

    again = reproduce(replace(experiment, entries=never), subject, out)
    assert again["rows"] == results["rows"]
    assert again["floor"] == results["floor"]


def test_a_folder_of_another_run_is_refused(done: Any, subject: Subject) -> None:
    real = gmm25().sample(Noise(range(600))).float()
    others = (
        {"n": 65},
        {"fitting": real[:200]},
        {"fitting": real[:300] + 1},
        {"reference": Reference.of(real[300:500])},
        {"reference": Reference.of(real[300:] + 1)},
        {"reference": Reference.of(real[300:], lambda x: x)},
        {"reference": Reference.of(real[300:], lambda x: x), "features": "raw"},
    )
    for change in others:
        with pytest.raises(InputError, match="another run"):
            reproduce(done[0], replace(subject, **change), done[1])


def test_cells_of_other_features_are_not_mixed_in(subject: Subject, tmp_path: Path) -> None:
    real = gmm25().sample(Noise(range(600))).float()
    small = replace(subject, seeds=1, features="raw", reference=Reference.of(real[300:], lambda x: x))
    found = reproduce(EXPERIMENTS["starts"], small, tmp_path)
    assert (found["features"], set(found["tables"])) == ("raw", {"frechet", "swd"})
    with pytest.raises(InputError, match="another run"):
        reproduce(EXPERIMENTS["starts"], replace(small, features="others"), tmp_path)


def test_samples_of_images_are_shown_and_found_again(tmp_path: Path) -> None:
    """Every row's, and those of starts that know the data beside their nearest neighbours."""
    images = Noise(range(300)).normal((1, 4, 4))

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / (1 + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2)

    real = images[150:]
    subject = Subject(denoiser, "noise", images[:150], Reference.of(real), "noise", real, n=40, seeds=1, quick=True)
    pages = []
    for _ in range(2):
        reproduce(EXPERIMENTS["starts"], subject, tmp_path)
        pages.append((tmp_path / "index.html").read_text())
    for page in pages:
        shown = re.findall(r'alt="Grid of samples: (.*?)"', page)
        assert shown[:2] == ["real images", "N(0, 80²), long, 5"]
        assert len(shown) == 5
        near = re.findall(r'alt="Samples above their nearest neighbours: (.*?), \d+: at', page)
        assert near == ["noised data (oracle)", "learned"]


def test_the_floor_of_fewer_samples_is_told(subject: Subject, tmp_path: Path) -> None:
    found = reproduce(EXPERIMENTS["starts"], replace(subject, seeds=1, held_out=subject.held_out[:50]), tmp_path)
    assert found["floor_n"] == 50
    assert "The floor is of 50 samples, all that are held out" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_no_level_is_above_what_the_network_knows(name: str, subject: Subject, tmp_path: Path) -> None:
    law = gmm25()
    network = adapt(lambda x, sigma: law(x, sigma), "x0", VarianceExploding(sigma_max=14.6))
    found = reproduce(EXPERIMENTS[name], replace(subject, denoiser=network, seeds=1), tmp_path)
    assert found["rows"]
    if name == "starts":
        assert found["rows"][0]["column"] == "14.6, 5"


def test_features_that_overflow_are_named_with_their_method(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = lambda x: torch.exp(x.abs())  # noqa: E731
    reference = Reference.of(subject.fitting, features)
    monkeypatch.setattr(Sampler, "sample", lambda self, *_, **__: torch.full((64, 2), 1e3))
    with pytest.raises(
        DenoiserError, match=r"N\(0, 80²\), long, .*, seeds 0: .*features.*What was done before is kept"
    ):
        reproduce(EXPERIMENTS["starts"], replace(subject, reference=reference), tmp_path)


def test_samples_that_are_not_finite_are_named_and_what_is_done_is_kept(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample: Callable[..., torch.Tensor] = Sampler.sample
    drawn: list[int] = []

    def far(self: Sampler, *args: Any, **options: Any) -> torch.Tensor:
        drawn.append(1)
        return sample(self, *args, **options) * (1.0 if len(drawn) < 3 else 3e38)

    monkeypatch.setattr(Sampler, "sample", far)
    with pytest.raises(
        DenoiserError, match=r"N\(0, σ_T²\), .*, seeds 0: .*not finite.*What was done before is kept in"
    ):
        reproduce(EXPERIMENTS["starts"], subject, tmp_path)
    assert (tmp_path / "cells.jsonl").read_text().count('{"key": {"row": ') == 2


@pytest.mark.parametrize("change", [{"n": 1}, {"seeds": 0}])
def test_too_few_samples_or_seeds_are_refused(subject: Subject, change: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two samples"):
        reproduce(EXPERIMENTS["starts"], replace(subject, **change), tmp_path)  # type: ignore[arg-type]


def test_means_and_errors_are_over_the_sets_of_seeds() -> None:
    rows = [{"row": "a", "column": "3", "swd": 1.0}, {"row": "a", "column": "3", "swd": 3.0}]
    rows.append({"row": "b", "column": "4", "swd": 5.0})
    table = _table(EXPERIMENTS["starts"], "swd", rows)
    assert table.columns == ("3", "4")
    assert table.rows == {"a": (2.0, None), "b": (None, 5.0)}
    assert table.errors == {"a": (1.0, None), "b": (None, None)}


def test_what_is_said_follows_from_the_numbers() -> None:
    names = ("rho = 3", "rho = 7", "rho = 100", "log-linear", "corrector-optimised", "predictor-optimised")
    values = (9.0, 2.0, 4.0, 6.0, 3.0, 5.0)
    table = Table("Distance", "schedule", ("10",), {name: (v,) for name, v in zip(names, values, strict=True)})
    sentence = EXPERIMENTS["schedules"].found(table)
    assert sentence.startswith(
        "By Distance, with the best of rho = 3, 7 and 100 as 1, the corrector-optimised schedule"
    )
    assert sentence.endswith("has 1.5 at 10 points, where the predictor-optimised has 2.5 and the worst rho 4.5.")
    rows: dict[str, tuple[float | None, ...]] = {
        "N(0, 80²), long": (2.0, None),
        "N(0, σ_T²)": (None, 8.0),
        "noised data (oracle)": (None, 1.0),
        "learned": (None, 3.0),
    }
    sentence = EXPERIMENTS["starts"].found(Table("Distance", "start", ("80, 35", "2, 7"), rows))
    assert sentence.startswith("By Distance, with the long run in 35 evaluations as 1, a learned start has 1.5")
    assert sentence.endswith("1.5 from 2 in 7, where noise has 4 and noised data 0.5.")
