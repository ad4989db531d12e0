"""`python -m core_backend.probe [--root FOLDER]`: all findings, as JSON on standard output."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from core_backend import cgroup
from core_backend.probe.cann import check_cann
from core_backend.probe.device import check_device, nodes, npu_smi
from core_backend.probe.findings import Finding, Machine
from core_backend.probe.packages import check_plugins, check_versions, installed

GIB = 1 << 30
TIMEOUT = 300  # seconds; the first import on a cold disk takes long


def main() -> None:
    """All checks, in the order in which their faults should be mended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/"))
    findings = examine(Machine(root=parser.parse_args().root))
    json.dump([finding.as_dict() for finding in findings], sys.stdout)


def examine(machine: Machine) -> list[Finding]:
    """What is found on the machine; importing torch is left to a process of its own."""
    seen, failure = _look_inside()
    has_device = bool(seen.get("devices"))
    expected = (
        has_device
        or bool(nodes(machine))
        or npu_smi(machine) is not None
        or installed("torch-npu") is not None
        or machine.environ.get("ASCEND_OP_SET") == "npu"
    )
    findings = check_versions(seen.get("torch_npu"), npu_expected=expected)
    if not expected:
        findings.append(Finding("NPU", "note", "none", "", "models run on the CPU operator set"))
    else:
        # With a device that torch_npu can use, the operating system's side is shown where it can be seen.
        findings += check_device(machine) if not has_device or nodes(machine) else []
        findings += [Finding(**finding) for finding in seen["cann"]] if "cann" in seen else check_cann(machine)
    findings += [check_plugins(machine), _check_import(seen, failure, expected=expected), _check_memory(machine)]
    if has_device:
        findings += _chip_findings(seen)
    return findings


def _look_inside() -> tuple[dict[str, Any], str | None]:
    """What probe/inside.py saw, and why it failed if it did."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "core_backend.probe.inside"], capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {TIMEOUT} s"
    if answer := [line for line in done.stdout.splitlines() if line.startswith("{")]:
        seen: dict[str, Any] = json.loads(answer[-1])
        return seen, None
    lines = [line for line in done.stderr.splitlines() if "Error" in line and not line.startswith((" ", "[ERROR]"))]
    return {}, lines[0] if lines else f"the process ended with status {done.returncode}"


def _check_import(seen: dict[str, Any], failure: str | None, *, expected: bool) -> Finding:
    if failure is not None:
        return Finding("importing torch", "fault", failure, "", "mend the faults above, from the top")
    if seen["devices"] or not expected:
        return Finding("importing torch", "ok", f"torch {seen['torch']}, torch_npu {seen['torch_npu'] or 'absent'}")
    remedy = "mend the faults above; is ASCEND_RT_VISIBLE_DEVICES set to a device that is not there?"
    return Finding("importing torch", "fault", "torch_npu sees no NPU", "", remedy)


def _check_memory(machine: Machine) -> Finding:
    text = machine.read("/proc/meminfo")
    if text is None:
        return Finding("memory", "note", "unknown: no /proc/meminfo")
    amounts = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith(" kB")}
    available, total = (amounts.get(name, 0) * 1024 for name in ("MemAvailable", "MemTotal"))
    if (limit := cgroup.memory_limit()) is not None:
        total, available = min(total, limit), min(available, limit - cgroup.memory_usage())
    shown = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    if available < 4 * GIB:
        return Finding("memory", "fault", shown, "4 GiB", "close other programs: vLLM's processes alone need 4 GiB")
    return Finding("memory", "ok", shown)


def _chip_findings(seen: dict[str, Any]) -> list[Finding]:
    return [Finding(**seen[name]) for name in ("chip", "memory", "operators") if name in seen]


if __name__ == "__main__":
    main()
