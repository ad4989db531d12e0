"""The checks before weights are loaded onto an NPU, in the process that has torch_npu already."""

from core_backend.hardware import Hardware
from core_backend.probe.cann import check_cann
from core_backend.probe.findings import Machine
from core_backend.probe.operators import check_operators
from core_backend.probe.packages import check_versions


def check_before_loading(hardware: Hardware, torch_npu: str) -> None:
    """Raises RuntimeError that names every fault, what was found and wanted, and what to do."""
    findings = [
        *check_versions(torch_npu, npu_expected=True),
        *check_cann(Machine()),
        check_operators(hardware.operator_set),
    ]
    if faults := [finding for finding in findings if finding.status == "fault"]:
        raise RuntimeError(
            f"this machine is not ready for the NPU: {'; '.join(map(str, faults))}. `ascend-adapters doctor` shows all "
            "checks; --additional-config '{\"check_machine\": false}' starts all the same."
        )
