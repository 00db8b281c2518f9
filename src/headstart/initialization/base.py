r"""Where the reverse process starts: a law :math:`p_\theta` close to :math:`p_T`, that of the data plus noise of level
sigma_T.

The error of a sampler splits into initialization, score and discretization. The first part is

.. math:: E_\text{init} = KL(p_T \,\|\, p_\theta) = -E \log p_\theta(x_0 + \sigma_T \varepsilon) - h(p_T),

and maximum likelihood on noised data makes it small. The horizon sigma_T is an argument and not a property: a
closed-form law is fitted once, on clean data, and convolved with noise of any level; a flow is conditioned on it.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from headstart.artefact import read_tensors, write_tensors
from headstart.conditions import Conditions, check_label
from headstart.denoiser import Denoiser
from headstart.errors import ArtefactError, InputError
from headstart.noise import Noise
from headstart.registry import Registry

__all__ = ["INITIALIZATIONS", "Initialization"]

#: The form of a saved start, and its version.
FORM, VERSION = "headstart-start", 1


class Initialization(ABC):
    """A law for the noised data at every horizon.

    A subclass writes ``fit`` on clean data, unless it is given as it is; ``_sample``; and ``_log_prob`` if it has a
    density. Their inputs are checked before they are called.

    Attributes:
        name: the name by which a plan stores the family.
        cites: what to cite for it: keys of ``references.bib``, or whole BibTeX entries.
        oracle: whether it hands back training data, and so is there for comparison only.
        tractable: whether it has a log density that can be computed.
        closed_form: whether drawing a sample takes a few products of matrices and no network.
        usual: whether a fit considers it where the user names no start.
        given: whether it is code or samples that the user hands in, and not fitted to data.
        conditional: whether it is nothing without conditions of the samples; if it is ``usual``, a fit considers it
            where there are others than classes.
        trained: whether its ``fit`` takes a :class:`~headstart.initialization.Training`.
        evaluations: of the network, that drawing a sample takes: 0, but where its own mean is asked for.
        sigmas: the lowest and the highest horizon that it knows.
        shape: the shape S of one sample.
        knows: the names of the conditions that it looks at; it ignores all others.
    """

    name: ClassVar[str]
    cites: ClassVar[tuple[str, ...]] = ()
    oracle: ClassVar[bool] = False
    tractable: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True
    usual: ClassVar[bool] = False
    given: ClassVar[bool] = False
    conditional: ClassVar[bool] = False
    trained: ClassVar[bool] = False
    evaluations: ClassVar[int] = 0
    sigmas: tuple[float, float] = (0.0, math.inf)
    shape: tuple[int, ...]
    knows: tuple[str, ...] = ()

    @classmethod
    def fit(cls, *args: Any, **kwargs: Any) -> Initialization:
        """The law of clean data (N, \\*S), which are its first argument; all others are by keyword and have defaults.

        :func:`headstart.choose.fit_starts` hands in those of the following arguments that a family's ``fit`` has:
        ``labels``, classes of shape (N,) or None; ``conditions``, all that go with the samples; ``denoiser``, the
        network; ``subspace``, the data's leading directions; ``sigma_max``, the level that a sampler from noise would
        begin at; ``training`` and ``sigmas``, how a trained start is trained and for which horizons; ``seed``; and
        ``compute``, how the work is done.

        Raises:
            InputError: if the family is given as it is.
        """
        raise InputError(f"a {cls.name} is not fitted: hand a {cls.__name__} in")

    def settings(self) -> dict[str, Any]:
        """The arguments of ``fit`` that data do not bring: with them, another fit is of the same size."""
        return {}

    def bound(self, denoiser: Denoiser) -> Initialization:
        """The start for sampling a network: itself, but where it asks that network for something."""
        return self

    def sample(
        self,
        noise: Noise,
        sigma: float,
        conditions: Mapping[str, Any] | Tensor | None = None,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """One start per stream of ``noise``, of shape (B, \\*S), in the noise's dtype and device.

        Arguments:
            noise: the samples' random streams.
            sigma: the horizon.
            conditions: of the samples, by name (:mod:`headstart.conditions`); a family ignores those that it does not
                know. A tensor alone is their classes, shape (B,).
            label: the classes, as one of the conditions.

        Raises:
            InputError: if sigma is not a horizon that it knows, or the conditions do not fit or lack one that it needs.
        """
        return self._sample(noise, self._checked_level(sigma), _given(conditions, label, len(noise)))

    def log_prob(
        self,
        x: Tensor,
        sigma: float,
        conditions: Mapping[str, Any] | Tensor | None = None,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """Log density in nats of noised data at horizon sigma: (B, \\*S) to (B,), in float64.

        Conditions are those of the samples, as in :meth:`sample`.

        Raises:
            InputError: if the family has no density, x is not finite or of another shape, sigma is not a horizon that
                it knows, or the conditions do not fit or lack one that it needs.
        """
        if not self.tractable:
            raise InputError(f"{self!r} has no log density that can be computed")
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"x has shape {tuple(x.shape)}: {self!r} expects (B, {', '.join(map(str, self.shape))})")
        if not torch.isfinite(x).all():
            raise InputError("x holds NaN or infinite values")
        return self._log_prob(x, self._checked_level(sigma), _given(conditions, label, len(x)))

    def _checked_level(self, sigma: float) -> float:
        if not 0 < float(sigma) < math.inf:
            raise InputError(f"the horizon must be finite and above 0: got {sigma}")
        low, high = self.sigmas
        if not low * (1 - 1e-6) <= float(sigma) <= high * (1 + 1e-6):
            raise InputError(f"this {self.name} start is for horizons from {low:.6g} to {high:.6g}: got {sigma:.6g}")
        return float(sigma)

    @abstractmethod
    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor: ...

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        # Where there is no density, log_prob has refused by now.
        raise NotImplementedError(f"{type(self).__name__} calls itself tractable, and does not write _log_prob")

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The state to save: plain values for JSON, and tensors.

        Raises:
            ArtefactError: if it is code, which is never saved.
        """

    @classmethod
    @abstractmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Initialization:
        """The initialization that :meth:`state` describes."""

    def save(self, path: str | Path) -> None:
        """Write it as one file, whole or not at all. A start that hands back training data holds these.

        Raises:
            ArtefactError: if it is code, or none of headstart's own, or the file cannot be written.
        """
        if INITIALIZATIONS.get(self.name) is not type(self):
            raise ArtefactError(f"{self!r} is not one of headstart's own, so no one else could read it")
        values, tensors = self.state()
        write_tensors(Path(path), FORM, VERSION, {"name": self.name, "values": values}, tensors)

    @staticmethod
    def load(path: str | Path) -> Initialization:
        """The start that :meth:`save` wrote, of whatever family.

        Raises:
            ArtefactError: if the file is missing, damaged, no start, or newer than this version of headstart.
        """
        values, tensors = read_tensors(Path(path), FORM, VERSION)
        try:
            return INITIALIZATIONS[values["name"]].from_state(values["values"], tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} is damaged: {error}") from error


INITIALIZATIONS: Registry[type[Initialization]] = Registry(
    "initialization",
    "headstart.initialization",
    "headstart.initializations",
    first=(
        "isotropic",
        "shifted",
        "diagonal",
        "gaussian",
        "teleportation",
        "mixture",
        "regression",
        "conditional-mixture",
        "network-mean",
        "student-t",
        "flow",
        "autoregressive",
        "generator",
        "generated",
        "empirical",
    ),
)
"""The families of starts, by the name under which a plan stores them."""


def _given(conditions: Mapping[str, Any] | Tensor | None, label: Tensor | None, count: int) -> Conditions:
    """The conditions of ``count`` samples, the classes among them."""
    if isinstance(conditions, Tensor):
        conditions = {"label": conditions}
    found = Conditions.of(conditions, count)
    check_label(found, label, "by name")
    return found if label is None else found.with_label(label)
