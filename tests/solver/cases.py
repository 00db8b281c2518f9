"""Every solver that is registered, with its own parameters: one that is added is tested without being named."""

from headstart.solver import get_solver, is_linear, solver_names

EVERY = [get_solver(name) for name in solver_names()]
ODE = [solver for solver in EVERY if not solver.stochastic]
SDE = [solver for solver in EVERY if solver.stochastic]
LINEAR = [solver.name for solver in ODE if is_linear(solver)]
