r"""Measure a denoiser once: one pass over noise levels, from which every schedule and every budget is arithmetic.

On samples :math:`x_\sigma = x_0 + \sigma \varepsilon` whose :math:`x_0` and :math:`\varepsilon` are drawn once and
shared by all levels (common random numbers), and for neighbouring levels a > b:

.. math:: l(\sigma) = E\,\|x_0 - D(x_\sigma, \sigma)\|^2 \qquad \text{(denoising loss)}

.. math:: L_c(a, b) = b^2\, E\,\|s(x_a, b) - s(x_a, a)\|^2 \qquad \text{(corrector cost, order 2)}

.. math:: L_d(a, b) = \frac{E\,\|F_\text{Heun}(x_a) - F_\text{Euler}(x_a)\|^2}{b^2 + \sigma_d^2}
    \qquad \text{(defect cost, order 4)}

with the score :math:`s = (D - x) / \sigma^2` and one step F of the probability-flow ODE from a to b. The corrector cost
is the paper's. The defect cost is ours: it needs no Jacobian, and for an isotropic Gaussian of standard deviation
:math:`\sigma_d` it is to leading order the Kullback-Leibler divergence that the Euler step adds. The samples of the
costs are also led down the ODE from their highest level, for what other solvers err by (:mod:`headstart.trajectory`).

One file, though a long one: a profile is its measurements, how they are made and how they are read back, and a
change of one changes all three.

References:
    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877, Equations 13 to 15 (corrector
    cost).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.arrays import as_tensor, check_numbers
from headstart.artefact import checked, read_tensors, write_tensors
from headstart.compute import Compute
from headstart.conditions import Conditions, to_device
from headstart.denoiser import Denoiser, Range, cast_input, denoise, in_evaluation_mode
from headstart.errors import ArtefactError, DataError, DenoiserError, InputError
from headstart.noise import generator_of
from headstart.processes import spread
from headstart.progress import Progress
from headstart.saved import Saved
from headstart.schedule import Length
from headstart.trajectory import Trajectories

if TYPE_CHECKING:
    from headstart.schemas import ProfileValues

__all__ = ["Profile", "Velocity", "core_deviation"]

Curve = NDArray[np.float64]

#: The grid of levels by default, in units of the data's standard deviation; it holds EDM's 80 for images.
HIGHEST, LOWEST, LEVELS = 200.0, 0.02, 64

#: Levels farther apart than this ratio make no fine solution of the ODE: no trajectories are followed on them.
FINE = 1.5

#: The samples that a measurement to a stated error begins with; it doubles them until the error is reached.
FEWEST = 64

#: The curves of a profile, by the names of its fields.
CURVES = ("sigmas", "losses", "corrector", "defect")

#: One sample in as many lies below the core of the data, and one above it, and the width of a normal law's.
TWENTY, NORMAL_WIDTH = 20, 3.29

#: Data whose standard deviation is more than this many times that of their core have tails that hide it.
HEAVY = 2.5

#: Samples that a network is asked about again, and the share by which its losses may differ: what types round away.
AGAIN, OTHER = 8, 0.02

#: The form of a saved profile, and its version.
FORM, VERSION = "headstart-profile", 1

#: :math:`v` of a cost: the noise level, or the standard deviation of the noised data.
Velocity = Literal["sigma", "marginal"]


@dataclass(frozen=True, eq=False)
class Profile:
    """The measurements of one pass. Made by :meth:`measure`.

    Attributes:
        sigmas: the levels, decreasing, shape (G,).
        losses: :math:`\\|x_0 - D\\|^2` of each sample at each level, shape (M, G).
        corrector: corrector cost of each sample between neighbours, shape (C, G - 1), with C at most M.
        defect: defect cost likewise.
        sigma_data: standard deviation of the data per coordinate.
        shape: the shape S of one sample.
        seed: of the choice of samples and of the noise.
        digest: identifies the samples.
        samples: the M clean samples, or None for a profile that was loaded: they are data, and not saved.
        conditions: those that go with them, or None.
        trajectories: fine solutions of the ODE, or None where the levels are too far apart for any.
    """

    sigmas: Curve
    losses: Curve
    corrector: Curve
    defect: Curve
    sigma_data: float
    shape: tuple[int, ...]
    seed: int
    digest: str = ""
    samples: Tensor | None = None
    conditions: Conditions | None = None
    trajectories: Trajectories | None = None

    def __post_init__(self) -> None:
        for name in CURVES:
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64, order="C"))

    @classmethod
    @in_evaluation_mode
    def measure(
        cls,
        denoiser: Denoiser,
        data: Tensor,
        *,
        sigmas: Curve | None = None,
        samples: int | None = None,
        cost_samples: int | None = None,
        relative_error: float | None = None,
        conditions: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> Profile:
        """Measure a network in one pass: G evaluations a sample for the loss, and 3 G more for costs and trajectories.

        Where several processes work together (:mod:`headstart.processes`), each measures some of the levels and
        batches, and all get the same profile.

        Arguments:
            denoiser: the network.
            data: clean samples that the start is not fitted on, shape (N, \\*S).
            sigmas: the levels, decreasing and above 0; by default 64, log-spaced from 200 to 0.02 times the data's
                standard deviation, as far as the denoiser says that it knows them and the type holds them.
            samples: how many samples the loss is measured on, at most N; by default 192 in many dimensions, and up to
                4,096 in few, where each tells less.
            cost_samples: how many of them the costs are measured on; a third of them by default.
            relative_error: take as many samples as it needs for both costs to be known to this
                :meth:`relative_error`, or all there are, at most ``samples`` if that is given; costs are then measured
                on every sample.
            conditions: handed to the denoiser; tensors of length N go with the data. ``label`` is a class for each
                sample, or one for all.
            seed: of the choice of samples and of the noise.
            device: where the denoiser works.
            dtype: of the states that it is called with. What is measured is computed in float32 at least; but a network
                that also answers in a half type rounds away what fine steps differ by: let it return float32.
            batch_size: samples per call.
            progress: told of the levels.

        Raises:
            DataError: if the data are fewer than two, not finite, or all equal.
            DenoiserError: if the denoiser returns NaN, Inf or the wrong shape, or removes no noise.
            InputError: if the levels are not decreasing, or a number is out of its range.
        """
        compute = Compute(device, dtype, batch_size, progress or Progress())
        data = as_tensor(data, "data")
        if data.ndim < 2 or len(data) < 2 or not data.is_floating_point():
            raise DataError("a profile needs at least two samples of floating-point numbers in an array (N, ...)")
        check_numbers(data, "data")
        sigma_data = float(data.double().flatten(1).var(dim=0).mean().sqrt())
        if sigma_data == 0:
            raise DataError("all samples are equal: there is nothing to generate")
        if sigmas is None:
            sigmas = Range.of(denoiser, dtype=dtype).grid(HIGHEST * sigma_data, LOWEST * sigma_data, LEVELS)
        try:
            sigmas = np.asarray(sigmas, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"the levels of a profile are numbers: {error}") from error
        decreasing = sigmas.ndim == 1 and len(sigmas) >= 3 and (np.diff(sigmas) < 0).all()
        if not decreasing or not np.isfinite(sigmas).all() or sigmas[-1] <= 0:
            raise InputError("a profile needs at least three finite levels, strictly decreasing and above 0")
        if relative_error is not None:
            if not isinstance(relative_error, Real) or not relative_error > 0 or cost_samples is not None:
                raise InputError(
                    f"a relative error is above 0, and stands in place of cost_samples: got {relative_error} "
                    f"and cost_samples={cost_samples}"
                )
            samples = cost_samples = min(len(data), samples or len(data))
        samples = max(192, min(4096, 2**17 // data[0].numel())) if samples is None else samples
        cost_samples = max(2, min(samples, len(data)) // 3) if cost_samples is None else cost_samples
        for name, count in (("samples", samples), ("cost_samples", cost_samples)):
            if not isinstance(count, Integral) or count < 2:
                raise InputError(f"a profile needs at least 2 samples, a whole number: got {name}={count}")

        x0, given, shared = _drawn(data, conditions, samples, seed)
        denoiser = partial(denoiser, **to_device(shared, compute.device))
        found = [np.empty((0, len(sigmas))), *(np.empty((0, len(sigmas) - 1)) for _ in range(2))]
        for count in [len(x0)] if relative_error is None else _doubling(len(x0)):
            done, eps = len(found[0]), _noise_like(x0[:count], seed)
            measured = _measure_rows(
                denoiser,
                x0[done:count],
                eps[done:],
                sigmas,
                sigma_data,
                cost_samples - done,
                given.take(slice(done, count)),
                compute,
            )
            found = [np.concatenate(parts) for parts in zip(found, measured, strict=True)]
            losses, corrector, defect = found
            share = sigmas[-1] ** 2 / (sigmas[-1] ** 2 + sigma_data**2)
            _check_denoises(losses.mean(axis=0), corrector, defect, x0[0].numel() * sigma_data**2, share)
            worst = max(_relative_error(corrector, 2), _relative_error(defect, 4))
            if relative_error is not None and worst <= relative_error:
                break
        x0, given, followed = x0[:count], given.take(slice(0, count)), len(defect)
        trajectories = None
        if (sigmas[:-1] < FINE * sigmas[1:]).all():
            trajectories = Trajectories.measure(
                denoiser,
                x0[:followed] + float(sigmas[0]) * eps[:followed],
                sigmas,
                given.take(slice(0, followed)),
                compute=compute,
            )
        return cls(
            sigmas=sigmas,
            losses=losses,
            corrector=corrector,
            defect=defect,
            sigma_data=sigma_data,
            shape=tuple(data.shape[1:]),
            seed=seed,
            digest=_digest(x0, given.get("label")),
            samples=x0,
            conditions=given,
            trajectories=trajectories,
        )

    def with_samples(self, data: Tensor, conditions: Mapping[str, Any] | None = None) -> Profile:
        """This profile with the samples that it was measured on, drawn again from the same data (N, \\*S).

        Raises:
            InputError: if these are other data.
        """
        x0, given, _ = _drawn(data, conditions, len(self.losses), self.seed)
        if _digest(x0, given.get("label")) != self.digest:
            raise InputError(
                "the profile was measured on other data than the share that is held out here: "
                "measure it on that share (headstart.choose.hold_out tells which), or let fit measure"
            )
        return replace(self, samples=x0, conditions=given)

    def check_network(self, denoiser: Denoiser, compute: Compute | None = None) -> None:
        """Ask the network again about a few of the samples at two levels: it has to be the one that was measured.

        Raises:
            DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
            InputError: if it errs by more or less than what was measured errs.
        """
        if self.samples is None or self.conditions is None:
            raise InputError("this profile was loaded without the samples it was measured on: see with_samples")
        compute = compute or Compute()
        few = slice(0, min(AGAIN, len(self.losses), compute.batch_size))
        x0, eps = self.samples[few].to(compute.device), self.noise[few].to(compute.device)
        given = self.conditions.take(few).to(compute.device)
        for share in (1.0, 0.25):
            level = int(np.abs(np.log(self.sigmas / (share * self.sigma_data))).argmin())
            sigma, before = float(self.sigmas[level]), self.losses[few, level]
            loss, _ = _measure_level(denoiser, x0, eps, sigma, None, self.sigma_data, 0, given, compute.dtype)
            gap = float(np.abs(loss.numpy() - before).sum() / before.sum()) if before.sum() else float(loss.sum() > 0)
            if gap > OTHER:
                raise InputError(
                    f"the profile was measured of another network: at sigma {sigma:.3g} that one erred by "
                    f"{before.mean():.4g} on {len(before)} samples, and this one errs by {float(loss.mean()):.4g}"
                )

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain values for JSON and tensors that it can be saved as. The samples are data, and not among them."""
        values = {name: getattr(self, name) for name in ("sigma_data", "shape", "seed", "digest")}
        curves = {name: getattr(self, name) for name in CURVES}
        if self.trajectories is not None:
            curves |= {"products": self.trajectories.products, "spread": self.trajectories.spread}
        tensors = {name: torch.from_numpy(curve.copy()) for name, curve in curves.items()}
        return {**values, "shape": list(self.shape)}, tensors

    @classmethod
    def from_state(cls, values: ProfileValues, tensors: Mapping[str, Tensor]) -> Profile:
        """The profile that :meth:`state` describes, without its samples.

        Raises:
            InputError: if a curve is missing, of another length than the levels, or holds what no measurement gives.
        """
        curves: dict[str, Any] = _curves(tensors)
        trajectories = None
        if "products" in curves:
            trajectories = Trajectories(curves["sigmas"], curves["products"], curves["spread"])
        return cls(
            **{name: curves[name] for name in CURVES},
            sigma_data=values.sigma_data,
            shape=tuple(values.shape),
            seed=values.seed,
            digest=values.digest,
            trajectories=trajectories,
        )

    def save(self, path: str | Path) -> None:
        """Write it as one file, whole or not at all, without its samples, which are data.

        Raises:
            ArtefactError: if the file cannot be written.
        """
        write_tensors(Path(path), FORM, VERSION, *self.state())

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """The profile that :meth:`save` wrote; :meth:`with_samples` gives it its samples again.

        Raises:
            ArtefactError: if the file is missing, damaged, no profile, or newer than this version of headstart.
        """
        from headstart.schemas import ProfileValues

        source = Path(path)
        values, tensors = read_tensors(source, FORM, VERSION)
        try:
            return cls.from_state(checked(ProfileValues, values, source), tensors)
        except InputError as error:
            raise ArtefactError(f"{source} is damaged: {error}") from error

    @property
    def label(self) -> Tensor | None:
        """The classes of the samples, shape (M,), or None."""
        return None if self.conditions is None else self.conditions.get("label")

    @property
    def noise(self) -> Tensor:
        """The noise :math:`\\varepsilon` of the samples, drawn again from the seed, of their shape."""
        if self.samples is None:
            raise InputError("this profile was loaded without the samples it was measured on: see with_samples")
        return _noise_like(self.samples, self.seed)

    @cached_property
    def core(self) -> float:
        """The standard deviation of the data without their far tails, which is what their bulk is seen at.

        By the outer twentieths of each coordinate, as of a normal law, where that is less; and :attr:`sigma_data`,
        where it is of the same order, or the samples are not at hand.
        """
        if self.samples is None:
            return self.sigma_data
        core = core_deviation(self.samples)
        return core if core < self.sigma_data / HEAVY else self.sigma_data

    @property
    def loss(self) -> Curve:
        """The denoising loss l(sigma), shape (G,)."""
        return np.asarray(self.losses.mean(axis=0))

    @property
    def loss_error(self) -> Curve:
        """The standard error of :attr:`loss`."""
        return np.asarray(self.losses.std(axis=0, ddof=1) / np.sqrt(len(self.losses)))

    def length(self, cost: str, exponent: float | None = None, velocity: Velocity | None = None) -> Length:
        """The length by the "corrector" cost or the "defect" cost.

        Arguments:
            cost: which one.
            exponent: the power of the step that it is taken to grow as; its order by default, 2 and 4.
            velocity: whether it is in units of the noise level, "sigma", as the paper's corrector cost and ours by
                default, or of the noised data's standard deviation, "marginal", as the defect by default.

        Raises:
            InputError: if the cost or the velocity is unknown.
        """
        costs, order, own = self._costs(cost)
        if velocity not in (None, *get_args(Velocity)):
            raise InputError(f"unknown velocity {velocity!r}: expected 'sigma' or 'marginal'")
        ratio = 1 + (self.sigma_data / self.sigmas[1:]) ** 2
        scale = {"sigma": 0, "marginal": 1}
        power = scale[velocity or own] - scale[own]
        # The corrector cost has the squared velocity as a factor, and the defect is over it.
        scaled = costs.mean(axis=0) * ratio ** (power if cost == "corrector" else -power)
        return Length(self.sigmas, scaled, order if exponent is None else exponent)

    def relative_error(self, cost: str) -> float:
        """The standard error of a step's cost over the cost, averaged along the length.

        Raises:
            InputError: if the cost is unknown.
        """
        costs, order, _ = self._costs(cost)
        return _relative_error(costs, order)

    def _costs(self, cost: str) -> tuple[Curve, int, Velocity]:
        """A cost of each sample, its order, and its velocity."""
        if cost == "corrector":
            return self.corrector, 2, "sigma"
        if cost == "defect":
            return self.defect, 4, "marginal"
        raise InputError(f"unknown cost {cost!r}: a profile has 'corrector' and 'defect'")

    def information(self, sigma: float) -> Curve:
        r"""The information that noised data hold about clean data by the network's loss, in nats, shape (M,):
        :math:`\int_\sigma^\infty s^{-3}\, l(s)\, ds`.

        One number a sample, so that differences between starts keep their small variance. Between levels, the integrand
        :math:`l(s) / s^2` in ln s is a power law, whose integral is the step times the logarithmic mean of its ends;
        above the highest level the loss is that of the highest.

        Raises:
            InputError: if sigma lies outside the levels.

        References:
            Guo, Shamai and Verdu, *Mutual Information and Minimum Mean-Square Error in Gaussian Channels*, 2005
            (I-MMSE).
        """
        low, high = self.sigmas[-1], self.sigmas[0]
        if not low * (1 - 1e-9) <= sigma <= high * (1 + 1e-9):
            raise InputError(f"the network was measured from sigma = {high:.6g} down to {low:.6g}: got {sigma:.6g}")
        place = np.log(np.clip(sigma, low, high))
        levels = np.log(self.sigmas)
        f = np.log(np.maximum(self.losses, 1e-300)) - 2 * levels
        upper = levels > place
        ends = np.array([np.interp(place, levels[::-1], row[::-1]) for row in f])[:, None]
        nodes, f = np.concatenate([levels[upper], [place]]), np.concatenate([f[:, upper], ends], axis=1)
        pieces = -np.diff(nodes) * _logarithmic_mean(f[:, :-1], f[:, 1:])
        return np.asarray(pieces.sum(axis=1) + 0.5 * np.exp(f[:, 0]))

    def __repr__(self) -> str:
        return (
            f"Profile({len(self.losses)} samples of shape {self.shape} at {len(self.sigmas)} levels, "
            f"{self.sigmas[0]:.4g} to {self.sigmas[-1]:.4g}; sigma_data {self.sigma_data:.4g})"
        )


def core_deviation(x: Tensor) -> float:
    """The standard deviation per coordinate of samples (N, \\*S) without their far tails.

    As of a normal law by the distance of the outer twentieths, which outliers do not move; of a coordinate that is
    nearly always the same, or has no tails, the standard deviation.
    """
    ordered = x.flatten(1).double().sort(dim=0).values
    out = len(ordered) // TWENTY
    width = (ordered[-1 - out] - ordered[out]) / NORMAL_WIDTH
    deviations = ordered.std(0)
    core = torch.where(width > 0, torch.minimum(width, deviations), deviations)
    return float(core.square().mean().sqrt())


def _doubling(most: int) -> list[int]:
    """How many samples a measurement to a stated error looks at: 64, 128, ... and all of them.

    In whole blocks of 16, whose noise is the same whatever is drawn after them.
    """
    whole = most - most % 16 if most > 16 else most
    return [*(FEWEST * 2**i for i in range(whole.bit_length()) if FEWEST * 2**i < whole), whole]


def _relative_error(costs: Curve, order: int) -> float:
    mean = np.maximum(costs.mean(axis=0), 1e-300)
    error = costs.std(axis=0, ddof=1) / np.sqrt(len(costs))
    elements = mean ** (1 / order)
    return float((elements * error / mean).sum() / elements.sum())


def _measure_rows(
    denoiser: Denoiser,
    x0: Tensor,
    eps: Tensor,
    sigmas: Curve,
    sigma_data: float,
    costed: int,
    conditions: Conditions,
    compute: Compute,
) -> tuple[Curve, Curve, Curve]:
    """Losses of some samples at all levels, and both costs of the first ``costed`` of them."""
    parts, levels = list(compute.batches(len(x0))), range(len(sigmas))

    def measured(item: tuple[int, slice]) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        level, part = item
        b = None if level + 1 == len(sigmas) else float(sigmas[level + 1])
        given = conditions.take(part).to(compute.device)
        x, noise = x0[part].to(compute.device), eps[part].to(compute.device)
        own = min(costed - part.start, compute.batch_size)
        return _measure_level(denoiser, x, noise, float(sigmas[level]), b, sigma_data, own, given, compute.dtype)

    def track(items: Sequence[Any]) -> Iterable[Any]:
        return compute.progress.track(items, "measuring the network", len(items))

    found = iter(spread([(level, part) for level in levels for part in parts], measured, track))
    rows = [[next(found) for _ in parts] for _ in levels]
    losses = torch.stack([torch.cat([loss for loss, _ in row]) for row in rows], 1).numpy()
    costs = [[both for _, both in row if both is not None] for row in rows[:-1]]
    corrector, defect = (
        torch.stack([torch.cat([both[k] for both in row]) for row in costs], 1).numpy() for k in range(2)
    )
    return losses, corrector, defect


@torch.no_grad()
def _measure_level(
    denoiser: Denoiser,
    x0: Tensor,
    eps: Tensor,
    a: float,
    b: float | None,
    sigma_data: float,
    costed: int,
    conditions: Conditions,
    dtype: torch.dtype,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Loss at level a, and corrector and defect cost of the step to b on the first ``costed`` samples.

    In float32 at least. A half type rounds the points at which the network is asked, and no difference.
    """
    fine = torch.promote_types(dtype, torch.float32)
    denoiser, x0, eps = cast_input(denoiser, dtype), x0.to(fine), eps.to(fine)
    x = (x0 + a * eps).to(dtype).to(fine)
    clean = denoise(denoiser, x, a, **conditions)
    loss = _norm2(x0 - clean)
    if b is None or costed < 1:
        return loss, None
    conditions = conditions.take(slice(0, costed))
    x, clean = x[:costed], clean[:costed]
    # The scores' difference in a form without cancellation (s_b - s_a at the same x).
    moved = (denoise(denoiser, x, b, **conditions) - clean) / b**2 + (clean - x) * (1 / b**2 - 1 / a**2)
    slope = (x - clean) / a
    euler = x + (b - a) * slope
    # What rounding takes away from Euler's point is passed on as by the isotropic linear estimate: b divides by little.
    lost = (euler - euler.to(dtype).to(fine)) * sigma_data**2 / (b**2 + sigma_data**2)
    bend = (euler - denoise(denoiser, euler, b, **conditions) - lost) / b - slope
    return loss, (b**2 * _norm2(moved), (0.5 * (b - a)) ** 2 * _norm2(bend) / (b**2 + sigma_data**2))


def _drawn(
    data: Tensor, conditions: Mapping[str, Any] | None, count: int, seed: int
) -> tuple[Tensor, Conditions, dict[str, Any]]:
    """The samples that a profile is measured on, the conditions of each, and those that they share, on the CPU."""
    index = torch.randperm(len(data), generator=generator_of(seed))[:count]
    given, shared = Conditions.of(conditions, len(data)).to("cpu").apart()
    return data.cpu()[index].float(), given.take(index), shared


def _digest(x0: Tensor, label: Tensor | None) -> str:
    """Identifies samples and their classes."""
    parts = [x0.contiguous(), *(() if label is None else [label.long().contiguous()])]
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def _check_denoises(loss: Curve, corrector: Curve, defect: Curve, variance: float, share: float) -> None:
    """Raise :class:`DenoiserError` for what is no denoiser at all: most often, noise levels in other units.

    ``share`` of the data's variance is what the best isotropic linear estimate errs by at the lowest level.
    """
    if loss[-1] > variance * max(0.5, 4 * share):
        raise DenoiserError(
            f"at the lowest noise level the denoiser errs by {loss[-1]:.4g}, and the data's mean by {variance:.4g}: "
            "does it take x = x0 + sigma * noise and return x0, and are the data scaled as it was trained on?"
        )
    if corrector.mean() == 0 or defect.mean() == 0:
        raise DenoiserError(
            "the denoiser does not depend on the noise level, or returns its input: it removes no noise"
        )


def _curves(tensors: Mapping[str, Tensor]) -> dict[str, Curve]:
    """The arrays of a saved profile, and of its trajectories if it has any, checked."""
    saved = Saved({}, tensors)
    least, most = float(np.finfo(np.float64).tiny), float(np.finfo(np.float64).max)
    sigmas = saved.tensor("sigmas", None, low=least)
    levels = len(sigmas)
    if levels < 2 or not (sigmas.double().diff() < 0).all():
        raise InputError("sigmas of a profile are at least two levels, strictly decreasing")
    lengths = {"losses": levels, "corrector": levels - 1, "defect": levels - 1}
    found = {"sigmas": sigmas} | {name: saved.tensor(name, None, n, low=0, high=most) for name, n in lengths.items()}
    if not len(found["losses"]) >= len(found["corrector"]) == len(found["defect"]):
        raise InputError("the costs of a profile are of the same samples, which are among those of its losses")
    if "products" in tensors:
        found["products"] = saved.tensor("products", None, levels, levels, low=-most, high=most)
        found["spread"] = saved.tensor("spread", levels, low=least, high=most)
    return {name: tensor.double().numpy() for name, tensor in found.items()}


def _noise_like(x0: Tensor, seed: int) -> Tensor:
    return torch.randn(x0.shape, generator=generator_of(seed))


def _norm2(x: Tensor) -> Tensor:
    return x.flatten(1).cpu().double().square().sum(1)


def _logarithmic_mean(a: Curve, b: Curve) -> Curve:
    """Of exp(a) and exp(b): (e^b - e^a) / (b - a), which is e^a where they are equal."""
    gap = b - a
    near = np.abs(gap) < 1e-6
    ratio = np.where(near, 1 + gap / 2, np.expm1(np.where(near, 1.0, gap)) / np.where(near, 1.0, gap))
    return np.asarray(np.exp(a) * ratio)
