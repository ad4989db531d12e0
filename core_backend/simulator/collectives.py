"""The process group backend `hccl`: torch's gloo, since collective operators on npu tensors run on the CPU too."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


class GlooAsHccl(dist.ProcessGroupGloo):
    """Gloo, with the name by which operators that communicate by themselves know an HCCL group."""

    def get_hccl_comm_name(self, rank: int, init_comm: bool = True) -> str:
        """As torch_npu's ProcessGroupHCCL."""
        return next(name for name, group in _groups.items() if group is self)


_groups: dict[str, GlooAsHccl] = {}


def group_named(name: str) -> GlooAsHccl:
    """The group that get_hccl_comm_name named. Raises KeyError for another name."""
    return _groups[name]


def use_gloo_for_hccl() -> None:
    """Let `init_process_group("hccl")` make a gloo group for npu and CPU tensors."""
    backend: Any = dist.Backend
    backend._plugins["HCCL"] = backend._BackendPlugin(_gloo, False)
    backend.backend_capability["hccl"] = ["cpu", "npu"]
    backend.backend_type_map["hccl"] = dist.ProcessGroup.BackendType.CUSTOM
    backend.default_device_backend_map["npu"] = "hccl"


def _gloo(store: Any, rank: int, size: int, timeout: timedelta) -> GlooAsHccl:
    group = GlooAsHccl(store, rank, size, timeout=timeout)
    _groups[f"simulated_hccl_{len(_groups)}"] = group
    return group


def all_to_all(group: GlooAsHccl, rows: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
    """rows[: sent[0]] to rank 0, the next sent[1] to rank 1, ...; what they sent, in their order."""
    output = rows.new_empty(sum(received), *rows.shape[1:])
    group.alltoall_base(output, rows.contiguous(), received, sent, dist.AllToAllOptions()).wait()
    return output
