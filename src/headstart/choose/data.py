"""The data of a fit: samples, a share of which is held out, or samples of the network itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.arrays import as_classes
from headstart.compute import Compute
from headstart.conditions import Conditions
from headstart.data import Dataset, load_data
from headstart.denoiser import Denoiser, Range, denoise, in_evaluation_mode
from headstart.deprecation import gathered, renamed
from headstart.errors import DataError, DenoiserError, InputError
from headstart.noise import Stream
from headstart.schedule import rho_grid
from headstart.solver import Heun

__all__ = ["OWN_SAMPLES", "OWN_SIGMA_MAX", "dataset_of", "own_samples"]

#: Names of an earlier version.
__getattr__ = renamed(__name__, {"hold_out": "headstart.conditions:hold_out"})

#: Samples of the network itself that are drawn where there are no data.
OWN_SAMPLES = 2000

#: The sampler that draws them: EDM's.
OWN_STEPS, OWN_SIGMA_MAX, OWN_SIGMA_MIN = 18, 80.0, 0.002


@gathered(compute=Compute)
@in_evaluation_mode
def own_samples(
    denoiser: Denoiser,
    shape: Sequence[int],
    n: int = OWN_SAMPLES,
    *,
    sigma_max: float | None = None,
    conditions: Mapping[str, Any] | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Tensor:
    """Samples of the network itself, where there are no data to fit a plan on: 35 evaluations each.

    By EDM's sampler: Heun's method from noise, 18 steps of the rho grid down to 0.002 and on to 0 (in units of data
    with a standard deviation near 0.5). A plan that is fitted on them inherits what the network fails to model.

    Arguments:
        denoiser: the network, on ``device``.
        shape: the shape S of one sample.
        n: how many.
        sigma_max: where the sampler starts; by default 80, or less if an adapted network says so of itself.
        conditions: handed to the network; those of length n go with the samples. ``label`` is a class for each, or
            one for all.
        seed: of the samples, whose own seeds are others than those that a plan samples with by default.
        compute: how the work is done; by default on the CPU, in float32.

    Returns:
        Samples of shape (n, \\*S), on the CPU.

    Raises:
        InputError: if a number is out of its range.
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
    """
    compute = compute or Compute()
    known = Range.of(denoiser, sigma_max, compute.dtype)
    highest = min(known.high, OWN_SIGMA_MAX) if sigma_max is None else sigma_max
    lowest = max(known.low, OWN_SIGMA_MIN)
    if n < 10 or not lowest < highest < math.inf:
        raise InputError(
            f"a plan needs at least ten samples, from a level above {lowest:.6g}: got n={n} and sigma_max={highest}"
        )
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"the shape of a sample is whole numbers of at least 1: got {tuple(shape)}")
    schedule = rho_grid(OWN_STEPS, highest, lowest)
    seeds, parts, given = Stream.OWN_SAMPLES.seeds(seed, n), [], Conditions.of(conditions, n)

    def first_answer(few: Conditions) -> Tensor | None:
        x = schedule.horizon * compute.noise(seeds[: few.count]).normal(tuple(shape))
        try:
            return denoise(denoiser, x, schedule.horizon, **few.to(compute.device))
        except DenoiserError:
            return None

    with torch.no_grad():
        if compute.batch_size < n:
            given = given.told_apart(first_answer)
        for rows in compute.batches(n, "drawing samples of the network itself"):
            x = schedule.horizon * compute.noise(seeds[rows]).normal(tuple(shape))
            parts.append(Heun().solve(denoiser, x, schedule, **given.take(rows).to(compute.device)).cpu())
    return torch.cat(parts)


def dataset_of(data: Tensor | Dataset | ArrayLike, labels: Tensor | ArrayLike | None) -> Dataset:
    """The data with their labels, on the CPU, as :func:`headstart.data.load_data` takes them.

    Raises:
        DataError: if they are fewer than ten, not finite, or not floating point.
    """
    dataset = load_data(data)
    if len(dataset) < 10:
        raise DataError(f"a plan needs at least ten samples of the data: got {len(dataset)}")
    labels = dataset.labels if labels is None else labels
    labels = None if labels is None else as_classes(labels, "labels").cpu()
    return Dataset(dataset.samples.detach().cpu(), labels, dataset.name)
