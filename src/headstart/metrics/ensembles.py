r"""Scores of ensembles: samples of the law of each case, against what came to be.

Of a case with the outcome y and members :math:`x_1 \dots x_K`,

.. math::
    \mathrm{CRPS} &= \frac 1K \sum_k |x_k - y| - \frac{1}{2 K (K - 1)} \sum_{k, l} |x_k - x_l|
        \quad \text{of each coordinate, and their mean}, \\
    \mathrm{ES} &= \frac 1K \sum_k \|x_k - y\| - \frac{1}{2 K (K - 1)} \sum_{k, l} \|x_k - x_l\|.

Both are smallest in expectation where members are drawn from the outcome's own law. They are fair: their expectations
do not depend on the number of members, since the differences are averaged over pairs of different members. The CRPS
sees each coordinate by itself; the energy score sees also how they go together. An ensemble has the right width where
the variance of its members is the squared error of their mean, times :math:`K / (K + 1)`.

References:
    Gneiting and Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, Journal of the American
    Statistical Association, 2007.

    Ferro, *Fair Scores for Ensemble Forecasts*, Quarterly Journal of the Royal Meteorological Society, 2014.

    Fortin et al., *Why Should Ensemble Spread Match the RMSE of the Ensemble Mean?*, Journal of Hydrometeorology, 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.arrays import as_tensor
from headstart.errors import DataError

__all__ = ["crps", "energy_score", "spread_to_error"]


def crps(ensembles: Tensor, outcomes: Tensor) -> Tensor:
    """The continuous ranked probability score of each case, as a mean over its coordinates, in the data's units: (N,).

    Arguments:
        ensembles: K members of each of N cases, shape (N, K, \\*S).
        outcomes: shape (N, \\*S).

    Raises:
        DataError: if there is no case, there are fewer than two members, the shapes do not fit, or there is NaN or Inf.

    >>> crps(torch.tensor([[0.0, 2.0]]), torch.tensor([1.0]))
    tensor([0.], dtype=torch.float64)
    """
    members, truth = _checked(ensembles, outcomes)
    k = members.shape[1]
    away = (members - truth[:, None]).abs().mean(1)
    # Of sorted members, the i-th is the larger one of i pairs and the smaller one of K - 1 - i.
    ranks = 2 * torch.arange(k, dtype=torch.float64) - (k - 1)
    apart = torch.einsum("k,nkd->nd", ranks, members.sort(1).values) / (k * (k - 1))
    scores: Tensor = (away - apart).mean(1)
    return scores


def energy_score(ensembles: Tensor, outcomes: Tensor) -> Tensor:
    """The energy score of each case, by the Euclidean norm over all coordinates, in the data's units: (N,).

    Arguments:
        ensembles: K members of each of N cases, shape (N, K, \\*S).
        outcomes: shape (N, \\*S).

    Raises:
        DataError: as :func:`crps`.
    """
    members, truth = _checked(ensembles, outcomes)
    k = members.shape[1]
    away = torch.linalg.vector_norm(members - truth[:, None], dim=2).mean(1)
    apart = torch.stack([torch.pdist(own).sum() for own in members])
    scores: Tensor = away - apart / (k * (k - 1))
    return scores


def spread_to_error(ensembles: Tensor, outcomes: Tensor) -> float:
    """The width of ensembles over the error of their means, over all cases and coordinates; 1 for the right width.

    Arguments:
        ensembles: K members of each of N cases, shape (N, K, \\*S).
        outcomes: shape (N, \\*S).

    Raises:
        DataError: as :func:`crps`; or if the mean of every ensemble is the outcome, so that there is no error.
    """
    members, truth = _checked(ensembles, outcomes)
    k = members.shape[1]
    error = (members.mean(1) - truth).square().mean()
    if error == 0:
        raise DataError("the mean of every ensemble is the outcome: there is no error to compare the spread with")
    return float(((k + 1) / k * members.var(1).mean() / error).sqrt())


def _checked(ensembles: Tensor, outcomes: Tensor) -> tuple[Tensor, Tensor]:
    """Members (N, K, d) and outcomes (N, d), in float64 on the CPU."""
    ensembles, outcomes = as_tensor(ensembles, "the ensembles"), as_tensor(outcomes, "the outcomes")
    fits = ensembles.ndim > 1 and ensembles.shape[1] > 1 and ensembles.numel() > 0
    if not fits or (len(ensembles), *ensembles.shape[2:]) != outcomes.shape:
        raise DataError(
            f"ensembles have shape {tuple(ensembles.shape)} and outcomes {tuple(outcomes.shape)}: expected (N, K, *S) "
            "with at least one case and at least two members, and (N, *S)"
        )
    members, truth = (each.detach().cpu().double() for each in (ensembles, outcomes))
    if not (torch.isfinite(members).all() and torch.isfinite(truth).all()):
        raise DataError("ensembles or outcomes hold NaN or infinite values")
    return members.reshape(*members.shape[:2], -1), truth.reshape(len(truth), -1)
