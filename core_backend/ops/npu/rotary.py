"""Rotary position embedding.

Through npu_mrope, which with one position per token is plain rotary embedding. The other operator for it,
_npu_rotary_embedding, keeps the first cos_sin_cache that a process gives it and ignores every later one, and rotates
whole heads only.
"""

import torch_npu
from torch import Tensor

from core_backend.ops.cpu.rotary import mrope as plain_mrope
from core_backend.ops.cpu.rotary import rotary as plain_rotary

MULTIPLE_OF = {2: 32, 4: 16}  # bytes per element -> what head_size and rotary_dim must be a multiple of
PLAIN_SECTIONS = [0, 0, 0]


def rotary(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    cos_sin_cache: Tensor,
    *,
    head_size: int,
    is_neox_style: bool,
) -> tuple[Tensor, Tensor]:
    """See ops/cpu. Head sizes that the operator does not take run as single operators."""
    if not _fits(head_size, cos_sin_cache, query):
        return plain_rotary(positions, query, key, cos_sin_cache, head_size=head_size, is_neox_style=is_neox_style)
    return torch_npu.npu_mrope(
        positions,
        query,
        key,
        cos_sin_cache,
        head_size,
        mrope_section=PLAIN_SECTIONS,
        rotary_mode=_mode(is_neox_style),
    )


def mrope(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    cos_sin_cache: Tensor,
    *,
    head_size: int,
    mrope_section: list[int],
    is_neox_style: bool,
    is_interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    """See ops/cpu. Sections that the operator does not take run as single operators."""
    if mrope_section not in SECTIONS or not _fits(head_size, cos_sin_cache, query):
        return plain_mrope(
            positions,
            query,
            key,
            cos_sin_cache,
            head_size=head_size,
            mrope_section=mrope_section,
            is_neox_style=is_neox_style,
            is_interleaved=is_interleaved,
        )
    return torch_npu.npu_mrope(
        positions.contiguous(),  # a slice of a longer buffer
        query,
        key,
        cos_sin_cache,
        head_size,
        mrope_section=mrope_section,
        rotary_mode=_mode(is_neox_style),
        cache_mode="interleave" if is_interleaved else "default",
    )


SECTIONS = ([16, 24, 24], [24, 20, 20], [8, 12, 12])


def _mode(is_neox_style: bool) -> str:
    return "half" if is_neox_style else "interleaved"


def _fits(head_size: int, cos_sin_cache: Tensor, query: Tensor) -> bool:
    step = MULTIPLE_OF[query.element_size()]
    return head_size % step == 0 and cos_sin_cache.shape[1] % step == 0
