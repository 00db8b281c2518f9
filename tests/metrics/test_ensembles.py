"""Scores of ensembles are those of closed forms, fair to small ensembles, and the smallest for the outcome's law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from headstart.errors import DataError
from headstart.metrics import crps, energy_score, spread_to_error


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs(members: Tensor, truth: Tensor) -> float:
    """The energy score by its definition, of members (K, d) and an outcome (d,)."""
    k = len(members)
    away = sum(float((x - truth).norm()) for x in members) / k
    return away - sum(float((x - y).norm()) for x in members for y in members) / (2 * k * (k - 1))


def test_scores_are_those_of_their_definitions() -> None:
    members, truth = normal(3, 5, 2, 2), normal(3, 2, 2, seed=1)
    flat, own = members.flatten(2), truth.flatten(1)
    expected = torch.tensor([pairs(x, y) for x, y in zip(flat, own, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(energy_score(members, truth), expected)
    each = [[pairs(flat[i, :, j : j + 1], own[i, j : j + 1]) for j in range(4)] for i in range(3)]
    torch.testing.assert_close(crps(members, truth), torch.tensor(each, dtype=torch.float64).mean(1))


@pytest.mark.parametrize("members", [2, 3, 20])
def test_the_crps_of_a_normal_law_is_its_closed_form_for_any_number_of_members(members: int) -> None:
    """Of N(0, 1) at y it is y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi)."""
    y = 0.7
    phi, big = math.exp(-y * y / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(y / math.sqrt(2)))
    exact = y * (2 * big - 1) + 2 * phi - 1 / math.sqrt(math.pi)
    found = crps(normal(200_000 // members, members), torch.full((200_000 // members,), y))
    assert float(found.mean()) == pytest.approx(exact, abs=5 * float(found.std()) / math.sqrt(len(found)))


def test_the_law_of_the_outcomes_scores_best() -> None:
    truth, own = normal(4000, 3), normal(4000, 8, 3, seed=1)
    for score in (crps, energy_score):
        best = score(own, truth)
        for other in (0.5 * own, 1.5 * own, own + 0.5):
            more = score(other, truth) - best
            assert float(more.mean()) > 3 * float(more.std()) / math.sqrt(len(more))


def test_only_the_energy_score_sees_how_coordinates_go_together() -> None:
    truth = normal(4000, 1).expand(-1, 4)
    right, apart = normal(4000, 8, 1, seed=1).expand(-1, -1, 4), normal(4000, 8, 4, seed=2)
    assert float(crps(right, truth).mean() - crps(apart, truth).mean()) == pytest.approx(0, abs=0.02)
    assert float(energy_score(right, truth).mean()) < 0.95 * float(energy_score(apart, truth).mean())


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_the_spread_is_held_against_the_error_of_the_mean(width: float) -> None:
    """Of members of width w about 0, K = 3, and outcomes of width 1: the error of the mean is 1 + w^2 / 3."""
    found = spread_to_error(width * normal(40_000, 3, seed=1), normal(40_000))
    assert found == pytest.approx(math.sqrt(4 / 3 * width**2 / (1 + width**2 / 3)), rel=0.02)


def test_what_are_no_ensembles_is_said() -> None:
    for ensembles, outcomes in (((4, 1, 2), (4, 2)), ((4, 3, 2), (4, 3)), ((4, 3, 2), (5, 2)), ((4,), (4,))):
        with pytest.raises(DataError, match="at least two members"):
            crps(torch.zeros(ensembles), torch.zeros(outcomes))
    with pytest.raises(DataError, match="NaN"):
        energy_score(torch.full((2, 3), math.nan), torch.zeros(2))


def test_what_has_no_score_is_named() -> None:
    for score in (crps, energy_score, spread_to_error):
        for shape in ((0, 3, 2), (2, 3, 0), (2, 1, 2)):
            with pytest.raises(DataError, match="at least one case and at least two members"):
                score(torch.zeros(shape), torch.zeros(shape[0], *shape[2:]))
    with pytest.raises(DataError, match="there is no error"):
        spread_to_error(torch.tensor([[-1.0, 1.0]]), torch.zeros(1))


def test_arrays_score_as_tensors_do() -> None:
    members, truth = normal(3, 5, 2), normal(3, 2, seed=1)
    assert torch.equal(crps(members.numpy(), truth.numpy()), crps(members, truth))  # type: ignore[arg-type]
