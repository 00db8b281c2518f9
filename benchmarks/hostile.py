"""``python -m benchmarks.hostile``: broken and forged input of every kind, each trial in a process of its own.

A trial changes something at random: a plan, the tensors of a start or a profile, arrays, images, statistics, a
checkpoint, cells, a command line, or arguments of a function. It passes if it ends in success or in a
:class:`HeadstartError`, and a command in an exit code of its own with one line on standard error, within 2 GB of memory
beyond the process's own and 20 seconds. Every trial is a function of its kind and its number.
"""

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
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typer.testing import CliRunner

from headstart import choose, metrics
from headstart.artefact import read_tensors, write_tensors
from headstart.cli import app
from headstart.compare import Cells
from headstart.data import load_data
from headstart.errors import HeadstartError
from headstart.initialization import (
    Autoregressive,
    Empirical,
    Flow,
    Gaussian,
    Initialization,
    Isotropic,
    Mixture,
    StudentT,
    Training,
)
from headstart.metrics import GaussianStatistics
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.targets import gmm25

__all__ = ["KINDS", "Trial", "main", "prepare", "run"]

#: What a trial may take: bytes beyond what the process has, and seconds.
MEMORY, SECONDS = 2 * 2**30, 20

#: Plain values that no one means.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -1.0, 1e-300, 1e308, -1e308, 10**9, 10**18, 10**30, 2**63, 2**64 - 1),
    *("", "x", "NaN", "1", "\ud800", "a" * 10_000, [], [0], [-1.0], ["NaN"], [[]], [[1.0]], [1.0] * 1000, {}, {"a": 1}),
)

#: Words of a command line that no one means, as far as they could do no harm if they were taken.
WORDS = (
    *(
        "",
        "-1",
        "0",
        "1",
        "1.5",
        "nan",
        "inf",
        "1e999",
        "1000000000",
        "18446744073709551615",
        "9" * 30,
        "x",
        "é",
        "\x00",
    ),
    *(",", "1,,2", "0-", "5-1", "cuda", "meta", "cpu:7", "~nosuchuser/x", "/dev/null", ".", "..", "/", "nothing"),
    *("builtin:", "builtin:nothing", "python:", "python:os:nothing", "python:math:pi", "self", "--", "auto", "none"),
)

TARGET = gmm25()


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


def prepare(folder: Path) -> None:
    """Write what the trials change: plans of every start, data, models, statistics, a checkpoint and cells."""
    data = TARGET.sample(Noise(range(200)))
    labels = (data[:, 0] > 0).long()
    once = Training(epochs=1)
    starts: list[Initialization] = [
        Isotropic((2,)),
        Gaussian.fit(data),
        Mixture.fit(data, 4, 2, labels=labels),
        StudentT.fit(data),
        StudentT.fit(data, "multivariate"),
        Empirical.fit(data, labels=labels),
        Flow.fit(data, hidden=(4,), transforms=1, training=once),
        Autoregressive.fit(data, patch=1, channels=4, layers=1, heads=1, training=once),
    ]
    plan = choose.fit(TARGET, data, 3, criterion="nats")
    for number, start in enumerate(starts):
        Plan(start, plan.schedule, plan.solver, plan.budget, plan.profile, plan.record).save(folder / f"plan-{number}")
        start.save(folder / f"start-{number}")
    plan.profile.save(folder / "profile")
    np.save(folder / "points.npy", data.numpy())
    images = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "images.npz", samples=images, labels=np.arange(40) % 2)
    torch.save({"samples": data, "labels": labels}, folder / "points.pt")
    from PIL import Image

    for label in ("cat", "dog"):
        (folder / "pictures" / label).mkdir(parents=True)
        for i in range(3):
            grey = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(grey).save(folder / "pictures" / label / f"{i}.png")
    GaussianStatistics.of(data.double()).save(folder / "stats.npz")
    Flow.fit(data, hidden=(4,), transforms=1, training=Training(epochs=1, checkpoint=folder / "checkpoint"))
    cells = Cells(folder / "cells.jsonl", {"quick": True})
    for i in range(4):
        cells({"i": i}, lambda i=i: {"value": i / 3, "failed": None})  # type: ignore[misc]
    (folder / "fuzzmodels.py").write_text(
        "from headstart.targets import gmm25\ndef load(): return gmm25()\ndef pi(): return 3\n"
    )


# Changes.


def forged(values: Any, draw: random.Random) -> Any:
    """Plain values with one of them replaced, removed or added, somewhere inside."""
    if isinstance(values, dict) and values and draw.random() < 0.85:
        key = draw.choice(sorted(values))
        if draw.random() < 0.05:
            return {k: v for k, v in values.items() if k != key}
        return {**values, key: forged(values[key], draw)}
    if isinstance(values, list) and values and draw.random() < 0.7:
        place = draw.randrange(len(values))
        return [*values[:place], forged(values[place], draw), *values[place + 1 :]]
    return draw.choice(VALUES)


def forged_tensor(tensor: Tensor, draw: random.Random) -> Tensor:
    """A tensor of another shape or type, or with numbers that no one means."""
    number = draw.choice([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e200, -1e200, 1e30, 1e-320])
    wide = tensor.double() if not tensor.is_complex() else tensor
    one = wide.clone()
    if one.numel():
        one.view(-1)[draw.randrange(one.numel())] = number
    return draw.choice(
        [
            torch.tensor(number),
            tensor[None],
            tensor.reshape(-1),
            tensor[:0] if tensor.ndim else torch.ones(0),
            torch.cat([tensor, tensor[:1]]) if tensor.ndim else torch.ones(3),
            torch.full_like(wide, number),
            one,
            tensor.to(torch.int32),
            tensor.to(torch.float16),
            tensor.to(torch.complex64),
            tensor.to(torch.bool),
            tensor.to(torch.uint8),
        ]
    )


def forged_tensors(tensors: Mapping[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    key = draw.choice(sorted(tensors)) if tensors else "mean"
    own = dict(tensors)
    if draw.random() < 0.15:
        own.pop(key, None)
    elif draw.random() < 0.1:
        own["another"] = torch.ones(2)
    else:
        own[key] = forged_tensor(own.get(key, torch.ones(2)), draw)
    return {name: tensor.contiguous() for name, tensor in own.items()}


def torn(path: Path, draw: random.Random) -> None:
    """Damage the bytes of a file: cut off, flipped, doubled, or others in their place."""
    blob = bytearray(path.read_bytes())
    kind = draw.randrange(5)
    if kind == 0:
        blob = blob[: draw.randrange(len(blob) + 1)]
    elif kind == 1:
        for _ in range(draw.randrange(1, 20)):
            blob[draw.randrange(len(blob))] = draw.randrange(256)
    elif kind == 2:
        place = draw.randrange(len(blob))
        blob = blob[:place] + blob[: draw.randrange(100)] + blob[place:]
    elif kind == 3:
        blob = bytearray(draw.choice([b"", b"[" * 100_000, b"\xff" * 100, b"{}", b"null", b"\x93NUMPY", b"PK\x03\x04"]))
    else:
        path.unlink()
        return draw.choice([os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])(path)
    path.write_bytes(blob)
    return None


# Kinds of input. Each has a folder of its own with all that was prepared.


def plans(folder: Path, draw: random.Random) -> None:
    import hashlib

    import safetensors.torch

    place = folder / f"plan-{draw.randrange(8)}"
    if draw.random() < 0.2:
        torn(place / draw.choice(["plan.json", "tensors.safetensors"]), draw)
    else:
        values = json.loads((place / "plan.json").read_text())
        blob = (place / "tensors.safetensors").read_bytes()
        if draw.random() < 0.5:
            blob = safetensors.torch.save(forged_tensors(safetensors.torch.load(blob), draw))
            (place / "tensors.safetensors").write_bytes(blob)
            values["tensors_sha256"] = hashlib.sha256(blob).hexdigest()
        else:
            values = forged(values, draw)
        (place / "plan.json").write_text(json.dumps(values))
    plan = Plan.load(place)
    repr(plan), plan.explain(), plan.to_dict(), plan.citation()
    plan.sample(TARGET, 3)
    plan.save(folder / "again")


def tensors(folder: Path, draw: random.Random) -> None:
    number = draw.randrange(9)
    path = folder / ("profile" if number == 8 else f"start-{number}")
    form = "headstart-profile" if number == 8 else "headstart-start"
    if draw.random() < 0.2:
        torn(path, draw)
    else:
        values, own = read_tensors(path, form, 9)
        if draw.random() < 0.5:
            values = forged(values, draw)
        else:
            own = forged_tensors(own, draw)
        if not isinstance(values, dict):
            return
        path.unlink()
        write_tensors(path, form, 1, values, own)
    if number == 8:
        profile = Profile.load(path)
        repr(profile)
        choose.fit(TARGET, TARGET.sample(Noise(range(100))), 3, profile=profile, criterion="nats")
        return
    start = Initialization.load(path)
    low, high = max(start.sigmas[0], 0.1), min(start.sigmas[1], 5.0)
    x = start.sample(Noise(range(3)), math.sqrt(low * high))
    if start.tractable:
        start.log_prob(x, math.sqrt(low * high))
    repr(start)


def arrays(folder: Path, draw: random.Random) -> None:
    name = draw.choice(["points.npy", "images.npz", "points.pt"])
    path = folder / name
    if draw.random() < 0.5:
        torn(path, draw)
    else:
        array = np.load(folder / "points.npy")
        tensor = forged_tensor(torch.from_numpy(array), draw)
        if name == "points.pt":
            torch.save(draw.choice([tensor, {"samples": tensor}, [tensor], {"x": draw.choice(VALUES)}]), path)
        elif name == "points.npy":
            np.save(path, tensor.numpy())
        else:
            labels = forged_tensor(torch.arange(len(array)), draw)
            np.savez(path, samples=tensor.numpy(), labels=labels.numpy())
    data = load_data(path)
    repr(data)
    metrics.evaluate(data.samples, metrics.Reference.of(data.samples, directions=4))


def images(folder: Path, draw: random.Random) -> None:
    pictures = folder / "pictures"
    torn(pictures / draw.choice(["cat", "dog"]) / f"{draw.randrange(3)}.png", draw)
    if draw.random() < 0.2:
        (pictures / "loop").symlink_to(pictures)
    repr(load_data(pictures))


def statistics(folder: Path, draw: random.Random) -> None:
    path = folder / "stats.npz"
    whole = GaussianStatistics.load(path)
    if draw.random() < 0.4:
        torn(path, draw)
    else:
        own: dict[str, Any] = {"mu": whole.mean, "sigma": whole.covariance, "n": torch.tensor(whole.n)}
        key = draw.choice(sorted(own))
        own[key] = forged_tensor(own[key], draw)
        np.savez(path, **{name: tensor.numpy() for name, tensor in own.items()})
    found = GaussianStatistics.load(path)
    json.dumps(found.distance(whole), allow_nan=False)
    found.save(folder / "again.npz")


def checkpoints(folder: Path, draw: random.Random) -> None:
    import safetensors.torch
    from safetensors import safe_open

    path = folder / "checkpoint"
    if draw.random() < 0.2:
        torn(path, draw)
    else:
        with safe_open(path, "pt") as file:
            values = json.loads(file.metadata()["headstart"])
            own = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file is no mapping
        if draw.random() < 0.5:
            values = forged(values, draw)
        else:
            own = forged_tensors(own, draw)
        path.unlink()
        path.write_bytes(safetensors.torch.save(own, metadata={"headstart": json.dumps(values)}))
    data = torch.from_numpy(np.load(folder / "points.npy"))
    Flow.fit(data, hidden=(4,), transforms=1, training=Training(epochs=1, checkpoint=path))


def cells(folder: Path, draw: random.Random) -> None:
    path = folder / "cells.jsonl"
    if draw.random() < 0.5:
        torn(path, draw)
    else:
        lines = path.read_text().splitlines()
        place = draw.randrange(len(lines))
        lines[place] = json.dumps(forged(json.loads(lines[place]), draw))
        path.write_text("\n".join([*lines, ""]))
    found = Cells(path, {"quick": True})
    for i in range(5):
        found({"i": i}, lambda i=i: {"value": i / 3, "failed": None})  # type: ignore[misc]


def commands(folder: Path, draw: random.Random) -> None:
    """A command of good words with one or two replaced, inserted or left out."""
    model, points = "python:fuzzmodels:load", "points.npy"
    good = draw.choice(
        [
            ["fit", model, points, "--nfe", "3", "--criterion", "nats", "-o", "out", "--horizon", "2", "--seed", "1"],
            [
                "fit",
                model,
                points,
                "--initialization",
                "gaussian",
                "--schedule",
                "rho",
                "--solver",
                "euler",
                "-o",
                "out",
            ],
            ["sample", "plan-1", model, "-n", "3", "-o", "out"],
            ["sample", "plan-2", model, "--seeds", "1,2", "--label", "1", "-o", "out", "--batch-size", "2"],
            ["evaluate", points, points, "--features", "raw", "--scores", "kid", "--reference-count", "50"],
            ["evaluate", points, points, "--features", "raw", "--stats", "stats.npz", "--save-stats", "new.npz"],
            ["evaluate", "images.npz", "images.npz", "--by-class", "--features", "none"],
            ["inspect", "plan-0", "--page", "page.html", "--data", points],
            ["inspect", "plan-3", "--citation"],
        ]
    )
    for _ in range(draw.choice([1, 1, 2])):
        place, word = draw.randrange(1, len(good)), draw.choice([*WORDS, *os.listdir(folder)])
        kind = draw.randrange(4)
        good[place : place + (kind != 1)] = [] if kind == 0 else [word]
    if "--device" in good or any(word == "demo" for word in good):
        return
    json_too = draw.random() < 0.5
    done = CliRunner().invoke(app, [*good, *(["--json"] if json_too else [])])
    if done.exit_code not in (0, 2, 3, 4, 5, 6) or (done.exception and not isinstance(done.exception, SystemExit)):
        raise RuntimeError(f"{good}: exit {done.exit_code}: {done.exception!r}") from done.exception
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    usage = done.stderr.lstrip().startswith(("Usage:", "╭─ Error"))
    if done.exit_code and not usage and (len(errors) != 1 or not done.stderr.rstrip().endswith(errors[0])):
        raise RuntimeError(f"{good}: exit {done.exit_code}, and said: {done.stderr}")


def arguments(folder: Path, draw: random.Random) -> None:
    """A function of the front door with one argument replaced."""
    data = torch.from_numpy(np.load(folder / "points.npy"))
    strange: list[Any] = [*VALUES, math.nan, math.inf, -math.inf, data.numpy(), data.int(), data[:1], data[0]]
    strange += [data * 1e30, torch.int32, torch.float16, "cuda", "meta", b"x", 1j, {1, 2}, object()]
    strange += [np.float64(3), np.int64(3)]
    plan = Plan.load(folder / "plan-1")
    calls: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (
            choose.fit,
            {
                "denoiser": TARGET,
                "data": data,
                "nfe": 3,
                "horizon": 2.0,
                "initialization": "gaussian",
                "schedule": "rho",
            }
            | {"solver": "euler", "sigma_min": 0.05, "sigma_max": 80.0, "criterion": "nats", "seed": 0, "device": "cpu"}
            | {"batch_size": 64, "labels": None, "pilot_samples": 64},
        ),
        (
            plan.sample,
            {"denoiser": TARGET, "n": 3, "batch_size": 2, "device": "cpu", "dtype": torch.float32, "seeds": None},
        ),
        (plan.sample, {"denoiser": TARGET, "seeds": [1, 2], "label": None}),
        (
            Profile.measure,
            {"denoiser": TARGET, "data": data, "sigmas": None, "samples": 64, "cost_samples": 16, "seed": 0},
        ),
        (metrics.Reference.of, {"real": data, "features": None, "seed": 0, "directions": 8}),
        (
            lambda samples, **more: metrics.evaluate(samples, metrics.Reference.of(data, directions=4), **more),
            {"samples": data, "scores": (), "errors": False},
        ),
        (metrics.novelty, {"generated": data[:50], "training": data[50:150], "held_out": data[150:], "seed": 0}),
        (load_data, {"spec": str(folder / "points.npy"), "split": "train"}),
        (Plan.load, {"folder": folder / "plan-0"}),
        (plan.save, {"folder": folder / "new"}),
    ]
    function, given = draw.choice(calls)
    key = draw.choice(sorted(given))
    try:
        function(**{**given, key: draw.choice(strange)})
    except TypeError:  # a mistake of the program, as of any function
        pass
    except RuntimeError as error:
        if "Boolean value of Tensor" not in str(error):  # likewise
            raise


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    function.__name__: function
    for function in (plans, tensors, arrays, images, statistics, checkpoints, cells, commands, arguments)
}


# Trials.


def run(count: int, kinds: list[str] | None = None, first: int = 0) -> Iterator[Trial | None]:
    """The trials from number ``first`` on, the kinds in turn: one that failed, or None, for each."""
    chosen = kinds or list(KINDS)
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        whole.mkdir()
        prepare(whole)
        for number in range(first, first + count):
            kind = chosen[number % len(chosen)]
            own = Path(place) / "own"
            shutil.copytree(whole, own)
            reason = _alone(kind, number, own)
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
    if status == -signal.SIGALRM:
        return f"it took more than {SECONDS} s"
    return reason or (f"it ended with {status}" if status else "")


def _attempt(kind: str, number: int, folder: Path) -> str:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    signal.alarm(SECONDS)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    warnings.simplefilter("ignore")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    try:
        KINDS[kind](folder, random.Random(f"{kind} {number}"))
    except HeadstartError:
        return ""
    except BaseException:
        return traceback.format_exc()
    return ""


def main() -> None:
    """Run trials and say which failed; exit with 1 if one did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="trials")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="a kind of input; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed: Counter[str] = Counter()
    for trial in run(options.count, options.kind, options.first):
        if trial is not None:
            failed[trial.kind] += 1
            lines = trial.reason.strip().splitlines()
            print(f"--- {trial.kind} {trial.number}", *lines[-8:], sep="\n", flush=True)
    print(f"{options.count} trials, {failed.total()} failed", dict(failed) or "")
    sys.exit(failed.total() > 0)


if __name__ == "__main__":
    main()
