"""Root mean square normalization."""

import torch
from torch import Tensor

from core_backend.ops import cpu

LANES = 16  # elements of a vector


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See core_backend/ops/cpu."""
    if not _has_kernel(x, weight):
        return cpu.rms_norm(x, weight, epsilon)
    return torch.ops.ascend_cpu.rms_norm.default(x, weight, epsilon)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """See core_backend/ops/cpu."""
    if not _has_kernel(x, weight) or residual.dtype != x.dtype:
        return cpu.add_rms_norm(x, residual, weight, epsilon)
    return torch.ops.ascend_cpu.add_rms_norm.default(x, residual, weight, epsilon)


def _has_kernel(x: Tensor, weight: Tensor) -> bool:
    return x.dtype == weight.dtype == torch.bfloat16 and x.shape[-1] % LANES == 0 and weight.is_contiguous()
