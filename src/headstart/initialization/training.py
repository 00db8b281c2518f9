r"""Maximum likelihood on noised data: how a start with learned weights is trained.

A model of the law at every level of a range is fitted by the mean, over data and noise and levels, of

.. math:: \text{NLL} = -E \log p_\theta(x_0 + \sigma \varepsilon \mid \sigma), \qquad
    \varepsilon \sim N(0, I), \quad \ln \sigma \sim U(\ln \sigma_\text{low}, \ln \sigma_\text{high}),

which is the entropy of the noised data plus :math:`KL(p_\sigma \| p_\theta)`: only its differences mean something.
Noise is "dynamic", fresh in every minibatch, or "fixed", one draw for each data point that is used again in every
epoch. Fixed noise hides less and less of the data as training goes on, and overfits where points are few.

Every random number is a function of the seed, the epoch and the minibatch, so no generator has a state to be saved,
and a training that was cut off and goes on from its checkpoint ends with the same bits as one that was not.

One file, though a long one: a checkpoint holds all that a training is in the middle of, so that whoever changes the one
has the other before them.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (the objective, and
    the two kinds of noise, at one level; the range of levels, the held-out share and early stopping are ours).

    Polyak and Juditsky, *Acceleration of Stochastic Approximation by Averaging*, 1992 (averaged weights).

    Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, 2019, arXiv 1711.05101 (AdamW).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from headstart.artefact import checked, parse_json
from headstart.compute import Compute
from headstart.deprecation import gathered
from headstart.errors import ArtefactError, DataError, InputError
from headstart.files import atomic_write, check_file, check_regular
from headstart.initialization.memory import owned
from headstart.progress import Progress

__all__ = ["Record", "Training", "noised", "train"]

#: A fit has diverged if its held-out NLL is this many nats a dimension above where it began.
EXPLODED = 10.0

#: Most samples that are held out, and how many of them are looked at together.
HELD_OUT, TOGETHER = 2000, 1024

#: What the random numbers are for, besides the number of an epoch and of a minibatch.
SPLIT, CHECK, ROWS, ORDER, NOISE = range(5)

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        epochs: passes over the data, at most.
        batch_size: samples in a minibatch.
        learning_rate: of AdamW, at the start.
        decay: "cosine", of the learning rate down to 0 in the last epoch, or "constant".
        weight_decay: of AdamW, towards 0.
        noise: "dynamic" or "fixed".
        levels: how many noise levels a minibatch holds: each is log-uniform in its own equal part of the range.
        held_out: share of the samples, at most 2,000, that is not trained on and says which epoch is best.
        patience: training stops after so many epochs in a row without a better one.
        clip: largest norm of a gradient; longer ones are shortened.
        ema: share of the averaged weights that one step keeps, once they have settled.
        checkpoint: a file that is written after every epoch, and gone on from if it exists.

    Raises:
        InputError: if a number is out of its range, or a word unknown.
    """

    epochs: int = 60
    batch_size: int = 256
    learning_rate: float = 2e-3
    decay: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 1e-4
    noise: Literal["dynamic", "fixed"] = "dynamic"
    levels: int = 16
    held_out: float = 0.1
    patience: int = 20
    clip: float = 5.0
    ema: float = 0.995
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "levels", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name, fits, wanted in (
            ("learning_rate", 0 < self.learning_rate < math.inf, "finite and above 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "finite and at least 0"),
            ("held_out", 0 < self.held_out < 1, "between 0 and 1"),
            ("clip", self.clip > 0, "above 0"),
            ("ema", 0 <= self.ema < 1, "at least 0 and below 1"),
            ("decay", self.decay in ("cosine", "constant"), "'cosine' or 'constant'"),
            ("noise", self.noise in ("dynamic", "fixed"), "'dynamic' or 'fixed'"),
        ):
            if not fits:
                raise InputError(f"{name} is {getattr(self, name)!r}: it must be {wanted}")


@dataclass(frozen=True)
class Record:
    """How a training went.

    Attributes:
        train: mean NLL of the minibatches of each epoch, in nats.
        held_out: NLL of the held-out samples, first before training and then after each epoch, in nats.
        best: the epoch whose averaged weights were kept; 0 if no epoch was better than what training began with.
        stopped: why it stopped.
        seconds: how long it took, all parts of a resumed training together.
    """

    train: tuple[float, ...]
    held_out: tuple[float, ...]
    best: int
    stopped: str
    seconds: float

    @property
    def gain(self) -> float:
        """By how much training lowered the held-out NLL, in nats."""
        return self.held_out[0] - self.held_out[self.best]

    def __repr__(self) -> str:
        return (
            f"Record({len(self.train)} epochs in {self.seconds:.1f} s; held-out NLL {self.held_out[0]:.4f} before, "
            f"{self.held_out[self.best]:.4f} in the best epoch, {self.best}; stopped: {self.stopped})"
        )


@dataclass
class _Run:
    """All that changes during training; a checkpoint holds it."""

    model: nn.Module
    optimiser: torch.optim.AdamW
    average: Weights
    best_weights: Weights
    held_out: list[float]
    train: list[float] = field(default_factory=list)
    best: int = 0
    stopped: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class _Task:
    """All that does not."""

    data: Tensor
    labels: Tensor | None
    sigmas: tuple[float, float]
    options: Training
    seed: int
    device: torch.device
    rows: Tensor
    held: Tensor

    def generator(self, *purpose: int) -> torch.Generator:
        return _generator(self.seed, *purpose)

    def batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Noised data, their levels and their classes."""
        x0 = self.data[rows.to(self.data.device)].cpu().float()
        x, sigma = noised(x0, self.sigmas, self.options.levels, generator)
        label = None if self.labels is None else self.labels[rows].to(self.device)
        return x.to(self.device), sigma.to(self.device), label

    def batches(self, epoch: int) -> list[tuple[Tensor, torch.Generator]]:
        """The rows of each minibatch and the generator of its noise; fixed noise is that of the first epoch."""
        draw = epoch if self.options.noise == "dynamic" else 1
        rows = self.rows[torch.randperm(len(self.rows), generator=self.generator(ROWS, draw))]
        parts = torch.split(rows, self.options.batch_size)
        order = torch.randperm(len(parts), generator=self.generator(ORDER, epoch)).tolist()
        return [(parts[i], self.generator(NOISE, draw, i)) for i in order]


@gathered(compute=Compute)
def train(
    model: nn.Module,
    data: Tensor,
    sigmas: tuple[float, float],
    *,
    labels: Tensor | None = None,
    options: Training | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Record:
    """Fit ``model`` by maximum likelihood; it is left with the best averaged weights, in eval mode, on the device.

    What it is before training counts as epoch 0 and is kept if no epoch does better on the held-out samples, which have
    the same noise and the same levels in every epoch.

    Arguments:
        model: ``model(x, sigma, label)`` returns log densities (B,) in nats of noised data x (B, \\*S), float32, at
            levels sigma (B,), for classes label (B,) or None.
        data: clean samples, shape (N, \\*S).
        sigmas: the lowest and the highest level.
        labels: classes, shape (N,).
        options: how to train; by default :class:`Training` as it is.
        seed: of the held-out share, the minibatches and the noise.
        compute: the device, on which the random numbers do not depend, and who is told of epochs, minibatches and NLL.

    Returns:
        The record of it. A fit that diverges after its first epoch stops, says so, and keeps the best weights.

    Raises:
        DataError: if there are fewer than two samples, or NaN or Inf among them.
        InputError: if levels or labels do not fit, the model returns something else than log densities, its first NLL
            is not finite, or the first epoch diverges.
        ArtefactError: if the checkpoint is damaged, belongs to another training, or cannot be written.
    """
    options, compute = options or Training(), compute or Compute()
    if options.checkpoint is not None:
        check_file(options.checkpoint)
    task = _task(data, labels, sigmas, options, seed, torch.device(compute.device))
    run = _begun(model.to(compute.device), task)
    identity = {} if options.checkpoint is None else _identity(task, model)
    if options.checkpoint is not None and options.checkpoint.exists():
        _read(options.checkpoint, identity, run)
    progress = compute.progress
    for epoch in progress.track(range(len(run.train) + 1, options.epochs + 1), "training the start"):
        if run.stopped:
            break
        began = time.perf_counter()
        nll, held = _epoch(run, task, epoch, progress), _averaged_nll(run, task)
        run.stopped = _diverged(nll, held, run.held_out[0], data[0].numel(), epoch)
        if not run.stopped:
            run.train.append(nll)
            run.held_out.append(held)
            if held < run.held_out[run.best]:
                run.best, run.best_weights = epoch, _copied(run.average)
            run.stopped = _finished(epoch, run.best, options)
        elif epoch == 1:
            raise InputError(f"{run.stopped}; try a learning rate below {options.learning_rate:g}")
        run.seconds += time.perf_counter() - began
        if options.checkpoint is not None:
            _write(options.checkpoint, identity, run)
        progress.note(f"held-out NLL {held:.4f}, best {run.held_out[run.best]:.4f} in epoch {run.best}")
    model.load_state_dict(run.best_weights)
    model.zero_grad(set_to_none=True)
    model.eval()
    return Record(tuple(run.train), tuple(run.held_out), run.best, run.stopped, run.seconds)


def noised(x0: Tensor, sigmas: tuple[float, float], levels: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noised samples (B, \\*S) and their levels (B,), in float32.

    The range is cut into ``levels`` equal parts of ln sigma, with one level drawn in each: every sample's own level is
    log-uniform if samples come in random order, a minibatch has levels of every size, and a model that treats one level
    at a time has few to treat.
    """
    low, high = sigmas
    count = min(levels, len(x0))
    places = (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count
    level = (low * (high / low) ** places).clamp(low, high).float()
    sigma = level[torch.arange(len(x0)) * count // len(x0)]
    eps = torch.randn(x0.shape, generator=generator)
    return x0 + sigma.reshape(-1, *[1] * (x0.ndim - 1)) * eps, sigma


# One training.


def _task(
    data: Tensor,
    labels: Tensor | None,
    sigmas: tuple[float, float],
    options: Training,
    seed: int,
    device: torch.device,
) -> _Task:
    low, high = (float(sigma) for sigma in sigmas)
    if not 0 < low <= high < math.inf:
        raise InputError(f"levels must be finite, above 0, and the lowest first: got {low:g} and {high:g}")
    if data.ndim < 2 or len(data) < 2 or not all(torch.isfinite(part).all() for part in torch.split(data, TOGETHER)):
        raise DataError("training needs at least two samples in an array (N, ...), without NaN or Inf")
    if labels is not None and labels.shape != (len(data),):
        raise InputError(f"labels have shape {tuple(labels.shape)}: expected ({len(data)},), one for each sample")
    rows = torch.randperm(len(data), generator=_generator(seed, SPLIT))
    held = min(HELD_OUT, max(1, round(options.held_out * len(data))), len(data) - 1)
    labels = None if labels is None else labels.cpu().long()
    return _Task(data, labels, (low, high), options, seed, device, rows[held:], rows[:held])


def _begun(model: nn.Module, task: _Task) -> _Run:
    """Before the first epoch."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    options = task.options
    optimiser = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    weights = _copied(model.state_dict())
    run = _Run(model, optimiser, average=weights, best_weights=_copied(weights), held_out=[])
    first = _averaged_nll(run, task)
    if not math.isfinite(first):
        raise InputError(f"the model's NLL before training is {first}: it must give finite densities to the data")
    run.held_out.append(first)
    return run


def _epoch(run: _Run, task: _Task, epoch: int, progress: Progress) -> float:
    """One pass over the data; its mean NLL, or what was not finite."""
    options, model = task.options, run.model
    parameters = [p for group in run.optimiser.param_groups for p in group["params"]]
    batches = task.batches(epoch)
    model.train()
    total = 0.0
    for number, (rows, generator) in enumerate(progress.track(batches, f"epoch {epoch}")):
        step = (epoch - 1) * len(batches) + number
        rate = _rate(step / (options.epochs * len(batches)), options)
        for group in run.optimiser.param_groups:
            group["lr"] = rate
        run.optimiser.zero_grad(set_to_none=True)
        loss = _nll(model, *task.batch(rows, generator)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(parameters, options.clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            return math.nan
        run.optimiser.step()
        _average(run.average, model.state_dict(), min(options.ema, (1 + step) / (10 + step)))
        total += float(loss.detach()) * len(rows)
        progress.note(f"NLL {float(loss.detach()):.4f}")
    return total / len(task.rows)


def _rate(done: float, options: Training) -> float:
    """The learning rate when a share of all steps is done."""
    factor = 0.5 * (1 + math.cos(math.pi * done)) if options.decay == "cosine" else 1.0
    return factor * options.learning_rate


def _nll(model: nn.Module, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
    log_prob = model(x, sigma, label)
    if not isinstance(log_prob, Tensor) or log_prob.shape != (len(x),):
        got = tuple(log_prob.shape) if isinstance(log_prob, Tensor) else type(log_prob).__name__
        raise InputError(f"the model returned {got} for {len(x)} samples: expected log densities of shape ({len(x)},)")
    return -log_prob


@torch.no_grad()
def _averaged_nll(run: _Run, task: _Task) -> float:
    """Mean NLL of the held-out samples under the averaged weights."""
    weights = _copied(run.model.state_dict())
    run.model.load_state_dict(run.average)
    run.model.eval()
    parts = enumerate(torch.split(task.held, TOGETHER))
    nll = [_nll(run.model, *task.batch(rows, task.generator(CHECK, i))).double().cpu() for i, rows in parts]
    run.model.load_state_dict(weights)
    return float(torch.cat(nll).mean())


def _average(average: Weights, weights: Mapping[str, Tensor], kept: float) -> None:
    """Move the averaged weights; what is no floating-point number is the newest."""
    for name, weight in weights.items():
        if weight.is_floating_point():
            average[name].lerp_(weight, 1 - kept)
        else:
            average[name].copy_(weight)


def _diverged(nll: float, held: float, first: float, dimension: int, epoch: int) -> str:
    """The problem of an epoch; empty if there is none."""
    if not (math.isfinite(nll) and math.isfinite(held)):
        return f"training diverged in epoch {epoch}: the NLL or its gradient is not finite"
    # The held-out NLL alone: the same samples and noise each time, whatever extreme values there are elsewhere.
    if held > first + EXPLODED * dimension:
        return f"training diverged in epoch {epoch}: the held-out NLL rose from {first:.4g} to {held:.4g}"
    return ""


def _finished(epoch: int, best: int, options: Training) -> str:
    if epoch == options.epochs:
        return "all epochs are done"
    return f"no better epoch in {options.patience}" if epoch - best >= options.patience else ""


def _generator(seed: int, *purpose: int) -> torch.Generator:
    """Streams of different purposes, epochs or minibatches have nothing in common."""
    if seed < 0:
        raise InputError(f"the seed is {seed}: it must be at least 0")
    state = np.random.SeedSequence((seed, *purpose)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _copied(weights: Mapping[str, Tensor]) -> Weights:
    return {name: weight.detach().clone() for name, weight in weights.items()}


# Checkpoints: one safetensors file, whose header holds the plain values as JSON.


def _identity(task: _Task, model: nn.Module) -> dict[str, Any]:
    """The training that a checkpoint must have been written for."""
    options = {name: value for name, value in asdict(task.options).items() if name != "checkpoint"}
    return {
        "options": options,
        "seed": task.seed,
        "levels": list(task.sigmas),
        "data": _digest(torch.split(task.data, TOGETHER)),
        "labels": None if task.labels is None else _digest([task.labels]),
        "model": {name: list(weight.shape) for name, weight in model.state_dict().items()},
    }


def _digest(parts: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, identity: Mapping[str, Any], run: _Run) -> None:
    tensors = {
        f"{group}.{name}": weight
        for group, weights in (
            ("model", run.model.state_dict()),
            ("average", run.average),
            ("best", run.best_weights),
        )
        for name, weight in weights.items()
    }
    for number, state in run.optimiser.state_dict()["state"].items():
        tensors.update({f"optimiser.{number}.{name}": value for name, value in state.items()})
    values = {
        "format": "headstart-training",
        "identity": identity,
        "train": run.train,
        "held_out": run.held_out,
        "best": run.best,
        "stopped": run.stopped,
        "seconds": run.seconds,
    }
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    blob = safetensors.torch.save(tensors, metadata={"headstart": json.dumps(values)})
    atomic_write(blob, path)


def _read(path: Path, identity: Mapping[str, Any], run: _Run) -> None:
    """Go on from a checkpoint, if it is of the same training."""
    from headstart.schemas import TrainingValues

    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            found = parse_json((file.metadata() or {})["headstart"])
            tensors = {name: owned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - a file is no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path} is not a checkpoint of a training, or is damaged: {error}") from error
    values = checked(TrainingValues, found, path)
    if len(values.held_out) != len(values.train) + 1 or values.best > len(values.train):
        raise ArtefactError(f"{path} is damaged: its epochs do not fit each other")
    others = [name for name, value in identity.items() if values.identity.get(name) != value]
    if not others and not math.isclose(values.held_out[0], run.held_out[0], rel_tol=1e-4, abs_tol=1e-4):
        others = ["model"]
    if others:
        raise ArtefactError(
            f"{path} is the checkpoint of another training, with other {' and '.join(others)}: "
            "remove it, or name another file"
        )
    try:
        if bad := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
            raise ValueError(f"{bad[0]} holds NaN or infinite values")
        run.model.load_state_dict(_group(tensors, "model."))
        run.average = _group(tensors, "average.", like=run.average)
        run.best_weights = _group(tensors, "best.", like=run.average)
        _load_optimiser(run.optimiser, _group(tensors, "optimiser."))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtefactError(f"{path} is damaged: {error}") from error
    run.held_out, run.train = values.held_out, values.train
    run.best, run.stopped, run.seconds = values.best, values.stopped, values.seconds


def _group(tensors: Mapping[str, Tensor], prefix: str, like: Weights | None = None) -> Weights:
    """The tensors of one prefix, on the devices of others with the same names."""
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if like is None:
        return found
    for name, tensor in like.items():
        if (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"{prefix}{name} is {found[name].dtype} of shape {tuple(found[name].shape)}")
    return {name: found[name].to(tensor.device) for name, tensor in like.items()}


def _load_optimiser(optimiser: torch.optim.AdamW, tensors: Weights) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    for place, parameter in enumerate(optimiser.param_groups[0]["params"]):
        for key, tensor in state.get(place, {}).items():
            if tensor.shape not in (parameter.shape, ()):
                raise ValueError(f"optimiser.{place}.{key} has shape {tuple(tensor.shape)}")
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
