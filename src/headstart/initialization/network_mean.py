r"""The mean that a network itself has learned of its conditions, at the cost of one evaluation.

Far out the noise hides the sample, and the denoiser answers with the regression mean,

.. math:: m(c) = D(\sigma_\text{max} \varepsilon, \sigma_\text{max}, c) \to E[x_0 \mid c], \qquad
    x_0 = m(c) + r, \quad r \sim p_r.

No mean has to be fitted, and it may be as little linear as the network is. One noise :math:`\varepsilon`, the same for
all samples, makes it a function of the condition, up to :math:`O(1 / \sigma_\text{max})`. Its evaluation is one of the
plan's. A network that was not trained up to pure noise (with a terminal signal-to-noise ratio above zero) answers with
something else there: what it says for two noises is held against the residuals first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.denoiser import Denoiser, Range, denoise
from headstart.denoiser.modules import device_of
from headstart.errors import InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.regression import Regression, check_count, law_from, law_of, share_explained
from headstart.noise import Noise
from headstart.saved import Saved

__all__ = ["NetworkMean"]

#: Seeds of the noise that the network is asked with, and of the one that its answers are checked with.
ASKED, CHECKED = 0, 1

#: Samples that are asked for at a time, and samples that the check is made on.
TOGETHER, FEW = 256, 256

#: Two noises may change the mean by this share of the residuals.
AGREE = 0.5


@INITIALIZATIONS.register
class NetworkMean(Regression):
    """The network's own mean given the conditions, and a closed-form law of what is left. Made by :meth:`fit`.

    Arguments:
        law: of the residuals, with a density.
        sigma_max: the level that the network is asked at.
        denoiser: the network; a start that was loaded gets it from the plan that samples.
        explained: the share of the variance that the mean explains.
    """

    name = "network-mean"
    cites = ("fassina2026initialization", "mardani2023residual")
    usual = False
    closed_form = False
    evaluations = 1

    def __init__(
        self, law: Initialization, sigma_max: float, denoiser: Denoiser | None = None, explained: float = 0.0
    ) -> None:
        super().__init__(law.shape, self._answer, law, explained)
        self.sigma_max, self.denoiser = float(sigma_max), denoiser

    @classmethod
    def fit(  # type: ignore[override]  # the mean is the network's
        cls,
        data: Tensor,
        law: str | Initialization = "mixture",
        *,
        conditions: Mapping[str, Any] | None = None,
        denoiser: Denoiser | None = None,
        sigma_max: float = 80.0,
        seed: int = 0,
    ) -> NetworkMean:
        """On clean data (N, \\*S), their conditions and the network, which is asked once for each sample.

        Arguments:
            data: samples that the network was not trained on, or of which it has far more than it could remember.
            law: of the residuals: the name of a closed-form family, or one that is fitted already.
            conditions: of the samples.
            denoiser: the network, on any device: the data and the conditions are moved to it.
            sigma_max: the level that it is asked at, or its own highest one if that is lower.
            seed: of fitting the law.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
            DenoiserError: if the network fails.
            InputError: if no network is given, it is no regression at its highest level, or a level or a law does not
                fit.
        """
        if denoiser is None:
            raise InputError("a network's own mean needs the network: hand in denoiser=")
        check_count(data)
        given = Conditions.of(conditions, len(data)).settled()
        level = min(sigma_max, Range.of(denoiser).high)
        if not 0 < level < math.inf:
            raise InputError(f"the network is asked at a level above 0 and finite: got sigma_max={sigma_max}")
        means = torch.cat(
            [
                _asked(denoiser, data[i : i + TOGETHER], level, given.take(slice(i, i + TOGETHER)), ASKED)
                for i in range(0, len(data), TOGETHER)
            ]
        )
        residuals = data - means.to(data)
        explained = share_explained(data, residuals)
        _check(denoiser, data[:FEW], level, given.take(slice(0, FEW)), means[:FEW], residuals)
        if isinstance(law, str):
            law = law_of(residuals, law, given.get("label"), seed)
        if law.shape != tuple(data.shape[1:]):
            raise InputError(f"residuals of shape {tuple(data.shape[1:])} need a start for them: got {law!r}")
        return cls(law, level, denoiser, explained)

    def bound(self, denoiser: Denoiser) -> NetworkMean:
        """The same start with the network that is sampled."""
        return NetworkMean(self.law, self.sigma_max, denoiser, self.explained)

    def _answer(self, given: Conditions) -> Tensor:
        if self.denoiser is None:
            raise InputError(f"a {self.name} start needs its network: sample it by a plan, or call bound(denoiser)")
        return _asked(self.denoiser, torch.zeros(given.count, *self.shape), self.sigma_max, given, ASKED)

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        if self.denoiser is None:
            self._answer(given)
        assert self.denoiser is not None
        residuals = self.law._sample(noise, sigma, given)
        return residuals + _asked(self.denoiser, residuals, self.sigma_max, given, ASKED)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        law, tensors = self.law.state()
        values = {"law": {"name": self.law.name, "values": law}, "sigma_max": self.sigma_max}
        return values | {"explained": self.explained}, {f"law.{name}": tensor for name, tensor in tensors.items()}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> NetworkMean:
        saved = Saved(values, tensors)
        law = law_from(saved)
        return cls(law, saved.number("sigma_max", low=1e-12), None, saved.number("explained", high=1.0))

    def __repr__(self) -> str:
        share = f"{100 * self.explained:.3g} % explained"
        return f"NetworkMean(at {self.sigma_max:.4g}: {share}, for one evaluation; {self.law!r})"


def _asked(denoiser: Denoiser, like: Tensor, sigma: float, given: Conditions, seed: int) -> Tensor:
    """The network's answers to one noise of level sigma for all samples, with the conditions of each, beside them."""
    eps = Noise([seed], like.device, like.dtype).normal(tuple(like.shape[1:]))
    device = device_of(denoiser, like.device)
    with torch.no_grad():
        x = (sigma * eps).expand_as(like).to(device)
        return denoise(denoiser, x, sigma, **given.to(device)).to(like.device)


def _check(denoiser: Denoiser, few: Tensor, sigma: float, given: Conditions, means: Tensor, residuals: Tensor) -> None:
    """Refuse a network whose answers at its highest level depend on the noise there."""
    other = _asked(denoiser, few, sigma, given, CHECKED)
    moved, left = (float(each.double().square().mean().sqrt()) for each in (other - means, residuals))
    if moved > AGREE * left:
        raise InputError(
            f"at its highest level {sigma:.4g} the network's answers differ by {moved:.3g} for two noises, and what "
            f"they leave of the data is {left:.3g}: it is no regression there (it may never have been trained on pure "
            "noise); use 'regression'"
        )
