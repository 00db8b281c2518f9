"""A small denoiser of vectors, in EDM's preconditioning, trained on the fly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headstart.denoiser import expand
from headstart.progress import Progress

__all__ = ["Perceptron", "trained"]

#: Of the logarithms of the levels, in units of the data's standard deviation: from a hundredth of it to a hundred.
P_MEAN, P_STD = -0.4, 1.6


#: What a step of training keeps of the average of the weights.
AVERAGED = 0.995


class Perceptron(nn.Module):
    """A denoiser ``(x, sigma)`` of vectors (B, d): a residual perceptron of x and ln sigma.

    Arguments:
        d: the dimension.
        sigma_data: the data's standard deviation.
        width: of the hidden layers.
        blocks: how many of them.
    """

    def __init__(self, d: int, sigma_data: float, width: int = 192, blocks: int = 3) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.first = nn.Linear(d + 8, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, d)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        s = expand(torch.as_tensor(sigma, dtype=x.dtype, device=x.device), x).expand(len(x), 1)
        total = s**2 + self.sigma_data**2
        angle = (s / self.sigma_data).log() / 4 * torch.tensor([1.0, 2.0, 4.0, 8.0]).to(x)
        h = self.first(torch.cat([x / total.sqrt(), angle.cos(), angle.sin()], dim=1))
        for block in self.blocks:
            h = h + block(h)
        denoised: Tensor = self.sigma_data**2 / total * x + s * self.sigma_data / total.sqrt() * self.last(h)
        return denoised


def trained(data: Tensor, steps: int, seed: int, progress: Progress, batch: int = 512) -> Perceptron:
    """A denoiser of data (N, d), by EDM's loss; the average of its weights, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Perceptron(data.shape[1], float(data.std()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in progress.track(range(steps), "training"):
        x0 = data[torch.randint(len(data), (batch,), generator=generator)]
        sigma = model.sigma_data * (P_MEAN + P_STD * torch.randn(batch, 1, generator=generator)).exp()
        denoised = model(x0 + sigma * torch.randn(x0.shape, generator=generator), sigma[:, 0])
        weight = (sigma**2 + model.sigma_data**2) / (sigma * model.sigma_data) ** 2
        loss = (weight * (denoised - x0).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - AVERAGED)
    model.load_state_dict(average)
    return model.eval().requires_grad_(False)
