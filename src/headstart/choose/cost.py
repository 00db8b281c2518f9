"""The cost of drawing a start, in evaluations of the network: operations that are counted, not time.

The count does not depend on the machine or on what else it does, so that the same fit gives the same plan. It is in
floating-point operations of matrix products, of which one core does about forty in a nanosecond: a number that an
operation writes counts as forty, since memory is slower than arithmetic, and a call as two hundred thousand, for the
five microseconds that it takes. Only operations of PyTorch are seen: where the network or the start is anything else,
or the cost is to be in time, measure it and hand it to :func:`headstart.fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from headstart.denoiser import Denoiser, denoise
from headstart.initialization import Initialization
from headstart.noise import Noise

__all__ = ["cost_of", "operations"]

#: Floating-point operations that a number that is written, and a call, are worth.
WRITTEN, CALL = 40, 200_000


class _Calls(TorchDispatchMode):
    """Counts the calls of operations and the numbers that they write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        results = found if isinstance(found, tuple | list) else (found,)
        self.total += CALL + WRITTEN * sum(each.numel() for each in results if isinstance(each, Tensor))
        return found


def operations(work: Callable[[], object]) -> int:
    """The operations that a computation takes: see the top of this module."""
    with FlopCounterMode(display=False) as products, _Calls() as calls:
        work()
    return int(products.get_total_flops() + calls.total)


@torch.no_grad()
def cost_of(
    start: Initialization,
    denoiser: Denoiser,
    sigma: float,
    count: int,
    conditions: Mapping[str, Any],
    device: torch.device | str,
    dtype: torch.dtype,
) -> float:
    """The cost of drawing ``count`` starts, in evaluations of the network on as many samples.

    Beyond the noise that every sampler draws. What is made once and kept, such as tensors in another type, is not
    counted.
    """

    def noise() -> Noise:
        return Noise(range(count), device, dtype)

    start.sample(noise(), sigma, conditions)
    drawing = operations(lambda: noise().normal(start.shape))
    starting = operations(lambda: start.sample(noise(), sigma, conditions))
    x = sigma * noise().normal(start.shape)
    network = operations(lambda: denoise(denoiser, x, sigma, **conditions))
    return max(0, starting - drawing) / max(1, network)
