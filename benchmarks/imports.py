"""``python -m benchmarks.imports``: how long ``import headstart`` takes, as against ``import torch``.

Every import is clocked inside a fresh process. The processes alternate in rounds, forwards and backwards in turn, after
one that does not count: it fills the system's cache of files and keeps the bytecode, which pip keeps of what it
installs. ``ratio`` is that of times of the same round.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.timing import processor, ratio
from experiments.common import Run, command

#: The import of headstart is to take at most so many times as long as that of PyTorch, which is a part of it.
BAR = 1.3

#: What is imported: the library, its pages and figures, and its command line.
MODULES = ("torch", "headstart", "headstart.report", "headstart.cli.application")


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    row = next(row for row in results["imports"] if row["module"] == "headstart")
    return (
        f"import headstart takes {row['seconds']:.2f} s, {row['ratio']:.2f} times as long as import torch "
        f"({row['ratio_low']:.2f} to {row['ratio_high']:.2f}), where {results['bar']:g} was asked."
    )


def seconds_to_import(module: str) -> float:
    """Seconds that the import of a module takes in a fresh process."""
    code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    return float(done.stdout)


def imports(run: Run) -> dict[str, Any]:
    """How long the imports of headstart take, as against that of PyTorch."""
    count = 1 if run.quick else 20
    found: dict[str, list[float]] = {module: [] for module in MODULES}
    for i in run.progress.track(range(count + 1), "rounds", count + 1):
        for module in MODULES if i % 2 else reversed(MODULES):
            found[module].append(seconds_to_import(module))
    rows = []
    for module, seconds in found.items():
        beside = ratio(seconds[1:], found["torch"][1:])
        rows.append(
            {
                "module": module,
                "seconds": median(seconds[1:]),
                "ratio": beside["median"],
                "ratio_low": beside["low"],
                "ratio_high": beside["high"],
            }
        )
    run.table("imports", rows)
    return {"imports": rows, "bar": BAR, "processor": processor()}


if __name__ == "__main__":
    command("imports", imports, verdict, package="benchmarks", on_device=False)
