r"""A regression on the conditions, and a start in closed form for what it leaves.

.. math:: x_0 = m(c) + r, \qquad p_\theta(x, \sigma \mid c) = p_r(x - m(c), \sigma),

where :math:`p_r` is any closed-form start, fitted on residuals. The mean is a ridge regression of the leading
coordinates z of the samples on the features C of the conditions (:mod:`headstart.initialization.features`), or any
function of the conditions,

.. math:: B = (C^T C + \lambda I)^{-1} C^T Z, \qquad H = C (C^T C + \lambda I)^{-1} C^T.

The residuals are those that a sample would have if it had been left out of the fit, in closed form
:math:`r_i / (1 - H_{ii})`: residuals of the fit itself are too small by the degrees of freedom, and a start on them
too narrow. The same left-out errors choose :math:`\lambda`.

References:
    Mardani et al., *Residual Corrective Diffusion Modeling for Km-scale Atmospheric Downscaling*, 2023, arXiv
    2309.15214 (a mean by a network, and diffusion of the residual).

    Golub, Heath and Wahba, *Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter*,
    Technometrics, 1979 (left-out errors in closed form).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.errors import ArtefactError, DataError, InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.features import Features
from headstart.initialization.memory import owned
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise
from headstart.saved import Saved

#: What a mean of the user's knows, in place of names.
EVERY = "all that its mean takes"

__all__ = ["EVERY", "LinearMean", "Regression", "Ridge", "check_count", "law_from", "law_of", "share_explained"]

#: Penalties that are tried, in units of the number of samples: the features have unit variance.
PENALTIES = tuple(10.0 ** (half / 2) for half in range(-14, 5))

#: Samples whose left-out errors choose the penalty.
JUDGED = 10_000

#: Leading directions of the samples that are regressed.
LEADING = 256

#: Samples that are worked on at a time.
TOGETHER = 4096


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge regression with an intercept, and the left-out errors of the samples it is fitted on.

    Attributes:
        coefficients: shape (p, k).
        centre: mean of the features, shape (p,).
        intercept: mean of the answers, shape (k,).
        penalty: lambda; infinite where the features say nothing, and the mean is all.
        leverage: of each sample, its :math:`H_{ii}` with the intercept's 1 / n, shape (n,).
    """

    coefficients: Tensor
    centre: Tensor
    intercept: Tensor
    penalty: float
    leverage: Tensor

    @classmethod
    def fit(cls, features: Tensor, answers: Tensor) -> Ridge:
        """Features (n, p) and answers (n, k), in float64. The penalty has the least squared left-out error."""
        n, centre, intercept = len(features), features.mean(0), answers.mean(0)
        c, z = features - centre, answers - intercept
        squares, axes = torch.linalg.eigh(c.mT @ c)
        kept = squares > 1e-13 * squares.max().clamp_min(1e-300)
        squares, turned = squares[kept], c @ axes[:, kept]
        onto = turned.mT @ z
        judged = slice(0, n, max(1, n // JUDGED))

        def leverage(penalty: float, rows: slice) -> Tensor:
            own: Tensor = turned[rows].square() @ (1 / (squares + penalty))
            return 1 / n + own

        def loss(penalty: float) -> float:
            fitted = turned[judged] @ (onto / (squares + penalty)[:, None])
            return float(
                ((z[judged] - fitted) / (1 - leverage(penalty, judged)).clamp_min(1e-9)[:, None]).square().mean()
            )

        penalty = min((*(n * each for each in PENALTIES), math.inf), key=loss)
        coefficients = axes[:, kept] @ (onto / (squares + penalty)[:, None])
        return cls(coefficients, centre, intercept, penalty, leverage(penalty, slice(None)))

    def __call__(self, features: Tensor) -> Tensor:
        """The means of the answers, (B, p) to (B, k)."""
        return self.intercept + (features - self.centre) @ self.coefficients


class LinearMean:
    """The mean of samples that is linear in the features of their conditions, in leading directions.

    Arguments:
        features: of the conditions.
        centre: the mean where all features are 0, shape (d,).
        coefficients: of the features, shape (p, k).
        basis: the leading directions in columns, shape (d, k).
    """

    def __init__(self, features: Features, centre: Tensor, coefficients: Tensor, basis: Tensor) -> None:
        self.features = features
        self.centre, self.coefficients, self.basis = owned(centre), owned(coefficients), owned(basis)

    def __call__(self, given: Conditions) -> Tensor:
        """The means (B, d), in float64 on the CPU."""
        return self.centre + (self.features(given) @ self.coefficients) @ self.basis.mT

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The state to save."""
        values, tensors = self.features.state()
        own = {"centre": self.centre, "coefficients": self.coefficients, "basis": self.basis}
        return {"features": values}, {**own, **{f"features.{name}": tensor for name, tensor in tensors.items()}}

    @classmethod
    def from_state(cls, saved: Saved, dimension: int) -> LinearMean:
        """The mean that :meth:`state` describes."""
        features = Features.from_state(saved.value("features"), saved.group("features").tensors)
        basis = saved.tensor("basis", dimension, None, low=-1.001, high=1.001)
        coefficients = saved.tensor("coefficients", features.width, basis.shape[1])
        return cls(features, *(t.double() for t in (saved.tensor("centre", dimension), coefficients, basis)))

    def __repr__(self) -> str:
        return ", ".join(map(repr, self.features.blocks))


@INITIALIZATIONS.register
class Regression(Initialization):
    """A mean that the conditions tell, and a closed-form law of what is left. Made by :meth:`fit`.

    Arguments:
        shape: the shape of one sample.
        mean: of a sample given its conditions: a :class:`LinearMean`, or any function of
            :class:`~headstart.conditions.Conditions` that returns (B, \\*S). Code is never saved.
        law: of the residuals, with a density.
        explained: the share of the variance that the mean explains of samples that are left out.

    Raises:
        InputError: if the law has no density, or is for another shape.
    """

    name = "regression"
    cites: ClassVar[tuple[str, ...]] = ("fassina2026initialization", "mardani2023residual", "golub1979generalized")
    usual = True
    conditional = True

    def __init__(
        self,
        shape: Sequence[int],
        mean: LinearMean | Callable[[Conditions], Tensor],
        law: Initialization,
        explained: float = 0.0,
    ) -> None:
        self.shape = tuple(shape)
        if not (law.tractable and law.closed_form) or law.shape != self.shape:
            raise InputError(f"residuals of shape {self.shape} need a closed-form start for them: got {law!r}")
        self.mean, self.law, self.explained = mean, law, float(explained)
        known = mean.features.names if isinstance(mean, LinearMean) else (EVERY,)
        self.sigmas, self.knows = law.sigmas, tuple(dict.fromkeys((*known, *law.knows)))

    @classmethod
    def fit(
        cls,
        data: Tensor,
        law: str | Initialization = "mixture",
        *,
        conditions: Mapping[str, Any] | None = None,
        mean: Callable[[Conditions], Tensor] | None = None,
        left_out: Tensor | None = None,
        subspace: Subspace | None = None,
        seed: int = 0,
    ) -> Regression:
        """On clean data (N, \\*S) and their conditions.

        Arguments:
            data: the samples.
            law: of the residuals: the name of a closed-form family, or one that is fitted already.
            conditions: of the samples. Their classes also tell the law its own.
            mean: a regression of your own, a function of :class:`~headstart.conditions.Conditions` that returns
                (B, \\*S); by default a ridge regression is fitted.
            left_out: with a mean of your own that was fitted on these data: what it says of each sample when that is
                left out, (N, \\*S), by folds for example. Without it, ``mean`` must not have seen the data.
            subspace: the leading directions of the data; by default 256 are fitted.
            seed: of fitting the law.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them or their means.
            InputError: if there are no conditions that can be described, something does not fit the data, or the law
                is unknown or not in closed form.
        """
        check_count(data)
        given = Conditions.of(conditions, len(data)).settled()
        if mean is None:
            subspace = Subspace.fit(data, LEADING) if subspace is None else subspace
            mean, residuals = _ridge(data, given, subspace)
        else:
            residuals = _residuals(data, given, mean, left_out)
        explained = share_explained(data, residuals)
        if isinstance(law, str):
            law = law_of(residuals, law, given.get("label"), seed)
        return cls(data.shape[1:], mean, law, explained)

    def means(self, given: Conditions) -> Tensor:
        """The mean of each sample given its conditions, (B, \\*S) in float64 on the CPU.

        Raises:
            InputError: if a condition is missing or does not fit, or the mean is not finite or of another shape.
        """
        with torch.no_grad():
            found = self.mean(given)
        if found.numel() != given.count * math.prod(self.shape) or not torch.isfinite(found).all():
            raise InputError(
                f"the mean of {given.count} samples has shape {tuple(found.shape)}: expected finite numbers of shape "
                f"{(given.count, *self.shape)}"
            )
        return found.cpu().double().reshape(-1, *self.shape)

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        residuals = self.law._sample(noise, sigma, given)
        return residuals + self.means(given).to(residuals)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        return self.law._log_prob(x.cpu().double() - self.means(given), sigma, given)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if not isinstance(self.mean, LinearMean):
            raise ArtefactError("a mean of your own is code, which no plan holds: use the ridge regression")
        law, tensors = self.law.state()
        mean, own = self.mean.state()
        saved = {f"law.{name}": tensor for name, tensor in tensors.items()}
        saved |= {f"mean.{name}": tensor for name, tensor in own.items()}
        values = {"law": {"name": self.law.name, "values": law}, "mean": mean, "explained": self.explained}
        return {"shape": list(self.shape), **values}, saved

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Regression:
        saved = Saved(values, tensors)
        shape, law = saved.shape(), law_from(saved)
        mean = LinearMean.from_state(Saved(saved.value("mean"), saved.group("mean").tensors), math.prod(shape))
        return cls(shape, mean, law, saved.number("explained", high=1.0))

    def __repr__(self) -> str:
        on = repr(self.mean) if isinstance(self.mean, LinearMean) else "a mean of yours"
        return f"Regression(on {on}: {100 * self.explained:.3g} % explained; {self.law!r})"


def _ridge(data: Tensor, given: Conditions, subspace: Subspace) -> tuple[LinearMean, Tensor]:
    """The ridge regression of samples on their conditions, and the left-out residuals (N, \\*S)."""
    features = Features.fit(given)
    if not features.blocks:
        left = f" ({', '.join(features.ignored)} cannot be described)" if features.ignored else ""
        raise InputError(f"a regression needs conditions that go with the samples: there are none{left}")
    parts = [slice(i, i + TOGETHER) for i in range(0, len(data), TOGETHER)]
    c = features(given)
    z = torch.cat([subspace.split(data[part])[0] for part in parts])
    ridge = Ridge.fit(c, z)
    # The leading coordinates of a sample that is left out err by more than in the fit; the others are not fitted.
    left_out = z - (z - ridge(c)) / (1 - ridge.leverage).clamp_min(1e-9)[:, None]
    residuals = torch.cat(
        [
            (data[part].double().flatten(1) - subspace.mean - left_out[part] @ subspace.basis.mT).to(data.dtype)
            for part in parts
        ]
    )
    centre = subspace.mean + (ridge.intercept - ridge.centre @ ridge.coefficients) @ subspace.basis.mT
    mean = LinearMean(features, centre, ridge.coefficients, subspace.basis)
    return mean, residuals.reshape(data.shape)


def _residuals(
    data: Tensor, given: Conditions, mean: Callable[[Conditions], Tensor], left_out: Tensor | None
) -> Tensor:
    """The part of each sample that a mean of the user's leaves."""
    if left_out is None:
        with torch.no_grad():
            parts = [slice(i, i + TOGETHER) for i in range(0, len(data), TOGETHER)]
            left_out = torch.cat([mean(given.take(part)).cpu() for part in parts])
    if left_out.shape != data.shape:
        raise InputError(f"the means have shape {tuple(left_out.shape)}: expected {tuple(data.shape)}")
    return data - left_out.to(data)


def check_count(data: Tensor) -> None:
    """A DataError unless there are at least two samples (N, \\*S)."""
    if data.ndim < 2 or len(data) < 2:
        raise DataError(f"the data have shape {tuple(data.shape)}: expected at least two samples, (N, ...)")


def share_explained(data: Tensor, residuals: Tensor) -> float:
    """The share of the variance of samples (N, \\*S) that is not in what is left of them; 0 where they do not vary.

    Raises:
        DataError: if there is NaN or Inf among them.
    """
    total = float((data.double() - data.double().mean(0)).square().sum())
    left = float(residuals.double().square().sum())
    if not math.isfinite(total + left):
        raise DataError("the data, or their means given the conditions, hold NaN or infinite values")
    return 1 - left / total if total > 0 else 0.0


def law_from(saved: Saved) -> Initialization:
    """The law of the residuals in a saved start.

    Raises:
        InputError: if it is missing or unknown, or does not fit.
    """
    own = Saved(saved.value("law"), saved.group("law").tensors)
    name = own.value("name")
    if not isinstance(name, str) or name not in INITIALIZATIONS or INITIALIZATIONS[name].conditional:
        raise InputError(f"unknown law of the residuals {name!r}")
    return INITIALIZATIONS[name].from_state(own.value("values"), own.tensors)


def law_of(residuals: Tensor, name: str, labels: Tensor | None, seed: int) -> Initialization:
    """A closed-form family fitted on residuals, by its name."""
    family = INITIALIZATIONS.find(name)
    if not (family.tractable and family.closed_form) or family.given or family.conditional or family.oracle:
        raise InputError(f"a {name} is no law of residuals: name a start in closed form, such as 'mixture'")
    shared = {"labels": None if labels is None else labels.cpu(), "seed": seed}
    known = inspect.signature(family.fit).parameters
    return family.fit(residuals, **{key: value for key, value in shared.items() if key in known})
