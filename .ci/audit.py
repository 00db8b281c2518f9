"""The installed packages: do they fit each other, are they those of constraints.txt, and has one a known fault?

The first two are answered from local metadata. Advisories are asked for by pip-audit, if it is on the path or beside
this interpreter; where it is not, or knows no database that it can reach, it is said that nothing was asked. Exits with
1 where something is wrong, and with 0 where it is right or could not be asked.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def normal(name: str) -> str:
    """A distribution's name, as names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text: str) -> dict[str, str]:
    """The versions that a file of constraints names."""
    found = re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE)
    return {normal(name): version for name, version in found}


def others(installed: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Distributions of another version than the pinned one; the build after a + does not count."""
    return [
        f"{name} {version} is installed, and constraints.txt has {wanted[name]}"
        for name, version in sorted(installed.items())
        if name in wanted and version.partition("+")[0] != wanted[name].partition("+")[0]
    ]


def verdict(report: Mapping[str, Any]) -> tuple[list[str], int, int]:
    """The known faults in a report of pip-audit, and how many distributions were asked for and were not."""
    faults = [
        f"{found['name']} {found['version']}: {fault['id']}"
        + (f", mended in {', '.join(fault['fix_versions'])}" if fault.get("fix_versions") else "")
        for found in report["dependencies"]
        for fault in found.get("vulns", ())
    ]
    left_out = sum("skip_reason" in found for found in report["dependencies"])
    return faults, len(report["dependencies"]) - left_out, left_out


def advisories(site: Path) -> tuple[list[str], str]:
    """The known faults of what is installed, and in words what was asked."""
    tool = shutil.which("pip-audit")
    if tool is None:
        return [], "no advisories were asked for: pip-audit is not installed"
    command = [tool, "--path", str(site), "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        faults, asked, left_out = verdict(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        return [], "no advisories were asked for: no database can be reached"
    if not asked:
        return [], f"no advisories were asked for: the index that can be reached knows none of {left_out} packages"
    return faults, f"{asked} packages were asked for, and {left_out} are not known there"


def main() -> None:
    """Say what is wrong, and what was not asked."""
    installed = {normal(found.metadata["Name"]): found.version for found in distributions()}
    constraints = Path(__file__).parents[1] / "constraints.txt"
    wrong = others(installed, pinned(constraints.read_text(encoding="utf-8")))
    fits = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    if fits.returncode:
        wrong += fits.stdout.splitlines()
    faults, said = advisories(Path(sysconfig.get_path("purelib")))
    for line in (*wrong, *faults):
        print(line)
    print(f"audit of {len(installed)} packages: {len(wrong) + len(faults)} faults; {said}")
    sys.exit(bool(wrong or faults))


if __name__ == "__main__":
    main()
