"""A fixed set of fits, samples, saved plans and a comparison, as numbers: the proof that a change of the house changes
none of them.

Each answer is an array. Its SHA-256 tells whether it is the same to the bit, on one machine; its first values and its
sum tell whether it is the same up to rounding, on any other. What was written down before a change is compared with
what is computed after it:

    python tests/regression/answers.py --write before.json      # on the commit before
    python tests/regression/answers.py --against before.json    # on the commit after: to the bit

``answers.json`` beside this file was written by the first, and ``test_answers.py`` holds the answers against it up to
rounding. Times are no answers, and neither are names that a person reads.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart import Noise, Plan, Profile, fit
from headstart.denoiser import expand
from headstart.initialization import Empirical, Gaussian, StudentT, Teleportation
from headstart.schedule import Schedule
from headstart.targets import gmm25, t_prod

STORED = Path(__file__).with_name("answers.json")

#: Values of an answer that are written down, evenly over it.
VALUES = 6

SEEDS = [3, 2**40 + 1, 17, 5, 2**63 + 9, 1, 0, 4]

PLANE = gmm25()
POINTS = PLANE.sample(Noise(range(400)))
HEAVY, TAILED = t_prod(), t_prod(10)
CLASSES = torch.arange(300) % 2
PIXELS = (CLASSES - 0.5).reshape(-1, 1, 1, 1) + 0.5 * Noise(range(300)).normal((1, 4, 4))


def images(x: Tensor, sigma: Any, label: Tensor | None = None) -> Tensor:
    """The denoiser of two classes of 4x4 images: N(-1/2, 1/4) and N(1/2, 1/4) in every pixel."""
    s2 = expand(sigma, x) ** 2
    if label is not None:
        return (0.25 * x + s2 * (expand(label, x) - 0.5)) / (0.25 + s2)
    share = torch.sigmoid((x / (0.25 + s2)).sum((1, 2, 3), keepdim=True))
    return (0.25 * x + s2 * (share - 0.5)) / (0.25 + s2)


def fits() -> Mapping[str, tuple[Callable[[], Plan], Any, Mapping[str, Any]]]:
    """Each plan, as a function, with the network and the conditions that it samples with."""
    quick: dict[str, Any] = {"pilot_samples": 32}
    grid = Schedule((2.0, 0.7, 0.2, 0.0))
    labels = torch.tensor([0, 1] * 4)
    found: dict[str, tuple[Callable[[], Plan], Any, Mapping[str, Any]]] = {
        "pilot": (lambda: fit(PLANE, POINTS, 4, **quick), PLANE, {}),
        "one evaluation": (lambda: fit(PLANE, POINTS, 1, **quick), PLANE, {}),
        "another seed": (lambda: fit(PLANE, POINTS, 3, seed=5, batch_size=50, **quick), PLANE, {}),
        "budget": (lambda: fit(PLANE, POINTS, 6, criterion="budget"), PLANE, {}),
        "own samples": (lambda: fit(PLANE, None, 3, shape=(2,), n_samples=200, **quick), PLANE, {}),
        "labels": (lambda: fit(images, PIXELS, 3, labels=CLASSES, **quick), images, {"label": labels}),
        "one label": (
            lambda: fit(images, PIXELS, 3, conditions={"label": 1}, criterion="budget"),
            images,
            {"label": 1},
        ),
        "heavy tails": (lambda: fit(TAILED, TAILED.sample(Noise(range(5200))), 4, **quick), TAILED, {}),
        "given levels": (lambda: fit(PLANE, POINTS, schedule=grid, initialization="gaussian", **quick), PLANE, {}),
        "unimodal": (lambda: fit(PLANE, POINTS, 4, horizon="unimodal", solver="ddpm", **quick), PLANE, {}),
        "distilled": (lambda: fit(images, PIXELS, 3, schedule="distilled", solver="dpm++2m", **quick), images, {}),
        "oracle": (lambda: fit(images, PIXELS, 2, initialization=Empirical(PIXELS[60:]), **quick), images, {}),
        "half": (lambda: fit(images, PIXELS, 3, dtype=torch.bfloat16, criterion="budget"), images, {}),
    }
    for kind in ("defect", "corrector", "least_error", "rho", "log_linear", "cosine", "linear_vp", "tangent"):

        def of_kind(kind: str = kind) -> Plan:
            return fit(PLANE, POINTS, 5, schedule=kind, horizon=1.5, initialization="mixture", criterion="budget")

        found[f"levels {kind}"] = of_kind, PLANE, {}
    for solver in ("euler", "heun", "dpm++2m", "dpm++3m", "unipc", "deis", "ipndm", "euler-maruyama"):

        def with_solver(solver: str = solver) -> Plan:
            return fit(images, PIXELS, 5, solver=solver, horizon=1.0, sigma_min=0.05, criterion="budget")

        found[f"solver {solver}"] = with_solver, images, {}
    return found


def of_plan(plan: Plan, network: Any, conditions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The numbers of a plan, of the plan that is saved and loaded, and of its samples."""
    record = plan.record
    with tempfile.TemporaryDirectory() as folder:
        plan.save(Path(folder) / "plan")
        loaded = Plan.load(Path(folder) / "plan")
    for name, tensor in loaded.initialization.state()[1].items():
        yield f"start {name}", tensor
    for name in ("sigmas", "losses", "corrector", "defect"):
        yield f"profile {name}", getattr(loaded.profile, name)
    if loaded.profile.trajectories is not None:
        yield "profile products", loaded.profile.trajectories.products
    yield "sigmas", loaded.schedule.sigmas
    yield "solver", _numbers(loaded.solver.parameters())
    if loaded.budget is not None:
        e_init = loaded.budget.initialization
        yield "budget", [*([] if e_init is None else [e_init.value, e_init.error]), *loaded.budget.discretization]
    numbers = ("horizon", "sigma_min", "e_init", "e_init_error", "nats", "pilot", "tail")
    rows = [[getattr(candidate, number) for number in numbers] for candidate in record.candidates]
    yield "candidates", np.array(rows, dtype=np.float64)
    if record.novelty is not None:
        yield "novelty", _numbers(asdict(record.novelty))
    yield "samples", loaded.sample(network, seeds=SEEDS, batch_size=3, **conditions)


def _numbers(value: Any) -> list[float]:
    """All numbers of a nested value, in its order."""
    if isinstance(value, Mapping):
        return [number for part in value.values() for number in _numbers(part)]
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in _numbers(part)]
    return [float(value)] if isinstance(value, (int, float)) else []


def starts() -> Iterator[tuple[str, Any]]:
    """Samples and densities of starts as they are fitted, not saved."""
    tails = HEAVY.sample(Noise(range(300)))
    for start in (
        Gaussian.fit(PIXELS, 5),
        Teleportation.fit(PIXELS, 6),
        StudentT.fit(tails, structure="multivariate"),
        StudentT.fit(tails, structure="diagonal"),
    ):
        x = start.sample(Noise(SEEDS), 0.8)
        yield f"{start!r} samples", x
        yield f"{start!r} densities", start.log_prob(x, 0.8)


def profiles() -> Iterator[tuple[str, Any]]:
    """A measurement to a stated error, in batches."""
    profile = Profile.measure(PLANE, POINTS, relative_error=0.2, seed=3)
    yield "corrector", profile.corrector
    yield "information", profile.information(1.0)


def comparison() -> Iterator[tuple[str, Any]]:
    """The scores of a small comparison, by the command line."""
    from headstart.cli import app

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "headstart_answers_model.py").write_text(
            "from headstart.targets import GaussianMixture\n"
            "def exact():\n"
            "    return GaussianMixture([0.5, 0.5], [[-0.5] * 16, [0.5] * 16], 0.25)\n"
        )
        np.save(Path(folder) / "points.npy", PIXELS.flatten(1).numpy())
        sys.path.insert(0, folder)
        try:
            command = ["compare", "python:headstart_answers_model:exact", f"{folder}/points.npy", "--quick"]
            methods = "plan,plan-distilled,isotropic,teleportation,gaussian,oracle,heun,align-your-steps,gits,ld3"
            command += ["--nfe", "3", "--methods", methods, "--json", "--out", f"{folder}/out"]
            with contextlib.redirect_stdout(io.StringIO()):
                app(command, standalone_mode=False)
        finally:
            sys.path.remove(folder)
        rows = json.loads((Path(folder) / "out" / "results.json").read_text())["rows"]
    for row in rows:
        scores = row["scores"]
        yield f"{row['method']} {row['nfe']}", [] if scores is None else [scores["swd"], scores["max_swd"]]


def answers() -> dict[str, Any]:
    """All answers, by name."""
    found: dict[str, Any] = {}
    for name, (make, network, conditions) in fits().items():
        found |= {f"{name}: {key}": value for key, value in of_plan(make(), network, conditions)}
    for name, more in (("start", starts()), ("profile", profiles()), ("comparison", comparison())):
        found |= {f"{name}: {key}": value for key, value in more}
    return {name: written(value) for name, value in found.items()}


def written(value: Any) -> dict[str, Any]:
    """An answer as it is written down."""
    x = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else np.asarray(value, dtype=np.float64)
    flat = np.ascontiguousarray(x).ravel()
    if len(flat) == 0:
        return {"sha256": hashlib.sha256(b"").hexdigest(), "shape": list(x.shape), "values": [], "norm": 0.0}
    some = flat[np.unique(np.linspace(0, len(flat) - 1, VALUES).round().astype(int))]
    return {
        "sha256": hashlib.sha256(flat.tobytes()).hexdigest(),
        "shape": list(x.shape),
        "values": [None if np.isnan(v) else float(v) for v in some],
        "norm": float(np.sqrt(np.nansum(flat * flat))),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE", help="write the answers down")
    what.add_argument("--against", type=Path, metavar="FILE", help="compare with what was written down, to the bit")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = answers()
    if given.write:
        lines = (f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in found.items())
        given.write.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return 0
    known = json.loads(given.against.read_text())
    names = dict.fromkeys([*known, *found])
    others = [name for name in names if found.get(name, {}).get("sha256") != known.get(name, {}).get("sha256")]
    for name in others:
        print(f"{name}: {known.get(name)} before, {found.get(name)} now")
    print(f"{len(names) - len(others)} of {len(names)} answers are the same to the bit")
    return bool(others)


if __name__ == "__main__":
    sys.exit(main())
