r"""How the reverse process moves between two levels: solvers of the probability-flow ODE and of the reverse SDE.

With a denoiser D, the probability-flow ODE in the noise level is

.. math:: \frac{dx}{d\sigma} = \frac{x - D(x, \sigma)}{\sigma},

and a step of a solver goes from a level a to a level b < a. Coefficients are Python floats (float64) and multiply
states in the states' own dtype, which a solver therefore never changes.

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022, Equation 3.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from headstart.denoiser import Denoiser, denoise, in_evaluation_mode, is_finite
from headstart.errors import InputError
from headstart.noise import Noise
from headstart.registry import Registry
from headstart.schedule import ReverseVariance, Schedule

__all__ = ["SOLVERS", "Solver", "last"]


@dataclass(frozen=True, eq=False, repr=False)
class Solver(ABC):
    """Moves samples down a schedule, as a value without state.

    A subclass writes one method, :meth:`steps`, and says its order. If it has parameters, it is a frozen dataclass of
    numbers, or of nested tuples of them.

    Attributes:
        name: the name by which a plan stores the solver.
        cites: what to cite for it: keys of ``references.bib``, or whole BibTeX entries.
        given: whether it is nothing without parameters that someone learned, so that its name alone is not enough.
        reverse_variance: of the steps of a stochastic solver, without parameters, whose path's divergence is known
            (:mod:`headstart.schedule.dynamic`): its budget in nats is then that of its path.
    """

    name: ClassVar[str]
    cites: ClassVar[tuple[str, ...]] = ()
    given: ClassVar[bool] = False
    reverse_variance: ClassVar[ReverseVariance | None] = None

    @property
    @abstractmethod
    def order(self) -> int:
        """Global order of convergence (of the law, for a stochastic solver)."""

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise on the way."""
        return False

    @abstractmethod
    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        """The states at the levels s_1, ..., s_N, one by one: the algorithm, on inputs that were checked.

        Arguments:
            D: the denoiser, its conditions fixed and its output checked.
            x: the states at s_0, of shape (B, \\*S).
            schedule: the levels.
            noise: draws standard normal numbers of x's shape, dtype and device.
        """

    def __init_subclass__(cls) -> None:
        """Accept ``walk``, the name that :meth:`steps` had in an earlier version."""
        super().__init_subclass__()
        if "walk" in vars(cls) and "steps" not in vars(cls):
            warnings.warn(f"{cls.__name__}.walk is now called steps", DeprecationWarning, stacklevel=2)
            cls.steps = vars(cls)["walk"]  # type: ignore[method-assign]

    def trajectory(
        self, denoiser: Denoiser, x: Tensor, schedule: Schedule, noise: Noise | None = None, /, **conditions: Any
    ) -> Iterator[Tensor]:
        """The states at the levels s_1, ..., s_N, one by one.

        Arguments:
            denoiser: the contract of :mod:`headstart.denoiser`.
            x: the states at s_0, of shape (B, \\*S).
            schedule: the levels.
            noise: the samples' random streams; only a stochastic solver draws from them.
            conditions: handed to the denoiser.

        Raises:
            DenoiserError: if the denoiser returns NaN, Inf or the wrong shape.
            InputError: if the states are not finite floating-point numbers, or if a stochastic solver is not given one
                stream a sample.
        """
        if not (x.is_floating_point() and is_finite(x)):
            raise InputError(f"the states to start from must be finite floating-point numbers, got {x.dtype}")
        if self.stochastic and (noise is None or len(noise) != len(x)):
            raise InputError(
                f"the solver {self.name} draws noise: give it one random stream for each of {len(x)} samples"
            )

        def draw() -> Tensor:
            assert noise is not None, "a solver that draws noise must say that it is stochastic"
            return noise.normal(tuple(x.shape[1:])).to(x)

        return self.steps(partial(denoise, denoiser, **conditions), x, schedule, draw)

    @in_evaluation_mode
    def solve(
        self, denoiser: Denoiser, x: Tensor, schedule: Schedule, noise: Noise | None = None, /, **conditions: Any
    ) -> Tensor:
        """The states at the last level, of x's shape and dtype. See :meth:`trajectory`."""
        return last(self.trajectory(denoiser, x, schedule, noise, **conditions))

    def nfe(self, schedule: Schedule) -> int:
        """Network evaluations per sample on this schedule."""
        return schedule.steps

    def steps_for(self, nfe: int) -> int:
        """The largest number of steps, with the last one to 0, that costs at most ``nfe`` evaluations."""
        return nfe

    def parameters(self) -> dict[str, Any]:
        """The parameters that differ from the defaults: numbers, or nested tuples of them.

        ``type(solver)(**solver.parameters())`` equals the solver, also after JSON, which turns tuples into lists.
        """
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Solver) and self.parameters() == other.parameters()

    def __hash__(self) -> int:
        return hash((type(self), *self.parameters().items()))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{key}={_shown(value)}' for key, value in self.parameters().items())})"
        )


def last(states: Iterable[Tensor]) -> Tensor:
    """The last of some states, of which no other is kept."""
    return deque(states, maxlen=1).pop()


SOLVERS: Registry[type[Solver]] = Registry(
    "solver",
    "headstart.solver",
    "headstart.solvers",
    first=(
        "euler",
        "heun",
        "dpm++2m",
        "dpm++3m",
        "unipc",
        "deis",
        "ipndm",
        "ddpm",
        "euler-maruyama",
        "predictor-corrector",
        "distilled",
    ),
)
"""The solvers by name; ``SOLVERS[solver.name](**solver.parameters())`` equals the solver."""


def _shown(value: Any) -> str:
    """A number in short, or a nested tuple of them."""
    if not isinstance(value, tuple):
        return f"{value:g}"
    return f"({', '.join(map(_shown, value))}{',' * (len(value) == 1)})"
