"""Whether the installed torch_npu has the operators that the chip's operator set calls."""

from core_backend.ops.required import REQUIRED
from core_backend.probe.findings import Finding
from core_backend.versions import TESTED


def missing_operators(operator_set: str) -> list[str]:
    """Names that are not there; torch_npu must be importable."""
    from core_backend.device import npu

    return npu.missing_operators(REQUIRED[operator_set]) if REQUIRED[operator_set] else []


def check_operators(operator_set: str) -> Finding:
    """All of them, by name."""
    missing = missing_operators(operator_set)
    if not missing:
        return Finding("operators", "ok", f"all {len(REQUIRED[operator_set])} of the set {operator_set}")
    remedy = f"install torch-npu {TESTED['torch-npu']}, which has them"
    return Finding("operators", "fault", f"torch_npu without {', '.join(missing)}", "", remedy)
