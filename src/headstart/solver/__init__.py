"""How the reverse process moves between two noise levels."""

from headstart.solver.base import SOLVERS, Solver
from headstart.solver.ddpm import DDPM
from headstart.solver.deis import DEIS
from headstart.solver.distilled import Distilled
from headstart.solver.dpm import DPMSolverPP2M
from headstart.solver.dpm3 import DPMSolverPP3M
from headstart.solver.euler import Euler
from headstart.solver.euler_maruyama import EulerMaruyama
from headstart.solver.heun import Heun
from headstart.solver.ipndm import IPNDM
from headstart.solver.linear import is_linear, linear_weights
from headstart.solver.predictor_corrector import PredictorCorrector
from headstart.solver.unipc import UniPC

__all__ = [
    "DDPM",
    "DEIS",
    "IPNDM",
    "SOLVERS",
    "USUAL_SOLVERS",
    "DPMSolverPP2M",
    "DPMSolverPP3M",
    "Distilled",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "PredictorCorrector",
    "Solver",
    "UniPC",
    "get_solver",
    "is_linear",
    "linear_weights",
    "solver_names",
]


#: The names of the solvers that a fit tries where the user names none, the first one first.
USUAL_SOLVERS = ("dpm++2m", "dpm++3m", "unipc", "deis", "euler")


def solver_names() -> tuple[str, ...]:
    """The names of the solvers that ``fit`` and the command line accept."""
    return tuple(name for name, solver in SOLVERS.items() if not solver.given)


def get_solver(solver: str | Solver) -> Solver:
    """The solver of that name, with its default parameters; a solver is returned as it is.

    Raises:
        InputError: if there is no solver of that name.

    >>> get_solver("dpm++2m")
    DPMSolverPP2M()
    """
    if isinstance(solver, Solver):
        return solver
    return SOLVERS.find(solver)()
