r"""The standard error of a score of n samples: the delete-a-group jackknife.

The samples are dealt at random into G groups of almost equal size, and the score is computed again without each,

.. math:: \operatorname{se}^2 = \frac{G - 1}{G} \sum_{g = 1}^{G} \big(s_{(g)} - \bar s\big)^2,
    \qquad \bar s = \frac1G \sum_{g = 1}^{G} s_{(g)}.

No sample occurs twice, as it would in a bootstrap, which would put nearest neighbours at distance zero. A bias that is
the same for all groups, such as that of the Fréchet distance, drops out: the error says how far the score moves, not
how far it is off. With G = 10 the error itself is accurate to about 25 %.

References:
    Kott, *The Delete-a-Group Jackknife*, Journal of Official Statistics, 2001.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from headstart.noise import generator_of

__all__ = ["groups_of", "jackknife", "others"]

#: Groups that samples are dealt into.
GROUPS = 10


def groups_of(n: int, seed: int, count: int = GROUPS) -> list[Tensor]:
    """The indices 0 to n - 1, dealt at random into ``count`` groups, or n if that is fewer."""
    order = torch.randperm(n, generator=generator_of(seed))
    return list(torch.tensor_split(order, min(count, n)))


def others(groups: Sequence[Tensor], g: int) -> Tensor:
    """The indices that are not in group g."""
    return torch.cat([group for h, group in enumerate(groups) if h != g])


def jackknife(without: Sequence[float]) -> float:
    """The standard error, from the score without each of two groups or more.

    >>> jackknife([1.0, 2.0, 3.0])
    1.1547005383792515
    """
    mean = sum(without) / len(without)
    return math.sqrt((len(without) - 1) / len(without) * sum((value - mean) ** 2 for value in without))
