"""The driver and the device nodes: what the operating system knows of NPUs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from core_backend.probe.findings import Finding, Machine

MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
GROUP = "HwHiAiUser"
DRIVER_INFO = "/usr/local/Ascend/driver/version.info"
TIMEOUT = 30  # seconds


def nodes(machine: Machine) -> list[Path]:
    """/dev/davinci0, 1, ..."""
    return sorted(machine.path("/dev").glob("davinci[0-9]*"))


def npu_smi(machine: Machine) -> str | None:
    """The program that tells about NPUs, or None."""
    return shutil.which("npu-smi", path=machine.environ.get("PATH"))


def check_device(machine: Machine) -> list[Finding]:
    """The driver, what npu-smi says, and whether this user may open the devices."""
    return [_check_driver(machine), _check_npu_smi(machine), _check_nodes(machine)]


def _check_driver(machine: Machine) -> Finding:
    text = machine.read(DRIVER_INFO)
    if text is None:
        remedy = "install the NPU's driver and firmware; in a container, mount /usr/local/Ascend/driver"
        return Finding("driver", "fault", f"no {DRIVER_INFO}", "", remedy)
    version = re.search(r"^package_version=(\S+)", text, re.MULTILINE) or re.search(
        r"^Version=(\S+)", text, re.MULTILINE
    )
    return Finding("driver", "ok", version[1] if version else "of unknown version")


def _check_npu_smi(machine: Machine) -> Finding:
    program = npu_smi(machine)
    if program is None:
        remedy = "install the driver; in a container, mount npu-smi and /usr/local/dcmi"
        return Finding("npu-smi", "note", "not on PATH", "", remedy)
    try:
        done = subprocess.run([program, "info"], capture_output=True, text=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("npu-smi", "fault", str(error), "", "reload the driver, or restart the machine")
    if done.returncode != 0 or "failed" in done.stdout:
        reason = (done.stdout + done.stderr).strip().splitlines()
        remedy = "the driver does not answer: see `dmesg`; in a container, pass the devices and mount /usr/local/dcmi"
        return Finding("npu-smi", "fault", reason[-1] if reason else f"exit status {done.returncode}", "", remedy)
    return _chips_in(done.stdout)


def _chips_in(text: str) -> Finding:
    """Rows like `| 0  910B3  | OK | ...`; columns grow with versions, so they are split, not counted."""
    chips_only = text.split("Process id")[0]
    lines = [line for line in chips_only.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    chips = [(row[0].split(), row[1]) for row in rows if len(row) > 1 and re.fullmatch(r"\d+\s+\S*\d{3}\S*", row[0])]
    if not chips:
        return Finding("npu-smi", "note", "it lists no NPU", "", "check that the card is seated: `lspci | grep 19e5`")
    named = ", ".join(f"NPU {words[0]} {words[1]} {health}" for words, health in chips)
    if ill := [words[0] for words, health in chips if health not in ("OK", "NA")]:
        return Finding("npu-smi", "fault", named, "health OK", f"see `npu-smi info -t health -i {ill[0]}`")
    return Finding("npu-smi", "ok", named)


def _check_nodes(machine: Machine) -> Finding:
    devices = nodes(machine)
    if not devices:
        remedy = "load the driver; in a container, pass --device /dev/davinci0 and the three managers"
        return Finding("device nodes", "fault", "no /dev/davinci*", "", remedy)
    needed = [*devices, *(machine.path("/dev") / name for name in MANAGERS)]
    if missing := [node.name for node in needed if not node.exists()]:
        remedy = f"pass --device /dev/{missing[0]} to the container, or reload the driver"
        return Finding("device nodes", "fault", f"no {', '.join(missing)}", "", remedy)
    if closed := [node.name for node in needed if not os.access(node, os.R_OK | os.W_OK)]:
        remedy = f"add this user to the group {GROUP} (usermod -aG {GROUP} NAME) and log in again"
        return Finding("device nodes", "fault", f"no permission for {', '.join(closed)}", "", remedy)
    return Finding("device nodes", "ok", ", ".join(node.name for node in devices))
