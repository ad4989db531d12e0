"""Gated activations."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor


def silu_and_mul(x: Tensor) -> Tensor:
    """SwiGLU: silu of the first half times the second.

    x        [..., 2 * intermediate_size]
    returns  [..., intermediate_size]
    Source: arXiv 2002.05202.
    """
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def gelu_and_mul(x: Tensor, approximate: Literal["none", "tanh"]) -> Tensor:
    """GeGLU: gelu of the first half times the second.

    x            [..., 2 * intermediate_size]
    approximate  "none": with the error function; "tanh": with its approximation
    returns      [..., intermediate_size]
    Source: arXiv 2002.05202.
    """
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate, approximate=approximate).mul_(up)
