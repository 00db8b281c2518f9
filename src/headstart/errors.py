"""The errors that headstart raises: one base, one class for each thing that can be wrong.

A message names what was wrong and what would be right. The command line prints it alone and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = [
    "ArtefactError",
    "DataError",
    "DenoiserError",
    "HeadstartError",
    "HeadstartWarning",
    "InputError",
    "MissingExtraError",
    "NotFiniteError",
    "ProcessError",
    "unknown",
]


#: Seeds that a message names at most.
SEEDS = 5


class HeadstartWarning(UserWarning):
    """Something to know that changed no result."""


class HeadstartError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        exit_code: what the command line ends with.
        elsewhere: whether it came up in another process, which says it (:mod:`headstart.processes`).
    """

    exit_code = 1
    elsewhere = False


class InputError(HeadstartError, ValueError):
    """An argument is out of its range or does not fit another one."""

    exit_code = 2


class DataError(HeadstartError, ValueError):
    """Data cannot be read, have the wrong shape, or hold NaN or Inf."""

    exit_code = 3


class DenoiserError(HeadstartError, RuntimeError):
    """A denoiser cannot be loaded, or returned the wrong shape, NaN or Inf."""

    exit_code = 4


class NotFiniteError(DenoiserError):
    """A denoiser returned NaN or Inf.

    Attributes:
        sigma: the level at which it did.
        rows: of the batch, those that hold them.
    """

    def __init__(self, sigma: float, rows: Sequence[int]) -> None:
        super().__init__(f"the denoiser returned NaN or Inf at sigma = {sigma:.6g}")
        self.sigma, self.rows = sigma, tuple(rows)

    def of_seeds(self, seeds: Sequence[int]) -> DenoiserError:
        """The same, with the seeds of the samples that were at fault, given those of the batch."""
        wrong = [str(seeds[row]) for row in self.rows if row < len(seeds)]
        named = ", ".join(wrong[:SEEDS]) + f" and {len(wrong) - SEEDS} more" * (len(wrong) > SEEDS)
        return DenoiserError(f"{self}, for the seed{'s' * (len(wrong) > 1)} {named}")


class ArtefactError(HeadstartError, RuntimeError):
    """A saved plan is missing, damaged or newer than this version, or cannot be written."""

    exit_code = 5


class MissingExtraError(HeadstartError, ImportError):
    """An optional library is not installed."""

    exit_code = 6


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message about a name that nothing has: what it may stand for, and what there is.

    Arguments:
        kind: what the name is of, such as "solver".
        name: the name.
        known: the names that there are.

    >>> unknown("solver", "huen", ["euler", "heun"])
    "unknown solver 'huen' (did you mean 'heun'?): expected one of euler, heun"
    >>> unknown("solver", "x", ["euler", "heun"])
    "unknown solver 'x': expected one of euler, heun"
    """
    every = list(known)
    folded = {each.lower(): each for each in every}
    near = [folded[found] for found in get_close_matches(str(name).lower(), folded, n=1)]
    return (
        f"unknown {kind} {name!r}{f' (did you mean {near[0]!r}?)' if near else ''}: expected one of {', '.join(every)}"
    )


class ProcessError(HeadstartError, RuntimeError):
    """Processes that work together cannot reach each other, or one of them is gone."""

    exit_code = 7
