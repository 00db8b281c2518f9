"""Which noise levels the reverse process visits."""

from headstart.schedule.base import Schedule
from headstart.schedule.classic import log_linear, rho_grid, tangent
from headstart.schedule.optimal import Length, equidistribute

__all__ = ["Length", "Schedule", "equidistribute", "log_linear", "rho_grid", "tangent"]
