r"""iPNDM: Adams and Bashforth's weights for equal steps, on the estimates of the noise, whatever the steps are.

With :math:`\varepsilon_i = (x_i - D(x_i, \sigma_i)) / \sigma_i`, a step from a to b takes

.. math:: x_b = x_a + (b - a)\, \tilde\varepsilon_i, \qquad
    \tilde\varepsilon_i = \tfrac1{24} (55\, \varepsilon_i - 59\, \varepsilon_{i-1} + 37\, \varepsilon_{i-2}
    - 9\, \varepsilon_{i-3}),

and the weights of fewer estimates in the first steps. A step to 0 returns the denoised estimate, where the paper's
would subtract noise from a state.

The weights are those of levels that are equally far from each other, on which the method has the order of its number of
points (the first step aside). On any other grid whose neighbouring steps become alike as their number grows it is of
order 2, with small errors in few steps all the same.

References:
    Zhang and Chen, *Fast Sampling of Diffusion Models with Exponential Integrator*, ICLR 2023, arXiv 2204.13902,
    Appendix B (iPNDM).

    Liu et al., *Pseudo Numerical Methods for Diffusion Models on Manifolds*, ICLR 2022, arXiv 2202.09778, Equation 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from headstart.schedule import Schedule
from headstart.solver.base import SOLVERS, Solver
from headstart.solver.polynomial import checked_points, combine

__all__ = ["IPNDM"]

#: Of Adams and Bashforth, for one to four points, the newest first.
WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@SOLVERS.register
@dataclass(frozen=True, eq=False, repr=False)
class IPNDM(Solver):
    """iPNDM: second order on grids whose neighbouring steps become alike, one evaluation a step.

    Arguments:
        points: estimates of the noise that a step uses, from 1, which is Euler's method, to 4.

    Raises:
        InputError: if points is not a whole number from 1 to 4.

    >>> IPNDM(points=3)
    IPNDM(points=3)
    """

    name = "ipndm"
    cites = ("zhang2023fast", "liu2022pseudo")

    points: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", checked_points(self.points, 4))

    @property
    def order(self) -> int:
        return min(self.points, 2)

    def steps(
        self, D: Callable[[Tensor, float], Tensor], x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        noises: list[Tensor] = []  # the last estimates, the newest first
        for a, b in schedule.pairs():
            denoised = D(x, a)
            noises = [(x - denoised) / a, *noises[: self.points - 1]]
            x = denoised if b == 0 else x + (b - a) * combine(WEIGHTS[len(noises) - 1], noises)
            yield x
