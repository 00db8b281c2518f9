"""The front door: words of a command line, and arguments of functions."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typer.testing import CliRunner

from benchmarks.hostile.artefacts import TARGET
from benchmarks.hostile.forging import VALUES, WORDS
from headstart import choose, metrics
from headstart.cli import app
from headstart.data import load_data
from headstart.plan import Plan
from headstart.profile import Profile

__all__ = ["arguments", "commands"]


def commands(folder: Path, draw: random.Random) -> None:
    """A command of good words with one or two replaced, inserted or left out."""
    model, points = "python:fuzzmodels:load", "points.npy"
    good = draw.choice(
        [
            ["fit", model, points, "--nfe", "3", "--criterion", "budget", "-o", "out", "--horizon", "2", "--seed", "1"],
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
            ["export", "plan-1", "--to", "json", "--seeds", "0-3", "-o", "levels"],
            ["convert", "network.pkl", "-o", "network.safetensors"],
            ["check", model, points, "--batch-size", "64"],
            ["sample", "plan-1", model, "-n", "3", "-o", "out", "--condition", "c=points.npy"],
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
    report = good[0] == "check" and done.exit_code == 2 and done.stdout and not done.stderr  # its answer, no failure
    if (
        done.exit_code
        and not usage
        and not report
        and (len(errors) != 1 or not done.stderr.rstrip().endswith(errors[0]))
    ):
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
            | {"solver": "euler", "sigma_min": 0.05, "sigma_max": 80.0, "criterion": "budget", "seed": 0}
            | {"device": "cpu", "batch_size": 64, "labels": None, "pilot_samples": 64},
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
