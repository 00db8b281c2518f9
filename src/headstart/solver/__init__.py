"""How the reverse process moves between two noise levels."""

from headstart.errors import InputError
from headstart.solver.base import Solver
from headstart.solver.ddpm import DDPM
from headstart.solver.dpm import DPMSolverPP2M
from headstart.solver.euler import Euler
from headstart.solver.heun import Heun

__all__ = ["DDPM", "SOLVERS", "DPMSolverPP2M", "Euler", "Heun", "Solver", "get_solver"]

SOLVERS: dict[str, type[Solver]] = {solver.name: solver for solver in (Euler, Heun, DPMSolverPP2M, DDPM)}
"""The solvers by name; ``SOLVERS[solver.name](**solver.parameters())`` equals the solver."""


def get_solver(solver: str | Solver) -> Solver:
    """The solver of that name, with its default parameters; a solver is returned as it is.

    Raises:
        InputError: if there is no solver of that name.

    >>> get_solver("dpm++2m")
    DPMSolverPP2M()
    """
    if isinstance(solver, Solver):
        return solver
    if solver not in SOLVERS:
        raise InputError(f"unknown solver {solver!r}: expected one of {', '.join(SOLVERS)}")
    return SOLVERS[solver]()
