"""Progress bars on standard error, for work that takes longer than a second."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from headstart.progress import Progress

__all__ = ["RichProgress"]

#: Seconds that work must last for a bar to appear.
PATIENCE = 1.0

T = TypeVar("T")


class RichProgress(Progress):
    """Draws a bar for each piece of work, one below the other where they nest; nothing where no one can see it.

    Arguments:
        console: where the bars are drawn; standard error by default. It must be a terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
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

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        if not self.console.is_terminal:
            yield from items
            return
        task = self._bars.add_task(description, total=total or operator.length_hint(items) or None, note="")
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
        if self._bars.task_ids:
            self._bars.update(self._bars.task_ids[-1], note=text)


class _PatientBars(Bars):
    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table([task for task in self.tasks if (task.elapsed or 0.0) >= PATIENCE])
