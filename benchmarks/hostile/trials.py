"""Trials: each in a child of this process, with bounded memory and time, and watched."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import benchmarks.hostile as package
from benchmarks.hostile import artefacts, front, networks
from benchmarks.hostile.forging import EXECUTED
from headstart.environment import environment
from headstart.errors import HeadstartError
from headstart.files import atomic_write

__all__ = ["KINDS", "Trial", "main", "run"]

#: What a trial may take: bytes beyond what the process has, seconds of a processor, and seconds in which nothing ends.
MEMORY, SECONDS, PATIENCE = 2 * 2**30, 20, 300

#: What no reader does.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pty.spawn")

#: Where systems and libraries keep what is no one's.
COMMON = ("/dev/", "/proc/")

KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    function.__name__: function
    for function in (
        *(artefacts.plans, artefacts.tensors, artefacts.arrays, artefacts.images, artefacts.statistics),
        *(artefacts.checkpoints, artefacts.cells, artefacts.conditions, artefacts.manifests, artefacts.stored),
        *(networks.pickles, networks.converted, networks.exported, networks.schedulers),
        *(front.commands, front.arguments),
    )
}
"""The kinds of input by name."""


@dataclass(frozen=True)
class Trial:
    """One that failed.

    Attributes:
        kind: of the input.
        number: of the trial.
        reason: the end of its traceback, or the limit that it broke.
    """

    kind: str
    number: int
    reason: str


def run(count: int, kinds: Sequence[str] | None = None, first: int = 0) -> Iterator[Trial | None]:
    """The trials from number ``first`` on, the kinds in turn: one that failed, or None, for each."""
    chosen = list(kinds or KINDS)
    with tempfile.TemporaryDirectory() as place:
        whole, own = Path(place) / "whole", Path(place) / "own"
        whole.mkdir()
        artefacts.prepare(whole)
        networks.prepare_networks(whole)
        if "schedulers" in chosen:
            import headstart.integrations.schedulers  # noqa: F401 - which is slow, and every child would do it
        if "commands" in chosen:
            import matplotlib.font_manager  # noqa: F401 - which lists the fonts of a machine at its first import
        for number in range(first, first + count):
            kind = chosen[number % len(chosen)]
            shutil.copytree(whole, own)
            reason = _alone(kind, number, own)
            if not reason and list(own.rglob(EXECUTED)):
                reason = "something of a file was executed"
            shutil.rmtree(own)
            yield Trial(kind, number, reason) if reason else None


def _alone(kind: str, number: int, folder: Path) -> str:
    """A trial in a child process; why it failed, or nothing."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        reason = _attempt(kind, number, folder)
        with contextlib.suppress(OSError):
            os.write(write, reason.encode(errors="backslashreplace")[-4000:])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        reason = file.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status in (-signal.SIGALRM, -signal.SIGPROF):
        return f"it took more than {SECONDS} s" if status == -signal.SIGPROF else "it hung"
    return reason or (f"it ended with {status}" if status else "")


def _attempt(kind: str, number: int, folder: Path) -> str:
    """A trial in this process, which is for nothing else; why it failed, or nothing."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(PATIENCE)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    seen: list[str] = []
    sys.addaudithook(lambda event, of: _watch(event, of, folder, seen))
    try:
        KINDS[kind](folder, random.Random(f"{kind} {number}"))
    except HeadstartError:
        pass
    except BaseException:
        return traceback.format_exc()
    return "; ".join(seen)


def _watch(event: str, of: tuple[Any, ...], folder: Path, seen: list[str]) -> None:
    """Note what no reader does, and what is written outside of the working folder."""
    if event in FORBIDDEN:
        seen.append(f"{event} {of}"[:300])
    elif event == "open" and isinstance(of[0], str | bytes) and isinstance(of[2], int):
        path = os.path.abspath(os.fsdecode(of[0]))
        if of[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not path.startswith((str(folder), *COMMON)):
            seen.append(f"it wrote {path}")


def main() -> None:
    """Run trials, say which failed and write what was found; exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=package.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="trials")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="a kind of input; all by default")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no trial after so many")
    parser.add_argument("--out", type=Path, help="write what was found to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed: Counter[str] = Counter()
    began, done = time.perf_counter(), 0
    for trial in run(options.count, options.kind, options.first):
        done += 1
        if trial is not None:
            failed[trial.kind] += 1
            lines = trial.reason.strip().splitlines()
            print(f"--- {trial.kind} {trial.number}", *lines[-8:], sep="\n", flush=True)
        if time.perf_counter() - began > 60 * options.minutes:
            break
    print(f"{done} trials, {failed.total()} failed", dict(failed) or "")
    if options.out is not None:
        found = {"trials": done, "first": options.first, "kinds": options.kind or list(KINDS)}
        found |= {"failed": dict(failed), "seconds": round(time.perf_counter() - began)}
        found |= {"environment": environment("cpu")}
        atomic_write((json.dumps(found, indent=1) + "\n").encode(), options.out)
    sys.exit(failed.total() > 0)
