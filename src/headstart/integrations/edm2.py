r"""Networks of EDM2: their pickles are read without executing anything, onto a definition of our own.

Every layer keeps the magnitude of its activations: weights are normalized to unit length by output channel, sums and
concatenations are weighted, and the SiLU is scaled,

.. math:: a \oplus_t b = \frac{(1 - t) a + t b}{\sqrt{(1 - t)^2 + t^2}}, \qquad
    \operatorname{mp\,silu}(x) = \operatorname{silu}(x) / 0.596.

The preconditioning is EDM's. The networks of ImageNet-512 see latents of Stable Diffusion's VAE, of standard deviation
0.5. Autoguidance is :func:`headstart.guide` of two of them by hand: ``weak(x, sigma) + s * (strong(x, sigma) - weak(x,
sigma))``.

References:
    Karras et al., *Analyzing and Improving the Training Dynamics of Diffusion Models*, CVPR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.errors import DenoiserError
from headstart.integrations.pickles import NetworkRecord
from headstart.integrations.weights import loader, one_hot, self_attention
from headstart.models.load import LOADERS, Loader

__all__ = ["Denoiser2", "UNet2", "network"]


def unit(x: Tensor, dims: Sequence[int], eps: float = 1e-4) -> Tensor:
    """x over its root mean square along the dimensions."""
    length = torch.linalg.vector_norm(x, dim=tuple(dims), keepdim=True)
    scaled: Tensor = x / (eps + length * math.sqrt(length.numel() / x.numel()))
    return scaled


def silu(x: Tensor) -> Tensor:
    """The SiLU, scaled to keep the magnitude of normal numbers."""
    return F.silu(x) / 0.596


def mixed(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The sum of two states of unit magnitude, of unit magnitude again, with ``share`` of the second."""
    return torch.lerp(a, b, share) / math.hypot(1 - share, share)


def joined(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The channels of both, each part with its share of the magnitude."""
    first, second = a.shape[1], b.shape[1]
    total = math.sqrt(first + second) / math.hypot(1 - share, share)
    return torch.cat([a * (total * (1 - share) / math.sqrt(first)), b * (total * share / math.sqrt(second))], dim=1)


class Weights(nn.Module):
    """A linear map or a convolution whose rows have unit length."""

    def __init__(self, inner: int, outer: int, *kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outer, inner, *kernel))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        rows = unit(self.weight, range(1, self.weight.ndim)) * (gain / math.sqrt(self.weight[0].numel()))
        return F.linear(x, rows) if rows.ndim == 2 else F.conv2d(x, rows, padding=rows.shape[-1] // 2)


class Waves(nn.Module):
    """Cosines of random frequencies and phases, which are drawn once and kept."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(width))
        self.register_buffer("phases", torch.zeros(width))

    def forward(self, noise: Tensor) -> Tensor:
        return math.sqrt(2) * torch.cos(noise[:, None] * self.freqs + self.phases)


class Block2(nn.Module):
    """A block of the encoder or the decoder, with its options as the file records them."""

    def __init__(
        self,
        inner: int,
        outer: int,
        embed: int,
        encodes: bool,
        change: str = "",
        attention: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        channels_per_head: int = 64,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.outer, self.encodes, self.change, self.taps = outer, encodes, change, tuple(resample_filter)
        self.heads = outer // channels_per_head if attention else 0
        self.shares, self.limit = (res_balance, attn_balance), clip_act
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = Weights(outer if encodes else inner, outer, 3, 3)
        self.emb_linear = Weights(embed, outer)
        self.conv_res1 = Weights(outer, outer, 3, 3)
        self.conv_skip = Weights(inner, outer, 1, 1) if inner != outer else None
        if self.heads:
            self.attn_qkv = Weights(outer, 3 * outer, 1, 1)
            self.attn_proj = Weights(outer, outer, 1, 1)

    def forward(self, x: Tensor, embed: Tensor) -> Tensor:
        x = self._resampled(x)
        if self.encodes:
            x = unit(x if self.conv_skip is None else self.conv_skip(x), [1])
        y = self.conv_res0(silu(x))
        y = self.conv_res1(silu(y * (1 + self.emb_linear(embed, self.emb_gain))[:, :, None, None]))
        if not self.encodes and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mixed(x, y, self.shares[0])
        if self.heads:
            y = self_attention(self.attn_qkv(x), self.heads, lambda parts: unit(parts, [2]))
            x = mixed(x, self.attn_proj(y), self.shares[1])
        return x if self.limit is None else x.clamp(-self.limit, self.limit)

    def _resampled(self, x: Tensor) -> Tensor:
        if not self.change:
            return x
        row = torch.tensor(self.taps, dtype=x.dtype, device=x.device) / sum(self.taps)
        taps = torch.outer(row, row).expand(x.shape[1], 1, -1, -1)
        margin = (len(self.taps) - 1) // 2
        if self.change == "up":
            return F.conv_transpose2d(x, 4 * taps, stride=2, padding=margin, groups=x.shape[1])
        return F.conv2d(x, taps, stride=2, padding=margin, groups=x.shape[1])


class UNet2(nn.Module):
    """The U-Net of EDM2, by the arguments that its files record."""

    def __init__(
        self,
        resolution: int,
        channels: int,
        label_dim: int,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None,
        channel_mult_emb: int | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__()
        widths = [model_channels * multiple for multiple in channel_mult]
        noise = widths[0] if channel_mult_noise is None else model_channels * channel_mult_noise
        embed = max(widths) if channel_mult_emb is None else model_channels * channel_mult_emb
        self.shares, self.label_dim = (label_balance, concat_balance), label_dim
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier, self.emb_noise = Waves(noise), Weights(noise, embed)
        if label_dim:
            self.emb_label = Weights(label_dim, embed)

        def block(inner: int, outer: int, encodes: bool, change: str = "", attention: bool = False) -> Block2:
            return Block2(inner, outer, embed, encodes, change, attention, **options)

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        levels = [(f"{resolution >> i}x{resolution >> i}", (resolution >> i) in attn_resolutions, width)
                  for i, width in enumerate(widths)]  # fmt: skip
        now = widths[0]
        self.enc[f"{levels[0][0]}_conv"] = Weights(channels + 1, now, 3, 3)
        skips = [now]
        for i, (size, attended, width) in enumerate(levels):
            if i:
                self.enc[f"{size}_down"] = block(now, now, True, "down")
                skips.append(now)
            for j in range(num_blocks):
                self.enc[f"{size}_block{j}"] = block(now, width, True, attention=attended)
                now = width
                skips.append(now)
        for i, (size, attended, width) in reversed(list(enumerate(levels))):
            if i == len(levels) - 1:
                self.dec[f"{size}_in0"] = block(now, now, False, attention=True)
                self.dec[f"{size}_in1"] = block(now, now, False)
            else:
                self.dec[f"{size}_up"] = block(now, now, False, "up")
            for j in range(num_blocks + 1):
                self.dec[f"{size}_block{j}"] = block(now + skips.pop(), width, False, attention=attended)
                now = width
        self.out_conv = Weights(now, channels, 3, 3)

    def forward(self, x: Tensor, noise: Tensor, classes: Tensor | None) -> Tensor:
        """F of images (B, C, H, W), :math:`c_\\text{noise}` (B,) and one-hot classes (B, L)."""
        embed = self.emb_noise(self.emb_fourier(noise))
        if classes is not None:
            embed = mixed(embed, self.emb_label(classes * math.sqrt(self.label_dim)), self.shares[0])
        embed = silu(embed)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips = []
        for layer in self.enc.values():
            x = layer(x, embed) if isinstance(layer, Block2) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(joined(x, skips.pop(), self.shares[1]) if "_block" in name else x, embed)
        out: Tensor = self.out_conv(x, self.out_gain)
        return out


class Denoiser2(nn.Module):
    """A denoiser of EDM2: its U-Net in EDM's preconditioning.

    Arguments:
        settings: the arguments that its file records.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        given = {name: value for name, value in settings.items() if name != "use_fp16"}
        self.spread = float(given.pop("sigma_data", 0.5))
        width = int(given.pop("logvar_channels", 128))
        try:
            size, channels, classes = (int(given.pop(name)) for name in ("img_resolution", "img_channels", "label_dim"))
        except KeyError as error:
            raise DenoiserError(f"the file does not record {error}") from error
        self.label_dim = classes
        self.unet = UNet2(size, channels, classes, **given)
        self.logvar_fourier, self.logvar_linear = Waves(width), Weights(width, 1)  # for training, and in the file

    def forward(self, x: Tensor, sigma: Any, label: Tensor | None = None) -> Tensor:
        """The denoiser."""
        wide = x.float()
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        s = level[:, None, None, None]
        total = s**2 + self.spread**2
        found = self.unet(wide * total.rsqrt(), level.log() / 4, one_hot(label, self.label_dim, len(x), x.device))
        denoised: Tensor = self.spread**2 / total * wide + s * self.spread * total.rsqrt() * found
        return denoised.to(x.dtype)


def network(record: NetworkRecord) -> nn.Module:
    """The denoiser that a record describes, without its weights.

    Raises:
        DenoiserError: if it is of another class.
    """
    if record.kind != "Precond":
        raise DenoiserError(f"{record.kind} is no network of EDM2: expected Precond; edm:FILE opens those of EDM")
    return Denoiser2(record.arguments)


LOADERS.register(Loader("edm2", loader(network), "edm2:FILE.pkl"))
