r"""An autoregressive flow on pixels: every patch given the patches before it, by a causal transformer.

The noised data :math:`x = x_0 + \sigma \varepsilon` are whitened by one number, with the data's mean :math:`m` and
standard deviation :math:`\sigma_d`, and cut into patches :math:`u_1, \dots, u_T`:

.. math:: u = (x - m) / \sqrt{\sigma^2 + \sigma_d^2}.

A block standardises each patch by a mean and a log scale (one for each of its numbers) that a causal transformer reads
off the patches before it; the next block goes through the patches in reversed order, and so on:

.. math:: z_t = (u_t - \mu(u_{<t}; \sigma))\, e^{-a(u_{<t}; \sigma)}, \qquad
    u_t = \mu(u_{<t}; \sigma) + e^{a(u_{<t}; \sigma)} z_t.

What the last block returns is standard normal, and each Jacobian is triangular:

.. math:: \log p(x) = \log N(z;\ 0, I) - \sum_\text{blocks} \sum_t a_t - \tfrac d2 \ln(\sigma^2 + \sigma_d^2).

The density of a whole image is one parallel pass. Sampling is sequential, T passes for each block, every one of which
costs a single patch because the keys and values of the patches before it are kept.

Differences from the paper: there a block returns its first patch as it is, and here that patch has a mean and a scale
too, which depend on the level (and the class) alone, so that a single block is the whole chain rule. The paper noises
its data at a single level, and here the level is told to the flow: an embedding of ln sigma is added to every token.

References:
    Zhai et al., *Normalizing Flows are Capable Generative Models*, 2024, arXiv 2412.06329.

    Papamakarios et al., *Masked Autoregressive Flow for Density Estimation*, NeurIPS 2017, arXiv 1705.07057.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.errors import InputError

__all__ = ["PatchFlow"]

#: Log scales lie within plus and minus this, softly, so that one odd patch cannot blow up those after it when a flow is
#: inverted. It costs nothing: in whitened units the noise alone keeps conditional standard deviations of the data above
#: sigma / sqrt(sigma^2 + sigma_d^2), and that is e^-5 only at sigma = 0.007 sigma_d.
LIMIT = 5.0

#: In training, one in so many samples loses its label, so that the flow also learns all classes together.
UNLABELLED = 10

#: How many numbers one call keeps in memory as keys and values (sampling) or as channels (densities).
NUMBERS = 2**27


class PatchFlow(nn.Module):
    """The flow: log densities of noised data, and samples from standard normal numbers.

    Arguments:
        shape: of one sample: (C, H, W), with H and W multiples of ``patch``, or (d,), with d a multiple.
        sigma_data: standard deviation of the clean data about their mean.
        sigmas: the lowest and the highest noise level that it is for.
        patch: side of a patch of an image; length of a patch of flat data.
        channels: of the transformers, a multiple of ``heads``.
        blocks: number of blocks; each one's patches are in the reversed order of the one before.
        layers: attention layers of each block.
        heads: attention heads.
        classes: number of classes; 0 if there are none.
        seed: of the weights. The untrained output is zero, whatever they are.

    The buffer ``mean``, of shape (\\*S), is subtracted; it is zero until it is set.

    Raises:
        InputError: if the numbers do not fit each other.
    """

    mean: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        sigma_data: float,
        sigmas: tuple[float, float],
        *,
        patch: int = 4,
        channels: int = 64,
        blocks: int = 2,
        layers: int = 2,
        heads: int = 4,
        classes: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(shape, patch, channels, blocks, layers, heads, classes)
        _check_levels(sigmas, sigma_data)
        self.shape, self.patch, self.classes = tuple(shape), patch, classes
        self.sigma_data, self.sigmas = float(sigma_data), (float(sigmas[0]), float(sigmas[1]))
        self.width = patch if len(self.shape) == 1 else self.shape[0] * patch**2
        self.length = math.prod(self.shape) // self.width
        #: What a flow of the same architecture is made from: plain values.
        self.options: dict[str, Any] = {
            "shape": list(self.shape),
            "sigma_data": self.sigma_data,
            "sigmas": list(self.sigmas),
            "patch": patch,
            "channels": channels,
            "blocks": blocks,
            "layers": layers,
            "heads": heads,
            "classes": classes,
        }
        self.register_buffer("mean", torch.zeros(self.shape))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.level = nn.Sequential(nn.Linear(1, channels), nn.SiLU(), nn.Linear(channels, channels))
            self.label = nn.Embedding(classes + 1, channels)
            self.blocks = nn.ModuleList(Block(self.length, self.width, channels, layers, heads) for _ in range(blocks))

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Log densities in nats: x (B, \\*S) and sigma (B,) to (B,).

        Arguments:
            x: noised data.
            sigma: noise levels, shape (B,).
            label: classes from 0 to ``classes`` - 1, shape (B,), or None for all of them together. One in ten is passed
                over in training.
        """
        z, log_det = self.standardise(x, sigma, label)
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi)) + log_det

    def standardise(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data x (B, \\*S) to noise z (B, d); also the log determinant (B,) of that map's Jacobian."""
        condition, scale = self._condition(sigma, label)
        u = self.cut((x - self.mean) / scale.view(-1, *[1] * len(self.shape)))
        log_det = -self.length * self.width * scale.log()
        for block in self.blocks:
            u, block_log_det = block(u, condition)
            u, log_det = u.flip(1), log_det + block_log_det
        return u.flatten(1), log_det

    @torch.no_grad()
    def invert(self, z: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Map noise z (B, d) to data x (B, \\*S), without gradients: the inverse of :meth:`standardise`."""
        condition, scale = self._condition(sigma, label)
        u = z.view(-1, self.length, self.width)
        for block in reversed(self.blocks):
            assert isinstance(block, Block)
            u = block.invert(u.flip(1), condition)
        return self.join(u) * scale.view(-1, *[1] * len(self.shape)) + self.mean

    def parts(self, count: int) -> list[slice]:
        """Rows to be worked on together, out of ``count``, so that what they keep in memory has a bound."""
        rows = max(1, NUMBERS // (2 * self.length * int(self.options["channels"]) * int(self.options["layers"])))
        return [slice(i, i + rows) for i in range(0, max(1, count), rows)]

    def _condition(self, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """The shift of every token (B, channels), and the scale of the noised data (B,).

        The level is given as log sigma, from -1 to 1 over the range that the flow is for.
        """
        low, high = (math.log(level) for level in self.sigmas)
        level = (2 * sigma.log() - (low + high)) / (high - low or 1.0)
        classes = torch.full_like(sigma, self.classes, dtype=torch.long) if label is None else label.to(sigma.device)
        if self.training:
            dropped = torch.arange(len(sigma), device=sigma.device) % UNLABELLED == 0
            classes = classes.masked_fill(dropped, self.classes)
        scale = (sigma**2 + self.sigma_data**2).sqrt()
        return self.level(level[:, None]) + self.label(classes), scale

    def cut(self, x: Tensor) -> Tensor:
        """Samples (B, \\*S) as patches (B, T, numbers of a patch), row by row."""
        if len(self.shape) == 1:
            return x.reshape(len(x), self.length, self.width)
        return F.unfold(x, self.patch, stride=self.patch).mT

    def join(self, u: Tensor) -> Tensor:
        """The inverse of :meth:`cut`."""
        if len(self.shape) == 1:
            return u.reshape(len(u), *self.shape)
        return F.fold(u.mT, self.shape[1:], self.patch, stride=self.patch)


class Block(nn.Module):
    """One autoregressive map of patches: a causal transformer that reads means and log scales off the patches before.

    Arguments:
        length: number of patches T.
        width: numbers of a patch.
        channels, layers, heads: of the transformer.
    """

    def __init__(self, length: int, width: int, channels: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, channels)
        self.first = nn.Parameter(torch.zeros(channels))  # stands for the patch before the first
        self.position = nn.Parameter(0.02 * torch.randn(length, channels))
        self.layers = nn.ModuleList(Layer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, 2 * width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Patches u (B, T, width) to z, of the same shape, and the log determinant (B,).

        Arguments:
            u: the patches.
            condition: what is added to every token, shape (B, channels).
        """
        mean, log_scale = self.predict(u, condition)
        return (u - mean) * (-log_scale).exp(), -log_scale.sum((1, 2))

    def predict(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale of every patch, from the patches before it."""
        before = torch.cat([self.first.expand(len(u), 1, -1), self.embed(u[:, :-1])], 1)
        h = before + self.position + condition[:, None]
        for layer in self.layers:
            h = layer(h)
        return self._read(h)

    @torch.no_grad()
    def invert(self, z: Tensor, condition: Tensor) -> Tensor:
        """The inverse of :meth:`forward`, without gradients, patch by patch: z (B, T, width) to u."""
        caches = [Cache(z.shape[1]) for _ in self.layers]
        before, patches = self.first.expand(len(z), 1, -1), []
        for t in range(z.shape[1]):
            h = before + self.position[t] + condition[:, None]
            for layer, cache in zip(self.layers, caches, strict=True):
                h = layer(h, cache)
            mean, log_scale = self._read(h)
            patches.append(mean + log_scale.exp() * z[:, t : t + 1])
            before = self.embed(patches[-1])
        return torch.cat(patches, 1)

    def _read(self, h: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.out(self.norm(h)).chunk(2, -1)
        return mean, LIMIT * torch.tanh(log_scale / LIMIT)


class Cache:
    """The keys and values, in one layer, of the patches so far.

    Room for all patches is made at once: to join what is there with what is new copies it all, at every patch.

    Arguments:
        length: number of patches T.
    """

    def __init__(self, length: int) -> None:
        self.length, self.count = length, 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All t keys and values, (B, heads, t, channels / heads), with those of one more patch, where t is 1."""
        if self.count == 0:
            batch, heads, _, width = key.shape
            self.keys, self.values = (key.new_empty(batch, heads, self.length, width) for _ in range(2))
        self.keys[:, :, self.count], self.values[:, :, self.count] = key[:, :, 0], value[:, :, 0]
        self.count += 1
        return self.keys[:, :, : self.count], self.values[:, :, : self.count]


class Layer(nn.Module):
    """Causal self-attention and a perceptron, each on normalised tokens and added to them."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.inputs = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, h: Tensor, cache: Cache | None = None) -> Tensor:
        """Tokens (B, T, channels) to tokens, each from those up to it; with a cache T is 1 and the others are in it."""
        query, key, value = self.inputs(self.norm(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.extend(key, value)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        h = h + self.output(seen.transpose(1, 2).flatten(2))
        out: Tensor = h + self.perceptron(h)
        return out


def _check_sizes(
    shape: Sequence[int], patch: int, channels: int, blocks: int, layers: int, heads: int, classes: int
) -> None:
    if len(shape) not in (1, 3):
        raise InputError(f"an autoregressive flow is for images (C, H, W) or flat data (d,): got shape {tuple(shape)}")
    for name, value in {
        "patch": patch,
        "channels": channels,
        "blocks": blocks,
        "layers": layers,
        "heads": heads,
    }.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1: got {value}")
    if classes < 0:
        raise InputError(f"classes must be at least 0: got {classes}")
    if any(size % patch for size in shape[-2:]):
        raise InputError(f"samples of shape {tuple(shape)} cannot be cut into patches of {patch}: take a divisor")
    if channels % heads:
        raise InputError(f"channels must be a multiple of heads: got {channels} and {heads}")


def _check_levels(sigmas: tuple[float, float], sigma_data: float) -> None:
    low, high = sigmas
    if not 0 < low <= high < math.inf:
        raise InputError(f"levels must be finite, above 0, and the lowest first: got {low:g} and {high:g}")
    if not 0 <= sigma_data < math.inf:
        raise InputError(f"sigma_data must be finite and at least 0: got {sigma_data}")
