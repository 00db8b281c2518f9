r"""A small class-conditional U-Net with EDM preconditioning: the architecture of the bundled network.

A network :math:`F` becomes a denoiser through the preconditioning of EDM,

.. math:: D(x; \sigma) = c_\text{skip}\, x + c_\text{out}\, F(c_\text{in}\, x;\ \tfrac14 \ln \sigma),

.. math:: c_\text{skip} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}, \quad
    c_\text{out} = \frac{\sigma \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
    c_\text{in} = \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}},

with :math:`\sigma_d` the standard deviation of the data. The U-Net works on 2x2 patches, so that a 28x28 image costs
what a 14x14 one does: on a CPU that is the difference between an hour of training and a day of it.

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022, Table 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PatchUNet", "Preconditioned"]


class Preconditioned(nn.Module):
    """EDM preconditioning of a network: ``(x, sigma, label=None)`` to an estimate of E[x0 | x].

    Arguments:
        network: maps ``(c_in * x, c_noise, label)`` with shapes (B, C, H, W), (B,), (B,) to (B, C, H, W).
        sigma_data: standard deviation of the data (per coordinate).
        classes: number of classes; index ``classes`` stands for "no class" and is what ``label=None`` means.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 0.5, classes: int = 10) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data
        self.classes = classes

    def forward(self, x: Tensor, sigma: Tensor | float, label: Tensor | int | None = None) -> Tensor:
        s = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x)).view(-1, 1, 1, 1)
        classes = torch.as_tensor(self.classes if label is None else label, dtype=torch.long, device=x.device)
        total = s**2 + self.sigma_data**2
        out = self.network(x / total.sqrt(), s.flatten().log() / 4, classes.expand(len(x)))
        denoised: Tensor = (self.sigma_data**2 / total) * x + (s * self.sigma_data / total.sqrt()) * out
        return denoised


class PatchUNet(nn.Module):
    """A U-Net on 2x2 patches with two resolutions, additive skips and self-attention at the lower one.

    Arguments:
        channels: channels of the image, whose height and width must be multiples of 4.
        widths: channels at the higher and at the lower resolution.
        blocks: residual blocks at the higher resolution on the way down (as many on the way up), and at the lower one.
        classes: number of classes, "no class" not counted.
    """

    frequencies: Tensor

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, int] = (48, 96),
        blocks: tuple[int, int] = (2, 4),
        classes: int = 10,
    ) -> None:
        super().__init__()
        high, low = widths
        embed = 2 * low
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(100), high // 2)), persistent=False)
        self.noise = nn.Sequential(nn.Linear(high, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.label = nn.Embedding(classes + 1, embed)

        self.stem = nn.Conv2d(4 * channels, high, 3, padding=1)
        self.down = nn.ModuleList(Residual(high, embed) for _ in range(blocks[0]))
        self.shrink = nn.Conv2d(high, low, 3, stride=2, padding=1)
        self.low = nn.ModuleList(Residual(low, embed) for _ in range(blocks[1]))
        self.attend = nn.ModuleList(Attention(low) for _ in range(blocks[1] - 1))
        self.grow = nn.Conv2d(low, high, 1)
        self.up = nn.ModuleList(Residual(high, embed) for _ in range(blocks[0]))
        self.head = nn.Sequential(nn.GroupNorm(8, high), nn.SiLU(), zeroed(nn.Conv2d(high, 4 * channels, 3, padding=1)))

    def forward(self, x: Tensor, noise: Tensor, label: Tensor) -> Tensor:
        angles = noise[:, None] * self.frequencies
        embed = F.silu(self.noise(torch.cat([angles.cos(), angles.sin()], dim=1)) + self.label(label))

        h = self.stem(F.pixel_unshuffle(x, 2))
        skips = []
        for block in self.down:
            skips.append(h)
            h = block(h, embed)
        top, h = h, self.shrink(h)
        for i, block in enumerate(self.low):
            h = block(h, embed)
            if i < len(self.attend):
                h = self.attend[i](h)
        h = top + F.interpolate(self.grow(h), scale_factor=2.0, mode="nearest")
        for block in self.up:
            h = block(h + skips.pop(), embed)
        return F.pixel_shuffle(self.head(h), 2)


class Residual(nn.Module):
    """A residual block whose second normalization is scaled and shifted by the embedding of noise and class."""

    def __init__(self, channels: int, embed: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulate = zeroed(nn.Linear(embed, 2 * channels))
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, embed: Tensor) -> Tensor:
        scale, shift = self.modulate(embed)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return x.add(h)


class Attention(nn.Module):
    """Self-attention over the pixels of a feature map, with 4 heads."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x.add(self.out(y.transpose(-1, -2).reshape(b, c, h, w)))


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with zero weights and biases, so that a residual branch starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
