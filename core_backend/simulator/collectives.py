"""The process group backend `hccl`: torch's gloo, since collective operators on npu tensors run on the CPU too."""

from datetime import timedelta
from typing import Any

import torch.distributed as dist


def use_gloo_for_hccl() -> None:
    """Let `init_process_group("hccl")` make a gloo group for npu and CPU tensors."""
    backend: Any = dist.Backend
    backend._plugins["HCCL"] = backend._BackendPlugin(_gloo, False)
    backend.backend_capability["hccl"] = ["cpu", "npu"]
    backend.backend_type_map["hccl"] = dist.ProcessGroup.BackendType.CUSTOM
    backend.default_device_backend_map["npu"] = "hccl"


def _gloo(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    return dist.ProcessGroupGloo(store, rank, size, timeout=timeout)
