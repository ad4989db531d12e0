"""The choice of greedy sampling."""

import torch
from torch import Tensor

from core_backend.ops import cpu

DTYPES = (torch.float32, torch.bfloat16)


def argmax(logits: Tensor) -> Tensor:
    """See core_backend/ops/cpu."""
    if logits.dtype not in DTYPES or logits.stride(1) != 1:
        return cpu.argmax(logits)
    return torch.ops.ascend_cpu.argmax.default(logits)
