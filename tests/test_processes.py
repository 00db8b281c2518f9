"""One, two and three processes come to the same results, and an error in one of them ends all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.data.shards import gathered as read
from headstart.errors import InputError
from headstart.initialization import Isotropic
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.processes import launched
from headstart.profile import Profile
from headstart.schedule import rho_grid
from headstart.solver import Heun
from tests.programs import SAMPLER, SEEDS, Network, everything, labels, law
from tests.together import begun, ended, together_in

Results = dict[int, list[Any]]

SCORES = ("frechet", "swd", "max_swd", "n", "seed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def found(folder: Path) -> Results:
    """What each process found, by their number."""
    with together_in(2, everything, folder / "2") as two, together_in(3, everything, folder / "3") as three:
        return {1: [everything(folder / "1")], 2: two(), 3: three()}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("what", ["samples", "stochastic", "noise", "one"])
def test_samples_are_the_same_to_the_bit_in_all_processes(found: Results, count: int, what: str) -> None:
    assert len(found[count]) == count
    for own in found[count]:
        assert torch.equal(own[what], found[1][0][what])


@pytest.mark.parametrize("count", [2, 3])
def test_in_other_batches_samples_are_the_same_up_to_rounding(found: Results, count: int) -> None:
    torch.testing.assert_close(
        found[count][0]["in other batches"], found[1][0]["in other batches"], rtol=0.0, atol=1e-4
    )


@pytest.mark.parametrize("count", [2, 3])
def test_no_evaluation_is_made_twice(found: Results, count: int) -> None:
    assert found[count][0]["evaluations"] == found[1][0]["evaluations"] == SAMPLER.nfe * len(SEEDS)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("what", ["profile", "known"])
def test_profiles_are_the_same_to_the_bit(found: Results, count: int, what: str) -> None:
    values, tensors = found[1][0][what]
    for own in found[count]:
        assert own[what][0] == values
        assert tensors.keys() == own[what][1].keys() >= {"losses", "products"}
        assert all(torch.equal(own[what][1][name], tensor) for name, tensor in tensors.items())
        assert own["measured"] == found[1][0]["measured"]


@pytest.mark.parametrize("count", [2, 3])
def test_a_fit_is_the_same_plan_in_all_processes(found: Results, count: int, folder: Path) -> None:
    (alone,) = found[1]
    for own in found[count]:
        assert (own["plan"], own["plan without data"]) == (alone["plan"], alone["plan without data"])
        assert torch.equal(own["samples of the plan"], alone["samples of the plan"])
    assert Plan.load(folder / str(count) / "plan").digest == alone["plan"]
    assert not (folder / str(count) / "plan.work").exists()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("what", ["scores", "scores and errors"])
def test_scores_are_the_same_up_to_the_rounding_of_merged_statistics(found: Results, count: int, what: str) -> None:
    expected = found[1][0][what]
    for own in found[count]:
        assert own[what] == own[what] | {name: pytest.approx(expected[name], rel=1e-10, abs=1e-10) for name in SCORES}
        assert own[what]["errors"] == pytest.approx(expected["errors"], rel=1e-10)


@pytest.mark.parametrize("count", [2, 3])
def test_the_cells_of_a_comparison_are_shared_out_and_made_once(found: Results, count: int, folder: Path) -> None:
    (alone,) = found[1]
    for own in found[count]:
        assert own["rows"] == alone["rows"]
        assert own["verdict"] == alone["verdict"]
        assert own["cells"] == alone["cells"]
    written = json.loads((folder / str(count) / "compared" / "results.json").read_text())
    assert written["verdict"] == alone["verdict"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_process_writes_its_own_shards_of_one_job(found: Results, count: int, folder: Path) -> None:
    for own in found[count]:
        assert own["drawn"] == [(7, 0, len(SEEDS)), (7, 7, 0)]
    samples, classes = read(folder / str(count) / "shards")
    assert classes is not None
    assert torch.equal(samples, SAMPLER.sample(Network(), seeds=SEEDS, batch_size=3, conditions=labels(SEEDS)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_items_are_shared_out_in_turn_and_results_are_in_their_order(found: Results, count: int) -> None:
    for index, own in enumerate(found[count]):
        assert own["place"] == (index, count)
        assert own["squares"] == [i * i for i in range(7)]
        assert own["done"] == list(range(index, 7, count))
        assert (own["none"], own["first"], own["ranks"]) == ([], 0, list(range(count)))
        assert own["alone"] == (1, [5])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_error_is_that_of_the_first_item_that_failed_in_all_processes(found: Results, count: int) -> None:
    for index, own in enumerate(found[count]):
        refused, defect = own["errors"]
        assert refused == ("InputError", "item 4 is refused")
        if index == 3 % count:
            assert defect[0] == "ZeroDivisionError"
        else:
            assert defect[0] == "ProcessError"
            assert f"process {3 % count} failed: ZeroDivisionError" in defect[1]
        assert own["after"] == [0, 1]


@pytest.mark.parametrize("count", [2, 3])
def test_processes_at_different_calls_are_told_so(found: Results, count: int) -> None:
    for own in found[count]:
        assert own["unlike"][0] == "ProcessError"
        assert "do not do the same" in own["unlike"][1]


def test_a_process_that_is_killed_ends_the_others(tmp_path: Path) -> None:
    with begun(2, "-m", "tests.together", "tests.programs:killed", tmp_path) as every:
        (code, said, _), (other, *_) = ended(every)
    assert (code, other) == (7, -9)
    assert "another process has ended" in said


@pytest.mark.parametrize("said", ["0", "-1", "two", ""])
def test_a_number_of_processes_that_is_none_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", said)
    with pytest.raises(InputError, match="WORLD_SIZE is"):
        launched()


@pytest.fixture(scope="module")
def plan(folder: Path) -> Path:
    profile = Profile.measure(law(), law().sample(Noise(range(60))), samples=12, cost_samples=4)
    Plan(Isotropic((2,)), rho_grid(3, 5.0, 0.05), Heun(), None, profile).save(folder / "plan")
    return folder / "plan"


@pytest.mark.slow
def test_the_command_line_answers_once_with_the_same_samples(plan: Path, folder: Path) -> None:
    command = ("-m", "headstart", "sample", plan, "python:tests.programs:law", "-n", 30, "--batch-size", 4, "--json")
    with begun(2, *command, "-o", folder / "two") as every:
        first, second = ended(every)
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert second[1:] == ("", "")
    assert {name: json.loads(first[1])[name] for name in ("n", "nfe")} == {"n": 30, "nfe": 5.0}
    with np.load(folder / "two" / "samples.npz") as samples:
        expected = Plan.load(plan).sample(law(), 30, batch_size=4)
        assert np.array_equal(samples["samples"], expected.numpy())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (["python:tests.programs:fails_in_the_last", "-n", "9"], 4, "returned NaN or Inf at sigma = 5, for the seeds"),
        (["python:tests.programs:law", "-n", "none"], 2, "Invalid value for '-n'"),
    ],
)
def test_an_error_is_said_once_and_ends_all(plan: Path, folder: Path, wrong: list[str], code: int, said: str) -> None:
    command = ("-m", "headstart", "sample", plan, *wrong, "--batch-size", 4, "-o", folder / "wrong")
    with begun(2, *command) as every:
        found = ended(every)
    assert [ended for ended, _, _ in found] == [code, code]
    assert "".join(error for _, _, error in found).count(said) == 1
    assert not (folder / "wrong").exists()
