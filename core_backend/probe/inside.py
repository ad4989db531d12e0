"""`python -m core_backend.probe.inside`: what torch and torch_npu say when they are imported, as JSON.

In a process of its own, because where CANN is missing or broken the import itself fails, or ends the process.
"""

import json
from importlib.util import find_spec
from typing import Any

from core_backend.probe.cann import check_cann
from core_backend.probe.findings import Finding, Machine
from core_backend.probe.operators import check_operators

GIB = 1 << 30


def look() -> dict[str, Any]:
    """Versions, the devices, the chip's row and what its operator set lacks. Raises whatever the imports raise."""
    import torch

    seen: dict[str, Any] = {"torch": torch.__version__, "torch_npu": None, "devices": []}
    if find_spec("torch_npu") is None:
        return seen
    from core_backend.device import npu

    seen["torch_npu"] = npu.torch_npu_version()
    seen["devices"] = [npu.name()] * npu.count()
    if not seen["devices"]:
        return seen
    seen["cann"] = [finding.as_dict() for finding in check_cann(Machine())]
    for name, check in (("chip", _chip), ("memory", _memory), ("operators", _operators)):
        try:
            finding = check()
        except Exception as error:
            finding = Finding(name, "fault", str(error).splitlines()[0], "", "see the documentation: docs/hardware.md")
        seen[name] = finding.as_dict()
    return seen


def _chip() -> Finding:
    from core_backend.device import npu

    hardware = npu.hardware()
    return Finding("NPU", "ok", f"{npu.count()} x {npu.name()}: {hardware.name} ({hardware.products})")


def _memory() -> Finding:
    from core_backend.device import npu

    free, total = npu.memory()
    return Finding("NPU memory", "ok", f"{free / GIB:.1f} of {total / GIB:.1f} GiB free on the first")


def _operators() -> Finding:
    from core_backend.device import npu

    return check_operators(npu.hardware().operator_set)


if __name__ == "__main__":
    print(json.dumps(look()))
