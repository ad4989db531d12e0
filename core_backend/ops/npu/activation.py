"""Gated activations."""

from typing import Literal

import torch_npu
from torch import Tensor

APPROXIMATIONS = {"none": 0, "tanh": 1}


def silu_and_mul(x: Tensor) -> Tensor:
    """See ops/cpu."""
    if x.numel() == 0:  # the operator takes nothing empty
        return x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
    return torch_npu.npu_swiglu(x)


def gelu_and_mul(x: Tensor, approximate: Literal["none", "tanh"]) -> Tensor:
    """See ops/cpu."""
    # Unlike npu_swiglu, this operator activates the second half unless told otherwise.
    return torch_npu.npu_geglu(x, approximate=APPROXIMATIONS[approximate], activate_left=True)[0]
