"""The deterministic samplers of k-diffusion, on its own Karras levels; they work in our units.

References:
    Crowson, *k-diffusion*, version 0.1.1; Karras et al., *Elucidating the Design Space of Diffusion-Based Generative
    Models*, NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from headstart.compare.methods import Method, Prepared, from_noise, odd
from headstart.compare.peers.packages import load
from headstart.compare.setting import Setting

__all__ = ["METHODS", "sample"]

#: The samplers that spend two evaluations a step, but one on the step to 0.
TWO = ("heun", "dpm_2")


def sample(
    name: str, sigma_max: float, sigma_min: float, steps: int, denoiser: Callable[[Tensor, float], Tensor], x: Tensor
) -> Tensor:
    """``sample_<name>`` on ``get_sigmas_karras``, with its defaults.

    Arguments:
        name: "heun", "dpm_2", "lms" or "dpmpp_2m".
        sigma_max: the first level.
        sigma_min: the last level above 0.
        steps: number of steps, the last one to 0.
        denoiser: of a state and a level.
        x: states at the first level, shape (B, \\*S).
    """
    package = load("k_diffusion")
    sigmas = package.get_sigmas_karras(steps, sigma_min, sigma_max, device=x.device)

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, float(sigma[0]))

    found: Tensor = getattr(package, f"sample_{name}")(model, x, sigmas, disable=True)
    return found


def _prepare(name: str, solver: str, setting: Setting, nfe: int) -> Prepared:
    load("k_diffusion")
    steps = (nfe + 1) // 2 if name in TWO else nfe
    walk = partial(sample, name, setting.sigma_max, setting.sigma_min, steps)
    how = f"Karras levels to {setting.sigma_min:g} and 0, sample_{name} of k-diffusion"
    return from_noise(setting, walk, how, "rho", solver)


METHODS = tuple(
    Method(
        f"k-{name.replace('_', '-')}",
        f"k-diffusion {name}",
        "peer",
        "k-diffusion",
        partial(_prepare, name, solver),
        package="k_diffusion",
        affordable=odd if name in TWO else int,
    )
    for name, solver in (("heun", "heun"), ("dpm_2", ""), ("lms", ""), ("dpmpp_2m", "dpm++2m"))
)
