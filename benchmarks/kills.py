"""``python -m benchmarks.kills``: commands that are killed at a random moment, and then run again to their end.

A trial runs a command in a process of its own, with or without an older result in its place, and sends it SIGKILL,
SIGTERM or SIGINT: after a random time, or before one of its accesses to files, any of which is as likely. It passes if

* an older plan is still there, or the new one;
* SIGTERM and SIGINT end the command in their exit codes, with one line and no leftovers but what a fit goes on from, or
  come after its end;
* the same command, run again, succeeds, with no leftovers, and its result equals that of a run that nobody disturbed.

Every trial is a function of its number, but for the random times.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.cli import main as run_command
from headstart.cli.application import app  # noqa: F401 - what every child needs
from headstart.cli.common import Terminated, prepare_process
from headstart.denoiser import expand
from headstart.environment import environment
from headstart.errors import HeadstartError, HeadstartWarning
from headstart.files import atomic_write
from headstart.initialization import Gaussian
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.schedule import rho_grid
from headstart.solver import Euler
from headstart.targets import gmm25

__all__ = ["COMMANDS", "Trial", "main", "prepare", "run"]

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

#: Seconds that no run takes.
PATIENCE = 1200

#: Files that show times to people: they are compared by their names.
SHOWN = {".html", ".csv", ".md", ".svg", ".png"}

MODEL = "python:killmodels:load"

#: The commands.
COMMANDS: dict[str, str] = {
    "fit": f"fit {MODEL} points.npy --nfe 3 -o plan --initialization isotropic,gaussian --schedule rho "
    "--solver dpm++2m",
    "fit flow": f"fit {MODEL} points.npy --nfe 4 -o plan --initialization flow --epochs 2 --checkpoint flow "
    "--start-cost 0.1 --schedule rho --solver euler",
    "sample": "sample first python:killmodels:images --seeds 0-199 --batch-size 5 -o out",
    "shards": "sample first python:killmodels:images --seeds 0-199 --batch-size 5 --shards tar --shard-size 40 "
    "-o shards",
    "evaluate": "evaluate points.npy points.npy --features raw --save-stats stats.npz",
    "compare": f"compare {MODEL} points.npy --quick --methods isotropic,heun -o runs",
    "inspect": "inspect first --page page.html --data images.npy",
    "export": "export first --to json --seeds 0-99 -o levels",
    "demo": "demo --quick --out demo",
}

#: How often each is drawn.
WEIGHTS = {
    "fit": 8,
    "fit flow": 6,
    "sample": 6,
    "shards": 6,
    "evaluate": 5,
    "compare": 6,
    "inspect": 5,
    "export": 5,
    "demo": 1,
}

#: What makes an older result another one; a comparison goes on from its own alone, and the demonstration is one.
OLDER = {"0-199": "300-310", "0-99": "5-6", "points.npy": "other-points.npy", "images.npy": "other-images.npy"}
AGAIN = ("fit flow", "shards", "compare", "demo")

#: What is compared to the byte, pages too.
EXACT = ("inspect", "sample", "shards", "export")

MODELS = '''
"""An exact network on points, and one on images."""
from headstart.denoiser import expand
from headstart.targets import gmm25

def load():
    return gmm25()

def images():
    def denoiser(x, sigma):
        return 0.25 * x / (0.25 + expand(sigma, x) ** 2)
    return denoiser
'''


@dataclass(frozen=True)
class Trial:
    """One that failed.

    Attributes:
        command: by its name.
        number: of the trial.
        reason: what did not hold.
    """

    command: str
    number: int
    reason: str


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code, or minus the signal that ended it.
        out: on standard output.
        err: on standard error.
        seconds: that it took.
        accesses: to files, as far as they are of interest.
    """

    code: int
    out: str
    err: str
    seconds: float
    accesses: int


def prepare(folder: Path) -> None:
    """Write the models, data and a plan that the commands take."""
    (folder / "killmodels.py").write_text(MODELS)
    draw = np.random.default_rng(0)
    for number, name in enumerate(("", "other-")):
        first = 300 * number
        np.save(folder / f"{name}points.npy", gmm25().sample(Noise(range(first, first + 300))).numpy())
        np.save(folder / f"{name}images.npy", draw.normal(size=(60, 1, 8, 8), scale=0.5).astype(np.float32))
    data = torch.from_numpy(np.load(folder / "images.npy"))
    start, levels = Gaussian.fit(data), rho_grid(3, 2.0, 0.1)
    profile = Profile.measure(_normal, data, cost_samples=10)
    Plan(start, levels, Euler(), None, profile).save(folder / "first")


def _normal(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
    """The exact denoiser of N(0, 1/4), as ``images`` of the models is."""
    return 0.25 * x / (0.25 + expand(sigma, x) ** 2)


# Runs.


def attempt(arguments: Sequence[str], folder: Path, stop: Callable[[int], None] | None = None) -> Ended:
    """Run a command in a folder, in a child of this process.

    Arguments:
        arguments: of headstart.
        folder: where it works.
        stop: called in the child before each access to a file, with its number.
    """
    with tempfile.TemporaryDirectory() as place:
        ready, begun = os.pipe()
        child = os.fork()
        if not child:
            os.close(ready)
            _child([*arguments, "--json"], folder, Path(place), begun, stop)
        os.close(begun)
        with os.fdopen(ready) as pipe:
            pipe.read(1)
        began = time.perf_counter()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seconds = time.perf_counter() - began
        out, err = ((Path(place) / name).read_text(errors="replace") for name in ("out", "err"))
        return Ended(code, out, err, seconds, int((Path(place) / "accesses").read_text() or 0))


def _child(arguments: list[str], folder: Path, place: Path, begun: int, stop: Callable[[int], None] | None) -> None:
    """The whole life of a child, which is killed or ends here."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / name, os.O_CREAT | os.O_WRONLY), number)
    counted = os.open(place / "accesses", os.O_CREAT | os.O_WRONLY)
    signal.alarm(PATIENCE)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = ["headstart", *arguments]
    prepare_process()
    accesses = 0

    def look(event: str, of: tuple[Any, ...]) -> None:
        nonlocal accesses
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate") and _inside(of, folder):
            accesses += 1
            if stop is not None:
                stop(accesses)

    sys.addaudithook(look)
    os.write(begun, b".")
    os.close(begun)
    code = 1
    try:
        run_command()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except Terminated as error:
        code = error.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            os.write(counted, str(accesses).encode())
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _inside(of: tuple[Any, ...], folder: Path) -> bool:
    """Whether an access is to something that a command works on, not to a module."""
    if not of or not isinstance(of[0], str | bytes | os.PathLike):
        return False
    path = os.path.abspath(os.fsdecode(of[0]))
    return path.startswith(f"{folder}{os.sep}") and not path.endswith((".py", ".pyc"))


# Results.


def result(folder: Path, exact: bool) -> dict[str, Any]:
    """All that a folder holds, without times.

    Arguments:
        folder: where a command has worked.
        exact: whether the pages and figures are compared by their bytes.
    """
    found: dict[str, Any] = {}
    for place, folders, names in os.walk(folder):
        here = Path(place)
        name = str(here.relative_to(folder))
        if "plan.json" in names:
            found[name] = Plan.load(here).digest
            folders.clear()
            continue
        found[f"{name}/"] = None
        folders[:] = [own for own in folders if own != "__pycache__"]
        for own in names:
            found[f"{name}/{own}"] = _content(here / own, exact)
    return found


def _content(path: Path, exact: bool) -> Any:
    if path.suffix in SHOWN and not exact:
        return None
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return sorted(json.dumps(_timeless(json.loads(line)), sort_keys=True) for line in path.read_text().splitlines())
    if path.name == "flow-flow":  # a training's checkpoint says how long it took
        return path.stat().st_size > 0
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _timeless(value) for key, value in values.items() if "seconds" not in key}
    return [_timeless(value) for value in values] if isinstance(values, list) else values


def leftovers(folder: Path) -> list[str]:
    """Hidden entries, anywhere, which nobody asked for."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*") if path.parent.suffix != ".work")


# Trials.


@dataclass(frozen=True)
class Undisturbed:
    """A command that nobody disturbed.

    Attributes:
        ended: how it ended.
        whole: a folder where it has not run.
        old: a folder with an older result.
        result: what its folder held when it had ended.
    """

    ended: Ended
    whole: Path
    old: Path
    result: dict[str, Any]


def run(count: int, names: Sequence[str] | None = None, first: int = 0) -> Iterator[Trial | None]:
    """The trials from number ``first`` on: one that failed, or None, for each."""
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        whole.mkdir()
        prepare(whole)
        finished: dict[str, Undisturbed] = {}
        for number in range(first, first + count):
            draw = random.Random(number)
            name = _drawn(number, names, draw)
            if name not in finished:
                finished[name] = _undisturbed(name, whole, Path(place))
            reason = _trial(name, finished[name], draw, Path(place) / "own")
            yield Trial(name, number, reason) if reason else None


def _drawn(number: int, names: Sequence[str] | None, draw: random.Random) -> str:
    return draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0] if names is None else names[number % len(names)]


def _undisturbed(name: str, whole: Path, place: Path) -> Undisturbed:
    """Run a command once from nothing, and once to have an older result."""
    new, old = place / f"new {name}", place / f"old {name}"
    for folder, of in ((new, {}), (old, {} if name in AGAIN else OLDER)):
        shutil.copytree(whole, folder)
        ended = attempt([of.get(word, word) for word in COMMANDS[name].split()], folder)
        if ended.code:
            raise RuntimeError(f"{name}: {ended.err}")
        if folder == new:
            known = Undisturbed(ended, whole, old, result(new, name in EXACT))
    return known


def _trial(name: str, known: Undisturbed, draw: random.Random, own: Path) -> str:
    """A kill and a run to the end; what did not hold, or nothing."""
    number, older = draw.choice(SIGNALS), draw.random() < 0.5
    shutil.copytree(known.old if older else known.whole, own)
    place = "with an older result in its place" if older else "with nothing in its place"
    how = f"{signal.Signals(number).name}, {place}: "
    try:
        killed = attempt(COMMANDS[name].split(), own, _stop(number, known.ended, draw))
        if reason := _after_the_kill(killed, number, own, ("first", "plan") if older and "fit" in name else ("first",)):
            return f"{how}{reason}"
        again = attempt(COMMANDS[name].split(), own)
        if again.code or "Traceback" in again.err:
            return f"{how}the second run ended with {again.code}: {again.err}"
        if left := leftovers(own):
            return f"{how}the second run left {left}"
        found = result(own, name in EXACT)
        differing = [key for key in {**found, **known.result} if found.get(key, 0) != known.result.get(key, 0)]
        return f"{how}the result differs in {sorted(differing)}" if differing else ""
    finally:
        shutil.rmtree(own)


def _stop(number: int, known: Ended, draw: random.Random) -> Callable[[int], None]:
    """A function that signals its own process: before some access to a file, or some time after the first."""
    if draw.random() < 0.5:
        at = draw.randrange(1, known.accesses + 1)
        return lambda access: os.kill(os.getpid(), number) if access == at else None
    seconds = draw.random() * known.seconds

    def wait() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    return lambda access: threading.Thread(target=wait, daemon=True).start() if access == 1 else None


def _after_the_kill(killed: Ended, number: int, own: Path, plans: Sequence[str]) -> str:
    """The first that does not hold of the folder and the process after a signal, or nothing."""
    for name in plans:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HeadstartWarning)
            try:
                Plan.load(own / name)
            except HeadstartError as error:
                return f"{name} is lost: {error}"
    if killed.code not in (0, -number if number == signal.SIGKILL else 128 + number) or "Traceback" in killed.err:
        return f"it ended with {killed.code}: {killed.err}"
    if number != signal.SIGKILL and (left := leftovers(own)):
        return f"it left {left}"
    return ""


def main() -> None:
    """Run trials, say which failed and write what was found; exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8, help="trials; 200 are the long form")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--command", choices=list(COMMANDS), action="append", help="a command; all by default")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no trial after so many")
    parser.add_argument("--out", type=Path, help="write what was found to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed: Counter[str] = Counter()
    began, number = time.perf_counter(), 0
    for number, trial in enumerate(run(options.count, options.command, options.first), 1):
        if number % 20 == 0:
            print(f"{number} of {options.count}", file=sys.stderr, flush=True)
        if trial is not None:
            failed[trial.command] += 1
            print(f"--- {trial.command} {trial.number}: {trial.reason}", flush=True)
        if time.perf_counter() - began > 60 * options.minutes:
            break
    print(f"{number} kills, {failed.total()} failed", dict(failed) or "")
    if options.out is not None:
        found = {"kills": number, "first": options.first, "failed": dict(failed)}
        found |= {"seconds": round(time.perf_counter() - began), "environment": environment("cpu")}
        atomic_write((json.dumps(found, indent=1) + "\n").encode(), options.out)
    sys.exit(failed.total() > 0)


if __name__ == "__main__":
    main()
