"""Progress on standard error: bars for work that takes longer than a second, or a plain line every half minute."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from headstart.processes import leads
from headstart.progress import Progress

__all__ = ["RichProgress"]

#: Seconds that work must last for a bar to appear.
PATIENCE = 1.0

#: Seconds between two lines where there is no terminal.
EVERY = 30.0

T = TypeVar("T")


class RichProgress(Progress):
    """Draws a bar for each piece of work, one below the other where they nest.

    Where there is no terminal, a plain line says every half minute how far the work is, the outermost first, and how
    long that will still take. Of several processes the first one alone tells.

    Arguments:
        console: where it is drawn; standard error by default.
        sooner: write lines twice as often.
    """

    def __init__(self, console: Console | None = None, *, sooner: bool = False) -> None:
        self._every = EVERY / (1 + sooner)
        self.console = Console(stderr=True) if console is None else console
        self._bars = _PatientBars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
        )
        self._silent = not leads()
        self._works: list[_Work] = []
        self._said = time.monotonic()
        self._note = ""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        total = total or operator.length_hint(items) or None
        if self._silent:
            yield from items
            return
        if not self.console.is_terminal:
            yield from self._in_lines(items, _Work(description, total, time.monotonic()))
            return
        task = self._bars.add_task(description, total=total, note="")
        self._bars.start()
        try:
            for item in items:
                yield item
                self._bars.advance(task)
        finally:
            self._bars.remove_task(task)
            if not self._bars.tasks:
                self._bars.stop()

    def note(self, text: str) -> None:
        """Beside the innermost bar, until the next note or the end of its work."""
        self._note = text
        if self._bars.task_ids:
            self._bars.update(self._bars.task_ids[-1], note=text)

    def _in_lines(self, items: Iterable[T], work: _Work) -> Iterator[T]:
        self._works.append(work)
        try:
            for item in items:
                if time.monotonic() - self._said >= self._every:
                    self._said = time.monotonic()
                    self.console.print(self._line(), markup=False, highlight=False, soft_wrap=True)
                yield item
                work.done += 1
        finally:
            self._works.remove(work)
            if not self._works:
                self._note = ""

    def _line(self) -> str:
        """How far the work is: ``shards 3 of 12, sampling 7 of 40; 95 s, about 290 s left; 1,200 samples``."""
        first = self._works[0]
        spent = time.monotonic() - first.began
        said = ", ".join(
            f"{work.description} {work.done}" + f" of {work.total}" * bool(work.total) for work in self._works
        )
        left = (
            f", about {spent * (first.total - first.done) / first.done:.0f} s left"
            if first.total and first.done
            else ""
        )
        return f"{said}; {spent:.0f} s{left}" + f"; {self._note}" * bool(self._note)


@dataclass(eq=False)
class _Work:
    """A piece of work, and how far it is."""

    description: str
    total: int | None
    began: float
    done: int = 0


class _PatientBars(Bars):
    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table([task for task in self.tasks if (task.elapsed or 0.0) >= PATIENCE])
