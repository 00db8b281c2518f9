r"""Flow matching in PyTorch: networks of torchcfm and of flow_matching.

Both go from noise at time 0 to data at time 1, and their networks estimate the velocity :math:`dz_t / dt`. On the
straight path, :math:`z_t = t x_0 + (1 - t) \varepsilon`, this is ``RectifiedFlow(data_at=1)``; on others the velocity
follows from the schedule, and is turned into an estimate of :math:`x_0`:

.. math:: u = \dot\alpha x_0 + \dot\sigma \varepsilon, \quad z = \alpha x_0 + \sigma \varepsilon \quad\Rightarrow\quad
    x_0 = \frac{\sigma u - \dot\sigma z}{\sigma \dot\alpha - \dot\sigma \alpha}.

**Only where noise and data were drawn independently** is the velocity that of a denoiser. Networks that were trained on
pairs by optimal transport (``ExactOptimalTransportConditionalFlowMatcher`` and Schrodinger bridges of torchcfm) are
none: from other starts than their own noise they lead to wrong samples.

References:
    Tong et al., *torchcfm*, version 1.0.7. Lipman et al., *Flow Matching Guide and Code*, version 1.0.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from headstart.denoiser import Denoiser, RectifiedFlow, adapt, expand
from headstart.integrations.process import Path

__all__ = ["from_flow_matching", "from_torchcfm"]


def from_torchcfm(model: Callable[..., Tensor]) -> Denoiser:
    """A denoiser from a network of torchcfm, called as ``model(t, x)``; ``label`` is handed to it as ``y``.

    Its ``torch_wrapper`` takes one time for all samples; it is asked for the network in it, which takes a time each.

    Arguments:
        model: trained with independent pairs: ``ConditionalFlowMatcher`` with a small sigma, or ``TargetConditional``.
    """
    if type(model).__name__ == "torch_wrapper":
        inner: Callable[..., Tensor] = model.model  # type: ignore[attr-defined]

        def joined(z: Tensor, time: Tensor) -> Tensor:
            return inner(torch.cat([z, time.to(z)[:, None]], dim=1))

        return adapt(joined, "flow", RectifiedFlow(data_at=1))

    def velocity(z: Tensor, time: Tensor, label: Tensor | None = None, **conditions: Any) -> Tensor:
        return model(time, z, **conditions) if label is None else model(time, z, y=label, **conditions)

    return adapt(velocity, "flow", RectifiedFlow(data_at=1))


def from_flow_matching(model: Callable[..., Tensor], scheduler: Any = None) -> Denoiser:
    """A denoiser from a network of flow_matching, called as ``model(x, t, **extras)``.

    Arguments:
        model: the network.
        scheduler: of its path; the straight one (``CondOTScheduler``) by default.
    """
    if scheduler is None:
        return adapt(lambda z, time, **extras: model(z, time, **extras), "flow", RectifiedFlow(data_at=1))

    def clean(z: Tensor, time: Tensor, **extras: Any) -> Tensor:
        at = scheduler(time)
        alpha, sigma, up, down = (expand(part, z) for part in (at.alpha_t, at.sigma_t, at.d_alpha_t, at.d_sigma_t))
        return (sigma * model(z, time, **extras) - down * z) / (sigma * up - down * alpha)

    return adapt(clean, "x0", Path(lambda t: scheduler(t).alpha_t, lambda t: scheduler(t).sigma_t, 1.0, 1e-4))
