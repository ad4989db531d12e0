"""The paged KV cache: [num_blocks, block_size, num_kv_heads, head_size], as on the CPU."""

import torch
import torch_npu
from torch import Tensor

from core_backend.ops.cpu.kv_cache import compute_slot_mapping

__all__ = ["compute_slot_mapping", "prepare_slot_mapping", "write_kv"]


def prepare_slot_mapping(slot_mapping: Tensor) -> Tensor:
    """See ops/cpu: int32, which is what the operator reads."""
    return slot_mapping.to(torch.int32)


def write_kv(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor) -> None:
    """See ops/cpu."""
    torch_npu._npu_reshape_and_cache(
        key=key, value=value, key_cache=key_cache, value_cache=value_cache, slot_indices=slot_mapping
    )
