"""How the work is done, and never what is computed: device, type of numbers, batches, processes, and who is told.

The front doors (``fit``, ``fit_starts``, ``sample``, ``Profile.measure``, ``check``) take what they need of ``device``,
``dtype``, ``batch_size`` and ``progress``. Everything else takes one :class:`Compute`:

>>> list(Compute(batch_size=4).batches(10))
[slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TypeVar

import torch

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.processes import spread
from headstart.progress import Progress

__all__ = ["Compute", "check_device"]

R = TypeVar("R")


def check_device(device: torch.device | str) -> None:
    """An InputError, unless tensors can be put on the device and fetched from it."""
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError, ValueError) as error:  # the last of a number that is no index
        raise InputError(f"unknown device {device!r}: expected cpu, cuda, cuda:1 or the like") from error
    if kind == "cpu":
        return
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # PyTorch asserts that it was built for the device
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"the device {str(device)!r} cannot be used here (try cpu): {reason}") from error


@dataclass(frozen=True)
class Compute:
    """How the work is done.

    Attributes:
        device: where networks and states are.
        dtype: the floating-point type of the states.
        batch_size: samples per call of a network.
        progress: told of what takes time.

    Raises:
        InputError: if the device cannot be used here, the type is not floating point, or a batch holds less than one
            sample.
    """

    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    batch_size: int = 256
    progress: Progress = field(default_factory=Progress, compare=False)

    def __post_init__(self) -> None:
        check_device(self.device)
        if not isinstance(self.dtype, torch.dtype) or not self.dtype.is_floating_point:
            raise InputError(f"dtype is {self.dtype!r}: states are of a floating-point type, as torch.float32")
        if not isinstance(self.batch_size, Integral) or self.batch_size < 1:
            raise InputError(f"a batch has 1 sample or more: got batch_size={self.batch_size!r}")

    def batches(self, n: int, description: str | None = None) -> Iterator[slice]:
        """The batches of n samples, one slice after the other; with a description, progress is told of them."""
        starts = range(0, n, self.batch_size)
        slices = [slice(first, min(first + self.batch_size, n)) for first in starts]
        return iter(slices) if description is None else self.progress.track(slices, description, len(slices))

    def spread(self, n: int, function: Callable[[slice], R], description: str | None = None) -> list[R]:
        """The results of a function for the batches of n samples, in their order; the processes share the batches out.

        Arguments:
            n: how many samples.
            function: makes something of one batch, by itself. What it returns can be pickled.
            description: progress is told of the batches of this process, by this name.

        Raises:
            HeadstartError: as :func:`headstart.processes.spread`.
        """

        def track(items: Sequence[int]) -> Iterable[int]:
            return items if description is None else self.progress.track(items, description, len(items))

        return spread(self.batches(n), function, track)

    def noise(self, seeds: Iterable[int]) -> Noise:
        """The random numbers of samples with these seeds, on the device and of the type."""
        return Noise(seeds, self.device, self.dtype)
