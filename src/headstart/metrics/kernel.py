r"""The kernel distance (KID of Inception features): the squared maximum mean discrepancy of a polynomial kernel,

.. math:: \operatorname{MMD}^2 = E\,k(x, x') + E\,k(y, y') - 2 E\,k(x, y), \qquad k(x, y) = \big(x^T y / F + 1\big)^3,

with x, x' independent samples and y, y' independent real ones, of F features. Expanded, it compares three moments,

.. math:: \operatorname{MMD}^2 = \tfrac3F |\Delta E\,x|^2 + \tfrac{3}{F^2} |\Delta E\,x \otimes x|^2
    + \tfrac{1}{F^3} |\Delta E\,x \otimes x \otimes x|^2.

Both sets are cut at random into B blocks. On each pair of blocks, of n and m samples, the estimate

.. math:: \frac{1}{n (n - 1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m (m - 1)} \sum_{i \ne j} k(y_i, y_j)
    - \frac{2}{n m} \sum_{i, j} k(x_i, y_j)

is unbiased at every n and m, and may be negative. The distance is the mean of the blocks' estimates. The blocks share
no sample, so these are independent, and their standard deviation over :math:`\sqrt{B}` is the standard error; those of
others are subsets drawn again and again from the same samples, whose spread says little about the error of the mean.

References:
    Bińkowski, Sutherland, Arbel and Gretton, *Demystifying MMD GANs*, ICLR 2018, arXiv 1801.01401.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.errors import DataError, InputError
from headstart.metrics.checks import check_same_shape, check_samples
from headstart.metrics.jackknife import groups_of
from headstart.metrics.metric import METRICS, Comparison, Metric, Value
from headstart.progress import Progress

__all__ = ["Kernel", "KernelDistance", "kernel_distance", "unbiased"]

#: Samples of either set at least: two blocks of two.
LEAST = 4
#: Blocks at least, where there are samples enough for them, so that their spread is known.
BLOCKS = 10
#: Rows that are worked on at a time, which bounds the memory.
ROWS = 2048


@dataclass(frozen=True)
class KernelDistance:
    """The result of :func:`kernel_distance`.

    Attributes:
        value: the mean of the blocks' unbiased estimates; it may be negative.
        error: its standard error.
        blocks: how many blocks.
        n: samples.
        n_reference: real samples.
        seed: of the blocks.
    """

    value: float
    error: float
    blocks: int
    n: int
    n_reference: int
    seed: int

    def __repr__(self) -> str:
        return (
            f"KernelDistance({self.value:.3g} +- {self.error:.2g}; "
            f"n = {self.n} against {self.n_reference}, {self.blocks} blocks)"
        )


def kernel_distance(
    features: Tensor, real: Tensor, *, block: int = 1000, seed: int = 0, progress: Progress | None = None
) -> KernelDistance:
    """The kernel distance between the features of samples and of real data, with its standard error.

    Arguments:
        features: of the samples, shape (N, F).
        real: those of the real data, shape (M, F); M need not be N.
        block: samples of the smaller set in a block; fewer where that would make fewer than 10 blocks.
        seed: of the blocks.
        progress: told of the blocks.

    Raises:
        DataError: if a set has fewer than four samples, NaN or Inf, or if the numbers of features differ.
        InputError: if ``block`` is below 2 or the seed is out of range.
    """
    features, real = check_samples(features, "features"), check_samples(real, "real features")
    check_same_shape(features.shape[1:], real.shape[1:], "features")
    smaller = min(len(features), len(real))
    if features.ndim != 2 or smaller < LEAST:
        raise DataError(
            f"the features have shape {tuple(features.shape)}, the smaller set {smaller}: expected {LEAST} rows"
        )
    if block < 2:
        raise InputError(f"a block of {block} samples has no pairs: expected at least 2")
    count = min(max(BLOCKS, smaller // block), smaller // 2)
    pairs = list(zip(groups_of(len(features), seed, count), groups_of(len(real), seed, count), strict=True))
    found = [
        unbiased(features[i.to(features.device)], real[j.to(real.device)])
        for i, j in (progress or Progress()).track(pairs, "kernel distance", count)
    ]
    values = torch.tensor(found, dtype=torch.float64)
    error = float(values.std()) / math.sqrt(count)
    return KernelDistance(float(values.mean()), error, count, len(features), len(real), seed)


def unbiased(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate on one pair of blocks, of shapes (n, F) and (m, F), n and m of at least 2."""
    x, y = x.double(), y.to(x.device).double()
    n, m = len(x), len(y)
    within = (_kernel_sum(x, x) - _diagonal(x)) / (n * (n - 1)) + (_kernel_sum(y, y) - _diagonal(y)) / (m * (m - 1))
    return within - 2 * _kernel_sum(x, y) / (n * m)


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    return sum(float((part @ y.T / y.shape[1] + 1).pow(3).sum()) for part in torch.split(x, ROWS))


def _diagonal(x: Tensor) -> float:
    return float((x.square().sum(1) / x.shape[1] + 1).pow(3).sum())


@METRICS.register
class Kernel(Metric):
    """Kernel distance of features, unbiased (KID of Inception's)."""

    name = "kid"
    cites = ("binkowski2018demystifying",)
    cost = "N F times the size of a block, 1,000"
    of_features = True
    least = LEAST

    @classmethod
    def score(cls, compared: Comparison) -> Value:
        seed = compared.reference.seed
        found = kernel_distance(compared.rows, compared.real_rows, seed=seed, progress=compared.progress)
        return Value(found.value, found.error)
