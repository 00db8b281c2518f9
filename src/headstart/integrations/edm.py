r"""Networks of EDM: their pickles are read without executing anything, onto definitions of our own.

The published networks are two U-Nets, DDPM++ and NCSN++ (``SongUNet``) and ADM (``DhariwalUNet``), inside one of four
preconditionings,

.. math:: D = c_\text{skip}\, x + c_\text{out}\, F(c_\text{in}\, x,\, c_\text{noise}),

================  ====================================  =============================  =================================
class             :math:`c_\text{skip}, c_\text{out}`   :math:`c_\text{in}`            :math:`c_\text{noise}`
================  ====================================  =============================  =================================
``EDMPrecond``    :math:`c^2/(c^2+\sigma^2)`,           :math:`(c^2+\sigma^2)^{-1/2}`  :math:`\ln(\sigma)/4`
                  :math:`c\sigma(c^2+\sigma^2)^{-1/2}`
``VPPrecond``     1, :math:`-\sigma`                    :math:`(1+\sigma^2)^{-1/2}`    999 times the time of the process
``VEPrecond``     1, :math:`\sigma`                     1                              :math:`\ln(\sigma/2)`
``iDDPMPrecond``  1, :math:`-\sigma`                    :math:`(1+\sigma^2)^{-1/2}`    index in a table
================  ====================================  =============================  =================================

Every parameter of a file is checked against the definition, by its name and shape. Classes come as ``label``, whole
numbers (B,), or one-hot; None is none of them. The networks are for use, not for training: dropout is left out.

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022. Song et al.,
    *Score-Based Generative Modeling through SDEs*, ICLR 2021. Dhariwal and Nichol, *Diffusion Models Beat GANs on Image
    Synthesis*, NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.denoiser import VariancePreserving
from headstart.errors import DenoiserError
from headstart.integrations.pickles import NetworkRecord
from headstart.integrations.weights import loader, one_hot, self_attention
from headstart.models.load import LOADERS, Loader

__all__ = ["Preconditioned", "UNet", "network"]


class Conv(nn.Module):
    """A convolution, before which a filter may halve or double the image; without a kernel, the filter alone.

    Arguments:
        inner: channels in.
        outer: channels out.
        kernel: its width; 0 for none.
        change: "up", "down" or nothing.
        taps: the filter in one dimension.
        last: halve after the convolution.
    """

    resample_filter: Tensor | None

    def __init__(
        self, inner: int, outer: int, kernel: int, change: str = "", taps: Sequence[float] = (1, 1), last: bool = False
    ) -> None:
        super().__init__()
        self.change, self.last = change, last
        self.weight = nn.Parameter(torch.zeros(outer, inner, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.zeros(outer)) if kernel else None
        row = torch.tensor(taps, dtype=torch.float32)
        self.register_buffer("resample_filter", torch.outer(row, row)[None, None] / row.sum() ** 2 if change else None)

    def forward(self, x: Tensor) -> Tensor:
        margin = 0 if self.resample_filter is None else (self.resample_filter.shape[-1] - 1) // 2
        if self.change and not self.last:
            x = self._resampled(x, margin)
        if self.weight is not None:
            x = F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2 + (margin if self.last else 0))
        if self.last:
            x = self._resampled(x, 0)
        return x if self.bias is None else x + self.bias[:, None, None]

    def _resampled(self, x: Tensor, padding: int) -> Tensor:
        assert self.resample_filter is not None
        channels = x.shape[1]
        taps = self.resample_filter.expand(channels, -1, -1, -1)
        if self.change == "up":
            return F.conv_transpose2d(x, 4 * taps, stride=2, padding=padding, groups=channels)
        return F.conv2d(x, taps, stride=2, padding=padding, groups=channels)


def norm(channels: int, eps: float) -> nn.GroupNorm:
    """Group normalization with four channels a group at least, and 32 groups at most."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class Block(nn.Module):
    """A residual block with an embedding and, perhaps, self-attention.

    Arguments:
        inner: channels in.
        outer: channels out.
        embed: width of the embedding.
        song: as in DDPM++ and NCSN++: the embedding shifts, attention has one head, and sums are halved in variance;
            else as in ADM: it scales and shifts, and heads have 64 channels.
        change: "up", "down" or nothing.
        taps: the filter of the change.
        attention: whether there is self-attention.
    """

    def __init__(
        self, inner: int, outer: int, embed: int, song: bool, change: str, taps: Sequence[float], attention: bool
    ) -> None:
        super().__init__()
        eps = 1e-6 if song else 1e-5
        self.inner, self.outer, self.song = inner, outer, song
        self.heads = 0 if not attention else 1 if song else outer // 64
        self.norm0 = norm(inner, eps)
        self.conv0 = Conv(inner, outer, 3, change, taps)
        self.affine = nn.Linear(embed, outer if song else 2 * outer)
        self.norm1 = norm(outer, eps)
        self.conv1 = Conv(outer, outer, 3)
        self.skip = None
        if inner != outer or change:
            self.skip = Conv(inner, outer, 1 if song or inner != outer else 0, change, taps)
        if self.heads:
            self.norm2 = norm(outer, eps)
            self.qkv = Conv(outer, 3 * outer, 1)
            self.proj = Conv(outer, outer, 1)

    def forward(self, x: Tensor, embed: Tensor) -> Tensor:
        share = math.sqrt(0.5) if self.song else 1.0
        y = self.conv0(F.silu(self.norm0(x)))
        moved = self.affine(embed)[:, :, None, None]
        if self.song:
            y = self.norm1(y + moved)
        else:
            scale, shift = moved.chunk(2, dim=1)
            y = shift + (1 + scale) * self.norm1(y)
        x = (self.conv1(F.silu(y)) + (x if self.skip is None else self.skip(x))) * share
        if self.heads:
            x = (x + self.proj(self_attention(self.qkv(self.norm2(x)), self.heads))) * share
        return x


class Fourier(nn.Module):
    """The frequencies of NCSN++, which are drawn once and kept."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(width // 2))

    def forward(self, noise: Tensor) -> Tensor:
        angles: Tensor = 2 * math.pi * self.freqs * noise[:, None]
        return angles


class Positions(nn.Module):
    """The frequencies of DDPM++, whose last is 1/10,000, and of ADM, whose last is not."""

    def __init__(self, width: int, endpoint: bool) -> None:
        super().__init__()
        self.count, self.steps = width // 2, width // 2 - endpoint

    def forward(self, noise: Tensor) -> Tensor:
        place = torch.arange(float(self.count), device=noise.device) / self.steps
        frequencies = torch.exp(-math.log(1e4) * place)
        return frequencies * noise[:, None]


@dataclass(frozen=True)
class Architecture:
    """The arguments of a U-Net by the names that EDM's files record them under; None stands for the network's own.

    The files also record how dropout was set in training, which changes nothing here.
    """

    augment_dim: int = 0
    model_channels: int | None = None
    channel_mult: Sequence[int] | None = None
    channel_mult_emb: int = 4
    num_blocks: int | None = None
    attn_resolutions: Sequence[int] | None = None
    embedding_type: str = "positional"
    channel_mult_noise: int = 1
    encoder_type: str = "standard"
    decoder_type: str = "standard"
    resample_filter: Sequence[float] = (1, 1)

    def __post_init__(self) -> None:
        if self.encoder_type not in ("standard", "residual") or self.decoder_type != "standard":
            raise DenoiserError(
                f"an encoder that is {self.encoder_type} with a decoder that is {self.decoder_type} is not known"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Architecture:
        """From the arguments of a file.

        Raises:
            DenoiserError: if an argument is not known.
        """
        known = {field.name for field in fields(cls)}
        if unknown := given.keys() - known - {"dropout", "label_dropout"}:
            raise DenoiserError(f"a U-Net of EDM has no {', '.join(sorted(unknown))}")
        return cls(**{name: value for name, value in given.items() if name in known})


class UNet(nn.Module):
    """The U-Nets of EDM, DDPM++ and NCSN++ (``song``) and ADM; see the module for what they are."""

    def __init__(
        self,
        song: bool,
        resolution: int,
        channels: int,
        out: int,
        label_dim: int = 0,
        built: Architecture = Architecture(),
    ) -> None:
        super().__init__()
        width = built.model_channels or (128 if song else 192)
        multiples = list(built.channel_mult or ((1, 2, 2, 2) if song else (1, 2, 3, 4)))
        blocks = built.num_blocks or (4 if song else 3)
        attended = set(((16,) if song else (32, 16, 8)) if built.attn_resolutions is None else built.attn_resolutions)
        embed, noise = width * built.channel_mult_emb, width * built.channel_mult_noise
        self.song, self.label_dim = song, label_dim
        fourier = built.embedding_type == "fourier"
        self.map_noise: nn.Module = Fourier(noise) if fourier else Positions(noise, endpoint=song)
        if label_dim:
            self.map_label = nn.Linear(label_dim, noise if song else embed, bias=song)
        if built.augment_dim:  # for training alone, and in the file
            self.map_augment = nn.Linear(built.augment_dim, noise, bias=False)
        self.map_layer0, self.map_layer1 = nn.Linear(noise, embed), nn.Linear(embed, embed)

        def block(inner: int, outer: int, change: str = "", attention: bool = False) -> Block:
            return Block(inner, outer, embed, song, change, built.resample_filter, attention)

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        sizes = [f"{resolution >> level}x{resolution >> level}" for level in range(len(multiples))]
        attends = [(resolution >> level) in attended for level in range(len(multiples))]
        now = width if song else width * multiples[0]
        self.enc[f"{sizes[0]}_conv"] = Conv(channels, now, 3)
        skips = [now]
        beside = channels
        for level, (size, multiple) in enumerate(zip(sizes, multiples, strict=True)):
            if level:
                self.enc[f"{size}_down"] = block(now, now, "down")
                skips.append(now)
                if built.encoder_type == "residual":
                    self.enc[f"{size}_aux_residual"] = Conv(beside, now, 3, "down", built.resample_filter, last=True)
                    beside = now
            for i in range(blocks):
                self.enc[f"{size}_block{i}"] = block(now, width * multiple, attention=attends[level])
                now = width * multiple
                skips.append(now)
        for level in reversed(range(len(multiples))):
            size = sizes[level]
            if level == len(multiples) - 1:
                self.dec[f"{size}_in0"] = block(now, now, attention=True)
                self.dec[f"{size}_in1"] = block(now, now)
            else:
                self.dec[f"{size}_up"] = block(now, now, "up")
            for i in range(blocks + 1):
                attention = attends[level] and (i == blocks or not song)
                self.dec[f"{size}_block{i}"] = block(now + skips.pop(), width * multiples[level], attention=attention)
                now = width * multiples[level]
        if song:
            self.dec[f"{sizes[0]}_aux_norm"] = norm(now, 1e-6)
            self.dec[f"{sizes[0]}_aux_conv"] = Conv(now, out, 3)
        else:
            self.out_norm, self.out_conv = norm(now, 1e-5), Conv(now, out, 3)

    def forward(self, x: Tensor, noise: Tensor, classes: Tensor | None) -> Tensor:
        """F of images (B, C, H, W), :math:`c_\\text{noise}` (B,) and one-hot classes (B, L)."""
        embed = self._embedding(noise, classes)
        skips: list[Tensor] = []
        beside = x
        for name, layer in self.enc.items():
            if name.endswith("aux_residual"):
                x = skips[-1] = beside = (x + layer(beside)) * math.sqrt(0.5)
            else:
                x = layer(x, embed) if isinstance(layer, Block) else layer(x)
                skips.append(x)
        for layer in self.dec.values():
            if isinstance(layer, Block):
                x = layer(x if x.shape[1] == layer.inner else torch.cat([x, skips.pop()], dim=1), embed)
            else:
                x = F.silu(layer(x)) if isinstance(layer, nn.GroupNorm) else layer(x)
        if not self.song:
            x = self.out_conv(F.silu(self.out_norm(x)))
        return x

    def _embedding(self, noise: Tensor, classes: Tensor | None) -> Tensor:
        angles = self.map_noise(noise)
        waves = [angles.sin(), angles.cos()] if self.song else [angles.cos(), angles.sin()]
        embed = torch.cat(waves, dim=1)
        if self.song and classes is not None:
            embed = embed + self.map_label(classes * math.sqrt(self.label_dim))
        embed = self.map_layer1(F.silu(self.map_layer0(embed)))
        if not self.song and classes is not None:
            embed = embed + self.map_label(classes)
        return F.silu(embed)


class Preconditioned(nn.Module):
    """A denoiser of EDM: the table at the top of this module.

    Arguments:
        kind: the class of the preconditioning.
        settings: the arguments that its file records.

    Raises:
        DenoiserError: if the class or an argument is not known.
    """

    u: Tensor

    def __init__(self, kind: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        given = dict(settings)
        if kind not in ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"):
            raise DenoiserError(f"{kind} is no network of EDM that is known")
        try:
            size, channels = int(given.pop("img_resolution")), int(given.pop("img_channels"))
        except KeyError as error:
            raise DenoiserError(f"the file does not record {error}") from error
        self.kind, self.channels = kind, channels
        self.label_dim = int(given.pop("label_dim", 0) or 0)
        self.spread = float(given.pop("sigma_data", 0.5))
        default = "SongUNet" if kind in ("VPPrecond", "VEPrecond") else "DhariwalUNet"
        model = given.pop("model_type", default)
        if model not in ("SongUNet", "DhariwalUNet"):
            raise DenoiserError(f"{model} is no network of EDM that is known")
        self.sigma_min, self.sigma_max = float(given.pop("sigma_min", 0)), float(given.pop("sigma_max", math.inf))
        given.pop("use_fp16", None)
        if kind == "VPPrecond":
            low, rise = float(given.pop("beta_min", 0.1)), float(given.pop("beta_d", 19.9))
            self.steps, first = int(given.pop("M", 1000)), float(given.pop("epsilon_t", 1e-5))
            self.process = VariancePreserving(low, low + rise)
            self.sigma_max = self.process.sigma_max
            self.sigma_min = math.sqrt(math.expm1(0.5 * rise * first**2 + low * first))
        elif kind == "VEPrecond":
            self.sigma_min, self.sigma_max = self.sigma_min or 0.02, min(self.sigma_max, 100.0)
        elif kind == "iDDPMPrecond":
            self.steps = int(given.pop("M", 1000))
            table = _iddpm_levels(self.steps, float(given.pop("C_1", 0.001)), float(given.pop("C_2", 0.008)))
            self.register_buffer("u", table)
            self.sigma_min, self.sigma_max = float(table[-2]), float(table[0])
        out = 2 * channels if kind == "iDDPMPrecond" else channels
        self.model = UNet(model == "SongUNet", size, channels, out, self.label_dim, Architecture.of(given))

    def forward(self, x: Tensor, sigma: Any, label: Tensor | None = None) -> Tensor:
        """The denoiser."""
        wide = x.float()
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        skip, out, scale, noise = (
            part if isinstance(part, float) else part.reshape(-1, *[1] * (i < 3) * 3)
            for i, part in enumerate(self._coefficients(level))
        )
        classes = one_hot(label, self.label_dim, len(x), x.device)
        found = self.model(scale * wide, noise, classes)[:, : self.channels]
        denoised: Tensor = skip * wide + out * found
        return denoised.to(x.dtype)

    def _coefficients(self, s: Tensor) -> tuple[Any, Any, Any, Any]:
        if self.kind == "EDMPrecond":
            total = s**2 + self.spread**2
            return self.spread**2 / total, s * self.spread * total.rsqrt(), total.rsqrt(), s.log() / 4
        if self.kind == "VEPrecond":
            return 1.0, s, 1.0, (s / 2).log()
        if self.kind == "VPPrecond":
            return 1.0, -s, (1 + s**2).rsqrt(), (self.steps - 1) * self.process.time(s)
        nearest = (s[:, None] - self.u).abs().argmin(dim=1)
        return 1.0, -s, (1 + s**2).rsqrt(), (self.steps - 1 - nearest).float()


def _iddpm_levels(steps: int, least: float, offset: float) -> Tensor:
    """The levels of iDDPM, falling to 0, shape (steps + 1,)."""
    j = torch.arange(steps + 1)
    remaining = torch.sin(0.5 * math.pi * j / steps / (offset + 1)) ** 2
    levels = torch.zeros(steps + 1)
    for i in range(steps, 0, -1):
        ratio = (remaining[i - 1] / remaining[i]).clamp_min(least)
        levels[i - 1] = ((levels[i] ** 2 + 1) / ratio - 1).sqrt()
    return levels


def network(record: NetworkRecord) -> nn.Module:
    """The denoiser that a record describes, without its weights."""
    return Preconditioned(record.kind, record.arguments)


LOADERS.register(Loader("edm", loader(network), "edm:FILE.pkl"))
