"""Requests form batches while the worker is busy, wait in a queue with an end, and fail alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from headstart.errors import InputError
from headstart.serve.batching import Batcher, BusyError, ClosedError, Task


class Gate:
    """Work that waits until it is let through, and keeps what it was given."""

    def __init__(self) -> None:
        self.open, self.begun = threading.Event(), threading.Event()
        self.batches: list[list[Any]] = []

    def __call__(self, tasks: Sequence[Task]) -> list[Any]:
        self.batches.append([task.payload for task in tasks])
        self.begun.set()
        assert self.open.wait(30)
        if "bad" in self.batches[-1]:
            raise ValueError("a bad one")
        return [f"{payload} done" for payload in self.batches[-1]]


def asked(batcher: Batcher, *tasks: tuple[int, Any, str]) -> list[Any]:
    return [batcher.submit(Task(*task)) for task in tasks]


def blocked(batch_size: int = 10, queue_size: int = 20) -> tuple[Gate, Batcher, Any]:
    """A batcher whose worker has begun with a first task."""
    gate = Gate()
    batcher = Batcher(gate, batch_size, queue_size)
    (first,) = asked(batcher, (1, "a", "first"))
    assert gate.begun.wait(30)
    return gate, batcher, first


def test_what_waits_goes_together_by_its_key_up_to_a_batch() -> None:
    gate, batcher, first = blocked(queue_size=30)
    answers = asked(
        batcher,
        (4, "a", "1"),
        (4, "b", "2"),
        (4, "a", "3"),
        (4, "a", "4"),
        (2, None, "5"),
        (2, None, "6"),
        (2, "a", "7"),
    )
    assert batcher.waiting == 22
    gate.open.set()
    assert [answer.result(30) for answer in (first, *answers)] == [f"{i} done" for i in ("first", *range(1, 8))]
    assert batcher.close(30)
    assert gate.batches == [["first"], ["1", "3", "7"], ["2"], ["4"], ["5"], ["6"]]


def test_a_queue_has_an_end_and_says_when_to_come_again() -> None:
    gate, batcher, first = blocked(queue_size=5)
    (last,) = asked(batcher, (4, "a", "fits"))
    with pytest.raises(BusyError) as refused:
        asked(batcher, (2, "a", "does not"))
    assert refused.value.retry_after >= 1
    gate.open.set()
    assert last.result(30) == "fits done"
    assert asked(batcher, (50, "a", "alone, however large"))[0].result(30) == "alone, however large done"
    assert first.done()
    batcher.close(30)


def test_one_that_fails_does_not_fail_its_neighbours() -> None:
    gate, batcher, _ = blocked()
    answers = asked(batcher, (1, "a", "1"), (1, "a", "bad"), (1, "a", "2"))
    gate.open.set()
    assert [answers[0].result(30), answers[2].result(30)] == ["1 done", "2 done"]
    with pytest.raises(ValueError, match="a bad one"):
        answers[1].result(30)
    batcher.close(30)


def test_what_was_given_up_is_not_worked_on() -> None:
    gate, batcher, _ = blocked()
    given_up, kept = asked(batcher, (1, "a", "given up"), (1, "b", "kept"))
    assert given_up.cancel()
    gate.open.set()
    assert kept.result(30) == "kept done"
    batcher.close(30)
    assert gate.batches == [["first"], ["kept"]]


def test_an_end_answers_what_waits_and_takes_nothing_new() -> None:
    gate, batcher, first = blocked()
    (waiting,) = asked(batcher, (1, "b", "waiting"))
    ending = threading.Thread(target=batcher.close)
    ending.start()
    gate.open.set()
    ending.join(30)
    assert (first.result(0), waiting.result(0)) == ("first done", "waiting done")
    with pytest.raises(ClosedError):
        asked(batcher, (1, "a", "late"))


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0)])
def test_sizes_are_above_zero(sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        Batcher(lambda tasks: [], *sizes)
