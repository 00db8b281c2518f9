r"""Where the reverse process starts: a law :math:`p_\theta` close to :math:`p_T`, that of the data plus noise of level
sigma_T.

The error of a sampler splits into initialization, score and discretization. The first part is

.. math:: E_\text{init} = KL(p_T \,\|\, p_\theta) = -E \log p_\theta(x_0 + \sigma_T \varepsilon) - h(p_T),

and maximum likelihood on noised data makes it small. The horizon sigma_T is an argument and not a property: a
closed-form law is fitted once, on clean data, and convolved with noise of any level.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from headstart.noise import Noise

__all__ = ["Initialization"]


class Initialization(ABC):
    """A law for the noised data at every horizon.

    Attributes:
        name: the name by which a plan stores the family.
        oracle: whether it hands back training data, and so is there for comparison only.
        shape: the shape S of one sample.
    """

    name: ClassVar[str]
    oracle: ClassVar[bool] = False
    shape: tuple[int, ...]

    @abstractmethod
    def sample(self, noise: Noise, sigma: float, label: Tensor | None = None) -> Tensor:
        """One start per stream of ``noise``, of shape (B, \\*S), in the noise's dtype and device.

        Arguments:
            noise: the samples' random streams.
            sigma: the horizon.
            label: classes of the samples, shape (B,); families without classes ignore them.
        """

    @abstractmethod
    def log_prob(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        """Log density in nats of noised data at horizon sigma: (B, \\*S) to (B,), in float64."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What saves it: plain values for JSON, and tensors."""

    @classmethod
    @abstractmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Initialization:
        """The initialization that :meth:`state` describes."""
