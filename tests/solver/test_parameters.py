"""The parameters of the solvers: what is refused, and what is kept."""

import json
import math

import pytest
import torch

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.schedule import Schedule
from headstart.solver import DDPM, DEIS, IPNDM, DPMSolverPP2M, PredictorCorrector, UniPC


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DEIS(points=0), "points"),
        (lambda: DEIS(points=5), "points"),
        (lambda: DEIS(points=2.5), "points"),
        (lambda: DEIS(points=math.nan), "points"),
        (lambda: DEIS(power=-1), "power"),
        (lambda: DEIS(power=math.inf), "power"),
        (lambda: IPNDM(points=5), "points"),
        (lambda: UniPC(points=4), "points"),
        (lambda: UniPC(bh=3), "bh"),
        (lambda: DPMSolverPP2M(eta=-0.5), "eta"),
        (lambda: DPMSolverPP2M(eta=math.nan), "eta"),
        (lambda: PredictorCorrector(corrections=0), "corrections"),
        (lambda: PredictorCorrector(corrections=1.5), "corrections"),
        (lambda: PredictorCorrector(corrections=math.nan), "corrections"),
        (lambda: PredictorCorrector(snr=0), "snr"),
        (lambda: PredictorCorrector(snr=math.nan), "snr"),
        (lambda: DDPM((0.1, -0.1)), "variances"),
        (lambda: DDPM((math.nan,)), "variances"),
        (lambda: DDPM(variance_1=0.1), "variances.*variance_0"),
        (lambda: DDPM((0.1,), variance_0=0.1), "variances"),
        (lambda: DDPM(eta=0.1), "variances.*eta"),
    ],
)
def test_parameters_are_checked(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize("solver", [UniPC(points=3, bh=1), DEIS(points=3), IPNDM(points=3), PredictorCorrector(2)])
def test_whole_numbers_survive_json_that_has_none(solver, gaussian):
    """A plan stores every parameter as a float."""
    stored = {key: float(value) for key, value in json.loads(json.dumps(solver.parameters())).items()}
    again = type(solver)(**stored)
    assert again == solver
    x, schedule = torch.ones(1, 3), Schedule([3.0, 2.0, 1.0, 0.2, 0.0])
    assert again.nfe(schedule) == solver.nfe(schedule)
    assert torch.equal(again.solve(gaussian, x, schedule, Noise([0])), solver.solve(gaussian, x, schedule, Noise([0])))


@pytest.mark.parametrize("sigmas", [[3.0, 1.0, 0.1], [3.0, 1.0, 0.1, 0.0]])
def test_ddpm_needs_a_variance_for_each_step_above_zero(sigmas, gaussian):
    x, schedule = torch.ones(1, 3), Schedule(sigmas)
    states = list(DDPM((0.5, 0.01)).trajectory(gaussian, x, schedule, Noise([1])))
    assert len(states) == schedule.steps
    for variances in ((0.5,), (0.5, 0.01, 0.001)):
        with pytest.raises(InputError, match=f"2 steps above 0.*{len(variances)} variances"):
            DDPM(variances).solve(gaussian, x, schedule, Noise([1]))


def test_ddpm_without_variance_draws_nothing_that_is_seen(gaussian):
    """Variances of 0 leave the means: a recursion by hand."""
    x = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    end = DDPM((0.0, 0.0)).solve(gaussian, x, Schedule([4.0, 2.0, 1.0]), Noise([1]))
    for a in (4.0, 2.0):
        x = 0.25 * x + 0.75 * gaussian(x, torch.tensor(a, dtype=torch.float64))
    torch.testing.assert_close(end, x, rtol=1e-12, atol=1e-12)
