"""Noisy samples on which a denoiser is compared with the best linear estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headstart.compute import Compute
from headstart.conditions import Part
from headstart.denoiser.contract import Denoiser, cast_input, denoise
from headstart.denoiser.linear import Linear
from headstart.noise import Noise, Stream

__all__ = ["FEW_NUMBERS", "ROWS", "Answers", "Probe", "in_errors"]

#: Noisy samples of few numbers, and of many, each of which tells more.
FEW_NUMBERS, ROWS = 16, (128, 64)

#: The interquartile range of a standard normal law.
QUARTILES = 1.349


def in_errors(values: Tensor) -> float:
    """The mean of values, in its standard errors."""
    return float(values.mean() / (values.std() / len(values) ** 0.5).clamp_min(1e-300))


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers at one level, in float64.

    Attributes:
        sigma: the level.
        x0: the clean samples, shape (R, d).
        x: the noisy ones.
        out: the answers.
        linear: the squared errors of the linear estimate, shape (R,).
        count: how many clean samples there are among the R, repeated in turn.
    """

    sigma: float
    x0: Tensor
    x: Tensor
    out: Tensor
    linear: Tensor
    count: int

    @property
    def loss(self) -> Tensor:
        """The squared errors, shape (R,)."""
        return (self.out - self.x0).square().sum(1)

    @property
    def ratio(self) -> float:
        """The mean loss over the linear estimate's."""
        return float(self.loss.mean() / self.linear.mean())

    @property
    def excess(self) -> float:
        """The loss above the linear estimate's, in standard errors."""
        return in_errors(self.gaps)

    @property
    def gaps(self) -> Tensor:
        """The loss above the linear estimate's mean, in units of it, for each clean sample."""
        return self._by_sample(self.loss - self.linear) / self.linear.mean()

    @property
    def scale(self) -> tuple[float, float]:
        """The variance of the network's law over that of the data, and the standard error of its logarithm.

        The slopes on x are v / (v + sigma^2), for any law.
        """
        y = self.x - self.x.mean(0)
        own, right = (((part - part.mean(0)) * y).sum(1) for part in (self.out, self.x0))
        total = y.square().sum(1).mean()
        slope, wanted = own.mean() / total, right.mean() / total
        v, w = (s / (1 - s).clamp_min(1e-3) for s in (slope, wanted.clamp_min(1e-3)))
        gap = self._by_sample(own - right)
        error = gap.std() / len(gap) ** 0.5 / own.mean().abs().clamp_min(1e-300) / (1 - slope).clamp_min(1e-3)
        return float(v / w), float(error)

    @property
    def shift(self) -> tuple[float, float]:
        """The root of the mean square of the mean error of a coordinate, beyond chance, and a standard error."""
        gap = self.out - self.x0
        rows = torch.stack([gap[i :: self.count].mean(0) for i in range(self.count)])
        chance = rows.var(0).mean() / len(rows)
        squared = rows.mean(0).square().mean() - chance
        return float(squared.clamp_min(0).sqrt()), float(chance.sqrt())

    def _by_sample(self, values: Tensor) -> Tensor:
        """The means of values (R,) over the noises of each clean sample, which are not independent."""
        return torch.stack([values[i :: self.count].mean() for i in range(self.count)])


class Probe:
    """A denoiser, and samples to ask it about.

    Attributes:
        denoiser: with the conditions that all samples share.
        x0: clean samples, shape (M, \\*S).
        deviation: the standard deviation of the data per coordinate.
        core: the same by their quartiles, which heavy tails do not move, where that is smaller.
        evaluations: samples that the network was called on.
    """

    def __init__(self, denoiser: Denoiser, part: Part, linear: Linear, seed: int, compute: Compute) -> None:
        self.denoiser, self.part, self.linear, self.compute = denoiser, part, linear, compute
        self.evaluations = 0
        rows = ROWS[linear.mean.numel() >= FEW_NUMBERS]
        self.index = torch.arange(max(rows, len(part))) % len(part)
        self.x0 = part.samples
        self.seed, self._noise = seed, dict[float, Tensor]()
        self.deviation = math.sqrt(float(linear.variances.mean()))
        ordered = self.x0.flatten(1).double().sort(dim=0).values
        low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
        core = float((high - low).square().mean().sqrt()) / QUARTILES
        self.core = min(core, self.deviation) if core > 0 else self.deviation

    def noisy(self, sigma: float) -> Tensor:
        """The noisy samples, shape (R, \\*S), on the device."""
        fine = torch.promote_types(self.compute.dtype, torch.float32)
        if sigma not in self._noise:  # of its own at each level, so that levels tell more together
            first = 1 + len(self._noise) * len(self.index)
            seeds = Stream.CHECK.seeds(self.seed, len(self.index), first)
            self._noise[sigma] = Noise(seeds).normal(tuple(self.x0.shape[1:]))
        return (self.x0[self.index].to(fine) + sigma * self._noise[sigma]).to(self.compute.device)

    def given(self, rows: slice) -> dict[str, Any]:
        """The conditions of some of them."""
        return dict(self.part.take(self.index[rows]).conditions.to(self.compute.device))

    def at(self, sigma: float, denoiser: Denoiser | None = None, rows: int | None = None) -> Answers:
        """The answers at a level, of the denoiser or another one, to all samples or the first of them."""
        used = cast_input(self.denoiser if denoiser is None else denoiser, self.compute.dtype)
        x = self.noisy(sigma)[:rows]
        ask = partial(denoise, used)
        parts = [ask(x[part], sigma, **self.given(part)) for part in self.compute.batches(len(x))]
        self.evaluations += len(x)
        out, noisy = (t.flatten(1).cpu().double() for t in (torch.cat(parts), x))
        x0 = self.x0[self.index[: len(x)]].flatten(1).double()
        linear = self.linear.losses(x0, noisy, sigma)
        return Answers(sigma, x0, noisy, out, linear, min(len(self.x0), len(x)))
