"""The matrix products of experts, with their weights packed for the kernel."""

import torch
from torch import Tensor

from core_backend.ops import cpu

TILE_COLUMNS = 32  # outputs that are packed together


def pack_expert_weight(weight: Tensor) -> Tensor:
    """See core_backend/ops/cpu. Of bf16, only the sizes can be read; whole experts can be moved."""
    if not _has_kernel(weight.dtype, *weight.shape[1:]):
        return cpu.pack_expert_weight(weight)
    return torch.ops.ascend_cpu.pack_expert_weight.default(weight)


def grouped_matmul(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """See core_backend/ops/cpu."""
    # What was not packed for the kernel is the transpose of something dense.
    if not _has_kernel(weight.dtype, weight.shape[2], weight.shape[1]) or not weight.is_contiguous():
        return cpu.grouped_matmul(x, weight, counts)
    return torch.ops.ascend_cpu.grouped_linear.default(x, weight, counts)


def _has_kernel(dtype: torch.dtype, output_size: int, input_size: int) -> bool:
    return dtype == torch.bfloat16 and output_size % TILE_COLUMNS == 0 and input_size % 2 == 0
