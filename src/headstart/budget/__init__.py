r"""The error budget of a plan, in nats: what the start costs, what each step costs, and what the network costs.

* :mod:`~headstart.budget.base`: the budget of a plan, :math:`B_\text{ODE} = (\sqrt{E_\text{init}} + \sum_i
  \sqrt{K_i})^2`.
* :mod:`~headstart.budget.initialization`: :math:`E_\text{init} = KL(p_T \,\|\, p_\theta)` by the network's loss,
  bracketed, in closed form and bounded.
* :mod:`~headstart.budget.information`: what a start pays that ignores the conditions.
* :mod:`~headstart.budget.ode`: :math:`K_i`, what a step of an ODE sampler adds, by its defect.
* :mod:`~headstart.budget.path`: J, the divergence of a stochastic sampler's path up to a constant common to all.
* :mod:`~headstart.budget.score`: :math:`E_\text{score}`, where the exact denoiser is known.
* :mod:`~headstart.budget.exact`: the exact divergence of Euler's method, in few dimensions.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772.
"""

from headstart.budget.base import Budget, Estimate
from headstart.budget.exact import euler_divergence, euler_log_ratios, invert_euler
from headstart.budget.information import condition_information
from headstart.budget.initialization import (
    Bracket,
    gaussian_divergence,
    initialization_bracket,
    initialization_error,
    initialization_errors,
    moment_bound,
    transport_bound,
)
from headstart.budget.ode import discretization_error
from headstart.budget.path import (
    path_bound,
    path_log_ratios,
    path_objective,
    path_objectives,
    reverse_variances,
    step_terms,
)
from headstart.budget.score import score_error

__all__ = [
    "Bracket",
    "Budget",
    "Estimate",
    "condition_information",
    "discretization_error",
    "euler_divergence",
    "euler_log_ratios",
    "gaussian_divergence",
    "initialization_bracket",
    "initialization_error",
    "initialization_errors",
    "invert_euler",
    "moment_bound",
    "path_bound",
    "path_log_ratios",
    "path_objective",
    "path_objectives",
    "reverse_variances",
    "score_error",
    "step_terms",
    "transport_bound",
]
