r"""The information that a condition has of the noised data, :math:`I(X_T; C)`: what a start pays that ignores it.

Averaged over conditions, a start that looks at them errs by :math:`E_\text{init} = -E \log p_\theta(x_T \mid c) -
h(X_T \mid C)`. One that does not errs by its own divergence from the law of all noised data, and the information,

.. math:: -E \log p_\theta(x_T) - h(X_T \mid C) = KL(p_T \,\|\, p_\theta) + I(X_T; C).

So between the best start that looks and the best that does not, the difference of E_init is the information, up to the
difference of their own errors. It says before anything is sampled whether a conditional start is worth having, and at
which horizon it stops to matter. Samples and noise are common to both, so that the difference is known far better than
its parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from headstart.budget.base import Estimate
from headstart.budget.initialization import excess
from headstart.initialization import Initialization
from headstart.profile import Profile

__all__ = ["condition_information"]


def condition_information(profile: Profile, starts: Sequence[Initialization], sigma: float) -> Estimate | None:
    """The nats that the best of the starts that ignore the conditions pays for it at horizon ``sigma``.

    A start that knows nothing but classes counts on both sides: without a class, its law is that of all together.

    Arguments:
        profile: measured with the conditions of its samples.
        starts: those that are compared; those without a density, or for other horizons, are left out.
        sigma: the horizon.

    Returns:
        The estimate, or None if no start looks at the conditions or none ignores them.

    Raises:
        InputError: if the profile was loaded without its samples.
    """
    known = [s for s in starts if s.tractable and not s.oracle and s.sigmas[0] <= sigma <= s.sigmas[1]]
    looking = [excess(profile, start, sigma) for start in known if start.knows]
    ignoring = [excess(profile, start, sigma, blind=True) for start in known if set(start.knows) <= {"label"}]
    if not looking or not ignoring:
        return None
    best, other = (min(side, key=lambda each: float(each.mean())) for side in (looking, ignoring))
    return Estimate.of((other - best).numpy())
