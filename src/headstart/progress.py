"""Progress, as an object that is handed in: the library reports through it and never prints.

>>> list(Progress().track(range(3), "counting"))
[0, 1, 2]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["Progress"]

T = TypeVar("T")


class Progress:
    """Reports nothing. A subclass overrides :meth:`track` to draw a bar, and :meth:`note` to write beside it."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """The items, one by one.

        Arguments:
            items: what is worked through.
            description: what the work is, in a few words.
            total: how many items there are, if their number cannot be asked for.
        """
        yield from items

    def note(self, text: str) -> None:
        """Says something about the work under way, such as the current NLL."""
