"""Linear layers, with the weight packed for the kernel."""

import torch
from torch import Tensor

from core_backend.ops import cpu

PACKED_DIM = 3


def pack_linear_weight(weight: Tensor) -> Tensor:
    """See core_backend/ops/cpu. bf16 becomes [1, output_size, input_size], of which only the sizes can be read."""
    if weight.dtype != torch.bfloat16 or weight.shape[1] % 2:
        return cpu.pack_linear_weight(weight)
    return torch.ops.ascend_cpu.pack_weight.default(weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See core_backend/ops/cpu."""
    if weight.dim() != PACKED_DIM:
        return cpu.linear(x, weight, bias)
    return torch.ops.ascend_cpu.linear.default(x, weight, bias)


def logits(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See core_backend/ops/cpu; without rounding to bf16 in between."""
    if weight.dim() != PACKED_DIM:
        return cpu.logits(x, weight, bias)
    return torch.ops.ascend_cpu.logits.default(x, weight, bias)
