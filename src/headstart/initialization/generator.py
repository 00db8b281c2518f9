r"""The noised samples of another generator: a VAE, a GAN, a simulator, another model's samples.

For a generator with law :math:`p_G` the start :math:`x = G + \sigma_T \varepsilon` has no density that can be computed,
but the divergence is bounded by the Wasserstein distance of the generator to the data,

.. math:: KL(p_0 * N_{\sigma_T} \,\|\, p_G * N_{\sigma_T}) \le \frac{W_2^2(p_0, p_G)}{2 \sigma_T^2}

(:func:`headstart.budget.transport_bound`): noise hides the errors of a generator that are smaller than it.

References:
    Lyu et al., *Accelerating Diffusion Models via Early Stop of the Diffusion Process*, 2022, arXiv 2205.12524.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.errors import ArtefactError, InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.empirical import Empirical
from headstart.noise import Noise, Stream

__all__ = ["Generated", "Generator"]


@INITIALIZATIONS.register
class Generator(Initialization):
    """A generator's samples plus noise.

    Arguments:
        shape: the shape S of one sample.
        generate: called as ``generate(noise, label)`` with the samples' random streams, which it takes all its random
            numbers from, and their classes (B,) or None; it returns clean samples of shape (B, \\*S).

    >>> line = Generator((2,), lambda noise, label: noise.uniform((1,)).expand(-1, 2))
    >>> line.sample(Noise([0, 1, 2]), 0.1).shape
    torch.Size([3, 2])
    """

    name = "generator"
    cites = ("fassina2026initialization", "lyu2022accelerating")
    tractable = False
    closed_form = False
    given = True

    def __init__(self, shape: Sequence[int], generate: Callable[[Noise, Tensor | None], Tensor]) -> None:
        self.shape = tuple(shape)
        self.generate = generate

    def clean(self, noise: Noise, label: Tensor | None = None) -> Tensor:
        """One sample of the generator per stream, of shape (B, \\*S), in the noise's dtype and device.

        Raises:
            InputError: if the generator returns another shape, or NaN or Inf.
        """
        with torch.no_grad():
            samples = self.generate(noise, label)
        if tuple(samples.shape) != (len(noise), *self.shape) or not torch.isfinite(samples).all():
            raise InputError(
                f"the generator returned shape {tuple(samples.shape)} for {len(noise)} samples of shape {self.shape}: "
                "it must return one finite sample for each stream"
            )
        return samples.to(noise.device, noise.dtype)

    def drawn(
        self, n: int, seed: int = 0, labels: Tensor | None = None, device: torch.device | str = "cpu"
    ) -> Generated:
        """``n`` of its samples, drawn once: a start that, unlike code, can be saved.

        Arguments:
            n: how many.
            seed: of the samples, whose own seeds are those of no samples of a plan.
            labels: their classes, shape (n,), or None.
            device: where the generator works.

        Raises:
            InputError: if n is below 1, or there is not one label for each.
        """
        if n < 1 or (labels is not None and labels.shape != (n,)):
            raise InputError(f"at least one sample is drawn, with one label for each or none: got n = {n}")
        parts = []
        for i in range(0, n, 256):
            noise = Noise(Stream.GENERATOR.seeds(seed, n)[i : i + 256], device)
            own = None if labels is None else labels[i : i + 256].to(device)
            parts.append(self.clean(noise, own).cpu())
        return Generated(torch.cat(parts), labels)

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        return self.clean(noise, given.get("label")) + sigma * noise.normal(self.shape)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        raise ArtefactError("a generator is code, which no plan holds: fit the plan with samples of it, see drawn()")

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Generator:
        raise ArtefactError("a generator is code, which no plan holds")

    def __repr__(self) -> str:
        return f"Generator(shape={self.shape})"


@INITIALIZATIONS.register
class Generated(Empirical):
    """Samples of a generator, drawn once, plus noise. It hands back the generator's samples, not training data.

    Arguments:
        data: the generator's samples, shape (N, \\*S).
        labels: their classes, shape (N,), or None.
    """

    name = "generated"
    cites = ("fassina2026initialization", "lyu2022accelerating")
    oracle = False
    given = True

    def __repr__(self) -> str:
        return f"Generated({len(self.data)} samples of shape {self.shape})"
