"""`python -m core_backend.probe.inside`: what torch and torch_npu say when they are imported, as JSON.

In a process of its own, because where CANN is missing or broken the import itself fails, or ends the process.
"""

import json
from importlib.util import find_spec
from typing import Any


def look() -> dict[str, Any]:
    """Versions, the devices, the chip's row and what its operator set lacks. Raises whatever the imports raise."""
    import torch

    seen: dict[str, Any] = {"torch": torch.__version__, "torch_npu": None, "devices": []}
    if find_spec("torch_npu") is None:
        return seen
    from core_backend.device import npu
    from core_backend.probe.cann import check_cann
    from core_backend.probe.findings import Machine
    from core_backend.probe.operators import check_operators

    seen["torch_npu"] = npu.torch_npu_version()
    seen["devices"] = [npu.name()] * npu.count()
    if seen["devices"]:
        seen["memory"] = npu.memory()
        hardware = npu.hardware()
        seen["hardware"] = f"{hardware.name} ({hardware.products})"
        seen["cann"] = [finding.as_dict() for finding in check_cann(Machine())]
        seen["operators"] = check_operators(hardware.operator_set).as_dict()
    return seen


if __name__ == "__main__":
    print(json.dumps(look()))
