"""``python -m benchmarks.service --minutes 10``: the service at twice what it sustains, with every answer checked.

``headstart serve`` runs in a process of its own. First a few clients ask one request after the other for a while, which
says what it can sustain; then requests come at twice that rate, whether or not others are answered. Each asks for the
samples of one of several sets of seeds, and the answer is compared with ``Plan.sample``. Of the answers given,
the time from the request is kept; what was refused must be a 429 that says when to come again. The memory of the
process is read all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.timing import processor
from headstart.errors import DenoiserError
from headstart.files import atomic_write
from headstart.initialization import Isotropic
from headstart.models import load_denoiser
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.schedule import rho_grid
from headstart.solver import DPMSolverPP2M

__all__ = ["Seen", "main", "measure", "summary"]

#: Samples of a request, and how many requests differ.
SAMPLES, DIFFERENT = 4, 16

#: Clients that find out what is sustained, and the share of the time for it.
CLIENTS, TRIAL = 8, 0.1

#: The most that two samples of one seed may differ by in batches of different sizes.
TOLERANCE = 1e-3

MODEL = "builtin:fashion-mnist"


@dataclass
class Seen:
    """The answers that clients got.

    Attributes:
        seconds: from request to answer, of the answers that hold samples.
        statuses: how often each status came; "failed" where there was no answer.
        wrong: answers that do not hold the library's samples.
        silent: refusals that do not say when to come again.
        memory: of the process, in MiB, read every half second.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    silent: int = 0
    memory: list[float] = field(default_factory=list)


def plan() -> Plan:
    """A plan from noise in two evaluations, made by hand: what is measured is the service."""
    shape = (1, 28, 28)
    rows = np.array([[2.0, 1.0, 0.01], [2.5, 0.5, 0.3]])
    profile = Profile(
        np.array([8.0, 1.0, 0.05]), rows, rows[:, :2], rows[:, 1:], sigma_data=0.5, shape=shape, seed=0, digest="0"
    )
    return Plan(Isotropic(shape), rho_grid(2, 8.0, 0.05), DPMSolverPP2M(), None, profile)


def measure(minutes: float, folder: Path) -> dict[str, Any]:
    """Start the service, load it, and end it by SIGTERM."""
    chosen = plan()
    chosen.save(folder / "plan")
    denoiser = load_denoiser(MODEL)
    seeds = [list(range(100 * i, 100 * i + SAMPLES)) for i in range(DIFFERENT)]
    expected = [chosen.sample(denoiser, seeds=own).numpy() for own in seeds]
    command = [sys.executable, "-m", "headstart", "serve", str(folder / "plan"), MODEL, "--port", "0"]
    process = subprocess.Popen([*command, "--queue", "64"], stderr=subprocess.PIPE, text=True)
    try:
        address = _address(process)
        rate, sustained, loaded = asyncio.run(_load(address, process.pid, 60 * minutes, seeds, expected))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
    return summary(rate, sustained, loaded, code) | {"minutes": minutes, "threads": torch.get_num_threads()}


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("The page is at "):
            return line.split()[-1]
    raise DenoiserError("the service did not start")


async def _load(
    address: str, pid: int, seconds: float, seeds: list[list[int]], expected: list[NDArray[Any]]
) -> tuple[float, Seen, Seen]:
    """Requests per second that are sustained, what was seen then, and at twice that rate."""
    sustained, loaded = Seen(), Seen()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:

        async def one(i: int, seen: Seen) -> None:
            await _ask(client, seeds[i % DIFFERENT], expected[i % DIFFERENT], seen)

        end = time.perf_counter() + TRIAL * seconds

        async def alone(first: int) -> None:
            i = first
            while time.perf_counter() < end:
                await one(i, sustained)
                i += CLIENTS

        began = time.perf_counter()
        await asyncio.gather(*(alone(first) for first in range(CLIENTS)))
        rate = len(sustained.seconds) / (time.perf_counter() - began)
        watching = asyncio.create_task(_watch(pid, loaded))
        asking: set[asyncio.Task[None]] = set()
        began, i = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < (1 - TRIAL) * seconds:
            while i < 2 * rate * now:
                task = asyncio.create_task(one(i, loaded))
                asking.add(task)
                task.add_done_callback(asking.discard)
                i += 1
            await asyncio.sleep(0.005)
        await asyncio.gather(*asking)
        watching.cancel()
    return rate, sustained, loaded


async def _ask(client: httpx.AsyncClient, seeds: list[int], expected: NDArray[Any], seen: Seen) -> None:
    began = time.perf_counter()
    try:
        answer = await client.post("v1/samples", json={"seeds": seeds})
    except httpx.HTTPError:
        seen.statuses["failed"] += 1
        return
    seen.statuses[str(answer.status_code)] += 1
    if answer.status_code == 200:
        seen.seconds.append(time.perf_counter() - began)
        found = np.array(answer.json()["samples"])
        seen.wrong += found.shape != expected.shape or bool(np.abs(found - expected).max() > TOLERANCE)
    elif answer.status_code == 429:
        seen.silent += not answer.headers.get("retry-after", "").isdigit()


async def _watch(pid: int, seen: Seen) -> None:
    while True:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        seen.memory += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")]
        await asyncio.sleep(0.5)


def summary(rate: float, sustained: Seen, loaded: Seen, code: int) -> dict[str, Any]:
    """The findings as plain values.

    Of the memory, the medians of the first and the last quarter tell whether it grows.
    """
    quarter = max(1, len(loaded.memory) // 4)
    return {
        "sustained_requests_a_second": rate,
        "offered_requests_a_second": 2 * rate,
        "samples_a_request": SAMPLES,
        "statuses": dict(loaded.statuses),
        "wrong": sustained.wrong + loaded.wrong,
        "refusals_without_a_time": loaded.silent,
        "alone_p50_seconds": _quantile(sustained.seconds, 0.5),
        "alone_p99_seconds": _quantile(sustained.seconds, 0.99),
        "p50_seconds": _quantile(loaded.seconds, 0.5),
        "p99_seconds": _quantile(loaded.seconds, 0.99),
        "memory_mib_first_quarter": float(np.median(loaded.memory[:quarter] or [0])),
        "memory_mib_last_quarter": float(np.median(loaded.memory[-quarter:] or [0])),
        "memory_mib_most": max(loaded.memory, default=0.0),
        "exit_code": code,
    }


def _quantile(values: list[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None


def passes(found: Mapping[str, Any]) -> bool:
    """Whether every answer was right, everything else a refusal in order, and the end a clean one."""
    strange = set(found["statuses"]) - {"200", "429"}
    return not (found["wrong"] or found["refusals_without_a_time"] or strange or found["exit_code"])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=measure.__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    parser.add_argument("--out", type=Path, default=Path("runs/service.json"), help="the file that gets what was found")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.minutes, Path(folder))
    found |= {"processor": processor(), "processors": os.cpu_count()}
    atomic_write((json.dumps(found, indent=1, allow_nan=False) + "\n").encode(), options.out)
    print(json.dumps(found, indent=1))
    return 0 if passes(found) else 1


if __name__ == "__main__":
    sys.exit(main())
