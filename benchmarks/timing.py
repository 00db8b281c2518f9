r"""Measuring tools of the benchmarks: alternating rounds, medians of ratios with an interval, and peaks of memory.

On a machine that others use, times wander, and the ratio of two times from one round much less. With the ratios
:math:`r_{(1)} \le \dots \le r_{(n)}` in order, whatever their law,

.. math:: P\big(r_{(k)} \le \text{median} \le r_{(n + 1 - k)}\big) = 1 - 2\, P\big(\mathrm{Bin}(n, \tfrac12) < k\big),

and the interval that is given has the largest k for which this is at least 0.95; below six rounds it is the range.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy.stats import binom

__all__ = ["Cost", "Interval", "cost", "interval", "power", "processor", "ratio", "rounds", "seconds_of"]

Interval = dict[str, float]


def seconds_of(function: Callable[[], object], device: str = "cpu") -> float:
    """Wall-clock time of one call, with what it left to a GPU."""
    began = time.perf_counter()
    function()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def rounds(functions: Mapping[str, Callable[[], object]], count: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of each function in ``count`` rounds, forwards and backwards in turn, after one that does not count."""
    order, found = list(functions), {name: list[float]() for name in functions}
    for i in range(count + 1):
        for name in order if i % 2 else reversed(order):
            found[name].append(seconds_of(functions[name], device))
    return {name: seconds[1:] for name, seconds in found.items()}


def ratio(a: Sequence[float], b: Sequence[float]) -> Interval:
    """The median of a / b over the rounds, and its interval."""
    return interval([x / y for x, y in zip(a, b, strict=True)])


def interval(values: Sequence[float]) -> Interval:
    """The median, and its interval: see the top of this module."""
    order = sorted(values)
    k = max(1, int(binom.ppf(0.025, len(order), 0.5)))
    return {"median": median(order), "low": order[k - 1], "high": order[-k]}


@dataclass(frozen=True)
class Cost:
    """The time and memory of one call.

    Attributes:
        seconds: wall-clock time.
        memory: MiB at most beyond what was held before it, or None where the system does not say.
    """

    seconds: float
    memory: float | None


def cost(function: Callable[[], object], device: str = "cpu") -> Cost:
    """Time and memory of one call; of a GPU's memory, if it is on one."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        seconds = seconds_of(function, device)
        return Cost(seconds, (torch.cuda.max_memory_allocated(device) - held) / 2**20)
    before = _peak(reset=True)
    seconds = seconds_of(function, device)
    after = _peak()
    return Cost(seconds, None if before is None or after is None else (after - before) / 2**10)


def _peak(reset: bool = False) -> int | None:
    """The peak of this process's memory, in KiB; on Linux, which can also be told to begin anew with what is held now.

    What was freed is given back first: else it would be taken again without a trace.
    """
    try:
        if reset:
            gc.collect()
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (AttributeError, OSError, StopIteration):
        return None


def processor() -> str:
    """The name of the processor, or "unknown"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"


def power(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """p, if the time grows as the p-th power of a size: the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
