"""The judge of a pilot: laws of samples, and laws given a condition."""

from __future__ import annotations

import math

import pytest
import torch

from headstart import Noise
from headstart.choose.judge import DIRECTIONS, Energy, Judge, expected
from headstart.compute import Compute
from headstart.conditions import Part
from headstart.denoiser import Counted
from tests.choose.cases import CLASSES, needs_label

LABEL = torch.arange(600) % 2
DATA = CLASSES[LABEL] + Noise(range(600)).normal((2,))
FRESH = CLASSES[LABEL] + Noise(range(600, 1200)).normal((2,))
ROWS = torch.arange(600)


def judged() -> Judge:
    return Judge.of(DATA, expected(needs_label, Part(DATA, {"label": LABEL}), 1e3, 0, Compute()))


def score(judge: Judge, samples: torch.Tensor, rows: torch.Tensor | None = None) -> float:
    return judge.energy(judge.project(samples, rows)).of(torch.ones(len(samples), dtype=torch.bool))


def test_the_energy_distance_is_that_of_all_pairs():
    """In units of the data's spread, per root of the dimension."""
    x, y = Noise(range(7)).normal((3,)), 2 * Noise(range(10, 21)).normal((3,))
    scale = float(y.var(dim=0).mean().sqrt()) * math.sqrt(3)
    gaps = [torch.stack([(a - b).norm() for a in p for b in q]).sum() / scale for p, q in ((x, y), (x, x), (y, y))]
    expected_value = 2 * gaps[0] / (7 * 11) - gaps[1] / (7 * 6) - gaps[2] / (11 * 10)
    assert score(Judge.of(y), x) == pytest.approx(float(expected_value), abs=1e-5)


def test_a_few_of_the_samples_have_the_distance_that_they_have_alone():
    judge, kept = Judge.of(DATA), torch.arange(600) % 3 > 0
    assert judge.energy(judge.project(FRESH)).of(kept) == pytest.approx(score(judge, FRESH[kept]), abs=1e-6)


@pytest.mark.parametrize("spread", [0.8, 1.0])
def test_few_samples_are_judged_without_bias(spread):
    """A narrower law is not preferred: the mean over many small sets is the value of a large one."""
    data = Noise(range(2000)).normal((4,))
    judge, samples = Judge.of(data), spread * Noise(range(5000, 9000)).normal((4,))
    few = torch.tensor([score(judge, part) for part in samples.split(20)])
    error = float(few.std()) / math.sqrt(len(few))
    assert abs(float(few.mean()) - score(judge, samples)) < 3 * error + 1e-4
    assert (few.mean() > 3 * error) == (spread != 1.0)


def test_many_dimensions_are_looked_at_along_directions():
    x = Noise(range(50)).normal((400,))
    judge = Judge.of(x)
    assert [part.shape for part in judge.project(x)] == [(50, DIRECTIONS)]
    assert judge.project(x)[0].square().sum(dim=1).mean() == pytest.approx(1, rel=0.1)


def test_without_conditions_nothing_is_asked():
    counted = Counted(needs_label)
    assert expected(counted, Part(DATA), 1e3, 0, Compute()) is None
    assert counted.calls == 0
    assert isinstance(Judge.of(DATA).energy(Judge.of(DATA).project(FRESH)), Energy)


def test_the_mean_of_a_condition_is_asked_for_once_for_each_of_the_data():
    counted = Counted(needs_label)
    means = expected(counted, Part(DATA, {"label": LABEL}), 1e3, 0, Compute(batch_size=64))
    assert counted.samples == len(DATA)
    torch.testing.assert_close(means, CLASSES[LABEL], atol=0.01, rtol=0)


def test_samples_of_the_wrong_condition_are_far_although_their_law_is_right():
    """Faults.md D1: every second sample answers the other class."""
    judge, wrong = judged(), FRESH[torch.where(ROWS % 4 < 2, ROWS, ROWS ^ 1)]
    plain = Judge.of(DATA)
    assert score(plain, wrong) == pytest.approx(score(plain, FRESH), abs=1e-5)
    assert abs(score(judge, FRESH, ROWS)) < 0.01
    assert score(judge, wrong, ROWS) > 1


def test_a_change_of_samples_moves_all_projections_alike():
    judge, change = judged(), Noise(range(600)).normal((2,))
    moved = judge.project(FRESH + 0.5 * change, ROWS)
    for whole, a, b in zip(moved, judge.project(FRESH, ROWS), judge.project(change), strict=True):
        torch.testing.assert_close(whole, a + 0.5 * b, atol=1e-4, rtol=1e-4)
