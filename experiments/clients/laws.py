"""The laws that the networks are trained on: points in 2 and 8 dimensions, small images, and a table."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from experiments.common import drawn
from headstart.data import fashion_mnist
from headstart.noise import Noise
from headstart.targets import gmm25

__all__ = ["HELD_OUT", "TRAIN", "checkerboard", "garments", "modes", "moons", "responses", "samples"]

#: The purposes of samples.
TRAIN, HELD_OUT = 11, 12


def checkerboard(noise: Noise) -> Tensor:
    """Points (N, 2), uniform on eight of the sixteen unit squares in [-2, 2]^2."""
    u, square = noise.uniform((2,)), noise.uniform((2,))
    column = (4 * square[:, 0]).floor()
    row = 2 * (2 * square[:, 1]).floor() + column % 2
    return u + torch.stack([column, row], dim=1) - 2


def moons(noise: Noise) -> Tensor:
    """Points (N, 2): two half circles that reach into each other, with noise, of a variance near 1."""
    u = noise.uniform((2,))
    angle, upper = math.pi * u[:, 0], u[:, 1] < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return 1.4 * (torch.stack([x - 0.5, y - 0.25], dim=1) + 0.05 * noise.normal((2,)))


def modes(noise: Noise) -> Tensor:
    """Points (N, 8): 25 modes, of a variance near 1."""
    return gmm25(8, spacing=0.7, std=0.15).sample(noise).float()


def responses(noise: Noise) -> Tensor:
    """Rows (N, 2) of a table: x, uniform on [-2, 2], and a response with two branches and heavy tails."""
    u, z = noise.uniform((2,)), noise.normal((6,))
    x = 4 * u[:, :1] - 2
    heavy = z[:, :1] / (z[:, 1:].square().mean(dim=1, keepdim=True)).sqrt()  # Student's t with five degrees of freedom
    side = torch.where(u[:, 1:] < 0.5, 1.0, -1.0)
    return torch.cat([x, side * x.abs() + (0.1 + 0.1 * x.abs()) * heavy], dim=1)


#: The laws of points, by their names.
LAWS = {"checkerboard": checkerboard, "moons": moons, "modes": modes, "responses": responses}


def samples(law: str, n: int, purpose: int) -> Tensor:
    """n samples of a law by its name."""
    return drawn(LAWS[law], n, purpose, 0)


def garments(split: str, n: int) -> Tensor:
    """Fashion-MNIST at 8 x 8 pixels in [-1, 1], the first n images (n, 1, 8, 8) of the bundled part of a split."""
    x = fashion_mnist("train" if split == "train" else "test", bundled=True).samples[:n]
    low, high = float(x.min()), float(x.max())
    small = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (2, 2, 2, 2), value=low), 4)
    return 2 * (small - low) / (high - low) - 1
