"""Broken and forged input of every kind: a short form of ``python -m benchmarks.hostile``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trials are forked")
def test_broken_and_forged_input_ends_in_an_error_of_ours_and_nothing_runs() -> None:
    """A few of every kind, in a process of its own: one with threads is not to be forked."""
    command = [sys.executable, "-m", "benchmarks.hostile", "--count", "42"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trials are forked")
def test_what_is_executed_or_written_elsewhere_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By trials that do it."""
    script = """
import os, pickle, sys
from pathlib import Path
from benchmarks.hostile import forging, trials
def runs(folder, draw):
    pickle.loads(pickle.dumps(forging.Runs(open, forging.EXECUTED, "w")))
def calls(folder, draw):
    os.system("true")
def writes(folder, draw):
    Path(sys.argv[1], "elsewhere").write_text("x")
def fails(folder, draw):
    1 / 0
def fine(folder, draw):
    Path("own").write_text("x")
trials.KINDS.update(runs=runs, calls=calls, writes=writes, fails=fails, fine=fine)
trials.artefacts.prepare = trials.networks.prepare_networks = lambda folder: None
for name in ("runs", "calls", "writes", "fails", "fine"):
    (trial,) = trials.run(1, [name])
    print(name, "passed" if trial is None else trial.reason.splitlines()[-1])
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said["runs"] == "something of a file was executed", done.stderr
    assert said["calls"].startswith("os.system")
    assert said["writes"] == f"it wrote {tmp_path / 'elsewhere'}"
    assert said["fails"] == "ZeroDivisionError: division by zero"
    assert said["fine"] == "passed"
