r"""Let the noise levels follow a network while it is trained: ``python training/online.py --steps 3000``.

A small network learns to denoise two modes on the line, once on levels that stay and once on levels that move as the
network finds them hard. Both start from the same grid. Printed for each are the corrector costs of its steps by the
exact denoiser, the part of the bound on the negative log likelihood that depends on levels and network (of the sampler
with the score frozen on each step), and how much of that is the network's own error. Below a minute on one core.

Expectations are sums over a fine grid of x, and no Monte Carlo: the trapezoid rule is exact for these laws to rounding.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.denoiser import Denoiser, denoise, expand
from headstart.noise import Noise
from headstart.schedule import OnlineSchedule, Schedule, corrector_costs, path_terms, rho_grid
from headstart.targets import bimodal

LAW = bimodal()

Curve = NDArray[np.float64]


class Perceptron(nn.Module):
    """A denoiser of x and ln sigma, in EDM's preconditioning for data of variance 1."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers = [nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)]
        self.network = nn.Sequential(*layers)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = expand(sigma, x).expand(len(x), 1)
        spread = (1 + s**2).sqrt()
        out: Tensor = self.network(torch.cat([x / spread, s.log() / 4], dim=1))
        return x / spread**2 + s / spread * out


def train(schedule: OnlineSchedule, data: Tensor, moving: bool, steps: int, batch: int, seed: int) -> Perceptron:
    """The network that was trained on data (N, 1) and the levels of the schedule, which moves with it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Perceptron()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        levels = torch.from_numpy(schedule.levels).float()
        x0 = data[torch.randint(len(data), (batch,), generator=generator)]
        place = torch.randint(len(levels), (batch,), generator=generator)
        sigma = levels[place]
        x = x0 + sigma[:, None] * torch.randn(x0.shape, generator=generator)
        denoised = model(x, sigma)
        weight = (1 + sigma**2) / sigma**2
        loss = (weight[:, None] * (denoised - x0).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        if moving:
            inner = place < schedule.steps  # the last level has no next one
            with torch.no_grad():
                after = model(x[inner], levels[place[inner] + 1])
            schedule.observe_denoised(place[inner], x[inner], denoised[inner], after)
    return model.double().eval()


def noised(sigma: float, count: int = 1201) -> tuple[Tensor, Tensor]:
    """Points (G, 1) of the trapezoid rule for the law at a noise level, and their masses (G,)."""
    reach = float(LAW.means.abs().max()) + 8 * math.sqrt(float(LAW.variances.max()) + sigma**2)
    x = torch.linspace(-reach, reach, count, dtype=torch.float64)[:, None]
    return x, LAW.log_prob(x, sigma).exp() * (2 * reach / (count - 1))


@torch.no_grad()
def step_costs(denoiser: Denoiser, schedule: Schedule) -> Curve:
    """The corrector cost of each step by a denoiser, on data noised exactly."""
    costs = []
    for a, b in schedule.pairs():
        x, mass = noised(a)
        each = corrector_costs(x, a, b, denoise(denoiser, x, a), denoise(denoiser, x, b))
        costs.append(float(mass @ each))
    return np.array(costs)


@torch.no_grad()
def errors(denoiser: Denoiser, sigmas: Sequence[float]) -> Curve:
    r"""The error against the exact denoiser at each level, :math:`E\|D - D_\theta\|^2`."""
    gaps = []
    for sigma in sigmas:
        x, mass = noised(sigma)
        gaps.append(float(mass @ (LAW(x, sigma) - denoise(denoiser, x, sigma)).square()[:, 0]))
    return np.array(gaps)


def exact_losses(sigmas: Sequence[float]) -> Curve:
    r"""The loss of the exact denoiser at each level, :math:`E\|x_0\|^2 - E\|D\|^2`."""
    square = float(LAW.weights @ (LAW.means**2 + LAW.variances).sum(1))
    losses = []
    for sigma in sigmas:
        x, mass = noised(sigma)
        losses.append(square - float(mass @ LAW(x, sigma).square()[:, 0]))
    return np.array(losses)


def bound_terms(denoiser: Denoiser, schedule: Schedule) -> tuple[Curve, Curve]:
    """Of each step in nats: its term of the bound, and the part of it that is the network's own error."""
    a, b = np.array(schedule.sigmas[:-1]), np.array(schedule.sigmas[1:])
    exact = exact_losses(schedule.sigmas[:-1])
    terms = path_terms(a, b, exact + errors(denoiser, schedule.sigmas[:-1]), 1, "em")
    return terms, terms - path_terms(a, b, exact, 1, "em")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="of training")
    parser.add_argument("--levels", type=int, default=41)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--blending", type=float, default=0.05)
    parser.add_argument("--rho", type=float, default=1.0, help="of the first grid; 1 has equally spaced levels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    first = rho_grid(args.levels - 1, 20.0, 0.02, rho=args.rho, final_zero=False)
    data = LAW.sample(Noise(range(4000)))
    for title, moving in (("levels that stay", False), ("levels that move", True)):
        online = OnlineSchedule(first, blending=args.blending)
        model = train(online, data, moving, args.steps, args.batch, args.seed)
        costs = step_costs(LAW, online.schedule)
        terms, own = bound_terms(model, online.schedule)
        print(f"{title}: {online}")
        print(f"  corrector costs {', '.join(f'{cost:.3g}' for cost in costs)}")
        print(f"  their sum {costs.sum():.3g}, largest over smallest {costs.max() / costs.min():.3g}")
        print(f"  bound on the negative log likelihood {terms.sum():.3f} nats, error of the score {own.sum():.3g}")


if __name__ == "__main__":
    main()
