"""Gated activations."""

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
