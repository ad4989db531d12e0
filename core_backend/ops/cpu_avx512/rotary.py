"""Rotary position embedding."""

import torch
from torch import Tensor

from core_backend.ops import cpu

LANES = 16  # elements of a vector


def rotary(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    cos_sin_cache: Tensor,
    *,
    head_size: int,
    is_neox_style: bool,
) -> tuple[Tensor, Tensor]:
    """See core_backend/ops/cpu."""
    has_kernel = (
        is_neox_style
        and query.dtype == key.dtype == cos_sin_cache.dtype == torch.bfloat16
        and cos_sin_cache.shape[1] % (2 * LANES) == 0
        and query.stride(1) == key.stride(1) == 1
        and positions.dtype == torch.int64
        and positions.is_contiguous()
        and cos_sin_cache.is_contiguous()
    )
    if not has_kernel:
        settings = {"head_size": head_size, "is_neox_style": is_neox_style}
        return cpu.rotary(positions, query, key, cos_sin_cache, **settings)  # type: ignore[arg-type]
    return torch.ops.ascend_cpu.rotary.default(positions, query, key, cos_sin_cache, head_size)
