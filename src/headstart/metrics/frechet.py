r"""The Fréchet distance: the squared 2-Wasserstein distance between Gaussians with the moments of two sets of features,

.. math:: d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr} S_a + \operatorname{tr} S_b
    - 2 \operatorname{tr} (S_a^{1/2} S_b S_a^{1/2})^{1/2}.

The last trace is the sum of the square roots of the eigenvalues of :math:`S_a^{1/2} S_b S_a^{1/2}`. These roots are
computed as the singular values of :math:`S_a^{1/2} S_b^{1/2}`, which they are. An eigenvalue that should be zero would
come out as :math:`10^{-16}`, and its root as :math:`10^{-8}`; covariances of few samples have many of them.

The moments are gathered batch by batch, in float64. Of n samples with mean :math:`\mu` and scatter
:math:`C = \sum (x - \mu)(x - \mu)^T`, and m others with :math:`\mu', C'`, all n + m have

.. math:: \mu + \tfrac{m}{n + m}\, \delta, \qquad C + C' + \tfrac{n m}{n + m}\, \delta \delta^T,
    \qquad \delta = \mu' - \mu,

so that batches, files and processes can be put together in any order, and no difference of large sums is taken.

References:
    Dowson and Landau, *The Fréchet Distance between Multivariate Normal Distributions*, J. Multivariate Analysis, 1982.

    Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, NeurIPS 2017,
    arXiv 1706.08500 (FID: the features of an Inception network).

    Stein et al., *Exposing Flaws of Generative Model Evaluation Metrics and Their Unfair Treatment of Diffusion
    Models*, NeurIPS 2023, arXiv 2306.04675 (FD-DINOv2: those of a DINOv2 network).

    Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for Computing Sample Variances*, COMPSTAT 1982.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.arrays import LARGEST, check_numbers
from headstart.errors import DataError
from headstart.files import atomic_write, check_regular
from headstart.metrics.checks import check_same_shape, check_samples
from headstart.metrics.features import Features, made_of_shares
from headstart.metrics.jackknife import jackknife
from headstart.metrics.metric import METRICS, Comparison, Metric, Value
from headstart.progress import Progress

__all__ = [
    "Frechet",
    "GaussianMoments",
    "GaussianStatistics",
    "feature_statistics",
    "frechet_distance",
    "frechet_error",
    "statistics_of",
]

#: Rows that are worked on at a time, which bounds the memory.
ROWS = 4096


@dataclass(frozen=True, eq=False)
class GaussianStatistics:
    """Mean and covariance of a set of features, in float64 and on the CPU.

    Arguments:
        mean: shape (F,).
        covariance: shape (F, F), symmetric and positive semi-definite.
        n: how many samples they are of; None if it is not known, as in the files of others.

    Raises:
        DataError: if the shapes do not fit, or the covariance is not symmetric, or anything is NaN or infinite.
    """

    mean: Tensor
    covariance: Tensor
    n: int | None

    def __post_init__(self) -> None:
        mean, covariance = self.mean.cpu().double(), self.covariance.cpu().double()
        if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
            shapes = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
            raise DataError(f"mean and covariance have shapes {shapes}: expected (F,) and (F, F)")
        if not torch.isfinite(mean).all() or not torch.isfinite(covariance).all():
            raise DataError("mean and covariance must be finite")
        if not torch.allclose(covariance, covariance.T):
            raise DataError("the covariance must be symmetric")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @classmethod
    def of(cls, features: Tensor) -> GaussianStatistics:
        """The mean and the unbiased covariance of features of shape (N, F), N of at least 2."""
        moments = GaussianMoments()
        moments.update(check_samples(features, "features"))
        return moments.statistics()

    @classmethod
    def load(cls, path: Path | str) -> GaussianStatistics:
        """Statistics from an ``.npz`` file with the arrays ``mu`` and ``sigma``, as EDM, clean-fid and others write it.

        The number of samples is read from ``n`` if it is there. Nothing is unpickled.

        Raises:
            DataError: if the file cannot be read, or does not hold a mean and a covariance: of finite real numbers, the
                covariance symmetric and without negative eigenvalues but for rounding in single precision; or if its n
                is no whole number of at least 2.
        """
        try:
            check_regular(Path(path))
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in ("mu", "sigma", "n") if name in archive.files}
        except Exception as error:  # the reader raises errors of many kinds on damaged or forged files
            raise DataError(f"{path} cannot be read as statistics: {_line(error)}") from error
        if missing := {"mu", "sigma"} - set(arrays):
            raise DataError(f"{path} holds no {' and no '.join(sorted(missing))}: expected the arrays mu and sigma")
        if any(array.dtype.kind not in "fiu" for array in arrays.values()):
            raise DataError(f"{path} holds something else than real numbers")
        n = _count(arrays["n"], path) if "n" in arrays else None
        mean, covariance = (torch.from_numpy(arrays[name].astype(np.float64)) for name in ("mu", "sigma"))
        for values in (mean, covariance):
            check_numbers(values.reshape(-1), str(path), LARGEST)
        found = cls(mean, covariance, n)
        check_numbers(mean, f"{path}, 'mu',")
        check_numbers(covariance.diagonal().clamp(min=0).sqrt(), f"the root of {path}, 'sigma',")
        values = torch.linalg.eigvalsh(found.covariance)
        rounding = values.abs().max() * len(values) * torch.finfo(torch.float32).eps
        if values.min() < -rounding:
            raise DataError(f"{path} holds no covariance: sigma has the eigenvalue {float(values.min()):.3g}, below 0")
        return found

    def save(self, path: Path | str) -> None:
        """Write ``mu``, ``sigma`` and, if it is known, ``n`` to the ``.npz`` file ``path``, whole or not at all.

        Raises:
            ArtefactError: if the file cannot be written.
        """
        arrays: dict[str, Any] = {"mu": self.mean.numpy(), "sigma": self.covariance.numpy()}
        if self.n is not None:
            arrays["n"] = np.array(self.n)
        file = io.BytesIO()
        np.savez(file, **arrays)
        atomic_write(file.getvalue(), path)

    def distance(self, other: GaussianStatistics) -> float:
        """The Fréchet distance to other statistics, in squared units of the features."""
        check_same_shape(tuple(self.mean.shape), tuple(other.mean.shape), "features")
        cross = torch.linalg.svdvals(self._root @ other._root).sum()
        spread = self.covariance.trace() + other.covariance.trace() - 2 * cross
        return float((self.mean - other.mean).square().sum() + spread.clamp(min=0))

    @cached_property
    def _root(self) -> Tensor:
        """The symmetric square root of the covariance. Eigenvalues that are zero up to rounding are zero."""
        values, vectors = torch.linalg.eigh(self.covariance)
        rounding = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
        root: Tensor = (vectors * torch.where(values > rounding, values, 0.0).sqrt()) @ vectors.T
        return root

    def __repr__(self) -> str:
        n = "n unknown" if self.n is None else f"n = {self.n}"
        return f"GaussianStatistics({len(self.mean)} features, {n})"


class GaussianMoments:
    """Mean and covariance of any number of features, gathered batch by batch; it holds F + F^2 numbers, in float64.

    It can be pickled, and so be sent between processes, which each gather their own share.

    >>> moments = GaussianMoments()
    >>> for batch in torch.arange(12.0).reshape(3, 2, 2):
    ...     moments.update(batch)
    >>> moments.statistics()
    GaussianStatistics(2 features, n = 6)
    """

    def __init__(self) -> None:
        self.n = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Add features of shape (B, F), B of at least 1.

        Raises:
            DataError: if they have another shape, or another F than before, or hold NaN or Inf.
        """
        if features.ndim != 2 or not len(features) or not features.is_floating_point():
            raise DataError(
                f"the features have shape {tuple(features.shape)} and type {features.dtype}: "
                "expected (N, F), floating point"
            )
        for part in torch.split(features.detach(), ROWS):
            check_numbers(part, "the features")
            x = part.cpu().double()
            mean = x.mean(0)
            centred = x - mean
            self._add(len(x), mean, centred.T @ centred)

    def merge(self, other: GaussianMoments | GaussianStatistics) -> None:
        """Add what others gathered: another process, or the statistics in a file.

        Raises:
            DataError: if they have another F, or are statistics of an unknown number of samples.
        """
        if isinstance(other, GaussianMoments):
            if other.n:
                self._add(other.n, other._mean, other._scatter)
        elif other.n is None:
            raise DataError("statistics of an unknown number of samples cannot be merged: save them with n")
        else:
            self._add(other.n, other.mean, other.covariance * (other.n - 1))

    def statistics(self) -> GaussianStatistics:
        """The mean and the unbiased covariance of all that was added.

        Raises:
            DataError: if that is fewer than two samples.
        """
        if self.n < 2:
            raise DataError(f"the moments are of {self.n} samples: expected at least 2")
        return GaussianStatistics(self._mean.clone(), self._scatter / (self.n - 1), self.n)

    def __repr__(self) -> str:
        return f"GaussianMoments({len(self._mean)} features, n = {self.n})"

    def _add(self, m: int, mean: Tensor, scatter: Tensor) -> None:
        if not self.n:
            self.n, self._mean, self._scatter = m, mean.clone(), scatter.clone()
            return
        check_same_shape(tuple(self._mean.shape), tuple(mean.shape), "features")
        delta, total = mean - self._mean, self.n + m
        self._scatter += scatter
        self._scatter.addr_(delta, delta, alpha=self.n * m / total)
        self._mean += delta * (m / total)
        self.n = total


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """The Fréchet distance between two sets of features, of shapes (N, F) and (M, F).

    It is biased upwards, by an amount that falls as 1/N: compare it at equal counts, and with the noise floor
    (:func:`headstart.metrics.floor`).

    Raises:
        DataError: if a set has fewer than two samples, NaN or Inf, or if the numbers of features differ.
    """
    return GaussianStatistics.of(features_a).distance(GaussianStatistics.of(features_b))


def frechet_error(features: Tensor, reference: GaussianStatistics, groups: Sequence[Tensor]) -> float:
    """The jackknife's standard error of the distance of features (N, F) from a reference that is held fixed.

    Arguments:
        features: of the samples.
        reference: statistics that they are compared with.
        groups: indices of the samples in each group, that leave at least two samples when one is left out.
    """
    parts = []
    for group in groups:
        parts.append(GaussianMoments())
        parts[-1].update(features[group.to(features.device)])
    without = (_merged(part for part in parts if part is not left_out) for left_out in parts)
    return jackknife([moments.statistics().distance(reference) for moments in without])


def statistics_of(batches: Iterable[Tensor]) -> GaussianStatistics:
    """Mean and covariance of features in batches (B, F), gathered on the CPU."""
    return _gathered(batches).statistics()


def feature_statistics(x: Tensor, features: Features, progress: Progress | None = None) -> GaussianStatistics:
    """Mean and covariance of the features of samples (N, \\*S), which are not held at once.

    Several processes gather the moments of a share each, which are then merged: equal to those of one process up to
    rounding in float64.

    Raises:
        DataError: if the features are not a row a sample, or hold NaN or Inf.
    """
    return _merged(made_of_shares(x, features, _gathered, progress)).statistics()


def _gathered(batches: Iterable[Tensor]) -> GaussianMoments:
    moments = GaussianMoments()
    for rows in batches:
        moments.update(rows.cpu())
    return moments


def _statistics(compared: Comparison) -> GaussianStatistics:
    """Those of the samples that are compared."""
    if compared.whole or compared.reference.features is None:
        return statistics_of([compared.rows])
    return feature_statistics(compared.samples, compared.reference.features, compared.progress)


@METRICS.register
class Frechet(Metric):
    """Fréchet distance of features (FID, FD-DINOv2 of theirs)."""

    name = "frechet"
    cites = ("heusel2017gans", "stein2023exposing")
    cost = "N F² + F³"
    always = True
    of_features = True

    @classmethod
    def score(cls, compared: Comparison) -> Value:
        statistics = compared.reference.statistics
        assert statistics is not None, "a reference with features has their statistics"
        value = compared.once(_statistics).distance(statistics)
        return Value(value, frechet_error(compared.rows, statistics, compared.groups) if compared.errors else None)


def _merged(parts: Iterable[GaussianMoments]) -> GaussianMoments:
    total = GaussianMoments()
    for part in parts:
        total.merge(part)
    return total


def _count(n: NDArray[Any], path: Path | str) -> int:
    """The number of samples in a file of statistics."""
    if n.size != 1 or not np.isfinite(n).all() or n.item() != int(n.item()) or n.item() < 2:
        said = n.item() if n.size == 1 else f"an array of shape {n.shape}"
        raise DataError(f"{path} says that it is of n = {said} samples: expected a whole number of at least 2, or no n")
    return int(n.item())


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
