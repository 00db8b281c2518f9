"""Rules of levels as values: they make what their formulas make, and their names are read as they are written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import InputError
from headstart.schedule import (
    Corrector,
    Cosine,
    Defect,
    LeastError,
    Length,
    LinearVP,
    LogLinear,
    Rho,
    Rule,
    Schedule,
    Tangent,
    cosine,
    equidistribute,
    get_rule,
    linear_vp,
    log_linear,
    rho_grid,
    rule_names,
    tangent,
    usual_rules,
)

LEVELS = np.geomspace(10.0, 0.01, 9)


class Measurements:
    """A profile whose costs grow as 1, 2, 3, ... along the levels, with orders of its own."""

    sigma_data = 0.7
    trajectories: Any = None

    def length(self, cost: str, exponent: float | None = None) -> Length:
        order = {"defect": 4.0, "corrector": 2.0}[cost]
        return Length(LEVELS, np.arange(1.0, 9.0), order if exponent is None else exponent)


PROFILE = Measurements()


def cut(exponent: float) -> tuple[float, ...]:
    return equidistribute(Length(LEVELS, np.arange(1.0, 9.0), exponent), 5, 4.0, 0.1).sigmas


@pytest.mark.parametrize(
    ("rule", "name", "sigmas"),
    [
        (Rho(), "rho 7", rho_grid(5, 4.0, 0.1).sigmas),
        (Rho(3), "rho 3", rho_grid(5, 4.0, 0.1, 3.0).sigmas),
        (LogLinear(), "log-linear", log_linear(5, 4.0, 0.1).sigmas),
        (Cosine(), "cosine", cosine(5, 4.0, 0.1).sigmas),
        (LinearVP(), "linear VP", linear_vp(5, 4.0, 0.1).sigmas),
        (Tangent(), "tangent 0.7", tangent(5, 4.0, 0.1, 0.7).sigmas),
        (Tangent(2), "tangent 2", tangent(5, 4.0, 0.1, 2.0).sigmas),
        (Defect(), "defect", cut(4.0)),
        (Defect(3), "defect", cut(3.0)),
        (Corrector(), "corrector", cut(2.0)),
    ],
    ids=repr,
)
def test_a_rule_makes_what_its_formula_makes(rule: Rule, name: str, sigmas: tuple[float, ...]) -> None:
    assert rule(PROFILE, 5, 4.0, 0.1) == Schedule(sigmas, name)
    assert get_rule(rule(PROFILE, 5, 4.0, 0.1).name).name == rule.name


@given(st.floats(1e-6, 1e6), st.sampled_from([Rho, Tangent, Defect, Corrector]))
def test_a_rule_is_read_as_it_is_written(value: float, kind: Any) -> None:
    rule = kind(value)
    read = get_rule(str(rule))
    assert type(read) is kind
    np.testing.assert_allclose(list(vars(read).values()), value, rtol=1e-11)


@pytest.mark.parametrize("name", rule_names())
def test_a_name_alone_is_the_rule_with_its_defaults(name: str) -> None:
    rule = get_rule(name)
    assert (str(rule), get_rule(rule), hash(rule)) == (name, rule, hash(get_rule(name)))
    assert {part.name for part in usual_rules()} <= set(rule_names())


def test_the_rule_of_a_solver_follows_trajectories_and_no_other_does() -> None:
    made = Schedule((4.0, 1.0, 0.1, 0.0), "least error")
    asked: list[Any] = []

    def least_error(*given: Any) -> Schedule:
        asked.append(given)
        return made

    followed = Measurements()
    followed.trajectories = SimpleNamespace(follows=lambda solver: solver == "linear", least_error=least_error)
    rule = LeastError()
    assert [rule.fits(followed, solver) for solver in ("linear", "heun")] == [True, False]
    assert not rule.fits(PROFILE, "linear")
    assert rule(followed, 3, 4.0, 0.1, "linear") is made
    assert asked == [("linear", 3, 4.0, 0.1)]
    assert [rule for rule in map(get_rule, rule_names()) if rule.by_solver] == [LeastError()]
    with pytest.raises(InputError, match="no trajectories"):
        rule(PROFILE, 3, 4.0, 0.1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quadratic", "unknown schedule 'quadratic': expected one of defect"),
        ("rhombic", "unknown schedule"),
        ("", "unknown schedule"),
        ("gits", "unknown schedule 'gits'"),
        ("custom", "unknown schedule"),
        ("rho x", "the parameters of 'rho' are numbers: got 'x'"),
        ("rho 3 4", "'rho' takes rho at most: got '3 4'"),
        ("cosine 3", "'cosine' takes no parameters: got '3'"),
        ("rho -3", "rho is -3.0: it must be finite and above 0"),
        ("tangent nan", "the scale is nan"),
        ("defect 0", "an exponent is finite and above 0: got 0"),
    ],
)
def test_a_name_that_is_no_rule_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        get_rule(name)


@pytest.mark.parametrize("name", rule_names())
def test_levels_out_of_order_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"the horizon must lie above sigma_min.*0\.1 and 0\.1"):
        get_rule(name)(PROFILE, 3, 0.1, 0.1)
