r"""Plans for a guided denoiser, which is no conditional expectation of any law.

For a scale other than 1, :math:`D_u + s (D_c - D_u)` estimates :math:`E[x_0 \mid x]` of no data, and a budget that is
drawn from its loss means nothing. So a plan for it is fitted and judged on samples of the guided sampler itself, at
many evaluations and with the conditions of the data: starts are fitted on one share of them, and pilots are held
against the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.choose.data import OWN_SAMPLES, dataset_of
from headstart.conditions import Conditions
from headstart.data import Dataset
from headstart.denoiser import Denoiser, guide, guided_in
from headstart.errors import InputError
from headstart.noise import generator_of
from headstart.plan import Guidance

__all__ = ["asked_of", "guided_by", "recorded"]


def guided_by(denoiser: Denoiser, scale: float, criterion: str) -> Denoiser:
    """The denoiser with guidance of this scale, if it is not guided so already.

    Raises:
        InputError: if it is guided by another scale, or the criterion is the budget.
    """
    if criterion == "budget":
        raise InputError("a guided denoiser is no conditional expectation and has no budget in nats: use a pilot")
    found = guided_in(denoiser)
    if found is not None and found.scale != scale:
        raise InputError(f"the denoiser is guided by {found.scale:g}, and the plan is asked for guidance {scale:g}")
    return guide(denoiser, scale) if found is None else denoiser


def asked_of(
    data: Tensor | Dataset | ArrayLike,
    labels: Tensor | ArrayLike | None,
    conditions: Mapping[str, Any] | None,
    n_samples: int | None,
    seed: int,
) -> tuple[tuple[int, ...], int, Tensor | None, Mapping[str, Any]]:
    """The order of a guided sampler in place of data: the shape of a sample, how many, classes and conditions.

    They are those of at most ``n_samples`` of the data, 2,000 by default, drawn without replacement.
    """
    dataset = dataset_of(data, labels)
    count = len(dataset)
    most = OWN_SAMPLES if n_samples is None else n_samples
    rows = torch.randperm(count, generator=generator_of(seed))[: min(most, count)]
    classes = None if labels is None or dataset.labels is None else dataset.labels[rows]
    taken = Conditions.of(conditions, count).take(rows)
    return tuple(dataset.samples.shape[1:]), len(rows), classes, dict(taken.tree)


def recorded(denoiser: Denoiser) -> Guidance | None:
    """The guidance of a denoiser, as a plan keeps it."""
    found = guided_in(denoiser)
    if found is None:
        return None
    low, high = found.interval
    return Guidance(found.scale, low, None if math.isinf(high) else high)
