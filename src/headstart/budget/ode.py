r"""The discretization error of an ODE sampler.

A solver with one evaluation a step errs by :math:`\hat x_b - x_b` on the exact trajectory, and where a profile has
followed some (:mod:`headstart.trajectory`), the divergence that a step adds is estimated by

.. math:: K_i = \frac{E\,\|\hat x_b - x_b\|^2}{v_b}, \qquad v_b = d / J(b),

with the Fisher information J of the noised data. For an isotropic Gaussian and Euler's method it is exact to leading
order. Other solvers, and profiles without trajectories, are given the defect of Euler's steps,

.. math:: K_i = \frac{E\,\|F_\text{Heun}(x_a) - F_\text{Euler}(x_a)\|^2}{b^2 + \sigma_d^2}, \qquad x_a \sim p_a,

which a profile knows for neighbours on its own levels. A longer step is put together from them, to leading order: its
length :math:`\Lambda` is the sum of their fourth roots, and its cost :math:`\Lambda^4`. The defect of a long step as it
stands says little: where a step is large, Heun's method itself is far off.
"""

from __future__ import annotations

from headstart.profile import Profile
from headstart.schedule import Schedule
from headstart.solver import Solver, is_linear

__all__ = ["discretization_error"]


def discretization_error(profile: Profile, schedule: Schedule, solver: Solver | None = None) -> tuple[float, ...]:
    """The divergence that each step adds, in nats; a step to 0 is left out.

    Without a solver it is that of Euler's method, by the defect: a profile that was measured on the very levels of the
    schedule gives that of each step as it stands.

    Raises:
        InputError: if the schedule leaves the profile's levels.
    """
    if solver is not None and is_linear(solver) and profile.trajectories is not None:
        return tuple(profile.trajectories.local_errors(schedule, solver).mean(axis=0).tolist())
    return tuple(float(cost) for cost in profile.length("defect").step_costs(schedule))
