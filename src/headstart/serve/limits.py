"""The limits of the service: of one request, of a batch and of the queue."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from headstart.errors import InputError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """The bounds of what the service takes.

    Attributes:
        n: samples of a request.
        values: numbers of an answer, whatever the shape of a sample.
        body_bytes: of a request.
        batch_size: samples per call of the network.
        queue_size: samples that may wait.
        timeout: seconds until a request is given up, and for open ones when the service ends.
        race_cost: what one sample of a trajectory counts in the queue.

    Raises:
        InputError: if one is not finite and above 0.
    """

    n: int = 256
    values: int = 1 << 22
    body_bytes: int = 1 << 22
    batch_size: int = 64
    queue_size: int = 1024
    timeout: float = 60.0
    race_cost: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < getattr(self, field.name) < math.inf:
                raise InputError(f"{field.name} is {getattr(self, field.name)}: expected a finite number above 0")

    def most(self, shape: tuple[int, ...]) -> int:
        """Samples of a request, of this shape."""
        return max(1, min(self.n, self.values // math.prod(shape)))
