"""Linear layers on weights in the matrix units' own layout."""

import torch
import torch.nn.functional as F
import torch_npu
from torch import Tensor

FRACTAL_NZ = 29
CASTABLE = (torch.float16, torch.bfloat16)


def pack_linear_weight(weight: Tensor) -> Tensor:
    """See ops/cpu: FRACTAL_NZ, which saves the matrix units a transposition per step."""
    if weight.dtype not in CASTABLE:
        return weight
    return torch_npu.npu_format_cast(weight.contiguous(), FRACTAL_NZ)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See ops/cpu."""
    return F.linear(x, weight, bias)


def logits(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See ops/cpu."""
    return linear(x, weight, bias)
