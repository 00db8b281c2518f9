"""The explanation of a plan, for a person."""

from __future__ import annotations

from headstart.budget import Budget, Estimate
from tests.plan.cases import make, recorded


def test_explanation():
    assert make().explain().splitlines() == [
        "Plan(3 evaluations: gaussian start at 3, rho 7 levels, dpm++2m; budget 0.433 nats)",
        "",
        "Start      Gaussian(shape=(2,), components=2) at sigma_T = 3 (initialization by pilot, horizon as asked)",
        "Levels     Schedule(rho 7: 3 steps, 3 > 0.6721 > 0.1 > 0) (schedule and sigma_min by pilot)",
        "Solver     DPMSolverPP2M(), 3 network evaluations",
        "",
        "Error budget, in nats over 2 dimensions:",
        "  initialization   0.25 ± 0.12",
        "  discretization   0.01, 0.0033   (of Euler steps between these levels)",
        "  together         0.433   (square of the sum of the roots)",
        "",
        "Decided by a pilot of 2 candidates (distance to held-out data):",
        "  0.0625  mixture at 1.5, corrector to 0.05, euler: E_init   -0.25, budget 0.333",
        "  0.2500  empirical at 2, rho to 0.1, dpm++2m: budget 0.1",
    ]


def test_explanation_of_an_oracle_and_of_a_start_below_the_network():
    oracle = recorded(make("empirical", budget=Budget(None, ())), candidates=()).explain()
    assert "  initialization   not known: the start has no density" in oracle
    assert "  discretization   none above 0" in oracle
    assert "for comparison only" in oracle
    assert "pilot of" not in oracle
    assert "Below 0" in make(budget=Budget(Estimate(-1.0, 0.1), ())).explain()
    assert "Below 0" not in make(budget=Budget(Estimate(-0.1, 0.1), ())).explain()
    assert "for comparison only" not in make().explain()
