"""The quick run of an experiment that its tests share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.common import Run, record
from headstart.progress import Progress

Results = Mapping[str, Any]


def quick_run(name: str, folder: Path) -> Results:
    """What a quick run finds, written as the command writes it and read again: NaN and Inf would be refused."""
    module = import_module(f"experiments.{name}.run")
    run = Run(folder, quick=True, seeds=1, device="cpu", progress=Progress())
    record(run, name, getattr(module, name), module.verdict)
    found: Results = json.loads((folder / "results.json").read_text())
    assert found["verdict"]
    return found
