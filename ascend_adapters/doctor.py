"""What is wrong with this machine, and how to mend it.

The checks are core_backend's, in a process of its own: importing torch may fail there, or end the process.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table."""

    check: str
    status: str  # "ok", "note" or "fault"
    found: str
    wanted: str
    remedy: str


def examine(root: Path | None = None) -> list[Finding]:
    """All findings about this machine, or about the file system below `root`."""
    command = [sys.executable, "-P", "-m", "core_backend.probe", *(["--root", str(root)] if root else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return [Finding("the checks themselves", "fault", reason, "", "install ascend-adapters[engine] again")]
    return [Finding(**finding) for finding in json.loads(done.stdout)]


def faults(findings: list[Finding]) -> str:
    """The faults among them, for an error message; empty if there are none."""
    return "; ".join(
        f"{finding.check}: {finding.found}{f', wanted {finding.wanted}' if finding.wanted else ''}: {finding.remedy}"
        for finding in findings
        if finding.status == "fault"
    )


def table(findings: list[Finding]) -> str:
    """A line for each finding, and below it the remedy if one is needed."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        wanted = f" (wanted {finding.wanted})" if finding.wanted else ""
        lines.append(f"{finding.status:<5}  {finding.check:<{width}}  {finding.found}{wanted}")
        if finding.remedy:
            lines.append(f"{'':<5}  {'':<{width}}  -> {finding.remedy}")
    return "\n".join(lines)
