"""Rotary position embedding by the only operator for it on this chip, which works in place on whole heads.

It keeps the first cos_sin_cache that a process gives it, and ignores every later one.
"""

import torch_npu
from torch import Tensor

from core_backend.ops.cpu.rotary import rotary as plain_rotary

_kept: list[Tensor] = []


def rotary(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    cos_sin_cache: Tensor,
    *,
    head_size: int,
    is_neox_style: bool,
) -> tuple[Tensor, Tensor]:
    """See ops/cpu. Partial rotation, and every cos_sin_cache after the first, run as single operators."""
    if cos_sin_cache.shape[1] != head_size or not _is_the_kept(cos_sin_cache):
        return plain_rotary(positions, query, key, cos_sin_cache, head_size=head_size, is_neox_style=is_neox_style)
    query, key = query.clone(), key.clone()
    torch_npu._npu_rotary_embedding(positions, query, key, head_size, cos_sin_cache, is_neox_style)
    return query, key


def _is_the_kept(cos_sin_cache: Tensor) -> bool:
    if not _kept:
        _kept.append(cos_sin_cache)
    return _kept[0] is cos_sin_cache
