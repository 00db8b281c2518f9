"""The pilot: what is drawn, shared and judged, and which combinations are compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from headstart import fit
from headstart.budget import Budget
from headstart.choose import fit_starts, hold_out
from headstart.choose.constraints import Constraints
from headstart.choose.pilot import FEW, Pilot, turned
from headstart.choose.screen import Option, Score, screen, varied
from headstart.compute import Compute
from headstart.conditions import Part
from headstart.denoiser import Counted
from headstart.errors import InputError
from headstart.initialization import Gaussian, Generator, NetworkMean
from headstart.schedule import Custom, Schedule, Tangent
from headstart.solver import USUAL_SOLVERS, Distilled, Euler, Heun, get_solver
from tests.choose.cases import DATA, FAST, TARGET

HELD_OUT = Part(DATA[hold_out(DATA)[1]])


def option_of(profile, steps=3, **changes):
    """A combination with a Gaussian start at about 4."""
    options = screen(profile, [Gaussian.fit(DATA)], {}, Constraints(nfe=steps))
    near = min(options, key=lambda option: abs(option.schedule.horizon - 4))
    return varied(profile, near, **changes)


def pilot_of(profile, denoiser=TARGET, count=64, **options):
    return Pilot(denoiser, HELD_OUT, profile, count, 0, Compute(batch_size=options.pop("batch_size", 256)), **options)


def test_the_last_row_is_turned_where_samples_come_nearer(profile):
    pilot = pilot_of(profile, count=256)
    option = option_of(profile, 2, sigma_min=2.0)  # from so high a level one step to 0 makes means of the data
    (scored,) = pilot([option])
    assert scored.turn > 0.2
    (plain,) = pilot_of(profile, count=256, turning=False)([option])
    assert plain.turn == 0
    assert scored.pilot.value < plain.pilot.value
    solver = turned(profile, scored).solver
    assert isinstance(solver, Distilled)
    torch.testing.assert_close(
        pilot.samples(scored, 20),
        Pilot.samples(pilot, replace(scored, solver=solver, turn=0.0), 20),
    )
    again = pilot.judge.energy(pilot.judge.project(pilot.samples(scored, 128))).of(torch.ones(128, dtype=torch.bool))
    assert again == pytest.approx(scored.pilot.value, abs=1e-5)


def test_levels_near_each_other_are_turned_as_far_as_it_takes(profile):
    """Their answers differ little, and what is missing at 0 is many times their difference away."""
    pilot = pilot_of(profile, count=256)
    (few,) = pilot([option_of(profile, 3, sigma_min=2.0)])
    (many,) = pilot([option_of(profile, 12, sigma_min=2.0)])

    def lines(option):
        """The turn in units of that of a straight line through the last two levels."""
        before, last = option.schedule.sigmas[-3:-1]
        return option.turn * (before - last) / last

    assert many.turn > 15
    assert lines(many) == pytest.approx(lines(few), rel=0.3)


@pytest.mark.parametrize("solver", [Heun(), get_solver("ddpm")], ids=["two answers a step", "stochastic"])
def test_solvers_without_weights_are_not_turned(solver, profile):
    (scored,) = pilot_of(profile)([option_of(profile, 3, solver=solver)])
    assert scored.turn == 0
    assert turned(profile, scored) is scored


def test_a_solver_that_is_asked_for_is_not_turned(profile):
    plan = fit(TARGET, DATA, 2, profile=profile, solver="euler", initialization="gaussian", pilot_samples=64)
    assert plan.solver.name == "euler"
    assert {c.turn for c in plan.record.candidates} == {0.0}


def test_steps_that_combinations_share_are_evaluated_once(profile):
    counted = Counted(TARGET)
    first, second = option_of(profile, 3), option_of(profile, 3, solver=get_solver("dpm++3m"))
    assert first.schedule == second.schedule
    pilot = pilot_of(profile, counted)
    pilot([first])
    assert counted.samples == 3 * 64
    pilot([second])  # which takes other steps from the second on
    assert counted.samples == (3 + 3 - 2) * 64
    alone = pilot_of(profile)([second])[0]
    assert pilot([second])[0].pilot == alone.pilot
    pilot([option_of(profile, 3, kind=Tangent())])
    assert counted.samples == (4 + 2) * 64


def test_samples_that_were_drawn_are_not_drawn_again(profile):
    counted = Counted(TARGET)
    pilot = pilot_of(profile, counted, count=300)
    option = option_of(profile)
    (few,) = pilot([option])
    (half,) = pilot([few], 200)
    (whole,) = pilot([half], 300)
    assert counted.samples == 3 * 300
    assert [len(each.pilot.without) for each in (few, half, whole)] == [8, 8, 8]
    assert few.final is None
    assert half.pilot == few.pilot
    at_once = pilot_of(profile, count=300)([option], 300)[0]
    assert whole.final.value == pytest.approx(at_once.final.value, abs=1e-6)
    assert whole.turn == pytest.approx(at_once.turn, abs=0.05)
    assert FEW < 200


def test_a_generator_joins_the_pilot():
    """It has no density: the pilot alone can tell that the true law is the better start."""
    truth = Generator((2,), lambda noise, label: TARGET.sample(noise))
    truth.closed_form = True  # against a network that is itself a formula, no time is charged
    arguments = {"horizon": 0.5, "schedule": "defect", "solver": "dpm++2m", "sigma_min": 0.1}
    plan = fit(TARGET, DATA, 2, initialization=["isotropic", truth], **arguments)
    assert plan.initialization is truth
    assert plan.budget.initialization is None
    with pytest.raises(InputError, match=r"hand .*Generator in"):
        fit_starts(DATA, "generator")


def test_a_single_step_leaves_no_choice(profile):
    chosen = fit(TARGET, DATA, 1, profile=profile, **FAST).record.chosen
    assert {chosen[part] for part in ("schedule", "sigma_min", "solver")} == {"one level or two leave no choice"}
    assert chosen["horizon"] == "by pilot"


def test_two_evaluations_are_not_piloted_with_every_solver():
    """One level above 0 besides the horizon: all solvers take the same step to it, but for the last row."""
    plan = fit(TARGET, DATA, 2, **FAST)
    assert {(c.solver, c.schedule) for c in plan.record.candidates} == {("dpm++2m", "defect")}
    assert plan.record.chosen["schedule"] == "one level or two leave no choice"
    turned_it = plan.solver.name == "distilled"
    assert turned_it == ("turned" in plan.record.chosen["solver"])
    assert turned_it <= any(c.turn for c in plan.record.candidates if c.horizon == plan.horizon)
    assert len({c.sigma_min for c in plan.record.candidates if c.horizon == plan.horizon}) > 1


def test_two_steps_above_0_are_piloted_with_every_solver(profile):
    """Without a step to 0 two steps are two steps, in the second of which solvers differ."""
    plan = fit(TARGET, DATA, profile=profile, schedule=Schedule([5.0, 1.0, 0.1]), **FAST)
    assert {c.solver for c in plan.record.candidates} == set(USUAL_SOLVERS)
    assert plan.record.chosen["solver"] == "by pilot"


def test_batches_change_nothing_but_the_last_digits(profile):
    large, small = (fit(TARGET, DATA, 3, profile=profile, batch_size=b, **FAST) for b in (256, 5))
    for a, b in zip(large.record.candidates, small.record.candidates, strict=True):
        assert (a.schedule, a.horizon, a.pilot is None) == (b.schedule, b.horizon, b.pilot is None)
        assert a.pilot is None or a.pilot == pytest.approx(b.pilot, abs=1e-4)


def test_a_start_that_asks_the_network_has_the_answers_for_its_own_conditions(profile):
    """It asks about one state for all samples, which no batch may have another's answers to."""
    c = torch.linspace(-5, 5, 60)[torch.randperm(60, generator=torch.Generator().manual_seed(0))][:, None]
    x0 = c + 0.1 * torch.randn(60, 1, generator=torch.Generator().manual_seed(1))

    def denoiser(x, sigma, c):
        return c + 0.01 / (0.01 + torch.as_tensor(sigma).reshape(-1, 1) ** 2) * (x - c)

    start = NetworkMean.fit(x0, "gaussian", conditions={"c": c}, denoiser=denoiser)
    option = Option(start, Custom(), Schedule((0.1, 0.05, 0.0)), Euler(), Budget(None, (0.0,)), Score(0.0, (0.0,) * 8))
    scores = [
        Pilot(denoiser, Part(x0, {"c": c}), profile, 60, 0, Compute(batch_size=size))([option])[0].pilot.value
        for size in (60, 15)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)
