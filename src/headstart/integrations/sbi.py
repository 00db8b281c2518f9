r"""sbi: its score estimators come in, plans go out to its posteriors.

A score estimator gives :math:`\nabla \log p_t(z)` of :math:`z = \alpha_t x_0 + \sigma_t \varepsilon` given an
observation, and its coefficients are functions of a time (:class:`headstart.integrations.process.Path`). A posterior
samples by a ``Diffuser``, whose ``Predictor`` moves from one time to the next; :func:`to_sbi` makes both of a plan.

References:
    Tejero-Cantero et al., *sbi*, version 0.27.0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from headstart.conditions import Conditions, own
from headstart.denoiser import Denoiser, Range, adapt
from headstart.errors import InputError
from headstart.extras import require
from headstart.integrations.pipeline import seeds_of
from headstart.integrations.process import Path
from headstart.noise import Noise
from headstart.sampler import Sampler

__all__ = ["from_sbi", "to_sbi"]


def from_sbi(estimator: Any, observation: Tensor | None = None) -> Denoiser:
    """A denoiser of parameters given an observation, from a score estimator of sbi.

    Arguments:
        estimator: a ``ConditionalScoreEstimator``, as NPSE trains it.
        observation: x_o, of shape (1, \\*O); or None, for a denoiser with the condition ``observation``, one a sample:
            a plan is then fitted on simulations once, and sampled at any observation. For posteriors that are far
            narrower than their prior fit with ``criterion="budget"`` and a ``sigma_min`` of a fiftieth of the prior's
            deviation: a pilot does not see their shape.

    Raises:
        InputError: if it has no mean, standard deviation and range of times: flow-matching estimators have not; or if
            the observation is not one.
    """
    if observation is not None and (observation.ndim < 2 or len(observation) != 1):
        raise InputError(f"the observation has shape {tuple(observation.shape)}: expected one, of shape (1, ...)")

    def score(z: Tensor, time: Tensor, **given: Tensor) -> Tensor:
        x = given.get("observation") if observation is None else observation
        if x is None:
            raise InputError("this posterior needs the condition observation: one for each sample, or one for all")
        found: Tensor = estimator(z, x.to(z).expand(len(z), *x.shape[1:]), time)
        return found

    return adapt(score, "score", _path(estimator))


def to_sbi(sampler: Sampler, posterior: Any, observation: Tensor | None = None) -> Any:
    """A ``Diffuser`` of sbi that samples a posterior by a plan.

    ``run(n)`` draws samples of shape (n, B, \\*S) given the observations. Its predictor and its times also go into the
    posterior's own methods, which reject samples outside of the prior and take any observation:

    .. code-block:: python

        diffuser = to_sbi(plan, posterior, x_o)
        samples = posterior.sample((1000,), x=x_o, predictor=diffuser.predictor, ts=diffuser.ts)

    The first of these times is that of sbi's own noise, which the plan's start takes the place of. Seeds are drawn from
    PyTorch's global generator, as sbi draws. Guidance, and methods for independent observations, stay the posterior's.
    After ``posterior.to(device)`` it has to be made anew.

    Arguments:
        sampler: a plan for ``from_sbi(estimator)``, or for ``from_sbi(estimator, x_o)`` of the same observation.
        posterior: a ``VectorFieldPosterior``, as NPSE builds it.
        observation: x_o, of shape (B, \\*O); by default the posterior's own.

    Raises:
        InputError: if it is no posterior of scores, there is no observation or one of another shape, the plan is for
            parameters of another shape, or a level lies outside of what the estimator knows.
    """
    potential: Any = getattr(posterior, "potential_fn", None)
    estimator: Any = getattr(potential, "vector_field_estimator", None)
    path, shape = _path(estimator), tuple(estimator.input_shape)
    if sampler.initialization.shape != shape:
        raise InputError(f"the plan is for samples of shape {sampler.initialization.shape}, and parameters are {shape}")
    for level in sampler.schedule.sigmas[:-1]:
        Range.of(path).check(level)
    observation = posterior.default_x if observation is None else observation
    known = tuple(estimator.condition_shape)
    if observation is None or tuple(observation.shape[1:]) != known or not len(observation):
        found = "none" if observation is None else f"shape {tuple(observation.shape)}"
        raise InputError(
            f"an observation is of shape (B, {', '.join(map(str, known))}), given or set by set_default_x: got {found}"
        )
    potential.set_x(observation, x_is_iid=False)
    diffuser, predictor = _classes()
    return diffuser(potential, predictor(potential, sampler, path))


def _path(estimator: Any) -> Path:
    """The process of a score estimator."""
    needed = ("mean_t_fn", "std_fn", "t_min", "t_max")
    if not all(hasattr(estimator, name) for name in needed) or "Flow" in type(estimator).__name__:
        raise InputError(f"a {type(estimator).__name__} is no score estimator of sbi: it needs {', '.join(needed)}")

    def coefficient(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda t: of(t).reshape(len(t), -1)[:, 0]

    alpha, sigma = coefficient(estimator.mean_t_fn), coefficient(estimator.std_fn)
    return Path(alpha, sigma, float(estimator.t_min), float(estimator.t_max))


@cache
def _classes() -> tuple[type, type]:
    """The diffuser and the predictor, as classes that sbi takes for its own."""
    theirs = [
        require(f"sbi.samplers.score.{module}", "clients", "a posterior of sbi")
        for module in ("diffuser", "predictors")
    ]
    return (
        type("PlannedDiffuser", (_PlannedDiffuser, theirs[0].Diffuser), {"__module__": __name__}),
        type("PlannedPredictor", (_PlannedPredictor, theirs[1].Predictor), {"__module__": __name__}),
    )


class _PlannedPredictor:
    """The steps of a plan as those of a predictor. A run is one pass of the solver over its levels.

    Attributes:
        ts: the times that it goes by: that of sbi's own noise, and those of the plan's levels.
    """

    potential_fn: Any
    _handed: Tensor

    def __init__(self, potential: Any, sampler: Sampler, path: Path) -> None:
        super().__init__(potential)  # type: ignore[call-arg]
        self.sampler, self.path = sampler, path
        levels = torch.tensor(sampler.schedule.sigmas, dtype=torch.float64)
        self.scales = [*path.scale(levels[:-1]).tolist(), float(path.scale(levels[-1:])) if levels[-1] else 1.0]
        self.ts = torch.cat([torch.tensor([path.last]), path.time(levels).float()])
        self._times = self.ts.tolist()
        self._at = 0

    def begin(self, count: int) -> Tensor:
        """The plan's start for each observation: states (count, B, \\*S) of sbi at the first of the levels."""
        potential, sampler = self.potential_fn, self.sampler
        observed: Tensor = potential.x_o
        each = 1 if potential.x_is_iid else len(observed)
        rows = observed.repeat(count, *[1] * (observed.ndim - 1))
        given = Conditions.of(None if potential.x_is_iid else {"observation": own(rows)}, count * each)

        def score(z: Tensor, time: Tensor, **_: Tensor) -> Tensor:
            found: Tensor = potential.gradient(z.reshape(count, each, *z.shape[1:]), time[0])
            return found.flatten(0, 1)

        denoiser = adapt(score, "score", self.path)
        noise = Noise(seeds_of(torch.default_generator, count * each), observed.device)
        x = sampler.initialization.bound(denoiser).sample(noise, sampler.horizon, given)
        self._path = sampler.solver.trajectory(partial(denoiser, **given), x, sampler.schedule, noise)
        self._each, self._at = each, 0
        return self._handed_on(x)

    def predict(self, theta: Tensor, t1: Tensor, t0: Tensor) -> Tensor:
        """The states at the time ``t0`` from those at ``t1``, which the run before has returned.

        Raises:
            InputError: if the times are not those of the plan, one after the other, or the states were changed.
        """
        times = float(t1), float(t0)
        if times == (self._times[0], self._times[1]):
            return self.begin(len(theta))
        if not 0 < self._at < len(self._times) - 1 or times != (self._times[self._at], self._times[self._at + 1]):
            raise InputError("the plan has times of its own, which it goes by in their order: give ts=diffuser.ts")
        if not torch.equal(theta, self._handed):
            raise InputError("the states were changed between two steps, which a plan does not know: use no corrector")
        return self._handed_on(next(self._path))

    def _handed_on(self, x: Tensor) -> Tensor:
        """The states in the units and the shape of sbi."""
        self._handed = (self.scales[self._at] * x).reshape(-1, self._each, *x.shape[1:])
        self._at += 1
        return self._handed


class _PlannedDiffuser:
    """A diffuser that begins at a plan's start and goes by its times."""

    predictor: _PlannedPredictor

    @property
    def ts(self) -> Tensor:
        """The times for a posterior's own methods."""
        return self.predictor.ts

    def initialize(self, num_samples: int) -> Tensor:
        """The plan's start."""
        return self.predictor.begin(num_samples)

    def run(self, num_samples: int, ts: Tensor | None = None, **options: Any) -> Tensor:
        """Samples of shape (num_samples, B, \\*S), by sbi's own loop: see sbi for its options."""
        found: Tensor = super().run(num_samples, self.ts[1:] if ts is None else ts, **options)  # type: ignore[misc]
        return found
