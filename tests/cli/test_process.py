"""The process as others see it: how it ends when it is asked to, and streams that are closed, narrow or gone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from headstart.cli.common import COMMANDS

MODEL = "python:headstart_cli_models:exact"

SLOW = '''
"""A network that says that it was called, and takes its time."""
import time
from pathlib import Path

def load():
    def denoiser(x, sigma):
        Path("called").touch()
        time.sleep(0.02)
        return x / (1 + sigma ** 2)
    return denoiser
'''


def start(*arguments: object, cwd: Path, **more: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "headstart", *map(str, arguments)]
    path = os.pathsep.join([str(cwd), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **more.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _not_ignored, **more}
    return subprocess.Popen(command, cwd=cwd, env=environment, **pipes)


def _not_ignored() -> None:
    """The signals of a process that is not in the background, even if these tests are."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    pytest.fail(f"{path} never came")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "sample"])
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 143, b"terminated\n"),
        (signal.SIGHUP, 129, b"terminated\n"),
        (signal.SIGINT, 130, b"interrupted\n"),
    ],
)
def test_it_ends_cleanly_when_it_is_asked_to(
    number: int, code: int, said: bytes, command: str, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    arguments = {
        "fit": ("fit", "python:slow:load", place / "points.npy", "-o", "out"),
        "sample": ("sample", place / "plan", "python:slow:load", "-n", 10000, "--batch-size", 1, "-o", "out"),
    }[command]
    process = start(*arguments, cwd=tmp_path)
    wait_for(tmp_path / "called")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, b"", said)
    assert {path.name for path in tmp_path.iterdir()} <= {"slow.py", "called", "__pycache__"}


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = "import signal; from headstart.cli.common import prepare_process; "
        code += "prepare_process(); print([signal.getsignal(s) == signal.SIG_IGN for s in (1, 15)])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert done.stdout == "[True, False]\n"


def test_a_reader_that_is_gone_ends_it_quietly(place: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start("inspect", place / "plan", cwd=tmp_path, stdout=write)
    os.close(write)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 141


def test_with_json_standard_output_is_json_alone_also_where_errors_cannot_be_said(place: Path, tmp_path: Path) -> None:
    process = start("inspect", "nothing", "--json", cwd=tmp_path, stderr=None, preexec_fn=lambda: os.close(2))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 5
    assert out.count(b"\n") == 1
    assert out.startswith(b'{"error": ')


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict", "utf-8:strict"])
def test_characters_that_cannot_be_said_are_replaced(encoding: str, place: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.npy")
    (tmp_path / name).write_bytes((place / "points.npy").read_bytes())
    process = start("evaluate", name, name, "--features", "raw", cwd=tmp_path, env={"PYTHONIOENCODING": encoding})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"caf?.npy" in out


def test_no_place_is_judged_by_the_parser_of_the_command_line() -> None:
    """Which would call an unreadable folder wrong usage; and its reader would say it in the usual way."""
    found = {
        (command, name): hint.__metadata__[0].readable
        for command, function in COMMANDS.items()
        for name, hint in get_type_hints(function, include_extras=True).items()
        if "Path" in str(hint) and hasattr(hint, "__metadata__")
    }
    assert len(found) >= 10
    assert not any(found.values()), found


def test_what_is_left_is_said_in_one_line(run: Callable[..., Any], place: Path, tmp_path: Path) -> None:
    (tmp_path / ".headstart-part-abcd1234" / "new").mkdir(parents=True)
    process = start("sample", place / "plan", MODEL, "-n", 2, "-o", tmp_path, cwd=place)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.startswith(b"warning: ")
    assert err.count(b"\n") == 1
    assert b"removed" in err
    assert os.listdir(tmp_path) == ["samples.npz"]


def test_a_full_disk_is_said_in_one_line_with_the_file(place: Path, tmp_path: Path) -> None:
    """Also by what Python closes when it ends."""
    resource = pytest.importorskip("resource")

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))

    process = start("sample", place / "plan", MODEL, "-n", 1000, "-o", tmp_path / "out", cwd=place, preexec_fn=full)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (5, b"")
    assert err.decode() == f"error: cannot write {tmp_path / 'out' / 'samples.npz'}: {os.strerror(errno.EFBIG)}\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("inspect", "{place}/plan"), "--page"),
        (("evaluate", "{place}/points.npy", "{place}/points.npy", "--features", "raw"), "--save-stats"),
        (("fit", MODEL, "{place}/points.npy", "-o", "{out}", "--initialization", "flow"), "--checkpoint"),
        (("fit", MODEL, "{place}/points.npy"), "-o"),
        (("sample", "{place}/plan", MODEL, "-n", "2"), "-o"),
        (("compare", MODEL, "{place}/points.npy"), "-o"),
        (("reproduce", "starts"), "-o"),
        (("demo",), "-o"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_place_that_cannot_be_is_said_before_the_work(
    command: tuple[str, ...], option: str, run: Callable[..., Any], place: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("dear")
    (tmp_path / "fifo").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "fifo")
    before = sorted(tmp_path.rglob("*"))
    for where in ("file/under", "fifo", "x" * 256):
        done = run(*(part.format(place=place, out=tmp_path / "out") for part in command), option, tmp_path / where)
        assert done.code == 5, done.err
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_the_place_of_the_grid_is_said_before_the_work(
    run: Callable[..., Any], place: Path, tmp_path: Path
) -> None:
    (tmp_path / "grid.png").mkdir()
    done = run("sample", place / "conditional", "python:headstart_cli_models:images", "-n", 2, "-o", tmp_path)
    assert done.code == 5
    assert "grid.png is a folder" in done.err
    assert os.listdir(tmp_path) == ["grid.png"]
