"""Commands that are killed at a random moment and run again: a short form of ``python -m benchmarks.kills``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kills


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trials are forked")
def test_killed_commands_go_on_and_end_as_if_nobody_had_disturbed_them() -> None:
    """Eight kills of the quick commands, in a process of its own: one with threads is not to be forked."""
    names = ("fit", "sample", "compare", "inspect", "export", "evaluate", "fit", "sample")
    command = [sys.executable, "-m", "benchmarks.kills", "--count", "8"]
    chosen = [word for name in names for word in ("--command", name)]
    done = subprocess.run([*command, *chosen], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_that_writes_is_tried() -> None:
    from headstart.cli.common import COMMANDS

    tried = {line.split()[0] for line in kills.COMMANDS.values()}
    assert tried <= set(COMMANDS)
    assert tried >= {"fit", "sample", "evaluate", "compare", "inspect", "export", "demo"}
    assert set(kills.WEIGHTS) == set(kills.COMMANDS)


def test_what_a_kill_leaves_is_seen(tmp_path: Path) -> None:
    """A result that is not the same, and an entry that nobody asked for."""
    (tmp_path / "a.json").write_text('{"value": 1, "fit_seconds": 2}')
    first = kills.result(tmp_path, exact=True)
    (tmp_path / "a.json").write_text('{"value": 1, "fit_seconds": 3}')
    assert kills.result(tmp_path, exact=True) == first
    (tmp_path / "a.json").write_text('{"value": 2, "fit_seconds": 2}')
    assert kills.result(tmp_path, exact=True) != first
    assert kills.leftovers(tmp_path) == []
    (tmp_path / ".headstart-part-abcd1234").mkdir()
    assert kills.leftovers(tmp_path) == [".headstart-part-abcd1234"]
