"""Several processes that do one piece of work: each does its share of the items, and all get all results.

A launcher, such as ``accelerate launch`` or ``torchrun``, starts one program n times, and says in the environment how
many there are (``WORLD_SIZE``) and which one each is (``RANK``). Within :func:`together` they do the work of one:

* Every process makes the same calls in the same order.
* Independent items (batches, shards, cells) go through :func:`spread`: process i does the items i, i + n, i + 2 n, ...,
  one after the other and each by itself. All results then go to all processes, in the order of the items.
* What is to be done once, such as writing a file, goes through :func:`same`: process 0 does it, and all get its result.

An item is the same whoever does it, so results do not depend on the number of processes. An error in an item ends the
call in all of them, with the error of the first item that fails, as soon as the items before it are done. A process
that is gone ends it too.

Outside of :func:`together`, or where no launcher started others, this process is the only one, and nothing is imported:

>>> spread([1, 2, 3], lambda item: 10 * item)
[10, 20, 30]

Results are sent by pickle, between the processes of one launcher alone.
"""

from __future__ import annotations

import atexit
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from headstart.errors import (
    ArtefactError,
    DataError,
    DenoiserError,
    HeadstartError,
    InputError,
    MissingExtraError,
    ProcessError,
)
from headstart.extras import needed

__all__ = [
    "alone",
    "count",
    "first_to_say",
    "gathered",
    "index",
    "launched",
    "leads",
    "local_device",
    "same",
    "spread",
    "together",
]

T = TypeVar("T")
R = TypeVar("R")

#: How long a process waits for the others: an item may take hours, and one that is gone is noticed at once.
PATIENCE = timedelta(days=7)

#: The errors that are the same in all processes; every other one is a ProcessError in those that it did not come up in.
KINDS = (ArtefactError, DataError, DenoiserError, InputError, MissingExtraError, ProcessError)

#: How work is tracked: by default not at all.
Track = Callable[[Sequence[Any]], Iterable[Any]]


def launched() -> int:
    """The number of processes that a launcher started, this one among them: ``WORLD_SIZE``, or 1.

    Raises:
        InputError: if that is no whole number of at least 1.
    """
    said = os.environ.get("WORLD_SIZE", "1")
    if not (said.isascii() and said.isdigit() and int(said)):
        raise InputError(f"WORLD_SIZE is {said!r} in the environment: expected the number of processes, 1 or more")
    return int(said)


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes of the launcher: within the block they work together. It has no effect where there are
    none.

    Raises:
        InputError: if the environment does not say what the launcher should have said.
        MissingExtraError: if accelerate is not installed.
        ProcessError: if the others cannot be reached, or one is gone before the end of the block.
    """
    if launched() == 1 or _joined.get() is not None:
        yield
        return
    group = _group()
    token = _joined.set(group)
    try:
        yield
        same(lambda: None)  # nobody leaves early, and takes what the others still need along
    finally:
        _joined.reset(token)


@contextmanager
def alone() -> Iterator[None]:
    """A block that this process works through by itself, whatever the others do."""
    token = _joined.set(None)
    try:
        yield
    finally:
        _joined.reset(token)


def count() -> int:
    """How many processes work together; 1 where this is the only one."""
    group = _joined.get()
    return 1 if group is None else group.count


def index() -> int:
    """Which of them this is, from 0."""
    group = _joined.get()
    return 0 if group is None else group.index


def leads() -> bool:
    """Whether this is the one that speaks and writes for all."""
    return index() == 0


def spread(items: Iterable[T], function: Callable[[T], R], track: Track = iter) -> list[R]:
    """The results of a function for all items, in their order; the processes share the items out.

    Arguments:
        items: the same in all processes.
        function: makes something of one item, by itself: it is not shared out again. What it returns can be pickled.
        track: goes through the items of this process and tells of them, as :meth:`headstart.progress.Progress.track`.

    Raises:
        ProcessError: if another process is gone, is at another call, or failed by no error of ours.
        HeadstartError: that of the first item that fails.
    """
    every, group = list(items), _joined.get()
    return [function(item) for item in track(every)] if group is None else group.spread(every, function, track)


def same(make: Callable[[], T]) -> T:
    """The result of process 0, in all processes: for what is done once, or could differ.

    Raises:
        HeadstartError: as :func:`spread`.
    """
    return spread([None], lambda _: make())[0]


def gathered(value: T) -> list[T]:
    """The value of each process, in their order.

    Raises:
        HeadstartError: as :func:`spread`.
    """
    return spread(range(count()), lambda _: value)


def first_to_say() -> bool:
    """Whether no other process has asked this before, so that what fails in all of them is said once."""
    group = _joined.get()
    return group is None or group.first()


def local_device(device: str) -> str:
    """The device of this process: where there are several and ``cuda`` is asked for, each has one of its own.

    >>> local_device("cpu")
    'cpu'
    """
    if device != "cuda" or _joined.get() is None:
        return device
    import torch

    here = os.environ.get("LOCAL_RANK", "0")
    return f"cuda:{int(here) % max(1, torch.cuda.device_count())}" if here.isdigit() else device


@dataclass(eq=False)
class _Group:
    """The processes of a launcher.

    Attributes:
        index: which one this is.
        count: how many there are.
        channel: PyTorch's group of them.
        store: what each of them can look up without the others.
        calls: how many calls were shared out.
        speaks: whether this is the first one that had something to say, once it had.
    """

    index: int
    count: int
    channel: Any
    store: Any
    calls: int = 0
    speaks: bool | None = None

    def spread(self, items: Sequence[T], function: Callable[[T], R], track: Track) -> list[R]:
        self.calls += 1
        failed, done, failure = f"headstart-failed-{self.calls}", dict[int, R](), None
        with alone():
            for place in track(range(self.index, len(items), self.count)):
                if place > self._place(failed):
                    break
                try:
                    done[place] = function(items[place])
                except Exception as error:
                    failure = place, error
                    self._set(failed, place)
                    break
        told = None if failure is None else (failure[0], *_told(failure[1], self.index))
        found = self._gathered((self.calls, len(items), done, told))
        if len({(call, n) for call, n, _, _ in found}) > 1:
            raise ProcessError(
                "the processes do not do the same: every one has to make the same calls, with the same data"
            )
        if failures := [told for _, _, _, told in found if told is not None]:
            place, kind, message = min(failures, key=lambda told: told[0])
            if failure is not None and failure[0] == place:
                raise failure[1]
            raise _elsewhere(kind(message))
        every = {place: result for _, _, done, _ in found for place, result in done.items()}
        return [every[place] for place in range(len(items))]

    def _gathered(self, value: T) -> list[T]:
        """The value of each process, in all of them."""
        from torch import distributed

        found: list[Any] = [None] * self.count
        try:
            distributed.all_gather_object(found, value, group=self.channel)
        except RuntimeError as error:
            lost = ProcessError("another process has ended before its work was done")
            raise lost if self.first() else _elsewhere(lost) from error
        return found

    def first(self) -> bool:
        """Whether no other process has asked this before; where that cannot be known, whether it is the first one."""
        if self.speaks is None:
            try:
                self.speaks = bool(self.store.add("headstart-said", 1) == 1)
            except RuntimeError:
                self.speaks = self.index == 0
        return self.speaks

    def _place(self, name: str) -> float:
        """The place of an item that failed in a call, infinite if none has: only the items before it are still done."""
        try:
            return int(self.store.get(name)) if self.store.check([name]) else math.inf
        except RuntimeError:  # whoever keeps the store is gone, which the next gathering says
            return -1

    def _set(self, name: str, place: int) -> None:
        with suppress(RuntimeError):
            self.store.set(name, str(place))


#: The processes that this one works with, None where it works alone. A new thread works alone.
_joined: ContextVar[_Group | None] = ContextVar("joined", default=None)


@cache
def _group() -> _Group:
    """The processes of the launcher, once they have all come."""
    with needed("accelerate", "distributed", "work in several processes"):
        from accelerate import PartialState
    from torch import distributed

    ours = not distributed.is_initialized()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it says how many threads it takes
            state = PartialState(cpu=True, timeout=PATIENCE)
        channel = distributed.new_group(backend="gloo", timeout=PATIENCE)
        store = distributed.distributed_c10d._get_default_store()
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ProcessError(f"the {launched()} processes of the launcher could not meet: {reason}") from error
    if ours:
        atexit.register(_leave)
    return _Group(state.process_index, state.num_processes, channel, store)


def _leave() -> None:
    from torch import distributed

    with suppress(Exception):
        distributed.destroy_process_group()


def _told(error: Exception, index: int) -> tuple[type[HeadstartError], str]:
    """An error as the other processes raise it."""
    for kind in KINDS:
        if isinstance(error, kind):
            return kind, str(error)
    return ProcessError, f"process {index} failed: {type(error).__name__}: {error}"


def _elsewhere(error: HeadstartError) -> HeadstartError:
    """The error, marked as raised in another process, which reports it."""
    error.elsewhere = True
    return error
