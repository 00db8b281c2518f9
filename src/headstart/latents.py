r"""The space of a latent network, and the way there and back.

An encoder E and a decoder D go between samples and what a network was trained on, and numbers, one for all or one a
channel, bring latents to the network's units:

.. math:: z = (E(x) - \text{shift}) \cdot \text{scale}, \qquad x = D(z / \text{scale} + \text{shift}).

A plan is fitted on encoded data, and returns samples of the data's own kind when it is given the way back:

>>> half = Latents(lambda x: x / 2, lambda z: 2 * z, scale=(4.0,), shift=(1.0,))
>>> x = torch.ones(3, 1, 8, 8)
>>> float(half.encode(x)[0, 0, 0, 0]), torch.equal(half.decode(half.encode(x)), x)
(-2.0, True)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from headstart.arrays import as_tensor
from headstart.errors import DataError, DenoiserError, InputError

__all__ = ["Codec", "Latents", "Space", "rows_of"]

#: Samples that are encoded or decoded at a time.
TOGETHER = 256


@dataclass(frozen=True)
class Space:
    """The part of latents that a plan keeps: numbers, and the name of the code that encodes and decodes.

    Attributes:
        spec: ``python:package.module:factory``, whose factory returns encoder and decoder; empty if nothing builds
            them by a name.
        scale: what shifted latents are multiplied by: a number, or a sequence of one or of one a channel.
        shift: what is taken off latents, likewise.

    Raises:
        InputError: if a scale is not above 0, or a number is none or not finite, or there is none.
    """

    spec: str = ""
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        for name in ("scale", "shift"):
            object.__setattr__(self, name, _numbers(getattr(self, name), name))
        if not self.scale or not self.shift or not all(math.isfinite(each) for each in (*self.scale, *self.shift)):
            raise InputError(f"the scale {self.scale} and the shift {self.shift} of latents must be finite numbers")
        if not min(self.scale) > 0:
            raise InputError(f"the scale of latents must be above 0: got {self.scale}")


class Codec(Protocol):
    """The way from samples to latents and back, as :class:`Latents` has it."""

    @property
    def space(self) -> Space:
        """The part that is kept with a plan."""
        ...

    def encode(self, samples: Tensor, /) -> Tensor:
        """The latents of samples."""
        ...

    def decode(self, z: Tensor, /) -> Tensor:
        """The samples of latents."""
        ...


@dataclass(frozen=True, eq=False)
class Latents:
    """An encoder and a decoder, and the numbers between latents and the network's units.

    Attributes:
        encoder: samples (B, \\*S) to latents (B, C, \\*L).
        decoder: latents to samples.
        scale: what shifted latents are multiplied by: a number, or a sequence of one or of one a channel.
        shift: what is taken off latents, likewise.
        spec: how :func:`headstart.models.load_latents` builds encoder and decoder; empty if it cannot.

    Raises:
        InputError: as :class:`Space`.
    """

    encoder: Callable[[Tensor], Tensor] = field(repr=False)
    decoder: Callable[[Tensor], Tensor] = field(repr=False)
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    spec: str = ""

    def __post_init__(self) -> None:
        space = Space(self.spec, self.scale, self.shift)
        object.__setattr__(self, "scale", space.scale)
        object.__setattr__(self, "shift", space.shift)

    @classmethod
    def standard(
        cls,
        encoder: Callable[[Tensor], Tensor],
        decoder: Callable[[Tensor], Tensor],
        samples: Tensor,
        std: float = 1.0,
        spec: str = "",
    ) -> Latents:
        """With the numbers that give each channel of the latents of these samples mean 0 and a standard deviation.

        Arguments:
            encoder: samples (B, \\*S) to latents (B, C, \\*L).
            decoder: latents to samples.
            samples: shape (N, \\*S).
            std: the standard deviation of each channel.
            spec: how encoder and decoder are built again.

        Raises:
            DataError: if a channel is the same for all samples, or latents hold NaN or Inf.
        """
        z = cls(encoder, decoder).encode(samples).double().transpose(0, 1).flatten(1)
        mean, width = z.mean(1), z.std(1)
        if not (torch.isfinite(z).all() and (width > 0).all()):
            raise DataError("a channel of the latents is constant or holds NaN or infinite values: it has no scale")
        return cls(encoder, decoder, tuple((std / width).tolist()), tuple(mean.tolist()), spec)

    @property
    def space(self) -> Space:
        """The part that is kept with a plan."""
        return Space(self.spec, self.scale, self.shift)

    @torch.no_grad()
    def encode(self, samples: Tensor, /) -> Tensor:
        """The latents of samples (N, \\*S), as the network knows them: (N, C, \\*L).

        Raises:
            DenoiserError: if the encoder returns no tensor with a row for each sample and an axis of channels.
            InputError: if there are neither one number nor one for each channel.
        """
        latents = torch.cat([rows_of(self.encoder(part), part, "encoder") for part in torch.split(samples, TOGETHER)])
        return (latents - self._by_channel(self.shift, latents)) * self._by_channel(self.scale, latents)

    @torch.no_grad()
    def decode(self, z: Tensor, /) -> Tensor:
        """The samples of latents (N, C, \\*L), as the network knows them: (N, \\*S).

        Raises:
            DenoiserError: if the decoder returns no tensor with a row for each of the latents.
            InputError: if there are neither one number nor one for each channel.
        """
        latents = z / self._by_channel(self.scale, z) + self._by_channel(self.shift, z)
        return torch.cat([rows_of(self.decoder(part), part, "decoder") for part in torch.split(latents, TOGETHER)])

    def _by_channel(self, numbers: tuple[float, ...], like: Tensor) -> Tensor:
        if len(numbers) not in (1, like.shape[1]):
            raise InputError(f"there are {len(numbers)} numbers for the {like.shape[1]} channels of latents")
        return torch.tensor(numbers, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.ndim - 2))


def _numbers(given: Any, name: str) -> tuple[float, ...]:
    """A number, or a sequence of them, as a tuple."""
    try:
        return tuple(as_tensor(given, name).double().flatten().tolist())
    except DataError as error:
        raise InputError(f"the {name} of latents is {given!r}: expected a number, or one for each channel") from error


def rows_of(found: Any, given: Tensor, who: str) -> Tensor:
    """The answer of an encoder or a decoder, if it is a tensor of at least two axes with a row for each input.

    Raises:
        DenoiserError: if it is not.
    """
    if isinstance(found, Tensor) and found.ndim > 1 and len(found) == len(given):
        return found
    what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    own = hasattr(found, "latent_dist") or hasattr(found, "sample")
    raise DenoiserError(
        f"the {who} returned {what} for an input of shape {tuple(given.shape)}: expected a tensor with a row for each"
        + "; headstart.integrations.diffusers.Latents takes a VAE of diffusers as it is" * own
    )
