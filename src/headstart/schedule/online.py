r"""Algorithm 2 of the paper: noise levels that follow the network while it is trained.

A network that is trained on the levels of a grid is asked, on samples x of level :math:`\sigma_i` that it sees anyway,
for its estimate at the next level too. The change of its score between the two is the corrector cost of the step,

.. math::
    L_i = \sigma_{i+1}^2\, E\,\|s(x, \sigma_{i+1}) - s(x, \sigma_i)\|^2, \qquad s = (D - x) / \sigma^2,

and whenever every step has been seen often enough, the grid moves a little towards the one of equal costs:

.. math:: \ln \sigma_i \leftarrow \gamma \ln \sigma_i^* + (1 - \gamma) \ln \sigma_i.

That costs one more evaluation without a gradient for each sample, or for as few of them as one likes.

References:
    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877, Algorithm 2, with
    :math:`\gamma` from 0.05 to 0.1. It blends the time; we do so for ln sigma: see
    :mod:`headstart.schedule.fixed_point`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from headstart.denoiser import expand
from headstart.errors import ArtefactError, DenoiserError, InputError
from headstart.schedule.base import Schedule
from headstart.schedule.fixed_point import update

__all__ = ["OnlineSchedule", "corrector_costs"]


class OnlineSchedule:
    """A schedule that a training loop feeds with costs. It draws no random numbers, and its state is plain values.

    Arguments:
        schedule: the first grid; its ends stay, and so does a step to 0.
        blending: :math:`\\gamma`, the share of each move that is taken.
        exponent: the power of the step that the costs fall as: 2 for the corrector cost.
        visits: how many costs every step must have been given before the grid moves.

    Raises:
        InputError: if a number is out of its range, or there are fewer than two steps above 0.

    >>> online = OnlineSchedule(Schedule([8.0, 4.0, 2.0, 1.0]), blending=0.5, visits=1)
    >>> online.observe([0, 1, 2], [9.0, 1.0, 1.0])
    True
    >>> online
    OnlineSchedule(3 steps, 8 > 4.996 > 2.579 > 1; 1 move, blending 0.5)
    """

    def __init__(self, schedule: Schedule, *, blending: float = 0.05, exponent: float = 2.0, visits: int = 24) -> None:
        if not 0 < blending <= 1 or not 0 < exponent < math.inf or visits < 1:
            raise InputError(
                "blending must lie above 0 and be at most 1, the exponent be above 0 and visits be 1 or more: "
                f"got {blending}, {exponent} and {visits}"
            )
        if sum(s > 0 for s in schedule.sigmas) < 3:
            raise InputError("an online schedule needs at least two steps above 0: with one there is nothing to move")
        self.schedule = schedule
        self.blending, self.exponent, self.visits = float(blending), float(exponent), int(visits)
        self.moves = 0
        self._sums = np.zeros(self.steps)
        self._counts = np.zeros(self.steps, dtype=np.int64)

    @property
    def steps(self) -> int:
        """Number of steps above 0: costs are fed for the steps 0 to steps - 1."""
        return sum(s > 0 for s in self.schedule.sigmas) - 1

    @property
    def levels(self) -> NDArray[np.float64]:
        """The levels above 0, shape (steps + 1,)."""
        return np.array([s for s in self.schedule.sigmas if s > 0])

    @property
    def costs(self) -> NDArray[np.float64]:
        """The mean cost of each step since the grid last moved; NaN where none was fed."""
        return np.where(self._counts > 0, self._sums / np.maximum(self._counts, 1), np.nan)

    def observe(self, step: ArrayLike | Tensor, costs: ArrayLike | Tensor) -> bool:
        """Feed costs, and move the grid if every step has been fed enough.

        Arguments:
            step: which step each cost is of, from the level of that place to the next, shape (B,).
            costs: shape (B,). Those of an unbiased estimate may be negative; a mean below 0 counts as 0.

        Returns:
            Whether the grid moved.

        Raises:
            InputError: if the shapes do not fit or a step is out of range.
            DenoiserError: if a cost is not finite: the training has diverged. Nothing was changed then.
        """
        place, values = _array(step), np.asarray(_array(costs), dtype=np.float64)
        if place.ndim != 1 or place.shape != values.shape or not np.issubdtype(place.dtype, np.integer):
            raise InputError(
                f"each cost belongs to a step, a whole number: got shapes {place.shape} and {values.shape}"
            )
        if len(place) and (place.min() < 0 or place.max() >= self.steps):
            raise InputError(f"the steps are 0 to {self.steps - 1}: got {place.min()} to {place.max()}")
        if not np.isfinite(values).all():
            raise DenoiserError("a cost is NaN or Inf: the training has diverged, and the schedule was left as it is")
        self._sums += np.bincount(place, weights=values, minlength=self.steps)
        self._counts += np.bincount(place, minlength=self.steps)
        if self._counts.min() < self.visits:
            return False
        return self._move()

    def observe_denoised(self, step: ArrayLike | Tensor, x: Tensor, denoised: Tensor, denoised_next: Tensor) -> bool:
        """Feed what a training evaluates: the corrector cost follows from two estimates at the same x.

        Arguments:
            step: which level each sample is of, shape (B,).
            x: noised samples of those levels, shape (B, \\*S).
            denoised: the network's estimate at the level, which its loss is made of; of x's shape.
            denoised_next: its estimate at the same x and the next level; of x's shape.

        Returns and raises as :meth:`observe`.
        """
        place = torch.as_tensor(_array(step))
        if place.ndim != 1 or len(place) != len(x) or place.is_floating_point():
            raise InputError(f"each sample belongs to a step, a whole number: got {tuple(place.shape)} for {len(x)}")
        if len(place) and (int(place.min()) < 0 or int(place.max()) >= self.steps):
            raise InputError(f"the steps are 0 to {self.steps - 1}: got {int(place.min())} to {int(place.max())}")
        levels = torch.from_numpy(self.levels)
        return self.observe(place, corrector_costs(x, levels[place], levels[place + 1], denoised, denoised_next))

    def state(self) -> dict[str, Any]:
        """Everything, as numbers, strings and lists: for a checkpoint, or JSON."""
        return {
            "sigmas": list(self.schedule.sigmas),
            "name": self.schedule.name,
            "blending": self.blending,
            "exponent": self.exponent,
            "visits": self.visits,
            "moves": self.moves,
            "sums": self._sums.tolist(),
            "counts": self._counts.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> OnlineSchedule:
        """The schedule that :meth:`state` describes, which goes on as if it had never stopped.

        Raises:
            ArtefactError: if something is missing, or does not fit.
        """
        try:
            online = cls(
                Schedule(state["sigmas"], str(state["name"])),
                blending=state["blending"],
                exponent=state["exponent"],
                visits=state["visits"],
            )
            online.moves = int(state["moves"])
            sums, counts = np.array(state["sums"], dtype=np.float64), np.array(state["counts"], dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"this is no state of an online schedule: {error!r}") from error
        if sums.shape != (online.steps,) or counts.shape != sums.shape or not np.isfinite(sums).all():
            raise ArtefactError(f"the state of an online schedule with {online.steps} steps has as many finite sums")
        if (counts < 0).any() or online.moves < 0:
            raise ArtefactError("the counts in the state of an online schedule are at least 0")
        online._sums, online._counts = sums, counts
        return online

    def _move(self) -> bool:
        costs = np.maximum(self.costs, 0.0)
        if costs.max() == 0:
            return False  # nothing is known yet: wait for more
        self.schedule = update(self.schedule, costs, self.exponent, self.blending)
        self.moves += 1
        self._sums, self._counts = np.zeros(self.steps), np.zeros(self.steps, dtype=np.int64)
        return True

    def __repr__(self) -> str:
        levels = repr(self.schedule).partition(": ")[2].removesuffix(")")
        return f"OnlineSchedule({levels}; {self.moves} move{'s' * (self.moves != 1)}, blending {self.blending:g})"


def corrector_costs(x: Tensor, a: Tensor | float, b: Tensor | float, denoised: Tensor, denoised_next: Tensor) -> Tensor:
    r""":math:`b^2 \|s(x, b) - s(x, a)\|^2` of each sample, from estimates at both levels, shape (B,), float64, CPU.

    In a form that does not subtract one score from the other.

    Arguments:
        x: samples at level a, shape (B, \*S).
        a: their level, a scalar or of shape (B,).
        b: the next level, below a and above 0.
        denoised: D(x, a), of x's shape.
        denoised_next: D(x, b), of x's shape.

    Raises:
        InputError: if the shapes do not fit, or the levels are out of order.
    """
    if denoised.shape != x.shape or denoised_next.shape != x.shape:
        raise InputError(
            f"estimates have the shape of x, {tuple(x.shape)}: got {tuple(denoised.shape)} and "
            f"{tuple(denoised_next.shape)}"
        )
    z, here, there = (t.detach().cpu().double() for t in (x, denoised, denoised_next))
    high, low = (
        expand(torch.as_tensor(a, dtype=torch.float64).cpu(), z),
        expand(torch.as_tensor(b, dtype=torch.float64).cpu(), z),
    )
    if not bool(((high > low) & (low > 0)).all()):
        raise InputError("a step goes from a level down to one above 0")
    change = (there - here) / low**2 + (here - z) * (1 / low**2 - 1 / high**2)
    return (low * change).flatten(1).square().sum(1)


def _array(values: ArrayLike | Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
