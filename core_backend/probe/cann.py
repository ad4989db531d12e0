"""CANN: whether it is there, loaded, and the version that torch_npu goes with."""

import re

from core_backend.probe.findings import Finding, Machine
from core_backend.versions import TESTED, matches

# Where CANN is installed by default, up to and from version 8.5.
FOLDERS = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest")
INFO_FILES = ("x86_64-linux/ascend_toolkit_install.info", "aarch64-linux/ascend_toolkit_install.info")


def check_cann(machine: Machine) -> list[Finding]:
    """The toolkit's environment and version, and ATB's environment (nnal), whose operators write the KV cache."""
    loaded = machine.environ.get("ASCEND_TOOLKIT_HOME") or machine.environ.get("ASCEND_HOME_PATH")
    if loaded is None:
        return [_not_loaded(machine)]
    version = _version_in(machine, loaded)
    if version is None:
        remedy = f"install CANN {TESTED['CANN']} there, or source the set_env.sh of the one that is installed"
        return [Finding("CANN", "fault", f"no version file below {loaded}", TESTED["CANN"], remedy)]
    if not matches(version, TESTED["CANN"]):
        remedy = f"install CANN {TESTED['CANN']} (toolkit, kernels and nnal), which torch_npu is documented to go with"
        return [Finding("CANN", "fault", version, TESTED["CANN"], remedy)]
    return [Finding("CANN", "ok", f"{version} in {loaded}"), _check_atb(machine)]


def _not_loaded(machine: Machine) -> Finding:
    for folder in _folders(machine):
        if (version := _version_in(machine, folder)) is not None:
            remedy = f"source {folder}/set_env.sh before starting Python"
            return Finding("CANN", "fault", f"{version} in {folder}, but its environment is not loaded", "", remedy)
    remedy = f"install CANN {TESTED['CANN']} (toolkit, kernels and nnal), then source its set_env.sh"
    return Finding("CANN", "fault", "not installed", TESTED["CANN"], remedy)


def _folders(machine: Machine) -> list[str]:
    """Where CANN may be: where its installer noted, for all users, or in this user's home."""
    folders = list(FOLDERS)
    noted = re.search(r"^Install_Path=(\S+)", machine.read("/etc/Ascend/ascend_cann_install.info") or "", re.MULTILINE)
    for parent in [noted[1] if noted else None, f"{machine.environ.get('HOME', '')}/Ascend"]:
        folders += [f"{parent}/{name}" for name in ("cann", "ascend-toolkit/latest")] if parent else []
    return folders


def _version_in(machine: Machine, folder: str) -> str | None:
    for name in INFO_FILES:
        text = machine.read(f"{folder}/{name}")
        if text and (match := re.search(r"^version=(\S+)", text, re.MULTILINE)):
            return match[1]
    return None


def _check_atb(machine: Machine) -> Finding:
    if folder := machine.environ.get("ATB_HOME_PATH"):
        return Finding("ATB", "ok", folder)
    remedy = "source the set_env.sh of nnal/atb, which CANN's own does not load"
    return Finding("ATB", "fault", "its environment is not loaded", "ATB_HOME_PATH", remedy)
