"""``python -m benchmarks.processes``: two processes of one thread beside one process of two threads, on two cores.

Each way samples the bundled network in processes of its own, which are started anew in each round, draw one batch that
does not count, and clock the rest: what importing takes is left out. Ways alternate in rounds, and ratios are of times
of the same round. The load of the machine when a round began stands beside them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

from benchmarks.timing import interval, processor, ratio
from experiments.common import Run, command
from headstart.initialization import Isotropic
from headstart.models import load_denoiser
from headstart.processes import leads, together
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.solver import DPMSolverPP2M

#: Ways to use two cores, and one of them: processes, and threads of each.
WAYS = {"one process, two threads": (1, 2), "two processes, one thread": (2, 1), "one process, one thread": (1, 1)}

#: The samples of a batch, in the quick form too, and the steps to each.
BATCH, QUICK, STEPS = 64, 4, 6


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    beside, alone = results["beside_threads"], results["efficiency"]
    return (
        f"Two processes are {beside['median']:.2f} times as fast as one with two threads "
        f"({beside['low']:.2f} to {beside['high']:.2f}), and use {100 * alone['median']:.0f} % of two cores "
        f"({100 * alone['low']:.0f} to {100 * alone['high']:.0f} %)."
    )


def processes(run: Run) -> dict[str, Any]:
    """How fast two processes sample on two cores, as against one process with two threads."""
    count, size, batches = (1, QUICK, 4) if run.quick else (9, BATCH, 32)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    loads = []
    for i in run.progress.track(range(count), "rounds", count):
        loads.append(os.getloadavg()[0])
        for way in WAYS if i % 2 else reversed(WAYS):
            found[way].append(_seconds(*WAYS[way], size, batches))
    rows = [
        {"way": way, "seconds": median(seconds), "per_second": size * batches / median(seconds)}
        for way, seconds in found.items()
    ]
    run.table("processes", rows)
    threads, two, one = found.values()
    return {
        "processes": rows,
        "beside_threads": ratio(threads, two),
        "efficiency": interval([a / b / 2 for a, b in zip(one, two, strict=True)]),
        "rounds": count,
        "loads": loads,
        "cores": os.cpu_count(),
        "processor": processor(),
    }


def _seconds(processes: int, threads: int, size: int, batches: int) -> float:
    """The time that the slowest of the processes took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": str(threads)}
    code = f"from benchmarks.processes import child; child({size}, {batches})"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | shared | {"RANK": str(index), "LOCAL_RANK": str(index)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"{processes} processes could not sample")
    return float(json.loads(said[0]))


def child(size: int, batches: int) -> None:
    """Sample batches of a size, and print the seconds that it took."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    denoiser = load_denoiser("builtin:fashion-mnist")
    sampler = Sampler(Isotropic((1, 28, 28)), rho_grid(STEPS, 5.0, 0.02), DPMSolverPP2M())
    with together():
        sampler.sample(denoiser, 2 * size, batch_size=size)
        began = time.perf_counter()
        sampler.sample(denoiser, batches * size, batch_size=size)
        if leads():
            print(time.perf_counter() - began)


if __name__ == "__main__":
    command("processes", processes, verdict, package="benchmarks", on_device=False)
