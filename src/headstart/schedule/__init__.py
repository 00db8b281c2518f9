"""Which noise levels the reverse process visits."""

from headstart.schedule.align_your_steps import (
    AlignedModel,
    Descent,
    align_your_steps,
    interpolate,
    klub,
    published_steps,
)
from headstart.schedule.base import Schedule
from headstart.schedule.classic import (
    Cosine,
    LinearVP,
    LogLinear,
    Rho,
    Tangent,
    cosine,
    linear_vp,
    log_linear,
    rho_grid,
    tangent,
)
from headstart.schedule.constant_rate import ConstantRateMeasure, constant_rate
from headstart.schedule.dynamic import ReverseVariance, ShortestPaths, path_terms
from headstart.schedule.fixed_point import FixedPoint, fixed_point, update
from headstart.schedule.gits import GITS, GITSMetric
from headstart.schedule.learned import Distilled
from headstart.schedule.least_error import LeastError
from headstart.schedule.online import OnlineSchedule, corrector_costs
from headstart.schedule.optimal import Corrector, Cut, Defect, Length, equidistribute
from headstart.schedule.rule import RULES, Custom, Kind, Measured, Rule, get_rule, rule_names, split_name, usual_rules

__all__ = [
    "GITS",
    "RULES",
    "AlignedModel",
    "ConstantRateMeasure",
    "Corrector",
    "Cosine",
    "Custom",
    "Cut",
    "Defect",
    "Descent",
    "Distilled",
    "FixedPoint",
    "GITSMetric",
    "Kind",
    "LeastError",
    "Length",
    "LinearVP",
    "LogLinear",
    "Measured",
    "OnlineSchedule",
    "ReverseVariance",
    "Rho",
    "Rule",
    "Schedule",
    "ShortestPaths",
    "Tangent",
    "align_your_steps",
    "constant_rate",
    "corrector_costs",
    "cosine",
    "equidistribute",
    "fixed_point",
    "get_rule",
    "interpolate",
    "klub",
    "linear_vp",
    "log_linear",
    "path_terms",
    "published_steps",
    "rho_grid",
    "rule_names",
    "split_name",
    "tangent",
    "update",
    "usual_rules",
]
