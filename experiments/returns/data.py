"""Daily returns of the S&P 500 and of the Nasdaq, as the package ``arch`` ships them, in windows of ten days."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.extras import require

__all__ = ["DAYS", "blocks", "log_returns", "windows"]

INDICES = ("sp500", "nasdaq")

#: Trading days in a window: the horizon that banks report expected shortfall for.
DAYS = 10


def log_returns() -> dict[str, NDArray[np.float64]]:
    """The daily logarithmic returns of each index, in percent.

    Raises:
        MissingExtraError: if ``arch`` is not installed.
    """
    found = {}
    for name in INDICES:
        prices = require(f"arch.data.{name}", "experiments", "these returns").load()["Adj Close"]
        found[name] = np.asarray(100 * np.diff(np.log(prices.to_numpy(dtype=np.float64))), dtype=np.float64)
    return found


def blocks(series: NDArray[np.float64], length: int, first: int) -> list[NDArray[np.float64]]:
    """Every second block of a series, of a length, from the first or the second one on."""
    starts = range(first * length, len(series), 2 * length)
    return [series[start : start + length] for start in starts]


def windows(parts: Sequence[NDArray[np.float64]], days: int = DAYS) -> Tensor:
    """All windows of so many days in a row that lie in one of the parts: (N, days), in float32."""
    rows = [np.lib.stride_tricks.sliding_window_view(part, days) for part in parts if len(part) >= days]
    return torch.from_numpy(np.concatenate(rows)).float()
