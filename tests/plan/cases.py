"""The plan that the tests of plans share, made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headstart.budget import Budget, Estimate
from headstart.plan import Candidate, Plan, Record
from headstart.profile import Profile
from headstart.schedule import rho_grid
from headstart.solver import DPMSolverPP2M
from tests.cases import STARTS

CANDIDATES = (
    Candidate("isotropic", 3.0, "defect", 0.05, "dpm++2m", 0.4, 0.1, 0.9),
    Candidate("mixture", 1.5, "corrector", 0.05, "euler", -0.25, 0.125, 1 / 3, 0.0625),
    Candidate("empirical", 2.0, "rho", 0.1, "dpm++2m", None, None, 0.1, 0.25),
)


def profile():
    """Three levels, made by hand."""
    return Profile(
        sigmas=np.array([8.0, 1.0, 0.05]),
        losses=np.array([[2.0, 1.0, 0.01], [2.5, 0.5, 1 / 3]]),
        corrector=np.array([[0.1, 0.2], [0.3, 0.4]]),
        defect=np.array([[0.01, 0.02], [0.03, 0.04]]),
        sigma_data=1.75,
        shape=(2,),
        seed=5,
        digest="0f",
    )


def make(start="gaussian", solver=None, **changes):
    schedule = rho_grid(3, 3.0, 0.1)
    solver = solver or DPMSolverPP2M()
    budget = Budget(Estimate(0.25, 0.125), (0.01, 1 / 300))
    chosen = {"initialization": "by pilot", "horizon": "as asked", "schedule": "by pilot", "sigma_min": "by pilot"}
    record = Record(candidates=CANDIDATES, criterion="pilot", chosen=chosen, seed=7, fit_seconds=1.5)
    return replace(Plan(STARTS[start], schedule, solver, budget, profile(), record), **changes)


def recorded(plan, **changes):
    """The plan with another record."""
    return replace(plan, record=replace(plan.record, **changes))
