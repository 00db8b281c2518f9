"""The data of a fit: samples, a share of which is held out, or samples of the network itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.conditions import labelled, take, to_device
from headstart.data import Dataset
from headstart.denoiser import Denoiser
from headstart.deprecation import renamed
from headstart.errors import DataError, InputError
from headstart.noise import Noise, Stream
from headstart.progress import Progress
from headstart.schedule import rho_grid
from headstart.solver import Heun

__all__ = ["OWN_SAMPLES", "OWN_SIGMA_MAX", "dataset_of", "own_samples"]

#: Names of an earlier version.
__getattr__ = renamed(__name__, {"hold_out": "headstart.conditions:hold_out"})

#: Samples of the network itself that are drawn where there are no data.
OWN_SAMPLES = 2000

#: The sampler that draws them: EDM's.
OWN_STEPS, OWN_SIGMA_MAX, OWN_SIGMA_MIN = 18, 80.0, 0.002


def own_samples(
    denoiser: Denoiser,
    shape: Sequence[int],
    n: int = OWN_SAMPLES,
    *,
    sigma_max: float | None = None,
    conditions: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """Samples of the network itself, where there are no data to fit a plan on: 35 evaluations each.

    By EDM's sampler: Heun's method from noise, 18 steps of the rho grid down to 0.002 and on to 0 (in units of data
    with a standard deviation near 0.5). What the network has not learned, a plan fitted on them does not know either.

    Arguments:
        denoiser: the network, on ``device``.
        shape: the shape S of one sample.
        n: how many.
        sigma_max: where the sampler starts; by default 80, or less if an adapted network says so of itself.
        conditions: handed to the network; tensors of length n go with the samples. ``label`` is a class for each, or
            one for all.
        seed: of the samples, whose own seeds are others than those that a plan samples with by default.
        device: where the network works.
        dtype: of the states.
        batch_size: samples per call of the network.
        progress: told of the batches.

    Returns:
        Samples of shape (n, \\*S), on the CPU.

    Raises:
        InputError: if a number is out of its range.
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
    """
    highest = min(float(getattr(denoiser, "sigma_max", math.inf)), OWN_SIGMA_MAX) if sigma_max is None else sigma_max
    if n < 10 or batch_size < 1 or not OWN_SIGMA_MIN < highest < math.inf:
        raise InputError(
            f"a plan needs at least ten samples, in batches of 1 or more, from a level above {OWN_SIGMA_MIN}: "
            f"got n={n}, batch_size={batch_size} and sigma_max={highest}"
        )
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"the shape of a sample is whole numbers of at least 1: got {tuple(shape)}")
    schedule = rho_grid(OWN_STEPS, highest, OWN_SIGMA_MIN)
    starts, parts, conditions = range(0, n, batch_size), [], labelled(conditions or {}, n)
    with torch.no_grad():
        for i in (progress or Progress()).track(starts, "drawing samples of the network itself", len(starts)):
            rows = slice(i, min(i + batch_size, n))
            noise = Noise(Stream.OWN_SAMPLES.seeds(seed, n)[rows], device, dtype)
            given = to_device(take(conditions, rows, n), device)
            x = schedule.horizon * noise.normal(tuple(shape))
            parts.append(Heun().solve(denoiser, x, schedule, **given).cpu())
    return torch.cat(parts)


def dataset_of(data: Tensor | Dataset | NDArray[Any], labels: Tensor | None) -> Dataset:
    """The data with their labels, on the CPU.

    Raises:
        DataError: if they are fewer than ten, not finite, or not floating point.
    """
    labels = None if labels is None else torch.as_tensor(labels)
    if isinstance(data, Dataset):
        dataset = data if labels is None else replace(data, labels=labels)
    else:
        dataset = Dataset(torch.as_tensor(data), labels)
    if len(dataset) < 10:
        raise DataError(f"a plan needs at least ten samples of the data: got {len(dataset)}")
    labels = None if dataset.labels is None else dataset.labels.cpu()
    return Dataset(dataset.samples.detach().cpu(), labels, dataset.name)
