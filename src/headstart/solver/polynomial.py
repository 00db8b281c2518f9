r"""How multistep solvers use the past: the exact integral of a polynomial through what was estimated there.

With the polynomial through estimates :math:`y_j` at places :math:`t_j`, and a weight :math:`g`,

.. math:: \int g(t)\, \sum_j y_j\, \ell_j(t)\, dt = \sum_j w_j\, y_j, \qquad
    \ell_j(t) = \prod_{k \ne j} \frac{t - t_k}{t_j - t_k}, \qquad w_j = \int g(t)\, \ell_j(t)\, dt.

The integrals over a step are Gauss-Legendre sums with 32 nodes. On steps of any length they are exact to rounding,
where closed forms cancel on short ones. They are remembered: every batch goes down the same levels.

References:
    Lagrange's polynomials and the methods of Adams and Bashforth: Hairer, Norsett and Wanner, *Solving Ordinary
    Differential Equations I*, 1993, Section III.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headstart.errors import InputError

__all__ = ["checked_points", "combine", "data_weights", "gauss_legendre", "noise_weights"]

#: Nodes of the rule over a step.
NODES = 32

#: Steps whose weights are remembered.
CACHED = 1024


@cache
def gauss_legendre(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of the Gauss-Legendre rule on [-1, 1], shape (count,) each."""
    from scipy.special import roots_legendre

    nodes, masses = roots_legendre(count)
    return nodes, masses


def _over_step() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of the rule on [0, 1]."""
    nodes, masses = gauss_legendre(NODES)
    return (1 + nodes) / 2, masses / 2


@lru_cache(CACHED)
def data_weights(levels: tuple[float, ...], a: float, b: float) -> tuple[float, ...]:
    r"""w such that :math:`\frac ba x_a + \sum_j w_j D_j` solves the ODE for estimates D polynomial in ln sigma.

    .. math:: w_j = b \int_{-\ln a}^{-\ln b} e^\lambda\, \ell_j(\lambda)\, d\lambda

    Arguments:
        levels: where the D_j were estimated, all different and above 0.
        a: level at the start of the step.
        b: level at its end, above 0.
    """
    h = math.log(a / b)
    places = [math.log(a / level) / h for level in levels]  # in steps from a
    nodes, masses = _over_step()
    return _weights(places, nodes, masses * h * np.exp(-h * (1 - nodes)))


@lru_cache(CACHED)
def noise_weights(levels: tuple[float, ...], a: float, b: float, power: float) -> tuple[float, ...]:
    r"""w such that :math:`x_a + \sum_j w_j \varepsilon_j` solves the ODE for noise polynomial in :math:`\sigma^p`.

    .. math:: w_j = \int_a^b \ell_j(\sigma^p)\, d\sigma, \qquad \ell_j(\ln \sigma) \text{ for } p = 0

    Arguments:
        levels: where the noise was estimated, all different and above 0.
        a: level at the start of the step.
        b: level at its end, above 0.
        power: p, at least 0.
    """
    h = math.log(a / b)

    def place(steps: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Of a level a e^{-h steps}, up to an affine map, which changes no polynomial."""
        return np.asarray(np.expm1(-power * h * steps) if power > 0 else steps)

    places = [float(place(math.log(a / level) / h)) for level in levels]
    nodes, masses = _over_step()
    return _weights(places, place(nodes), masses * -a * h * np.exp(-h * nodes))


def _weights(places: Sequence[float], nodes: NDArray[np.float64], masses: NDArray[np.float64]) -> tuple[float, ...]:
    """The sum over the nodes of masses times each Lagrange polynomial of the places."""
    weights = []
    for place in places:
        terms = masses
        for other in places:
            if other != place:
                terms = terms * ((nodes - other) / (place - other))
        weights.append(float(terms.sum()))
    return tuple(weights)


def combine(weights: Sequence[float], states: Sequence[Tensor]) -> Tensor:
    """The weighted sum of as many states, in their dtype."""
    total = weights[0] * states[0]
    for weight, state in zip(weights[1:], states[1:], strict=True):
        total = total.add(state, alpha=weight)
    return total


def checked_points(points: float, most: int) -> int:
    """A number of past estimates, which JSON may have made a float.

    Raises:
        InputError: if it is not a whole number from 1 to ``most``.
    """
    if points not in range(1, most + 1):
        raise InputError(f"points must be a whole number from 1 to {most}: got {points}")
    return int(points)
