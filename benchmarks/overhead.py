"""``python -m benchmarks.overhead``: what sampling a plan costs beyond the calls of its network.

A plan's samples are timed in alternating rounds with as many bare calls of the bundled network, on batches of the same
shape at the same levels: that is ``ratio``. It holds what the machine did meanwhile, which a call at batch 256 is long
enough for. So the calls that the plan itself makes are timed too, from within: ``within`` is its whole time over the
time inside them, of one and the same run. Of the overhead, ``drawing`` is the start's part.

The loops of k-diffusion and the schedulers of diffusers, where they are installed, walk the same levels from noise, and
are timed in the same rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import interval, processor, ratio, rounds, seconds_of
from experiments.common import Run, command
from headstart.choose import fit_starts
from headstart.compare.peers import load
from headstart.data import fashion_mnist
from headstart.denoiser import Denoiser
from headstart.errors import MissingExtraError
from headstart.initialization import Initialization
from headstart.models import load_denoiser
from headstart.noise import Noise
from headstart.sampler import Sampler
from headstart.schedule import Schedule, rho_grid
from headstart.solver import Solver, get_solver

#: What a plan may cost beyond its network, by batch.
BARS = {1: 0.10, 256: 0.02}

#: Solvers, with how many steps: four evaluations each, and five of Heun's method.
STEPS = {"euler": 4, "dpm++2m": 4, "unipc": 4, "ddpm": 4, "heun": 3}

#: The functions of k-diffusion and the schedulers of diffusers that are these solvers.
K_DIFFUSION = {"euler": "sample_euler", "dpm++2m": "sample_dpmpp_2m", "heun": "sample_heun"}
DIFFUSERS = {"euler": "EulerDiscreteScheduler", "dpm++2m": "EDMDPMSolverMultistepScheduler"}

Loop = Callable[[Denoiser, Tensor, Schedule], Tensor]
Scheduler = tuple[Any, Callable[[Tensor, Tensor, Tensor], Tensor]]


def verdict(results: Mapping[str, Any]) -> str:
    """The result in a sentence: the largest overheads."""
    noise, worst = results["worst_from_noise"], results["worst"]
    said = [
        f"at batch {batch} at most {noise[batch]:.1%} from noise and {worst[batch]:.1%} from any start, where "
        f"{bar:.0%} was asked"
        for batch, bar in results["bars"].items()
    ]
    return f"Sampling takes, beyond its network, {'; '.join(said)}."


class Timed:
    """A denoiser that adds up the time inside it."""

    def __init__(self, denoiser: Denoiser, device: str) -> None:
        self.denoiser, self.device, self.seconds = denoiser, device, 0.0

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        began = self._now(x)  # what was asked of the device before is not the network's
        out = self.denoiser(x, sigma, **conditions)
        self.seconds += self._now(x) - began
        return out

    @staticmethod
    def _now(x: Tensor) -> float:
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        return time.perf_counter()


def overhead(run: Run) -> dict[str, Any]:
    """The overhead of sampling a plan beyond the calls of its network, at batch 1 and 256."""
    denoiser = load_denoiser("builtin:fashion-mnist", run.device)
    images = fashion_mnist("train", bundled=True).samples
    starts = fit_starts(images[:500] if run.quick else images)
    solvers = ["dpm++2m"] if run.quick else list(STEPS)
    trials = {1: 2} if run.quick else {1: 60, 256: 4}
    cells = [(batch, start, name) for batch in trials for start in starts for name in solvers]
    rows = []
    for batch, start, name in run.progress.track(cells, "cells"):
        schedule = rho_grid(STEPS[name], 2.0, 0.02)
        rows.append(_cell(Sampler(start, schedule, get_solver(name)), denoiser, batch, trials[batch], run.device))
    run.table("overhead", rows)
    worst = {str(batch): max(row["within"] - 1 for row in rows if row["batch"] == batch) for batch in trials}
    from_noise = {
        str(batch): max(row["within"] - 1 for row in rows if (row["batch"], row["start"]) == (batch, "isotropic"))
        for batch in trials
    }
    bars = {str(batch): BARS[batch] for batch in trials}
    return {"overhead": rows, "bars": bars, "worst": worst, "worst_from_noise": from_noise, "processor": processor()}


@torch.no_grad()
def _cell(sampler: Sampler, denoiser: Denoiser, batch: int, trials: int, device: str) -> dict[str, Any]:
    """One row: a sampler at a batch, beside the bare calls and the peers."""
    timed = Timed(denoiser, device)
    inside, drawing = [], []
    calls = _calls(sampler, batch, device)

    def ours() -> None:
        timed.seconds = 0.0
        sampler.sample(timed, batch, batch_size=batch, device=device)
        inside.append(timed.seconds)

    def bare() -> None:
        for x, sigma in calls:
            denoiser(x, sigma)

    functions: dict[str, Callable[[], object]] = {"headstart": ours, "bare": bare}
    if sampler.initialization.name == "isotropic":
        for peer, loop in _peers(sampler.solver).items():
            functions[peer] = _peer(loop, denoiser, sampler, batch, device)
    found = rounds(functions, trials, device)
    for _ in range(trials):
        drawing.append(seconds_of(lambda: _draw(sampler.initialization, sampler.horizon, batch, device), device))
    beside = ratio(found["headstart"], found["bare"])
    within = interval([a / b for a, b in zip(found["headstart"], inside[1:], strict=True)])
    row = {
        "batch": batch,
        "start": sampler.initialization.name,
        "solver": sampler.solver.name,
        "nfe": sampler.nfe,
        "network_ms": 1e3 * median(found["bare"]) / sampler.nfe,
        "within": within["median"],
        "within_low": within["low"],
        "within_high": within["high"],
        "drawing": median(drawing) / median(inside),
        "ratio": beside["median"],
        "ratio_low": beside["low"],
        "ratio_high": beside["high"],
        "meets_bar": within["median"] - 1 <= BARS[batch],
    }
    return row | {peer: ratio(found[peer], found["bare"])["median"] for peer in functions if peer in PEERS}


def _draw(start: Initialization, horizon: float, batch: int, device: str) -> Tensor:
    return start.sample(Noise(range(batch), device), horizon)


def _calls(sampler: Sampler, batch: int, device: str) -> list[tuple[Tensor, Tensor]]:
    """The inputs of the network, recorded in one run of the sampler."""
    found: list[tuple[Tensor, Tensor]] = []

    def recorded(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        found.append((x.clone(), sigma.clone()))
        return torch.zeros_like(x)

    sampler.sample(recorded, batch, batch_size=batch, device=device)
    return found


def _peer(loop: Loop, denoiser: Denoiser, sampler: Sampler, batch: int, device: str) -> Callable[[], Tensor]:
    shape = (batch, *sampler.initialization.shape)
    return lambda: loop(denoiser, sampler.horizon * torch.randn(shape, device=device), sampler.schedule).cpu()


def _peers(solver: Solver) -> dict[str, Loop]:
    """The loops of other libraries that do what the solver does, as far as they are installed."""
    made = {peer: make(solver.name) for peer, make in PEERS.items()}
    return {peer: loop for peer, loop in made.items() if loop is not None}


def _installed(package: str) -> ModuleType | None:
    try:
        return load(package)
    except MissingExtraError:
        return None


def _k_diffusion(solver: str) -> Loop | None:
    package = _installed("k_diffusion") if solver in K_DIFFUSION else None
    if package is None:
        return None
    sample = getattr(package, K_DIFFUSION[solver])

    def loop(denoiser: Denoiser, x: Tensor, schedule: Schedule) -> Tensor:
        levels = torch.tensor(schedule.sigmas, dtype=x.dtype, device=x.device)
        done: Tensor = sample(denoiser, x, levels, disable=True)
        return done

    return loop


def _diffusers(solver: str) -> Loop | None:
    module = _installed("diffusers") if solver in DIFFUSERS else None
    if module is None:
        return None
    make: Mapping[str, Callable[[Schedule], Scheduler]] = {
        "euler": lambda schedule: _euler_scheduler(module, schedule),
        "dpm++2m": lambda schedule: _dpm_scheduler(module, schedule),
    }

    def loop(denoiser: Denoiser, x: Tensor, schedule: Schedule) -> Tensor:
        scheduler, output = make[solver](schedule)
        for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
            scheduler.scale_model_input(x, t)
            denoised = denoiser(x, sigma.to(x).expand(len(x)))
            x = scheduler.step(output(denoised, x, sigma), t, x).prev_sample
        return x

    return loop


def _euler_scheduler(module: Any, schedule: Schedule) -> Scheduler:
    scheduler = module.EulerDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(sigmas=list(schedule.sigmas))
    return scheduler, lambda denoised, x, sigma: denoised


def _dpm_scheduler(module: Any, schedule: Schedule) -> Scheduler:
    """Its grid cannot be given: ours is put in its place. It wants the network's output before EDM's scaling."""
    scheduler = module.EDMDPMSolverMultistepScheduler(lower_order_final=False, final_sigmas_type="zero")
    scheduler.set_timesteps(schedule.steps)
    scheduler.sigmas = torch.tensor(schedule.sigmas)
    c: float = scheduler.config.sigma_data

    def output(denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        total = c**2 + sigma**2
        found: Tensor = (denoised - c**2 / total * x) * (total.sqrt() / (sigma * c))
        return found

    return scheduler, output


PEERS: Mapping[str, Callable[[str], Loop | None]] = {"k_diffusion": _k_diffusion, "diffusers": _diffusers}


if __name__ == "__main__":
    command("overhead", overhead, verdict, package="benchmarks")
