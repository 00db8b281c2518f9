r"""Does a sampler hand back its training data? Of samples x, training data T and held-out data H of the same law,

.. math:: r(x) = \log \frac{d(x, T)}{d(x, H)}, \qquad d(x, A) = \min_{a \in A} \|x - a\|.

The statistic is the probability that a generated sample x has a smaller ratio than a real one y in neither set,

.. math:: A = P[r(x) < r(y)] + \tfrac12 P[r(x) = r(y)],

which is Mann and Whitney's U divided by the number of pairs, and 1/2 for a sampler of the data's law.

Why a ratio. Plain distances to the training set mislead: samples made in few steps are smoother than data, a smooth
sample is close to everything, and so it looks copied without being so. It is as close to H as to T, though: only what
knows T makes the ratio small.

Why not Mann and Whitney's null. Given T and H, the ratios of generated and of real samples are independent, and of the
same law if the sampler's law is the data's: for it the classical test is exact. But samplers worth a test are not
exact. The blurred samples of a poor one crowd around one spot, where one point of T or of H happens to be the nearest
of all, and their ratios have that one sign together. Any number of samples then rejects by the toss of a coin that fell
when the data were split (measured: 14 to 46 % of the time at a level of 5 %). So the p-value is that of a permutation
test on the split itself: for a sampler that does not know which data it was fitted on, T and H can be exchanged. They
are cut into blocks of one size, H into 8 and T into 8 or more, and A is computed again for random choices of which 8 of
all blocks are "held out". This is exact for every law that does not depend on the split, blurred or not.

T may be larger than H. Equal sizes by subsampling T would miss most copies: with 40,000 training samples of
Fashion-MNIST and 5,000 held out, a sampler that copies one time in five has p = 0.25 then, and p = 0.003 with all of T.
But samples that are not of the data's law have an A other than 1/2 at unequal sizes; compare it with its mean over the
permuted splits. And these hold mostly training data, so that copies raise that mean, too, and the power falls: the best
that can be done is to hold out twice as many data as one trains on, half as H and half as the real samples.

References:
    Meehan, Chaudhuri and Dasgupta, *A Non-Parametric Test to Detect Data-Copying in Generative Models*, AISTATS 2020
    (the comparison with held-out data by a Mann-Whitney test, of plain distances within cells; the ratio and the
    permutation of the split are ours).

    Mann and Whitney, *On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other*,
    Annals of Mathematical Statistics, 1947.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.errors import DataError
from headstart.metrics.checks import check_same_shape, check_samples
from headstart.metrics.features import Features, feature_rows
from headstart.noise import generator_of
from headstart.progress import Progress

__all__ = ["Novelty", "nearest", "novelty"]

#: Blocks of held-out data, and at least as many of training data; there are 12,870 ways to choose 8 of 16.
BLOCKS = 8
#: How many ways are drawn: the smallest p-value is 1 / 1000.
PERMUTATIONS = 999
#: Level of the test.
LEVEL = 0.05
#: Distances that are worked on at a time, which bounds the memory.
CHUNK = 2**23

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Novelty:
    """The result of :func:`novelty`. Small p-values mean that generated samples lie closer to training than to held-out
    data.

    A p-value says whether they do, and ``effect`` how much: a law with very many parameters also comes closer to the
    data it was fitted on, by little, without handing any back.

    Attributes:
        p_value: of the permutation test, at least 1 / 1000.
        effect: probability that a generated sample's ratio is smaller than a real one's; a share c of copies among
            samples of the data's law makes it (1 + c) / 2.
        expected: the mean effect of the permuted splits, 1/2 if there are as many held-out as training samples.
        distance: median distance of the generated samples from the training data, for display: see the module.
        real_distance: median distance of the real samples from the training data.
        n: generated samples.
        n_real: real samples that they are compared with.
        n_training: training samples that distances are taken from: all, up to fewer than there are blocks.
        n_held_out: held-out samples that distances are taken from.
        seed: of all draws.
    """

    p_value: float
    effect: float
    expected: float
    distance: float
    real_distance: float
    n: int
    n_real: int
    n_training: int
    n_held_out: int
    seed: int

    @property
    def memorising(self) -> bool:
        """Whether the test rejects, at a level of 5 %, that the samples do not know the training data."""
        return self.p_value < LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the verdict."""
        return {**vars(self), "memorising": self.memorising}

    def __repr__(self) -> str:
        verdict = "memorising" if self.memorising else "no copying seen"
        return (
            f"Novelty({verdict}: p {self.p_value:.2g}, effect {self.effect:.3f}, {self.expected:.3f} expected; nearest "
            f"{self.distance:.3g} against {self.real_distance:.3g}; n = {self.n} against {self.n_real}, "
            f"{self.n_training} training and {self.n_held_out} held-out samples)"
        )


def novelty(
    generated: Tensor,
    training: Tensor,
    held_out: Tensor,
    *,
    features: Features | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Novelty:
    """Whether generated samples are closer to the training data than real samples are, against held-out data.

    The held-out data are split by the seed: at most one half, and no more than there are training data, is H, and all
    others are the real samples that the generated ones are compared with. To make blocks of one size, fewer training
    samples than there are blocks are left out, by the seed.

    Distances are Euclidean, of the samples or of their features. They are found in float64 by one matrix product a
    chunk, around the mean of the data, and then computed from differences, so that a copy is at distance zero.

    Arguments:
        generated: samples, shape (N, \\*S).
        training: the data that the start, or the network, was fitted on, shape (M, \\*S); at least 8.
        held_out: data of the same law that it was not fitted on, shape (K, \\*S); at least 16.
        features: maps samples (B, \\*S) to features (B, F); it is called on batches.
        seed: of the split, the draws and the permutations.
        progress: told of the blocks, the features and the permutations.

    Raises:
        DataError: if samples or features hold NaN or Inf, or have different shapes, or are too few.
        InputError: if the seed is out of range.
    """
    generated = check_samples(generated, "generated samples")
    training, held_out = check_samples(training, "training data"), check_samples(held_out, "held-out data")
    for x, what in ((training, "training data"), (held_out, "held-out data")):
        check_same_shape(x.shape[1:], generated.shape[1:], f"generated samples and the {what}")
    if len(training) < BLOCKS or len(held_out) < 2 * BLOCKS:
        raise DataError(
            f"there are {len(training)} training and {len(held_out)} held-out samples: "
            f"expected at least {BLOCKS} and {2 * BLOCKS}"
        )
    progress = progress or Progress()
    generator = generator_of(seed)
    count, size = _blocks(len(training), len(held_out) // 2)
    chosen, order = (torch.randperm(len(data), generator=generator) for data in (training, held_out))
    known, fresh = training[chosen[: count * size].to(training.device)], held_out[order.to(held_out.device)]

    x, known, fresh = (_represent(part, features, progress) for part in (generated, known, fresh))
    samples = torch.cat([x, fresh[BLOCKS * size :].to(x)])
    blocks = [*torch.split(known, size), *torch.split(fresh[: BLOCKS * size], size)]
    # In one place: small results between large intermediate ones would keep their room from being used again.
    found = torch.empty(len(blocks), len(samples), dtype=torch.float64)
    for i, block in enumerate(progress.track(blocks, "distances", len(blocks))):
        found[i] = _nearest(samples, block)[0]
    distances = found.numpy()

    split = np.arange(len(blocks)) < count
    effect = _effect(distances, split, len(x))
    others = [torch.randperm(len(blocks), generator=generator).numpy() for _ in range(PERMUTATIONS)]
    null = [_effect(distances, split[other], len(x)) for other in progress.track(others, "permutations", PERMUTATIONS)]
    p_value = (1 + sum(value >= effect for value in null)) / (1 + PERMUTATIONS)
    plain = distances[split].min(0)
    return Novelty(
        p_value=p_value,
        effect=effect,
        expected=float(np.mean(null)),
        distance=float(np.median(plain[: len(x)])),
        real_distance=float(np.median(plain[len(x) :])),
        n=len(x),
        n_real=len(samples) - len(x),
        n_training=count * size,
        n_held_out=BLOCKS * size,
        seed=seed,
    )


def nearest(generated: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """For each sample of shape (N, \\*S), the distance to its nearest neighbour among (M, \\*S), and which one that is.

    Returns:
        Distances in float64 and indices, both of shape (N,) and on the CPU.

    Raises:
        DataError: if a set has fewer than two samples, or NaN or Inf, or if the shapes of a sample differ.

    >>> nearest(torch.tensor([[0.0], [5.0]]), torch.tensor([[4.0], [0.0], [9.0]]))
    (tensor([0., 1.], dtype=torch.float64), tensor([1, 0]))
    """
    generated, training = check_samples(generated, "generated samples"), check_samples(training, "training data")
    check_same_shape(generated.shape[1:], training.shape[1:], "generated samples and the training data")
    distances, indices = _nearest(generated.flatten(1), training.flatten(1))
    return distances.cpu(), indices.cpu()


def ratio(to_training: Array, to_held_out: Array) -> Array:
    """The logarithm of the ratio of two distances: -inf for a copy of training data, 0 for a copy of data in both."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.log(to_training) - np.log(to_held_out)
    return np.where(to_training == to_held_out, 0.0, found)


def area(a: Array, b: Array) -> float:
    """P[a < b] + P[a = b] / 2, for all pairs: Mann and Whitney's U of b over the number of pairs."""
    from scipy.stats import rankdata

    finite = np.clip(np.concatenate([a, b]), -1e300, 1e300)  # of both infinities, SciPy 1.12 takes the sum for NaN
    ranks = rankdata(finite)  # mean ranks for ties
    return float((ranks[len(a) :].sum() - len(b) * (len(b) + 1) / 2) / (len(a) * len(b)))


def _blocks(training: int, held_out: int) -> tuple[int, int]:
    """How many blocks of the training data, and of how many samples, with 8 of as many held-out samples beside them."""
    count = max(BLOCKS, -(-BLOCKS * training // held_out))
    return count, training // count


def _effect(distances: Array, training: NDArray[np.bool_], n: int) -> float:
    """The statistic A of the first n samples against the others, for blocks of which some count as training data.

    Arguments:
        distances: of each sample from each block, shape (blocks, samples).
        training: which blocks count as training data.
        n: number of generated samples.
    """
    r = ratio(distances[training].min(0), distances[~training].min(0))
    return area(r[:n], r[n:])


def _nearest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of the rows of x to the nearest rows of y, and which these are, in float64."""
    y = y.to(x.device).double()
    centre = y.mean(0)
    away = y - centre  # the squares below cancel less around the mean
    squares = away.square().sum(1)
    distances, indices = [], []
    for part in torch.split(x.double(), max(1, CHUNK // len(y))):
        index = torch.addmm(squares, part - centre, away.T, alpha=-2).argmin(1)  # up to |x - centre|^2 of each row
        indices.append(index)
        distances.append((part - y[index]).norm(dim=1))
    return torch.cat(distances), torch.cat(indices)


def _represent(x: Tensor, features: Features | None, progress: Progress) -> Tensor:
    """The samples as rows, or the rows of their features."""
    if features is None:
        return x.detach().flatten(1)
    return check_samples(torch.cat(list(feature_rows(x, features, progress))), "features")
