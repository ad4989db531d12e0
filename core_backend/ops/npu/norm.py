"""Root mean square normalization."""

import torch_npu
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See ops/cpu."""
    return torch_npu.npu_rms_norm(x, weight, epsilon)[0]


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """See ops/cpu."""
    normalized, _, total = torch_npu.npu_add_rms_norm(x, residual, weight, epsilon)
    return normalized, total
