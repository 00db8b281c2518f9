"""What a fit has finished is kept: one that was cut off goes on, and ends as one that was not."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart import choose
from headstart.choose.work import Work, beside
from headstart.denoiser import Denoiser
from headstart.errors import ArtefactError, HeadstartWarning, InputError
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.targets import gmm25

LAW = gmm25()
DATA = LAW.sample(Noise(range(200)))


class StoppedError(BaseException):
    """As a signal does."""


class Counting:
    """A network that counts its calls, and ends the process with one of them."""

    def __init__(self, law: Denoiser = LAW, most: float = float("inf")) -> None:
        self.law, self.most, self.calls = law, most, 0

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        self.calls += 1
        if self.calls > self.most:
            raise StoppedError
        return self.law(x, sigma)


def fit(network: Counting, work: Work | None = None, **more: Any) -> Plan:
    options = {"initialization": ["isotropic", "gaussian"], "pilot_samples": 64, "schedule": "rho"}
    return choose.fit(network, DATA, 3, work=work, **{**options, **more})


def stopped(folder: Path, most: float, **more: Any) -> int:
    """A fit that ends with one of its calls; how many units are there then."""
    with pytest.raises(StoppedError), Work(folder) as work:
        fit(Counting(most=most), work, **more)
    return len(list(folder.glob("*.unit")))


@pytest.fixture(scope="module")
def whole() -> tuple[Plan, int]:
    """The plan of a fit that nobody disturbed, and its calls."""
    network = Counting()
    return fit(network), network.calls


@pytest.mark.filterwarnings("ignore::headstart.errors.HeadstartWarning")
def test_a_fit_that_was_cut_off_again_and_again_ends_as_one_that_was_not(
    whole: tuple[Plan, int], tmp_path: Path
) -> None:
    plan, calls = whole
    units = [stopped(tmp_path / "work", calls * 0.85 if i == 0 else 25) for i in range(3)]
    assert 3 <= units[0] < units[1] < units[2]
    network = Counting()
    with Work(tmp_path / "work") as work:
        assert fit(network, work).digest == plan.digest
        assert (tmp_path / "work").exists()
    assert network.calls < 0.5 * calls
    assert os.listdir(tmp_path) == []


class ToldError(BaseException):
    """As a signal that comes between two epochs."""


def test_a_training_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    from headstart.initialization import Training
    from headstart.progress import Progress

    class Until(Progress):
        """Ends the process when an epoch begins."""

        def __init__(self, last: str = "") -> None:
            self.seen, self.last = list[str](), last

        def track(self, items: Any, description: str, total: int | None = None) -> Any:
            self.seen.append(description)
            if self.last and description == self.last:
                raise ToldError
            return super().track(items, description, total)

    more: dict[str, Any] = {"initialization": "flow", "start_cost": 0.0, "horizon": 2.0, "training": Training(epochs=3)}
    expected = fit(Counting(), **more)
    with pytest.raises(ToldError), Work(tmp_path / "work") as work:
        fit(Counting(), work, progress=Until("epoch 3"), **more)
    again = Until()
    with Work(tmp_path / "work") as work, pytest.warns(HeadstartWarning):
        assert fit(Counting(), work, progress=again, **more).digest == expected.digest
    assert [what for what in again.seen if what.startswith("epoch")] == ["epoch 3"]


def test_it_says_that_it_goes_on(whole: tuple[Plan, int], tmp_path: Path) -> None:
    stopped(tmp_path / "work", whole[1] * 0.9)
    with Work(tmp_path / "work") as work, pytest.warns(HeadstartWarning, match="going on with what .*work holds"):
        fit(Counting(), work)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["data", "network", "argument"])
def test_units_of_another_fit_are_not_taken(
    other: str, whole: tuple[Plan, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tmp_path / "work", whole[1] * 0.9)
    network, more = Counting(), {}
    if other == "data":
        monkeypatch.setitem(globals(), "DATA", DATA + 0.01)
    elif other == "network":
        network = Counting(lambda x, sigma, /, **_: LAW(x, sigma) + 0.001)
    else:
        more = {"seed": 1}
    expected = fit(network, **more)
    with Work(tmp_path / "work") as work:
        assert fit(network, work, **more).digest == expected.digest != whole[0].digest


@pytest.mark.filterwarnings("ignore::headstart.errors.HeadstartWarning")
@pytest.mark.parametrize("content", [b"", b"\xff" * 100])
def test_a_damaged_unit_is_made_again(content: bytes, whole: tuple[Plan, int], tmp_path: Path) -> None:
    stopped(tmp_path / "work", whole[1] * 0.9)
    for unit in (tmp_path / "work").glob("*.unit"):
        unit.write_bytes(content)
    with Work(tmp_path / "work") as work:
        assert fit(Counting(), work).digest == whole[0].digest


def test_nothing_is_made_before_something_is_finished(tmp_path: Path) -> None:
    assert stopped(tmp_path / "work", 3) == 0
    assert os.listdir(tmp_path) == []


def test_an_error_leaves_nothing_and_a_plan_that_cannot_be_written_leaves_the_work(
    whole: tuple[Plan, int], tmp_path: Path
) -> None:
    def failing(error: type[Exception]) -> None:
        with Work(tmp_path / "work") as work:
            fit(Counting(), work)
            raise error("as it happens")

    with pytest.raises(InputError):
        failing(InputError)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ArtefactError):
        failing(ArtefactError)
    assert len(list((tmp_path / "work").glob("*.unit"))) > 3


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(ArtefactError, match="is no folder of an interrupted fit"):
        Work(tmp_path)
    with pytest.raises(ArtefactError, match="is no folder of an interrupted fit"):
        Work(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "dear"


def test_two_fits_of_one_plan_do_not_disturb_each_other(whole: tuple[Plan, int], tmp_path: Path) -> None:
    """The second one keeps nothing, and takes nothing away."""
    context = multiprocessing.get_context("fork")

    def other(ended: Callable[[], None]) -> None:
        with Work(tmp_path / "work") as work:
            assert fit(Counting(), work).digest == whole[0].digest
        ended()

    ended = context.Event()
    with Work(tmp_path / "work") as work:
        fit(Counting(), work)
        before = sorted((tmp_path / "work").iterdir())
        process = context.Process(target=other, args=(ended.set,))
        process.start()
        process.join()
        assert ended.is_set()
        assert sorted((tmp_path / "work").iterdir()) == before
    assert os.listdir(tmp_path) == []


def test_the_folder_is_beside_the_plan_however_long_its_name() -> None:
    assert beside(Path("a/plan")) == Path("a/plan.work")
    long = [beside(Path("x" * 249 + end)) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(path.name) < 30 for path in long)


def test_identities_hold_conditions(tmp_path: Path) -> None:
    from headstart.choose.work import identity_of
    from headstart.conditions import Part

    def told(**conditions: Any) -> dict[str, Any]:
        part, _ = Part.of(DATA, conditions)
        return identity_of(lambda x, sigma, /, **_: LAW(x, sigma), part, "cpu", {"seed": 0})

    assert told(c=torch.ones(200)) == told(c=torch.ones(200))
    assert told(c=torch.ones(200)) != told(c=torch.zeros(200)) != told()
