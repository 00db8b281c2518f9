r"""What the steps of an ODE sampler cost.

The defect cost of a step from a to b < a is the squared distance between a step of Heun's method and one of Euler's,

.. math:: K_i = \frac{E\,\|F_\text{Heun}(x_a) - F_\text{Euler}(x_a)\|^2}{b^2 + \sigma_d^2}, \qquad x_a \sim p_a,

and estimates the divergence :math:`KL(F_\text{Euler} \# p_a \,\|\, p_b)` that a step of Euler's method adds
(:mod:`headstart.profile`). It stands for every solver: a better one adds less, on the same levels.

A profile knows it for neighbours on its own levels. A longer step is put together from them, to leading order: its
length :math:`\Lambda` is the sum of their fourth roots, and its cost :math:`\Lambda^4`. The defect of a long step as it
stands says little: where a step is large, Heun's method itself is far off.
"""

from __future__ import annotations

from headstart.profile import Profile
from headstart.schedule import Schedule

__all__ = ["discretization_error"]


def discretization_error(profile: Profile, schedule: Schedule) -> tuple[float, ...]:
    """The divergence that each step adds, in nats; a step to 0 is left out.

    A profile that was measured on the very levels of the schedule gives the defect of each step as it stands.

    Raises:
        InputError: if the schedule leaves the profile's levels.
    """
    return tuple(float(cost) for cost in profile.length("defect").step_costs(schedule))
