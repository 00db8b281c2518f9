"""The parts that readers of data share: the names of arrays, and one error for whatever goes wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.errors import DataError, HeadstartError

__all__ = ["LABELS", "SAMPLES", "readable", "wanted_names"]

#: The names that samples and classes may have among several arrays.
SAMPLES = ("samples", "images", "data", "arr_0")
LABELS = ("labels", "label", "y")


def wanted_names(names: Iterable[str], source: str | Path) -> list[str]:
    """The name of the samples, and that of the classes if there are any.

    Arguments:
        names: of all arrays.
        source: what holds them, for the message.

    Raises:
        DataError: if none is named as samples are, and there is not just one beside the classes.

    >>> wanted_names(["seeds", "samples", "labels"], "a.npz")
    ['samples', 'labels']
    """
    every = list(names)
    others = [name for name in every if name not in LABELS]
    key = next((name for name in SAMPLES if name in every), others[0] if len(others) == 1 else None)
    if key is None:
        raise DataError(f"{source} holds {', '.join(every) or 'nothing'}: name the samples 'samples'")
    return [key, *(name for name in LABELS if name in every)][:2]


@contextlib.contextmanager
def readable(source: str | Path) -> Iterator[None]:
    """Turn whatever a reader raises into one line: they raise errors of many kinds on damaged or forged files.

    Arguments:
        source: what is read.

    Raises:
        DataError: if it cannot be read. Errors of headstart stay what they are.
    """
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if "allow_pickle" in reason or "eights" in reason:
            reason = "it holds Python objects, which are never unpickled; save plain arrays or tensors"
        raise DataError(f"{source} cannot be read: {reason}") from error
