"""Requests of many clients in few calls of a network: one worker, a bounded queue, and batches that form by themselves.

While the worker is busy, requests wait; when it is free, it takes the first one and all that may go with it, up to a
batch. So batches grow with the load, and a lone request does not wait for others. What does not fit into the queue is
refused at once, with how long to wait: a queue without an end would answer nobody in time.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from headstart.errors import InputError

__all__ = ["Batcher", "BusyError", "ClosedError", "Task"]


class BusyError(Exception):
    """The queue is full.

    Attributes:
        retry_after: in how many seconds there will be room, as far as can be told.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the service is busy: try again in {retry_after} s")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The service is about to end and takes nothing new."""


@dataclass(eq=False)
class Task:
    """The work that one request asks for.

    Attributes:
        size: how many samples that is.
        key: tasks of the same key may go into one batch; None goes alone.
        payload: what the worker needs to know.
        answer: gets the result or the error.
    """

    size: int
    key: Hashable
    payload: Any
    answer: Future[Any] = field(default_factory=Future)


class Batcher:
    """A worker that turns tasks into answers, several at a time.

    Arguments:
        work: the results of tasks of one key, in their order.
        batch_size: samples that are worked on together; a task that is larger goes alone.
        queue_size: samples that may wait.
        told: called with the tasks of every batch and the seconds that it took.

    Raises:
        InputError: if a size is below 1.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Task]], Sequence[Any]],
        batch_size: int,
        queue_size: int,
        told: Callable[[Sequence[Task], float], None] = lambda tasks, seconds: None,
    ) -> None:
        if batch_size < 1 or queue_size < 1:
            raise InputError(f"a batch and a queue hold at least 1 sample: got {batch_size} and {queue_size}")
        self.work, self.batch_size, self.queue_size, self.told = work, batch_size, queue_size, told
        self._waiting: deque[Task] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_a_sample = 0.0
        self._running = 0
        self._thread = threading.Thread(target=self._run, name="headstart-sampling", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Samples that wait."""
        with self._changed:
            return sum(task.size for task in self._waiting)

    def submit(self, task: Task) -> Future[Any]:
        """Queue a task; its result comes into the future.

        Raises:
            BusyError: if the queue has no room for it.
            ClosedError: if the service ends.
        """
        with self._changed:
            if self._closing:
                raise ClosedError("the service ends")
            waiting = sum(other.size for other in self._waiting)
            if waiting and waiting + task.size > self.queue_size:
                ahead = waiting + self._running
                raise BusyError(max(1, math.ceil(ahead * self._seconds_a_sample)))
            self._waiting.append(task)
            self._changed.notify()
        return task.answer

    def close(self, timeout: float | None = None) -> bool:
        """Take nothing new, finish what waits, and end the worker; whether it has ended in that many seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while tasks := self._next():
            began = time.perf_counter()
            self._answer(tasks)
            seconds = time.perf_counter() - began
            each = seconds / sum(task.size for task in tasks)
            known = self._seconds_a_sample
            self._seconds_a_sample = each if not known else 0.8 * known + 0.2 * each
            self.told(tasks, seconds)

    def _next(self) -> list[Task]:
        """The next batch: the first task with those that go with it; none once the service has ended."""
        with self._changed:
            self._running = 0
            while True:
                while self._waiting and not self._waiting[0].answer.set_running_or_notify_cancel():
                    self._waiting.popleft()
                if self._waiting or self._closing:
                    break
                self._changed.wait()
            if not self._waiting:
                return []
            first = self._waiting.popleft()
            batch, left = [first], deque[Task]()
            self._running = first.size
            for task in self._waiting:
                fits = first.key is not None and task.key == first.key and self._running + task.size <= self.batch_size
                if not fits:
                    left.append(task)
                elif task.answer.set_running_or_notify_cancel():
                    batch.append(task)
                    self._running += task.size
            self._waiting = left
            return batch

    def _answer(self, tasks: Sequence[Task]) -> None:
        """Fulfil the tasks; where that fails, each alone, so that none fails for another's sake."""
        try:
            results = self.work(tasks)
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].answer.set_exception(error)
                return
            for task in tasks:
                self._answer([task])
            return
        for task, result in zip(tasks, results, strict=True):
            task.answer.set_result(result)
