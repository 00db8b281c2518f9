"""Let the noise levels follow a network while it is trained: ``python training/online.py --steps 3000``.

A small network learns to denoise two modes on the line, once on levels that stay and once on levels that move as the
network finds them hard. Both start from the same grid. Printed for each are the corrector costs of its steps by the
exact denoiser, the part of the bound on the negative log likelihood that depends on levels and network (of the sampler
with the score frozen on each step), and how much of that is the network's own error. Below a minute on one core.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.budget import score_error
from headstart.denoiser import expand
from headstart.noise import Noise
from headstart.schedule import OnlineSchedule, Schedule, corrector_costs, path_terms, rho_grid
from headstart.targets import bimodal


class Denoiser(nn.Module):
    """A perceptron of x and ln sigma, in EDM's preconditioning for data of variance 1."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers = [nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)]
        self.network = nn.Sequential(*layers)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = expand(sigma, x).expand(len(x), 1)
        spread = (1 + s**2).sqrt()
        out: Tensor = self.network(torch.cat([x / spread, s.log() / 4], dim=1))
        return x / spread**2 + s / spread * out


def train(schedule: OnlineSchedule, moving: bool, steps: int, batch: int, seed: int) -> Denoiser:
    """The network that was trained on the levels of the schedule, which moves with it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model, law = Denoiser(), bimodal()
    data = law.sample(Noise(range(4000)))
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


@torch.no_grad()
def costs_and_terms(
    model: Denoiser, schedule: Schedule, count: int = 4000
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The corrector cost of each step for the exact denoiser, and the network's term of the bound in nats."""
    law, noise = bimodal(), Noise(range(count), dtype=torch.float64)
    x0, eps = law.sample(noise), noise.normal((1,))
    costs, terms = [], []
    for a, b in schedule.pairs():
        x = x0 + a * eps
        costs.append(float(corrector_costs(x, a, b, law(x, a), law(x, b)).mean()))
        loss = float((x0 - model(x, torch.tensor(a, dtype=torch.float64))).square().mean())
        terms.append(float(path_terms(a, b, loss, dimension=1, variance="em")))
    return np.array(costs), np.array(terms)


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
    for title, moving in (("levels that stay", False), ("levels that move", True)):
        online = OnlineSchedule(first, blending=args.blending)
        model = train(online, moving, args.steps, args.batch, args.seed)
        costs, terms = costs_and_terms(model, online.schedule)
        error = score_error(model, bimodal(), online.schedule, Noise(range(4000)), "em")
        print(f"{title}: {online}")
        print(f"  corrector costs {', '.join(f'{cost:.3g}' for cost in costs)}")
        print(f"  their sum {costs.sum():.3g}, largest over smallest {costs.max() / costs.min():.3g}")
        print(f"  bound on the negative log likelihood {terms.sum():.3f} nats, error of the score {error}", flush=True)


if __name__ == "__main__":
    main()
