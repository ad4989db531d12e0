"""Versions of Python packages, and platform plugins that compete for vLLM. Nothing is imported for it."""

from importlib import metadata

from core_backend import plugins
from core_backend.probe.findings import Finding, Machine
from core_backend.versions import TESTED, matches

REMEDIES = {
    "torch": "pip install torch==2.11.0",
    "torch-npu": "pip install --no-deps torch-npu==2.11.0.post3",
    "vllm": "build vllm==0.23.0 for no device, as the Makefile's install target does",
    "transformers": "pip install 'transformers>=5.5.1,<5.6'",
}


def installed(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_versions(torch_npu: str | None, *, npu_expected: bool) -> list[Finding]:
    """Each package against the tested set. torch_npu is only wanted where an NPU is."""
    found = {"torch": installed("torch"), "torch-npu": torch_npu or installed("torch-npu")}
    found |= {name: installed(name) for name in ("vllm", "transformers")}
    return [_check(name, version, optional=name == "torch-npu" and not npu_expected) for name, version in found.items()]


def check_plugins(machine: Machine) -> Finding:
    """vLLM takes one platform from outside, and only those plugins that VLLM_PLUGINS names, if it is set."""
    chosen = machine.environ.get("VLLM_PLUGINS")
    names = [] if chosen is None else chosen.split(",")
    others = ", ".join(plugins.others().values())
    found = ", ".join(filter(None, (plugins.OURS, others, f"VLLM_PLUGINS={chosen}" if chosen is not None else "")))
    use = f"set VLLM_PLUGINS={plugins.OURS}"
    if chosen is not None and plugins.OURS not in names:
        return Finding("platform plugins", "fault", found, plugins.OURS, f"unset VLLM_PLUGINS, or {use}")
    if plugins.VLLM_ASCEND not in plugins.others():
        return Finding("platform plugins", "ok", found)
    if plugins.VLLM_ASCEND in names:
        return Finding("platform plugins", "fault", found, "one", f"vLLM refuses two; {use}")
    if names:
        return Finding("platform plugins", "ok", found)
    remedy = f"this one stands aside; {use} to use it, or uninstall {others}"
    return Finding("platform plugins", "fault", found, "one", remedy)


def _check(name: str, version: str | None, *, optional: bool) -> Finding:
    wanted, remedy = TESTED[name], REMEDIES[name]
    if version is None:
        if optional:
            return Finding(name, "note", "not installed", "", "only needed on a machine with an NPU")
        return Finding(name, "fault", "not installed", wanted, remedy)
    if not matches(version, wanted):
        return Finding(name, "fault", version, wanted, remedy)
    return Finding(name, "ok", version)
