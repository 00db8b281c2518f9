"""Which noise levels the reverse process visits."""

from headstart.schedule.align_your_steps import AlignedModel, align_your_steps, interpolate, klub, published_steps
from headstart.schedule.base import Schedule
from headstart.schedule.classic import cosine, linear_vp, log_linear, rho_grid, tangent
from headstart.schedule.constant_rate import ConstantRateMeasure, constant_rate
from headstart.schedule.dynamic import ReverseVariance, ShortestPaths, path_terms
from headstart.schedule.fixed_point import FixedPoint, fixed_point, update
from headstart.schedule.gits import GITS, GITSMetric
from headstart.schedule.online import OnlineSchedule, corrector_costs
from headstart.schedule.optimal import Length, equidistribute

__all__ = [
    "GITS",
    "AlignedModel",
    "ConstantRateMeasure",
    "FixedPoint",
    "GITSMetric",
    "Length",
    "OnlineSchedule",
    "ReverseVariance",
    "Schedule",
    "ShortestPaths",
    "align_your_steps",
    "constant_rate",
    "corrector_costs",
    "cosine",
    "equidistribute",
    "fixed_point",
    "interpolate",
    "klub",
    "linear_vp",
    "log_linear",
    "path_terms",
    "published_steps",
    "rho_grid",
    "tangent",
    "update",
]
