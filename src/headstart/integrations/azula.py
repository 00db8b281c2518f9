r"""azula: its denoisers come in, plans go out to its samplers.

A denoiser of azula sees :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon` at a time t in [0, 1] of its schedule and
returns a posterior with a mean. In our units :math:`x = x_t / \alpha_t` at the level :math:`\sigma_t / \alpha_t`, of
which the time is found numerically (:class:`headstart.integrations.process.Path`).

References:
    Rozet et al., *azula*, version 0.11.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headstart.denoiser import Denoiser, adapt
from headstart.errors import InputError
from headstart.extras import require
from headstart.integrations.export import counterpart
from headstart.integrations.process import Path
from headstart.sampler import Sampler

__all__ = ["from_azula", "to_azula"]


def from_azula(denoiser: Any) -> Denoiser:
    """A denoiser from one of azula, with a ``schedule`` and called as ``denoiser(x_t, t)``.

    Raises:
        InputError: if it has no schedule.
    """
    schedule = getattr(denoiser, "schedule", None)
    if schedule is None:
        raise InputError(f"a {type(denoiser).__name__} has no schedule: expected a denoiser of azula")

    def mean(z: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        t = time[0] if bool((time == time[0]).all()) else time  # some of azula's take one time for the batch alone
        found: Tensor = denoiser(z, t, **conditions).mean
        return found

    return adapt(mean, "x0", Path(lambda t: schedule(t)[0], lambda t: schedule(t)[1]))


def to_azula(sampler: Sampler, denoiser: Denoiser) -> tuple[Any, int]:
    """A sampler of azula that visits a plan's levels, called as ``sampler(x)`` with the states at the first of them.

    Its time takes equal steps from 1 to 0, and the levels in between are linear in it.

    Arguments:
        sampler: the plan, whose solver is euler (DDIMSampler), or heun (HeunSampler) with a last level above 0.
        denoiser: ours.

    Returns:
        The sampler, and how many evaluations it makes.

    Raises:
        InputError: if azula has no such sampler.
    """
    package = require("azula", "peers", "a network of azula")
    require("azula.sample", "peers", "a network of azula")
    levels = torch.tensor(sampler.schedule.sigmas, dtype=torch.float64)
    steps = sampler.schedule.steps
    name = counterpart(sampler, {"euler": "DDIMSampler", "heun": "HeunSampler"}, "azula")
    if name == "HeunSampler" and levels[-1] == 0:
        raise InputError("HeunSampler of azula divides by the last level, which is 0 here: use the solver euler")

    class Levels(package.noise.Schedule):  # type: ignore[misc, name-defined]
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            place = ((1 - t.double()) * steps).clamp(0, steps)
            left = place.floor().clamp(max=steps - 1).long()
            sigma = torch.lerp(levels.to(t.device)[left], levels.to(t.device)[left + 1], place - left)
            return torch.ones_like(sigma, dtype=torch.float32), sigma.float()

    class Wrapped(package.denoise.Denoiser):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = Levels()

        def forward(self, x_t: Tensor, t: Tensor, **conditions: Any) -> Any:
            mean = denoiser(x_t, self.schedule(t)[1].expand(len(x_t)), **conditions)
            return package.denoise.DiracPosterior(mean=mean)

    made = getattr(package.sample, name)(Wrapped(), steps=steps, silent=True, dtype=torch.float64)
    return made, sampler.nfe
