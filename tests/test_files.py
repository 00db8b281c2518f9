"""Files and folders are the old ones or the new ones, also after a kill, a full disk, and beside other writers."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.errors import ArtefactError, HeadstartWarning
from headstart.files import (
    atomic_write,
    check_file,
    check_folder,
    check_regular,
    exchange,
    finish,
    read_regular,
    staged,
)
from headstart.locks import locked_part

LEFT = ".headstart-part-abcd1234"


def never(one: Path, other: Path) -> bool:
    """A system that cannot exchange."""
    return False


def folder(place: Path, content: str) -> None:
    place.mkdir()
    (place / "file").write_text(content)


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        atomic_write(content, tmp_path / "a" / "b" / "file")
        assert (tmp_path / "a" / "b" / "file").read_bytes() == content
        assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_a_link_is_followed_also_one_that_leads_nowhere_yet(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("old")
    for name in ("file", "other"):
        link = tmp_path / f"link-{name}"
        link.symlink_to(tmp_path / "far" / name)
        atomic_write(b"new", link)
        assert link.is_symlink()
        assert (tmp_path / "far" / name).read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device"])
def test_nothing_but_a_regular_file_is_replaced_or_read(kind: str, tmp_path: Path) -> None:
    path = Path(os.devnull) if kind == "device" else tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    (tmp_path / "link").symlink_to(path)
    mode = stat.S_IFMT(path.stat().st_mode)
    for place in (path, tmp_path / "link"):
        for work in (check_file, lambda place: atomic_write(b"new", place)):
            with pytest.raises(ArtefactError, match=f"is a {kind}: expected the name of a regular file"):
                work(place)
        with pytest.raises(OSError, match=f"it is a {kind} and no regular file"):
            read_regular(place)
    assert stat.S_IFMT(path.stat().st_mode) == mode


@pytest.mark.parametrize("name", ["x" * 256, "file/under", "circle"])
def test_a_place_that_cannot_be_is_found_out_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for check in (check_file, check_folder):
        with pytest.raises(ArtefactError, match=r"cannot write|is a broken link"):
            check(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["circle", "file"]


def test_a_place_that_can_be_is_left_as_it_was(tmp_path: Path) -> None:
    for name in ("new/folder", "x" * 250, "é"):
        check_file(tmp_path / name)
        check_folder(tmp_path / name)
        atomic_write(b"there", tmp_path / name / "file")
        check_regular(tmp_path / name / "file")
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission_is_found_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ArtefactError, match="Permission denied"):
        check_file(tmp_path / "file")


@pytest.mark.parametrize("swap", [exchange, never])
def test_a_folder_is_exchanged_and_nothing_stays(swap, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for content in ("one", "two"):
        with staged(tmp_path, swap=swap) as place:
            folder(place / "whole", content)
        assert (tmp_path / "whole" / "file").read_text() == content
        assert os.listdir(tmp_path) == ["whole"]


def fail(error: type[BaseException] | BaseException) -> None:
    raise error


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), staged(tmp_path / "a" / "b") as place:
            (place / "one").write_text(f"{fail(error)}")
    assert os.listdir(tmp_path) == []


def test_what_is_in_the_way_is_found_before_anything_moves(tmp_path: Path) -> None:
    (tmp_path / "arrays").write_text("old")
    (tmp_path / "grid").mkdir()
    with pytest.raises(FileExistsError), staged(tmp_path, derived=("grid",)) as place:
        [(place / name).write_text("new") for name in ("arrays", "grid")]
    assert (tmp_path / "arrays").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["arrays", "grid"]


def test_what_was_derived_from_the_old_does_not_stay_beside_the_new(tmp_path: Path) -> None:
    (tmp_path / "grid").write_text("old")
    (tmp_path / "dear").write_text("old")
    with staged(tmp_path, derived=("grid",)) as place:
        (place / "arrays").write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["arrays", "dear"]


def test_a_move_that_fails_brings_the_old_back(tmp_path: Path) -> None:
    folder(tmp_path / "whole", "old")

    def taken_away(one: Path, other: Path) -> bool:
        (one / "file").unlink()
        one.rmdir()
        return False

    with pytest.raises(FileNotFoundError), staged(tmp_path, swap=taken_away) as place:
        folder(place / "whole", "new")
    assert (tmp_path / "whole" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["whole"]


class Asked(BaseException):
    """The process was asked to end."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_a_move_is_done_and_cleared(number: int, tmp_path: Path) -> None:
    def handler(number: int, _: object) -> None:
        raise Asked(number)

    def asked(one: Path, other: Path) -> bool:
        signal.raise_signal(number)
        return exchange(one, other)

    folder(tmp_path / "whole", "old")
    before = signal.signal(number, handler)
    try:
        with pytest.raises(Asked), staged(tmp_path, swap=asked) as place:
            folder(place / "whole", "new")
        with pytest.raises(Asked), staged(tmp_path / "a" / "b") as place:
            signal.raise_signal(number)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert (tmp_path / "whole" / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["whole"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="the system has no files without names")
def test_a_place_is_tried_without_a_name_that_a_kill_could_leave(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *_, **__: pytest.fail("a folder was made"))
    check_file(tmp_path / "new" / "file")
    check_folder(tmp_path)
    monkeypatch.setattr(os, "open", lambda *_, **__: fail(OSError(errno.EOPNOTSUPP, "none here")))
    with pytest.raises(pytest.fail.Exception, match="a folder was made"):
        check_folder(tmp_path)


@pytest.mark.parametrize("name", ["file", "folder"])
def test_all_is_on_the_disk_before_it_takes_its_place_and_then_the_place(
    name: str, tmp_path: Path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    """As a power cut would find it: whatever is renamed was flushed first, and its folder after."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_text("old")
    done: list[tuple[str, str]] = []

    def sync(descriptor: int) -> None:
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))

    def swapped(one: Path, other: Path) -> bool:
        done.append(("move", other.name))
        return exchange(one, other)

    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda own, to: (done.append(("move", to.name)), replace(own, to))[1])
    monkeypatch.setattr(os, "fsync", sync)
    with staged(tmp_path, swap=swapped) as place:
        inner = place / name
        if name == "folder":
            inner.mkdir()
            inner = inner / "inner"
        inner.write_text("new")
    moved = done.index(("move", name))
    assert {own for what, own in done[:moved] if what == "sync"} == {name, inner.name, "new"}
    assert ("sync", tmp_path.name) in done[moved:]


# Killed writers, by what they leave: the states between any two steps.


def test_what_a_killed_writer_had_not_finished_is_removed_and_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / LEFT / "new").mkdir(parents=True)
    (tmp_path / LEFT / "new" / "file").write_text("ha")
    with pytest.warns(HeadstartWarning, match=f"had left {LEFT}, removed"):
        atomic_write(b"new", tmp_path / "other")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old", "other": "new"}


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_what_a_killed_writer_had_ready_is_finished(moved: int, tmp_path: Path) -> None:
    for place in (tmp_path if moved > 0 else tmp_path / LEFT / "ready", tmp_path / LEFT / "ready"):
        place.mkdir(parents=True, exist_ok=True)
    (tmp_path / "arrays").write_text("old")
    names = ["arrays", "grid"]
    for i, name in enumerate(names):
        (tmp_path / (name if i < moved else f"{LEFT}/ready/{name}")).write_text("new")
    with pytest.warns(HeadstartWarning, match="finished writing" if moved < 2 else "removed"):
        finish(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "new")


@pytest.mark.parametrize("aside", [False, True])
def test_a_folder_that_was_moved_aside_when_its_writer_was_killed_is_finished(aside: bool, tmp_path: Path) -> None:
    (tmp_path / LEFT / "ready").mkdir(parents=True)
    (tmp_path / LEFT / "old").mkdir()
    folder(tmp_path / LEFT / "ready" / "whole", "new")
    folder(tmp_path / LEFT / "old" / "whole" if aside else tmp_path / "whole", "old")
    with pytest.warns(HeadstartWarning, match="finished writing whole"):
        finish(tmp_path)
    assert (tmp_path / "whole" / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["whole"]


def test_what_a_living_writer_is_at_and_what_others_named_so_stays(tmp_path: Path) -> None:
    (tmp_path / LEFT).mkdir()
    (tmp_path / LEFT / "thesis.tex").write_text("dear")
    (tmp_path / ".headstart-part-file0000").write_text("dear")
    (tmp_path / ".headstart-part-link0000").symlink_to(tmp_path)
    with staged(tmp_path) as place:
        atomic_write(b"meanwhile", tmp_path / "other")
        assert place.is_dir()
        (place / "file").write_text("new")
    assert len(os.listdir(tmp_path)) == 5


def test_the_name_of_what_is_cleared_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="choose another one"):
        atomic_write(b"new", tmp_path / LEFT)


WRITER = """
import sys
from pathlib import Path
from headstart import files
never = lambda one, other: False
for i in range(100000):
    with files.staged(Path(sys.argv[1]), ("b",), files.exchange if sys.argv[2] == "exchange" else never) as place:
        for name in sys.argv[3:]:
            (place / name).mkdir() if name == "folder" else None
            (place / name / "file" if name == "folder" else place / name).write_text(str(i) * 10000)
"""


@pytest.mark.parametrize("swap", ["exchange", "never"])
@pytest.mark.parametrize("names", [("folder",), ("a", "b")], ids="+".join)
def test_a_writer_killed_at_any_moment_leaves_one_whole(swap: str, names: tuple[str, ...], tmp_path: Path) -> None:
    """Everything of one round, and after the next writer nothing beside it."""
    for trial in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, swap, *names])
        while not any((tmp_path / name).exists() for name in names):
            time.sleep(0.01)
        time.sleep(0.02 + 0.013 * trial)
        process.kill()
        process.wait()
        with said():
            finish(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted(names)
        contents = {path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
        assert len(contents) == 1
        number = int(contents.pop()[:1])
        assert number >= 0


def test_derived_entries_stay_until_the_new_ones_are_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is ended before that leaves both of the round before."""

    def write(content: str) -> None:
        with staged(tmp_path, ("b",)) as place:
            for name in "ab":
                (place / name).write_text(content)

    def ended(self: Path, target: Path) -> None:
        raise OSError("ended")

    write("old")
    monkeypatch.setattr(Path, "rename", ended)
    with pytest.raises(OSError, match="ended"):
        write("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "b": "old"}


@contextlib.contextmanager
def said() -> Iterator[None]:
    """Whether or not there is something to say."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeadstartWarning)
        yield


def write_many(place: Path, content: bytes, failed) -> None:  # type: ignore[no-untyped-def]
    for _ in range(30):
        try:
            atomic_write(content, place / "file")
            with staged(place) as inner:
                (inner / "whole").mkdir()
                (inner / "whole" / "file").write_bytes(content)
        except Exception as error:
            failed.put(repr(error))


def test_writers_of_one_place_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    failed = context.Queue()
    writers = [
        context.Process(target=write_many, args=(tmp_path, bytes([65 + i]) * 100_000, failed)) for i in range(3)
    ] + [threading.Thread(target=write_many, args=(tmp_path, b"t" * 100_000, failed)) for _ in range(2)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        with contextlib.suppress(FileNotFoundError):
            assert len(set((tmp_path / "file").read_bytes())) == 1
            seen += 1
    for writer in writers:
        writer.join()
    assert failed.empty()
    assert seen > 0
    assert sorted(os.listdir(tmp_path)) == ["file", "whole"]


def hold(path: Path, part: int, began, done) -> None:  # type: ignore[no-untyped-def]
    with path.open("r+") as file, locked_part(file.fileno(), part):
        began.set()
        done.wait(20)


def test_a_part_of_a_file_is_held_by_one_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    context = multiprocessing.get_context("fork")
    began, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "file", 2**55, began, done))
    other.start()
    assert began.wait(20)
    with (tmp_path / "file").open("r+") as file:
        with locked_part(file.fileno(), 2**55 + 1):
            pass
        threading.Timer(0.2, done.set).start()
        with locked_part(file.fileno(), 2**55):
            assert done.is_set()
    other.join()


def test_the_old_name_still_works(tmp_path: Path) -> None:
    from headstart import files

    with pytest.warns(DeprecationWarning, match="atomic_write"):
        files.write_whole(b"new", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
