"""Which noise levels the reverse process visits."""

from headstart.schedule.base import Schedule
from headstart.schedule.classic import log_linear, rho_grid, tangent
from headstart.schedule.dynamic import ReverseVariance, ShortestPaths, path_terms
from headstart.schedule.fixed_point import FixedPoint, fixed_point, update
from headstart.schedule.online import OnlineSchedule, corrector_costs
from headstart.schedule.optimal import Length, equidistribute

__all__ = [
    "FixedPoint",
    "Length",
    "OnlineSchedule",
    "ReverseVariance",
    "Schedule",
    "ShortestPaths",
    "corrector_costs",
    "equidistribute",
    "fixed_point",
    "log_linear",
    "path_terms",
    "rho_grid",
    "tangent",
    "update",
]
