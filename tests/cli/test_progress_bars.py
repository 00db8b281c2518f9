"""Bars hand on what they count, appear on terminals only, and only for work that lasts."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from headstart.cli import progress
from headstart.cli.progress import RichProgress
from headstart.progress import Progress


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_bar_counts(terminal: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    bars = RichProgress(terminal)
    seen = []
    for item in bars.track("abc", "spelling"):
        seen.append(item)
        bars._bars.refresh()
    assert seen == ["a", "b", "c"]
    assert all(f"{i}/3" in shown(terminal) for i in range(3))
    assert "spelling" in shown(terminal)


def test_an_iterator_may_tell_its_length_apart(terminal: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    bars = RichProgress(terminal)

    def items() -> Iterator[int]:
        yield from range(7)

    for _ in bars.track(items(), "counting", total=7):
        bars._bars.refresh()
    assert "6/7" in shown(terminal)


def test_bars_nest_and_go(terminal: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    bars = RichProgress(terminal)
    for _ in bars.track(range(2), "outer"):
        for _ in bars.track(range(2), "inner"):
            bars._bars.refresh()
            assert len(bars._bars.tasks) == 2
    assert "outer" in shown(terminal)
    assert "inner" in shown(terminal)
    for _ in bars.track(range(5), "left early"):
        break
    assert list(bars.track([], "nothing")) == []
    with pytest.raises(ZeroDivisionError):
        [1 / item for item in bars.track(range(3), "failing")]
    assert bars._bars.tasks == []
    assert not bars._bars.live.is_started


def test_short_work_shows_no_bar(terminal: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 1e9)
    bars = RichProgress(terminal)
    for _ in bars.track(range(3), "quick"):
        bars._bars.refresh()
    assert "quick" not in shown(terminal)


def test_nothing_is_written_where_no_one_can_see_it() -> None:
    pipe = Console(file=io.StringIO(), force_terminal=False)
    assert list(RichProgress(pipe).track(iter("abc"), "spelling")) == ["a", "b", "c"]
    assert shown(pipe) == ""


def test_a_note_stands_beside_the_innermost_bar(terminal: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that looks like markup."""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    bars = RichProgress(terminal)
    for _ in bars.track(range(1), "outer"):
        for _ in bars.track(range(1), "inner"):
            bars.note("NLL 1.25 [bold]")
            bars._bars.refresh()
            assert [task.fields["note"] for task in bars._bars.tasks] == ["", "NLL 1.25 [bold]"]
        bars.note("held-out NLL 1.5")
        assert [task.fields["note"] for task in bars._bars.tasks] == ["held-out NLL 1.5"]
    assert "NLL 1.25 [bold]" in shown(terminal)


def test_a_note_without_a_bar_is_no_error(terminal: Console) -> None:
    RichProgress(terminal).note("too early")
    Progress().note("to no one")
    assert shown(terminal) == ""


def test_without_a_terminal_a_line_says_how_far_the_work_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    pipe = Console(file=io.StringIO(), force_terminal=False, width=40)
    work = RichProgress(pipe)
    for _ in work.track(range(2), "shards"):
        work.note("12 samples, [7]/s")
        for _ in work.track((letter for letter in "ab"), "sampling"):
            pass
    lines = [line.split("; ") for line in shown(pipe).splitlines()]
    assert [line[0] for line in lines] == [
        "shards 0 of 2",
        "shards 0 of 2, sampling 0",
        "shards 0 of 2, sampling 1",
        "shards 1 of 2",
        "shards 1 of 2, sampling 0",
        "shards 1 of 2, sampling 1",
    ]
    assert all(line[2] == "12 samples, [7]/s" for line in lines[1:])
    assert all("left" in line[1] for line in lines[3:])
