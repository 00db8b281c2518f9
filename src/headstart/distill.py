r"""Learn the levels and the coefficients of a few-step sampler together, from a start at a fixed horizon.

A solver of the ODE with one evaluation a step is linear in the denoised estimates (:mod:`headstart.solver.linear`).
With levels :math:`s_0 > \dots > s_N = 0`, of which the horizon :math:`s_0` is fixed, and weights w, the sampler is

.. math:: x_{i+1} = \frac{s_{i+1}}{s_i}\, x_i + \sum_{j \le i} w_{ij}\, D(x_j, s_j), \qquad
    s_i = s_{i-1}\, e^{-\exp(\xi_i)}, \qquad
    w = w_\text{solver}(s) + v - \operatorname{diag}(v \mathbf 1),

and :math:`\xi` (N - 1 numbers), the strictly lower triangular v (N (N - 1) / 2 numbers) or both are learned by
gradients through it. With :math:`\xi` alone the solver keeps its formula: that is LD3. How the solver's weights move
with the levels is taken from central differences, which cost no evaluation. The rows of w keep their sums, as they are
in every consistent solver: what all estimates have in common passes unchanged. Were the sums free, brightness and
contrast would drift together. There are two objectives, neither of which looks through a network:

* **trajectory**, :math:`E\,\|x_N - x^*\|^2`, where :math:`x^*` is where many steps of the same network lead from the
  same start. What it can reach is the teacher's own distance to the data.
* **data**, the energy distance between the laws of generated samples x and of data y, along random unit vectors u,

  .. math:: E_u \big[ 2\, E|u^T(x - y)| - E|u^T(x - x')| - E|u^T(y - y')| \big],

  of whole samples and, if samples are images, of patches of the bands of their Laplacian pyramid
  (:mod:`headstart.metrics.multiscale`). It is estimated without bias, so that small batches do not draw the samples
  together.

Then **held-out data decide**, with fresh starts, by the sliced Wasserstein distances of the same views. The schedule
and the solver that were to be improved are among the candidates. Another one is only taken if it is better by more than
the standard error of the paired difference, and by 1 %.

What differs from the papers: the start is a learned law at a short horizon and not noise of level 80, and its points
are not moved; the second objective; and that held-out data decide.

One file, though a long one: the differentiable sampler, what it learns from and what decides are the steps of one
algorithm, which is read from top to bottom.

References:
    Tong et al., *Learning to Discretize Denoising Diffusion ODEs* (LD3), ICLR 2025, arXiv 2405.15506.

    Frankel et al., *S4S: Solving for a Diffusion Model Solver*, ICML 2025, arXiv 2502.17423.

    Székely and Rizzo, *Energy Statistics*, Journal of Statistical Planning and Inference, 2013.

    Bellemare et al., *The Cramer Distance as a Solution to Biased Wasserstein Gradients*, 2017, arXiv 1705.10743.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headstart.compute import Compute
from headstart.conditions import Conditions
from headstart.denoiser import Denoiser, Range, answer, in_evaluation_mode
from headstart.deprecation import gathered
from headstart.errors import DataError, DenoiserError, HeadstartError, InputError, unknown
from headstart.initialization import Initialization
from headstart.metrics import Multiscale, MultiscaleReference
from headstart.noise import Stream, generator_of
from headstart.progress import Progress
from headstart.schedule import Schedule, rho_grid
from headstart.solver import Distilled, DPMSolverPP2M, Solver
from headstart.solver.linear import is_linear, linear_weights

__all__ = ["Distillation", "Learned", "Objective", "Parts", "Recipe", "distill", "energy"]

Objective = Literal["trajectory", "data"]
Parts = Literal["levels", "coefficients", "both"]

#: Steps of the fine trajectories, and their last level above 0 at most, as a share of the horizon.
FINE, FINEST = 24, 0.02

#: Directions of a view; samples of data for each generated one.
DIRECTIONS, RICHER = 64, 4

#: The gradient's length at most, in the parameters' units.
CLIP = 1.0

#: Half the width of the central differences, in the logarithm of a gap.
WIDTH = 1e-4

#: A smaller gain does not count.
MARGIN = 0.01

#: Groups of the jackknife.
GROUPS = 8


@dataclass(frozen=True)
class Recipe:
    """How a sampler is learned, and how many samples decide.

    Attributes:
        objectives: what to learn from: "trajectory", "data", or one after the other.
        learn: "levels" (with "trajectory", this is LD3), "coefficients" or "both".
        teacher: the levels of the fine trajectories, which DPM-Solver++(2M) follows; by default 24 steps of the rho
            grid down to the last level of the schedule above 0, or a fiftieth of the horizon, and on to 0.
        iterations: steps of Adam for each objective.
        batch_size: samples of an iteration.
        pairs: fine trajectories that "trajectory" learns from.
        judged: samples of each candidate that are compared with the held-out data.
        learning_rate: of Adam, in the logarithms of the gaps of the log levels and in the weights. It falls to 0 by
            half a cosine.

    Raises:
        InputError: if an objective or a part is unknown, or a number is out of its range.
    """

    objectives: Sequence[Objective] = ("trajectory", "data")
    learn: Parts = "both"
    teacher: Schedule | None = None
    iterations: int = 100
    batch_size: int = 128
    pairs: int = 512
    judged: int = 1024
    learning_rate: float = 0.03

    def __post_init__(self) -> None:
        if self.learn not in get_args(Parts):
            raise InputError(unknown("parts", self.learn, get_args(Parts)))
        known = get_args(Objective)
        if not self.objectives or isinstance(self.objectives, str) or not set(self.objectives) <= set(known):
            raise InputError(f"objectives must be some of {', '.join(known)}: got {self.objectives!r}")
        if self.iterations < 1 or self.batch_size < 2 or self.pairs < 2 or self.judged < 2 * GROUPS:
            raise InputError(
                f"distilling needs at least 1 iteration on batches of 2, 2 pairs, and {2 * GROUPS} samples to judge: "
                f"got iterations={self.iterations}, batch_size={self.batch_size}, pairs={self.pairs} and "
                f"judged={self.judged}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"the learning rate must be finite and above 0: got {self.learning_rate}")

    def teacher_for(self, schedule: Schedule, denoiser: Denoiser) -> Schedule:
        """The levels of the fine trajectories, of the schedule's horizon."""
        if self.teacher is None:
            finest = max(FINEST * schedule.horizon, Range.of(denoiser).low)
            return rho_grid(FINE, schedule.horizon, min(schedule.sigma_min, finest))
        if self.teacher.horizon != schedule.horizon:
            raise InputError(f"a teacher starts at the same horizon: got {self.teacher.horizon} for {schedule.horizon}")
        return self.teacher


@dataclass(frozen=True, eq=False)
class Learned:
    """One of the samplers that were compared on the held-out data.

    Attributes:
        objective: what it was learned from, or "none" for the one that was to be improved.
        schedule: its levels.
        solver: its weights; or, where only levels were learned, the solver that they were learned for.
        losses: of the training's iterations.
        distances: to the held-out data, by view.
        gain: mean logarithm of the distances over those of the one to be improved; below 0 is better, and infinite if
            the network fails on its samples.
        gain_error: its standard error.
    """

    objective: str
    schedule: Schedule
    solver: Solver
    losses: tuple[float, ...]
    distances: Mapping[str, float]
    gain: float
    gain_error: float

    @property
    def better(self) -> bool:
        """Whether it is nearer to the held-out data, by more than the standard error and 1 %."""
        return self.gain + max(self.gain_error, MARGIN) < 0

    def __repr__(self) -> str:
        return f"Learned({self.objective}: {self.schedule!r}, gain {self.gain:+.3f} ± {self.gain_error:.3f})"


@dataclass(frozen=True, eq=False)
class Distillation:
    """The learned candidates and the winner.

    Attributes:
        candidates: the sampler that was to be improved, and one for each objective.
        won: the place of the winner among them; 0 if nothing was better.
        seconds: wall-clock time.
    """

    candidates: tuple[Learned, ...]
    won: int
    seconds: float

    @property
    def winner(self) -> Learned:
        """The sampler to use."""
        return self.candidates[self.won]

    @property
    def schedule(self) -> Schedule:
        """The winner's levels."""
        return self.winner.schedule

    @property
    def solver(self) -> Solver:
        """The winner's solver."""
        return self.winner.solver

    def __repr__(self) -> str:
        others = ", ".join(f"{c.objective} {c.gain:+.3f} ± {c.gain_error:.3f}" for c in self.candidates[1:])
        return f"Distillation(won: {self.winner.objective}; log ratio of distances {others}; {self.seconds:.0f} s)"


@gathered(recipe=Recipe, compute=Compute)
@in_evaluation_mode
def distill(
    denoiser: Denoiser,
    start: Initialization,
    schedule: Schedule,
    solver: Solver,
    data: Tensor,
    *,
    recipe: Recipe | None = None,
    held_out: Tensor | None = None,
    conditions: Mapping[str, Any] | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Distillation:
    """Improve a schedule and its solver by gradients, and take what held-out data find better, or nothing.

    Arguments:
        denoiser: the network, on the device; it must be differentiable by PyTorch in x and sigma.
        start: where the reverse process starts.
        schedule: the levels to improve, the last of them 0. The first, the horizon, stays.
        solver: the solver to improve, of the ODE and with one evaluation a step.
        data: clean samples, shape (N, \\*S).
        recipe: how to learn; by default :class:`Recipe` as it is.
        held_out: indices of the data that only the choice sees, preferably those that the start was not fitted on; by
            default a fifth at random, at most 3,000.
        conditions: of the data, handed to the denoiser; tensors of length N go with the samples. ``label``, a class for
            each or one for all, also conditions the start.
        seed: of everything random; the starts' own seeds are those of no other samples.
        compute: the device, the type of the states, the samples per call and who is told of the iterations; by default
            the CPU, float32, and the batches of the recipe.

    Returns:
        The candidates and which one won. A descent whose loss or gradient is not finite ends with the last parameters
        that were good.

    Raises:
        DataError: if the data are not finite, too few, or not of the start's shape.
        InputError: if the solver or the schedule is of another kind, the denoiser cannot be differentiated or knows
            a table of levels alone and levels are to be learned, or an argument is out of its range.
        DenoiserError: if the denoiser fails or returns the wrong shape, or NaN or Inf when the sampler that is to be
            improved, or the teacher, samples.
    """
    began, recipe = time.perf_counter(), recipe or Recipe()
    if recipe.learn != "coefficients" and Range.of(denoiser).levels is not None:
        raise InputError(
            "the network knows the levels of a table alone, between which no gradient tells where they should be: "
            "learn 'coefficients'"
        )
    compute = compute or Compute(batch_size=recipe.batch_size)
    _check(schedule, solver, recipe.learn, seed)
    teacher = recipe.teacher_for(schedule, denoiser)
    pool = _Pool(denoiser, start, schedule.horizon, data, held_out, conditions or {}, seed, compute)
    pool.check_differentiable(schedule, recipe.learn)
    judge = _Judge(pool, recipe.judged)
    candidates = [judge("none", schedule, solver, ())]
    for objective in recipe.objectives:
        sampler = _Sampler(schedule, solver, recipe.learn)
        loss = _trajectory_loss(pool, teacher, recipe) if objective == "trajectory" else _data_loss(pool, recipe)
        losses = _descend(sampler, loss, recipe, compute.progress, f"distilling: {objective}")
        levels, learned = sampler.result(objective)
        try:
            candidates.append(judge(objective, levels, learned, losses))
        except DenoiserError:  # where the network was led, it fails: no candidate
            candidates.append(Learned(objective, levels, learned, losses, {}, math.inf, 0.0))
    better = [i for i, candidate in enumerate(candidates) if candidate.better]
    won = min(better, key=lambda i: candidates[i].gain, default=0)
    return Distillation(tuple(candidates), won, time.perf_counter() - began)


# The sampler, differentiable in its levels and weights


class _Sampler:
    """The sampler as a function of its parameters, float64 and on the CPU.

    Attributes:
        log_gaps: the logarithms :math:`\\xi` of the gaps of the log levels, shape (N - 1,).
        offsets: v, shape (N, N), of which only what is below the diagonal counts.
    """

    def __init__(self, schedule: Schedule, solver: Solver, learn: Parts) -> None:
        self.solver, self.learn, self.horizon = solver, learn, schedule.horizon
        gaps = -np.diff(np.log(schedule.sigmas[:-1]))
        self.log_gaps = torch.from_numpy(np.log(gaps)).requires_grad_(learn != "coefficients")
        self.offsets = torch.zeros(schedule.steps, schedule.steps, dtype=torch.float64).requires_grad_(
            learn != "levels"
        )

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters that are learned."""
        return [p for p in (self.log_gaps, self.offsets) if p.requires_grad]

    def levels(self) -> Tensor:
        """s_0, ..., s_N, shape (N + 1,)."""
        above = self.horizon * torch.exp(-self.log_gaps.exp().cumsum(0))
        return torch.cat([above.new_tensor([self.horizon]), above, above.new_zeros(1)])

    def weights(self) -> Tensor:
        """w, shape (N, N). Their derivative by the levels is that of central differences."""
        at = self.log_gaps.detach().numpy()
        weights = torch.from_numpy(self._of_solver(at))
        if self.log_gaps.requires_grad:
            nudges = WIDTH * np.eye(len(at))
            slopes = [(self._of_solver(at + n) - self._of_solver(at - n)) / (2 * WIDTH) for n in nudges]
            weights = weights + torch.from_numpy(np.stack(slopes, -1)) @ (self.log_gaps - self.log_gaps.detach())
        offsets = self.offsets.tril(-1)
        return weights + offsets - torch.diag(offsets.sum(1))

    def _of_solver(self, log_gaps: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # levels that ran away to 0, which Schedule refuses
            above = self.horizon * np.exp(-np.cumsum(np.exp(log_gaps)))
        return linear_weights(self.solver, Schedule([self.horizon, *above, 0.0]))

    def __call__(self, denoiser: Denoiser, x: Tensor, **conditions: Any) -> Tensor:
        """The samples that the starts x (B, \\*S) lead to, of their shape."""
        levels, weights = self.levels(), self.weights()
        Range.of(denoiser).check(float(levels[-2].detach()))
        fine = torch.promote_types(x.dtype, torch.float32)  # a half type would round levels and weights
        levels, keep, weights = (v.to(x.device, fine) for v in (levels, levels[1:] / levels[:-1], weights))
        estimates: list[Tensor] = []
        for i, level in enumerate(levels[:-1]):
            estimates.append(answer(denoiser, x, level.expand(len(x)), **conditions))
            state = keep[i] * x.to(fine) + sum(weights[i, j] * said.to(fine) for j, said in enumerate(estimates))
            x = state.to(x.dtype)
        return x

    def result(self, objective: str) -> tuple[Schedule, Solver]:
        """The levels, and the solver for them."""
        with torch.no_grad():
            schedule = Schedule(self.levels().numpy(), name=f"distilled from {objective}")
            weights = self.weights()
        return schedule, self.solver if self.learn == "levels" else Distilled.from_matrix(weights.tolist())


def _descend(
    sampler: _Sampler,
    loss_of: Callable[[_Sampler, int], Tensor],
    recipe: Recipe,
    progress: Progress,
    said: str,
) -> tuple[float, ...]:
    """Moves the sampler's parameters, and gives the losses. It stops, at the last good parameters, when one fails."""
    losses: list[float] = []
    adam = torch.optim.Adam(sampler.parameters, lr=recipe.learning_rate)
    good = [p.detach().clone() for p in sampler.parameters]
    for i in progress.track(range(recipe.iterations), said, recipe.iterations):
        for group in adam.param_groups:
            group["lr"] = 0.5 * recipe.learning_rate * (1 + math.cos(math.pi * i / recipe.iterations))
        adam.zero_grad()
        try:
            loss = loss_of(sampler, i)
        except InputError:  # levels that are none any more, or that the network does not know
            break
        for parameter, slope in zip(sampler.parameters, torch.autograd.grad(loss, sampler.parameters), strict=True):
            parameter.grad = slope
        length = torch.nn.utils.clip_grad_norm_(sampler.parameters, CLIP)
        if not (math.isfinite(loss.item()) and bool(torch.isfinite(length))):
            break
        losses.append(loss.item())
        good = [p.detach().clone() for p in sampler.parameters]
        adam.step()
    else:
        if _is_sound(sampler):
            return tuple(losses)
    with torch.no_grad():
        for parameter, kept in zip(sampler.parameters, good, strict=True):
            parameter.copy_(kept)
    return tuple(losses)


def _is_sound(sampler: _Sampler) -> bool:
    """Whether its parameters make levels and weights."""
    try:
        sampler.result("")
    except InputError:
        return False
    return True


# What is learned from, and what decides


class _Pool:
    """Data and starts: the share that is learned from, and the share that is held out."""

    def __init__(
        self,
        denoiser: Denoiser,
        start: Initialization,
        horizon: float,
        data: Tensor,
        held_out: Tensor | None,
        conditions: Mapping[str, Any],
        seed: int,
        compute: Compute,
    ) -> None:
        if data.ndim < 2 or len(data) < 10 or not (data.is_floating_point() and torch.isfinite(data).all()):
            raise DataError("distilling needs at least ten samples in an array (N, ...) of floats, without NaN or Inf")
        if tuple(data.shape[1:]) != start.shape:
            raise DataError(f"samples have shape {tuple(data.shape[1:])}, and those of the start {start.shape}")
        self.denoiser, self.start, self.horizon = denoiser, start, horizon
        self.data, self.conditions = data.cpu(), Conditions.of(conditions, len(data)).to("cpu")
        self.seed, self.compute = seed, compute
        self.generator = generator_of(seed)
        order = torch.randperm(len(data), generator=self.generator)
        held = order[: min(3000, len(data) // 5)] if held_out is None else torch.as_tensor(held_out).cpu()
        if held.dtype != torch.long or held.ndim != 1 or not 2 <= len(set(held.tolist())) < len(data) - 1:
            raise InputError("held_out must be the indices of at least 2 of the data, and leave as many to learn from")
        if held.min() < 0 or held.max() >= len(data):
            raise InputError(f"held_out must be indices of the {len(data)} samples, from 0 to {len(data) - 1}")
        self.held_out = held
        self.learned_from = order[~torch.isin(order, held)]
        self.views = Multiscale(self.data[self.learned_from])

    def some(self, count: int) -> Tensor:
        """Indices of samples to learn from, drawn at random."""
        return self.learned_from[torch.randint(len(self.learned_from), (count,), generator=self.generator)]

    def conditions_of(self, index: Tensor) -> Conditions:
        """The conditions of some samples, on the device."""
        return self.conditions.take(index).to(self.compute.device)

    def starts(self, first: int, index: Tensor) -> Tensor:
        """Starts with the conditions of some samples, and with the seeds from ``first`` on."""
        seeds = Stream.DISTILL.seeds(self.seed, len(index), first)
        parts = self.compute.batches(len(index))
        return torch.cat([self._start(seeds[part], index[part]) for part in parts])

    def _start(self, seeds: Iterable[int], index: Tensor) -> Tensor:
        return self.start.sample(self.compute.noise(seeds), self.horizon, self.conditions_of(index))

    @torch.no_grad()
    def solved(self, x: Tensor, index: Tensor, schedule: Schedule, solver: Solver) -> Tensor:
        """Where a solver leads from the starts x, with the conditions of some samples."""
        parts = list(self.compute.batches(len(x)))
        given = [self.conditions_of(index[part]) for part in parts]
        return torch.cat([solver.solve(self.denoiser, x[p], schedule, **g) for p, g in zip(parts, given, strict=True)])

    def check_differentiable(self, schedule: Schedule, learn: Parts) -> None:
        """Raise :class:`InputError` unless the gradients that learning takes pass through the denoiser."""
        if learn != "coefficients" and Range.of(self.denoiser).levels is not None:
            raise InputError(
                "the network knows the levels of a table alone, between which there are no gradients: learn "
                "coefficients alone (learn='coefficients')"
            )
        index = self.some(2)
        x = self.starts(0, index).requires_grad_()
        level = torch.promote_types(x.dtype, torch.float32)
        sigma = torch.tensor(schedule.sigmas[-2], dtype=level, device=x.device, requires_grad=True)
        try:
            out = self.denoiser(x, sigma.expand(len(x)), **self.conditions_of(index))
            slopes = torch.autograd.grad(out.sum(), (x, sigma), allow_unused=True)
        except HeadstartError:
            raise
        except Exception as error:
            raise InputError(
                "the denoiser cannot be differentiated by PyTorch, and distilling goes by gradients through it "
                f"({type(error).__name__}: {error})"
            ) from error
        if slopes[0] is None or (slopes[1] is None and learn != "coefficients"):
            raise InputError(
                "distilling goes by gradients through the denoiser, and what it returns does not depend on "
                f"{'x' if slopes[0] is None else 'sigma'} in a way that PyTorch sees"
            )


Loss = Callable[[_Sampler, int], Tensor]


def _trajectory_loss(pool: _Pool, teacher: Schedule, recipe: Recipe) -> Loss:
    """The mean squared distance from the ends of fine trajectories: objective (a)."""
    pairs = recipe.pairs
    index = pool.some(pairs)
    x = pool.starts(2**31, index)
    ends = pool.solved(x, index, teacher, DPMSolverPP2M())

    def loss(sampler: _Sampler, iteration: int) -> Tensor:
        rows = torch.randint(pairs, (min(pairs, recipe.batch_size),), generator=pool.generator)
        samples = _whole(sampler(pool.denoiser, x[rows], **pool.conditions_of(index[rows])))
        return (samples - ends[rows]).square().mean()

    return loss


def _whole(x: Tensor) -> Tensor:
    """In a type that holds sums over pairs and squares, which a half type does not."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _data_loss(pool: _Pool, recipe: Recipe) -> Loss:
    """The energy distance between the laws of samples and of data: objective (b)."""

    count = recipe.batch_size

    def loss(sampler: _Sampler, iteration: int) -> Tensor:
        index = pool.some(count)
        x = pool.starts(iteration * count, index)
        samples = _whole(sampler(pool.denoiser, x, **pool.conditions_of(index)))
        places = pool.views.places(pool.generator)
        real = pool.data[pool.some(RICHER * count)].to(samples)
        compared = list(zip(pool.views(samples, places), pool.views(real, places), strict=True))
        distances = torch.stack([energy(a, b, _directions(a, pool.generator)) for (_, a), (_, b) in compared])
        return distances @ distances.new_tensor(_shares([name for (name, _), _ in compared]))

    return loss


def _shares(names: Sequence[str]) -> list[float]:
    """The weight of each view, so that the whole and every band count alike."""
    counts = Counter(names)
    return [1 / (len(counts) * counts[name]) for name in names]


def _directions(x: Tensor, generator: torch.Generator) -> Tensor:
    draws = torch.randn(x[0].numel(), DIRECTIONS, generator=generator, dtype=torch.float64)
    return functional.normalize(draws, dim=0).to(x)


def energy(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    r"""The sliced energy distance :math:`2 E|x - y| - E|x - x'| - E|y - y'|`, estimated without bias, so that it may be
    negative.

    Arguments:
        a: samples x of shape (N, d), with at least two rows.
        b: samples y of shape (M, d), likewise.
        directions: unit vectors, shape (d, K).
    """
    x, y = (a @ directions).T, (b @ directions).T
    n, m = x.shape[1], y.shape[1]
    within = _pair_sum(x), _pair_sum(y)
    across = _pair_sum(torch.cat([x, y], dim=1)) - within[0] - within[1]
    pairs = n * (n - 1) / 2, m * (m - 1) / 2
    return (2 * across / (n * m) - within[0] / pairs[0] - within[1] / pairs[1]).mean()


def _pair_sum(x: Tensor) -> Tensor:
    """The sum of the distances of all pairs in each row: (K, N) to (K,)."""
    n = x.shape[1]
    return x.sort(dim=1).values @ torch.arange(1 - n, n, 2, dtype=x.dtype, device=x.device)


class _Judge:
    """Holds samples of each candidate against the held-out data."""

    def __init__(self, pool: _Pool, count: int) -> None:
        self.pool = pool
        self.index = pool.held_out[torch.arange(count) % len(pool.held_out)]
        self.x = pool.starts(3 * 2**30, self.index)
        self.reference = MultiscaleReference.of(pool.data[pool.held_out], pool.seed, pool.views)
        self.first: list[dict[str, float]] = []

    def __call__(self, objective: str, schedule: Schedule, solver: Solver, losses: tuple[float, ...]) -> Learned:
        samples = self.pool.solved(self.x, self.index, schedule, solver).float().cpu()
        if not torch.isfinite(samples).all():
            raise DenoiserError(f"{solver!r} on {schedule!r} makes samples that are not finite")
        group = torch.arange(len(samples)) % GROUPS
        distances = [self.reference.distances(samples[group != g]) for g in (GROUPS, *range(GROUPS))]
        self.first = self.first or distances
        gains = np.array([_log_ratio(ours, theirs) for ours, theirs in zip(distances, self.first, strict=True)])
        error = math.sqrt(GROUPS - 1) * float(gains[1:].std())
        return Learned(objective, schedule, solver, losses, distances[0], float(gains[0]), error)


def _log_ratio(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """The mean logarithm of the distances' ratios."""
    return sum(math.log(ours[name] / theirs[name]) for name in ours) / len(ours)


def _check(schedule: Schedule, solver: Solver, learn: Parts, seed: int) -> None:
    if not is_linear(solver):
        raise InputError(f"{solver!r} is no solver of the ODE with one evaluation a step: only those are distilled")
    if schedule.sigmas[-1] != 0:
        raise InputError(f"a schedule that is distilled ends with a step to 0: got {schedule!r}")
    if schedule.steps == 1:
        raise InputError("one step has nothing to learn: its horizon stays, and it returns the denoised estimate")
    if learn == "levels" and isinstance(solver, Distilled):
        raise InputError("the weights of a distilled solver do not follow the levels: learn coefficients or both")
    if not 0 <= seed < 2**27:
        raise InputError(f"the seed must be from 0 to 2^27 - 1: got {seed}")
