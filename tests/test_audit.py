"""The audit of the installed packages: which versions are others, and what a report says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / ".ci" / "audit.py"
spec = importlib.util.spec_from_file_location("audit", PATH)
assert spec is not None
assert spec.loader is not None
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)


def test_versions_are_held_against_the_constraints() -> None:
    wanted = audit.pinned("# tools\nTorch==2.13.0\nscikit_learn==1.9.1\n\npillow==13.0.0  # images\n")
    assert wanted == {"torch": "2.13.0", "scikit-learn": "1.9.1", "pillow": "13.0.0"}
    installed = {"torch": "2.13.0+cpu", "scikit-learn": "1.9.0", "other": "1.0"}
    assert audit.others(installed, wanted) == ["scikit-learn 1.9.0 is installed, and constraints.txt has 1.9.1"]


def test_a_report_tells_faults_from_what_was_not_asked() -> None:
    report = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}, {"id": "X-2"}]},
            {"name": "b", "version": "1", "vulns": []},
            {"name": "c", "skip_reason": "not found"},
        ]
    }
    assert audit.verdict(report) == (["a 1: X-1, mended in 2", "a 1: X-2"], 2, 1)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("no JSON", "no database can be reached"),
        ('{"dependencies": [{"name": "c", "skip_reason": "not found"}]}', "knows none of 1 packages"),
        ('{"dependencies": [{"name": "b", "version": "1", "vulns": []}]}', "1 packages were asked for"),
    ],
)
def test_what_was_not_asked_is_said(said: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\necho '{said}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    faults, told = audit.advisories(tmp_path)
    assert faults == []
    assert expected in told


def test_without_the_tool_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert audit.advisories(tmp_path) == ([], "no advisories were asked for: pip-audit is not installed")
