r"""treeffuser: its score model of trees, as a denoiser.

It estimates :math:`\nabla \log p_t(z)` of :math:`z = \alpha_t x_0 + \sigma_t \varepsilon` given a row of a table,
and its coefficients are functions of a time (:class:`headstart.integrations.process.Path`).

References:
    Beltran-Velez et al., *Treeffuser*, version 0.2.0.
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

__all__ = ["from_treeffuser"]


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
