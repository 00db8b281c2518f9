r"""Score models of tables and of simulators: treeffuser and sbi, as denoisers.

Both estimate :math:`\nabla \log p_t(z)` of :math:`z = \alpha_t x_0 + \sigma_t \varepsilon` given an observation, and
their coefficients are functions of a time (:class:`headstart.integrations.process.Path`).

References:
    Beltran-Velez et al., *Treeffuser*, version 0.2.0. Tejero-Cantero et al., *sbi*, version 0.27.0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.denoiser import Denoiser, adapt
from headstart.errors import InputError
from headstart.integrations.arrays import numpy_network
from headstart.integrations.process import Path

__all__ = ["from_sbi", "from_treeffuser"]


def from_sbi(estimator: Any, observation: Tensor | None = None) -> Denoiser:
    """A denoiser of parameters given an observation, from a score estimator of sbi.

    Arguments:
        estimator: a ``ConditionalScoreEstimator``, as NPSE trains it.
        observation: x_o, of shape (1, \\*O); or None, for a denoiser with the condition ``observation``, one a sample:
            a plan is then fitted on simulations once, and sampled at any observation. For posteriors that are far
            narrower than their prior fit with ``criterion="budget"`` and a ``sigma_min`` of a fiftieth of the prior's
            deviation: a pilot does not see their shape.

    Raises:
        InputError: if it has no mean, standard deviation and range of times: flow-matching estimators have not; or if
            the observation is not one.
    """
    needed = ("mean_t_fn", "std_fn", "t_min", "t_max")
    if not all(hasattr(estimator, name) for name in needed) or "Flow" in type(estimator).__name__:
        raise InputError(f"a {type(estimator).__name__} is no score estimator of sbi: it needs {', '.join(needed)}")
    if observation is not None and (observation.ndim < 2 or len(observation) != 1):
        raise InputError(f"the observation has shape {tuple(observation.shape)}: expected one, of shape (1, ...)")

    def score(z: Tensor, time: Tensor, **given: Tensor) -> Tensor:
        x = given.get("observation") if observation is None else observation
        if x is None:
            raise InputError("this posterior needs the condition observation: one for each sample, or one for all")
        found: Tensor = estimator(z, x.to(z).expand(len(z), *x.shape[1:]), time)
        return found

    return adapt(
        score,
        "score",
        Path(
            lambda t: estimator.mean_t_fn(t).reshape(len(t), -1)[:, 0],
            lambda t: estimator.std_fn(t).reshape(len(t), -1)[:, 0],
            float(estimator.t_min),
            float(estimator.t_max),
        ),
    )


def from_treeffuser(model: Any) -> Denoiser:
    """A denoiser of responses from a fitted Treeffuser; the condition ``X`` (B, P) holds the rows that they belong to.

    Responses are in its own units, standardised by its scaler: ``model._y_scaler`` goes there and back.

    Raises:
        InputError: if it was not fitted.
    """
    trees, sde = getattr(model, "score_model", None), getattr(model, "sde", None)
    if trees is None or sde is None:
        raise InputError(f"this {type(model).__name__} has no score model: fit it first")

    def score(y: Any, time: Any, X: Any) -> Any:
        return trees.score(y, model._x_scaler.transform(X), time[:, None])

    def coefficient(which: int, t: Tensor) -> Tensor:
        times = t.double().numpy()[:, None]
        found = sde.get_mean_std_pt_given_y0(np.ones_like(times), times)[which]
        return torch.from_numpy(np.array(np.broadcast_to(found, times.shape)))[:, 0]

    last = float(getattr(sde, "T", 1.0))
    path = Path(lambda t: coefficient(0, t), lambda t: coefficient(1, t), 1e-3 * last, last)
    return adapt(numpy_network(score, dtype=np.float64), "score", path)
