r"""The deterministic samplers of azula, in our units.

Its samplers take equal steps of a time t from 1 to 0, and the levels are those of a schedule :math:`t \mapsto
(\alpha_t, \sigma_t)`. Ours has :math:`\alpha_t = 1` and EDM's levels,

.. math:: \sigma_t = \big( \sigma_{\min}^{1/7} + t\, (\sigma_{\max}^{1/7} - \sigma_{\min}^{1/7}) \big)^7,

in whose place azula's own variance-exploding schedule would have equal steps of ln sigma. The last level is
:math:`\sigma_{\min}`: there is no step to 0, which its exponential integrators cannot make.

``REABSampler`` is left out: in version 0.11.1 its second order converges like a first one, for a level of the wrong end
of a step under a root.

References:
    Rozet et al., *azula*, version 0.11.1; Zhang and Chen, *Fast Sampling of Diffusion Models with Exponential
    Integrator*, ICLR 2023, arXiv 2204.13902.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from headstart.compare.methods import Method, Prepared, even, from_noise
from headstart.compare.peers.packages import load
from headstart.compare.setting import Setting

__all__ = ["METHODS", "sample"]

RHO = 7.0


def sample(
    name: str,
    sigma_max: float,
    sigma_min: float,
    steps: int,
    denoiser: Callable[[Tensor, float], Tensor],
    x: Tensor,
    **options: Any,
) -> Tensor:
    """A sampler of azula on EDM's levels.

    Arguments:
        name: of the sampler's class.
        sigma_max: the first level.
        sigma_min: the last level.
        steps: number of steps.
        denoiser: of a state and a level.
        x: states at the first level, shape (B, \\*S).
        options: of the sampler, such as its order.
    """
    package = load("azula")
    schedule, base = package.noise.Schedule, package.denoise.Denoiser

    class Levels(schedule):  # type: ignore[misc, valid-type]
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            low, high = sigma_min ** (1 / RHO), sigma_max ** (1 / RHO)
            sigma = (low + t * (high - low)) ** RHO
            return sigma.new_ones(sigma.shape), sigma

    class Wrapped(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = Levels()

        def forward(self, x_t: Tensor, t: Tensor) -> Any:
            return package.denoise.DiracPosterior(mean=denoiser(x_t, float(self.schedule(t)[1])))

    sampler = getattr(package.sample, name)(Wrapped(), steps=steps, silent=True, **options)
    found: Tensor = sampler(x)
    return found


def _prepare(name: str, options: dict[str, Any], evaluations: int, solver: str, setting: Setting, nfe: int) -> Prepared:
    load("azula")
    walk = partial(sample, name, setting.sigma_max, setting.sigma_min, nfe // evaluations, **options)
    order = f" of order {options['order']}" if options else ""
    return from_noise(setting, walk, f"Karras levels to {setting.sigma_min:g}, {name}{order} of azula", "rho", solver)


METHODS = tuple(
    Method(
        f"azula-{short}",
        f"azula {label}",
        "peer",
        "azula",
        partial(_prepare, name, options, evaluations, solver),
        package="azula",
        affordable=even if evaluations == 2 else int,
    )
    for short, label, name, options, evaluations, solver in (
        ("ddim", "DDIM", "DDIMSampler", {}, 1, "euler"),
        ("heun", "Heun", "HeunSampler", {}, 2, "heun"),
        ("zab", "zAB-3", "zABSampler", {"order": 3}, 1, "deis"),
        ("xeab", "xEAB-2", "xEABSampler", {"order": 2}, 1, "dpm++2m"),
    )
)
