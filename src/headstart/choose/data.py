"""The data of a fit: samples, a share of which is held out, or samples of the network itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.arrays import as_classes
from headstart.choose.levels import CORE
from headstart.compute import Compute
from headstart.conditions import Conditions, Split, check_label, to_device
from headstart.data import Dataset, load_data
from headstart.denoiser import Denoiser, Range, cast_input, denoise, in_evaluation_mode
from headstart.denoiser.law import Law, learned_law
from headstart.deprecation import gathered, renamed
from headstart.errors import DataError, DenoiserError, InputError
from headstart.noise import Noise, Stream, generator_of
from headstart.profile import core_deviation
from headstart.schedule import Schedule, rho_grid
from headstart.schedule.classic import EDM_DEVIATION, EDM_MAX, EDM_MIN
from headstart.solver import Heun

__all__ = ["OWN_SAMPLES", "OWN_SIGMA_MAX", "dataset_of", "own_samples", "split_of"]

#: Names of an earlier version.
__getattr__ = renamed(__name__, {"hold_out": "headstart.conditions:hold_out"})

#: Samples of the network itself that are drawn where there are no data; and of few numbers each, where a start can be
#: told from more of them, and they cost little.
OWN_SAMPLES, MORE_OWN_SAMPLES, FEW_NUMBERS = 2000, 10_000, 256

#: The sampler that draws them: EDM's, for data of this standard deviation.
OWN_STEPS, OWN_SIGMA_MAX, OWN_SIGMA_MIN, OWN_UNIT = 18, EDM_MAX, EDM_MIN, EDM_DEVIATION

#: Data whose standard deviation is within this ratio of it are of the same unit.
SAME_UNIT = 5.0

#: Numbers of all samples at most: 16 GB.
MOST_NUMBERS = 2**32

#: A sample of the network is far out whose distance from the middle is this many times the 95 % quantile.
FAR, OUTER = 2.0, 0.95

#: The network is asked about it this often, and does not stand by it where the noise that it sees, per root of the
#: dimension, is this on the average: three to five are seen in strays, and at most two in samples of a normal law.
ASKED_AGAIN, STRAY = 8, 2.5

#: Answers at each level that tell the unit. Samples do where they are so many times as wide, drawn so often at most.
ASKED, LARGER, WIDENED = 32, 2.0, 5

#: The highest level has to be this many standard deviations of the data, and the lowest one this share of one.
HIDING, FINE = 8.0, 1 / 8


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

    By EDM's sampler: Heun's method from noise, 18 steps of the rho grid from 80 down to 0.002 and on to 0. That is for
    data with a standard deviation near 0.5. A few answers and samples of the network tell the unit of its own
    (:mod:`headstart.denoiser.law`); where it is another one, the levels are in that. A plan that is fitted on them
    inherits what the network fails to model.

    Arguments:
        denoiser: the network, on ``device``.
        shape: the shape S of one sample.
        n: how many.
        sigma_max: the highest level that the network knows; by default what an adapted network says of itself.
        conditions: handed to the network; those of length n go with the samples. ``label`` is a class for each, or
            one for all.
        seed: of the samples, whose own seeds are others than those that a plan samples with by default.
        compute: how the work is done; by default on the CPU, in float32.

    Returns:
        Samples of shape (n, \\*S), on the CPU.

    Raises:
        InputError: if a number is out of its range, or the levels that the network knows do not reach from noise to
            data.
        DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
    """
    compute = compute or Compute()
    known = Range.of(denoiser, sigma_max, compute.dtype)
    _check_shape(shape)
    if n * math.prod(shape) > MOST_NUMBERS:
        raise InputError(f"{n:,} samples of shape {tuple(shape)} are more than {MOST_NUMBERS:,} numbers: draw fewer")
    if n < 10 or not known.high > max(known.low, OWN_SIGMA_MIN):
        raise InputError(
            f"a plan needs at least ten samples, from a level above {max(known.low, OWN_SIGMA_MIN):.6g}: "
            f"got n={n} and sigma_max={known.high}"
        )
    seeds, given = Stream.OWN_SAMPLES.seeds(seed, n), Conditions.of(conditions, n)
    first = min(known.high, OWN_SIGMA_MAX)

    def first_answer(few: Conditions) -> Tensor | None:
        x = first * compute.noise(seeds[: few.count]).normal(tuple(shape))
        try:
            return denoise(denoiser, x, first, **few.to(compute.device))
        except DenoiserError:
            return None

    with torch.no_grad():
        if min(compute.batch_size, ASKED) < n:
            given = given.told_apart(first_answer)
        schedule = _own_levels(denoiser, shape, given, known, seeds, compute)

        def draw(rows: slice) -> Tensor:
            x = schedule.horizon * compute.noise(seeds[rows]).normal(tuple(shape))
            return Heun().solve(denoiser, x, schedule, **given.take(rows).to(compute.device)).cpu()

        return torch.cat(compute.spread(n, draw, "drawing samples of the network itself"))


def _check_shape(shape: Sequence[int]) -> None:
    """Refuse what is not the shape of a sample.

    Raises:
        InputError: if it is not whole numbers of at least 1.
    """
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"the shape of a sample is whole numbers of at least 1: got {tuple(shape)}")


def _own_levels(
    denoiser: Denoiser, shape: Sequence[int], given: Conditions, known: Range, seeds: Sequence[int], compute: Compute
) -> Schedule:
    """The levels of EDM's sampler, in the unit of the network's own law.

    Raises:
        InputError: if those that the network knows do not reach from noise to data.
    """
    count = min(ASKED, given.count, compute.batch_size)
    few = given.take(slice(0, count)).to(compute.device)
    asked = cast_input(partial(denoise, denoiser, **few), compute.dtype)
    noise = Noise(seeds[:count], compute.device).normal(tuple(shape))
    law = learned_law(asked, noise, OWN_SIGMA_MAX, max(known.low, 1e-12), known.high)
    law = _widened(law, denoiser, noise.to(compute.dtype), few, known)
    highest, lowest = _in_units_of(law, known)
    if law is not None and not (highest >= HIDING * law.deviation and lowest <= FINE * law.deviation):
        raise InputError(
            f"the network's samples have a standard deviation near {law.deviation:.4g}, and it knows noise from "
            f"{known.low:.4g} to {known.high:.4g}: they can be drawn from levels above {HIDING * law.deviation:.4g} "
            f"down to {FINE * law.deviation:.4g} alone (see sigma_max), or fit on data"
        )
    return rho_grid(OWN_STEPS, highest, lowest)


def _widened(
    law: Law | None, denoiser: Denoiser, noise: Tensor, conditions: Mapping[str, Any], known: Range
) -> Law | None:
    """A law that is as wide as the samples that are drawn in its units.

    Noise in all directions tells too small a deviation of a law that is wide in a few of them, as of images.
    """
    for _ in range(WIDENED):
        highest, lowest = _in_units_of(law, known)
        if law is None or highest <= lowest:
            break
        try:
            x = Heun().solve(denoiser, highest * noise, rho_grid(OWN_STEPS, highest, lowest), **conditions).cpu()
        except DenoiserError:  # which is raised again where all are drawn
            break
        if (found := core_deviation(x)) <= LARGER * law.deviation:  # of which a stray is no part
            break
        law = Law(float(x.mean(0).square().mean().sqrt()), found)
    return law


def _in_units_of(law: Law | None, known: Range) -> tuple[float, float]:
    """The highest and the lowest level of EDM's sampler in the unit of a law, as far as the network knows them."""
    unit = OWN_UNIT if law is None else law.deviation
    if OWN_UNIT / SAME_UNIT <= unit <= OWN_UNIT * SAME_UNIT:
        unit = OWN_UNIT
    highest = min(known.high, max(OWN_SIGMA_MAX * unit / OWN_UNIT, OWN_SIGMA_MAX / 2 * (law.mean if law else 0.0)))
    return highest, max(known.low, OWN_SIGMA_MIN * unit / OWN_UNIT)


def split_of(
    denoiser: Denoiser,
    data: Tensor | Dataset | ArrayLike | None,
    labels: Tensor | ArrayLike | None,
    conditions: Mapping[str, Any] | None,
    shape: Sequence[int] | None,
    n_samples: int | None,
    sigma_max: float | None,
    seed: int,
    compute: Compute,
) -> tuple[Split, str]:
    """The data of a fit with their conditions, cut once, and where they come from, in words.

    Raises:
        DataError: if they are fewer than ten, not finite, or not floating point.
        InputError: if there are none, and the shape of a sample is not given or the labels do not fit; or if the label
            is given twice.
    """
    check_label(conditions, labels, "as labels")
    given = to_device(conditions or {}, "cpu")
    if data is None:
        samples, asked, source = _own(denoiser, shape, n_samples, sigma_max, given, labels, seed, compute)
        return Split.of(samples, asked, seed=seed), source
    dataset = dataset_of(data, labels)
    if labels is not None:
        given["label"] = dataset.labels
    return Split.of(dataset.samples, given, seed=seed), "data"


def _own(
    denoiser: Denoiser,
    shape: Sequence[int] | None,
    count: int | None,
    sigma_max: float | None,
    conditions: Mapping[str, Any],
    labels: Tensor | ArrayLike | None,
    seed: int,
    compute: Compute,
) -> tuple[Tensor, Conditions, str]:
    """Samples of the network itself that it stands by, what was asked for, and their cost in words."""
    if shape is None:
        raise InputError("without data, say the shape of one sample: shape=(channels, height, width), for example")
    _check_shape(shape)
    if count is None:
        free = labels is None and not conditions and math.prod(shape) <= FEW_NUMBERS
        count = MORE_OWN_SAMPLES if free else OWN_SAMPLES
    if labels is not None:
        classes = as_classes(labels, "labels")
        if classes.shape != (count,):
            raise InputError(
                f"labels have shape {tuple(classes.shape)}: expected ({count},), one for each sample to draw"
            )
        conditions = {**conditions, "label": classes}
    asked = Conditions.of(conditions, count)
    samples = own_samples(denoiser, shape, count, sigma_max=sigma_max, conditions=asked, seed=seed, compute=compute)
    kept = _stood_by(denoiser, samples, asked, sigma_max, seed, compute)
    source = f"{count} samples of the network itself, drawn with 35 evaluations each"
    if len(kept) < count:
        source += f"; {count - len(kept)} far out, which it denoises to elsewhere, are left out"
    return samples[kept], asked.take(kept), source


def _stood_by(
    denoiser: Denoiser,
    x: Tensor,
    conditions: Conditions,
    sigma_max: float | None,
    seed: int,
    compute: Compute,
) -> Tensor:
    r"""The rows of its own samples (N, \*S) that the network stands by.

    A sampler's error can leave a sample far out, where the network was never trained, and a start that is fitted on a
    few of these draws many. Such a sample x is none of the network's law: noised again, it is denoised to elsewhere. Of
    one that is, however heavy the tails, the noise that the network sees,

    .. math:: \hat\varepsilon = \frac{x + \sigma \varepsilon - D(x + \sigma \varepsilon, \sigma)}{\sigma},

    is that of the law's score, and small on the average over :math:`\varepsilon`. The level is half the deviation of
    the samples without their tails.
    """
    flat = x.flatten(1)
    distances = torch.linalg.vector_norm(flat - flat.median(dim=0).values, dim=1)
    far = (distances > FAR * distances.quantile(OUTER)).nonzero()[:, 0]
    if not len(far):
        return torch.arange(len(x))
    known = Range.of(denoiser, sigma_max, compute.dtype)
    sigma = min(max(core_deviation(x[:CORE]) / 2, known.low), known.high)
    asked = conditions.take(far)
    noise = torch.randn(ASKED_AGAIN, len(far), *x.shape[1:], generator=generator_of(seed))

    def seen(rows: slice) -> Tensor:
        own = asked.take(rows).to(compute.device)
        found = torch.zeros_like(x[far[rows]])
        for draw in noise:
            state = (x[far[rows]] + sigma * draw[rows]).to(compute.device, compute.dtype)
            found += ((state - denoise(denoiser, state, sigma, **own)) / sigma).float().cpu() / ASKED_AGAIN
        return found.flatten(1).square().mean(dim=1).sqrt()

    with torch.no_grad():
        strays = far[torch.cat(compute.spread(len(far), seen)) > STRAY]
    return torch.isin(torch.arange(len(x)), strays, invert=True).nonzero()[:, 0]


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
