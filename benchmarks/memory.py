"""``python -m benchmarks.memory``: the memory of large jobs, of data and of samples that are larger than it.

A command runs in a process of its own, which is asked every 20 ms how much it holds. What counts is memory that the
system cannot take back: pages of files that are read or written, also of the temporary ones of
:mod:`headstart.large`, are the system's to drop. The network is that of independent normal coordinates, in closed form,
so that the memory is that of headstart. ``--quick`` takes a thousandth of the rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.timing import processor
from experiments.common import Run, command

#: Samples and the numbers in each.
ROWS, NUMBERS = 1_000_000, 784

#: The memory that a job is to stay within, in GiB.
BAR = 2.0

#: Seconds between two looks at a process.
EVERY = 0.02

#: The network, as a module beside the data.
MODEL = f"""
import torch
VARIANCES = 1 / torch.arange(1.0, {NUMBERS + 1})

def law():
    def denoiser(x, sigma):
        noise = torch.as_tensor(sigma).reshape(-1, 1) ** 2
        return x * (VARIANCES / (VARIANCES + noise)).to(x)
    return denoiser
"""


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    said = [
        f"{row['job']} of {row['rows']:,} x {row['numbers']} takes {row['gib']:.2f} GiB" for row in results["memory"]
    ]
    return f"{', and '.join(said)}, where {results['bar']:g} was asked."


def memory(run: Run) -> dict[str, Any]:
    """The memory of a fit on a large file, and of drawing as many samples in shards."""
    rows = ROWS // 1000 if run.quick else ROWS
    found = []
    with TemporaryDirectory(prefix="headstart-memory-", dir=run.out) as name:
        place = Path(name).resolve()
        (place / "headstart_memory.py").write_text(MODEL, encoding="utf-8")
        _write(place / "data.npy", rows)
        network = "python:headstart_memory:law"
        jobs: dict[str, Sequence[str]] = {
            "fit": ("fit", network, "data.npy", "--nfe", "4", "-o", "plan"),
            "sample": ("sample", "plan", network, "-n", str(rows), "--shards", "npz", "-o", "samples"),
        }
        for job, words in run.progress.track(jobs.items(), "jobs", len(jobs)):
            found.append({"job": job, "rows": rows, "numbers": NUMBERS, **_watched(words, place)})
    run.table("memory", found)
    return {"memory": found, "bar": BAR, "processor": processor(), "load": os.getloadavg()[0]}


def _write(path: Path, rows: int) -> None:
    """Normal samples, the variance of whose coordinate j is 1 / j."""
    held = np.lib.format.open_memmap(path, "w+", np.float32, (rows, NUMBERS))  # type: ignore[no-untyped-call]
    scales = (1 / np.arange(1, NUMBERS + 1)).astype(np.float32) ** 0.5
    generator = np.random.default_rng(0)
    for first in range(0, rows, 4096):
        part = held[first : first + 4096]
        part[:] = scales * generator.standard_normal(part.shape, dtype=np.float32)


def _watched(words: Sequence[str], place: Path) -> dict[str, Any]:
    """The seconds and the most memory of a command of headstart."""
    began, most = time.perf_counter(), 0
    paths = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart", *words],
        cwd=place,
        env=os.environ | {"PYTHONPATH": paths, "TMPDIR": str(place)},
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        most = max(most, _held(process.pid))
        time.sleep(EVERY)
    if process.returncode:
        raise RuntimeError(f"headstart {' '.join(words)} ended with {process.returncode}")
    return {"gib": most / 2**30, "seconds": time.perf_counter() - began}


def _held(process: int) -> int:
    """Bytes that a process holds and that no file holds; 0 where the system does not say, or it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        return 0


if __name__ == "__main__":
    command("memory", memory, verdict, package="benchmarks", on_device=False)
