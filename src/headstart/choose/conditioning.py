"""The part that conditions have in a plan: what its start knows of them, and what it would cost to ignore them."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.budget import condition_information
from headstart.choose.screen import Option
from headstart.conditions import Own, Split, named_leaves
from headstart.initialization import Initialization
from headstart.initialization.features import name_of
from headstart.initialization.regression import EVERY
from headstart.plan import Conditioning
from headstart.profile import Profile

__all__ = ["conditioning"]


def conditioning(split: Split, profile: Profile, starts: Sequence[Initialization], best: Option) -> Conditioning | None:
    """The conditions other than classes that the chosen start knows and ignores; None where there are none.

    Arguments:
        split: the data with their conditions.
        profile: measured with them.
        starts: those that were considered.
        best: the chosen combination.
    """
    names = [name_of(path) for path, leaf in named_leaves(split.whole.conditions.tree) if isinstance(leaf, Own)]
    if not set(names) - {"label"}:
        return None
    knows = best.start.knows
    ignores = () if EVERY in knows else tuple(name for name in names if name not in knows)
    found = condition_information(profile, list(dict.fromkeys(starts)), best.schedule.horizon)
    return Conditioning(knows, ignores, None if found is None else (found.value, found.error))
